//! From a row of the outbox to the message.

use url::Url;
use zeroize::Zeroizing;

use super::Deliveries;
use crate::{
    clock::Timestamp,
    courier::Message,
    error::{Error, Result},
    keys::{Key, KeyId},
    messages::{self, Invitation, Writing},
    proof::{self, Code, InvitePart, Link},
    session::{MessageKind, Session},
    store::{About, Queued, SealedMail},
    validation::below,
};

impl Deliveries {
    /// Writes the message of a row, which holds neither link nor code, nor what an invitation says in clear.
    pub(super) fn write(&self, queued: &Queued, now: Timestamp) -> Result<Message> {
        match &queued.about {
            About::Session(session) => self.about_session(queued, session, now),
            About::Invite(mail) => self.about_invite(queued, mail, now),
        }
    }

    fn about_session(&self, queued: &Queued, session: &Session, now: Timestamp) -> Result<Message> {
        let (key, head) = (self.key(session.key_id)?, &self.letterhead);
        let is_token = matches!(queued.kind, MessageKind::Token(_));
        let link = (is_token && head.contents.has_link()).then(|| {
            below(
                &head.public_url,
                &format!("_threepid/link/{}", Link::derive(key, session.sid)),
            )
        });
        let code = (is_token && head.contents.has_code())
            .then(|| Code::derive(key, session.sid, queued.send_attempt, self.medium));
        let id = match queued.kind {
            MessageKind::PasswordChanged => proof::notice_id(key, session.sid, queued.id),
            _ => proof::message_id(key, session.sid, queued.send_attempt),
        };
        self.written(&Writing {
            link: link.as_ref().map(Url::as_str),
            code: code.as_ref().map(Code::reveal),
            ..self.begun(queued, id, now)
        })
    }

    fn about_invite(&self, queued: &Queued, mail: &SealedMail, now: Timestamp) -> Result<Message> {
        let key = self.key(mail.key_id)?;
        let sealed_for = InvitePart::Mail.of(mail.invite);
        let plain = Zeroizing::new(key.open(&sealed_for, &mail.sealed)?);
        // The parser's own words could show some of it.
        let invitation: Invitation = serde_json::from_slice(&plain)
            .map_err(|_| Error::Internal("an invitation can not be read".to_owned()))?;
        self.written(&Writing {
            invitation: Some(&invitation),
            ..self.begun(queued, proof::invite_message_id(key, mail.invite), now)
        })
    }

    /// What all messages are written from.
    fn begun<'a>(&'a self, queued: &'a Queued, id: String, now: Timestamp) -> Writing<'a> {
        let head = &self.letterhead;
        Writing {
            kind: queued.kind,
            app_name: &head.app_name,
            server_name: &head.server_name,
            address: queued.to.address(),
            link: None,
            code: None,
            account: queued.details.user_id.as_deref(),
            network: queued.details.network.as_deref(),
            invitation: None,
            asked_at: queued.queued_at,
            link_minutes: head.lifetimes.link.as_secs() / 60,
            code_minutes: head.lifetimes.code.as_secs() / 60,
            id,
            at: now,
        }
    }

    fn written(&self, writing: &Writing<'_>) -> Result<Message> {
        messages::write(self.medium, writing).map_err(|error| Error::Internal(error.to_string()))
    }

    fn key(&self, id: KeyId) -> Result<&Key> {
        let key = self.keys.find(id);
        key.ok_or_else(|| Error::Internal("the row's key is gone".to_owned()))
    }
}
