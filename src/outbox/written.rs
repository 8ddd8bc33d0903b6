//! From a row of the outbox to the message.

use url::Url;

use super::Deliveries;
use crate::{
    clock::Timestamp,
    courier::Message,
    error::{Error, Result},
    messages::{self, Writing},
    proof::{self, Code, Link},
    session::MessageKind,
    store::Queued,
    validation::below,
};

impl Deliveries {
    /// Writes the message of a row, which holds neither link nor code.
    pub(super) fn write(&self, queued: &Queued, now: Timestamp) -> Result<Message> {
        let session = &queued.session;
        let key = self
            .keys
            .find(session.key_id)
            .ok_or_else(|| Error::Internal("the row's key is gone".to_owned()))?;
        let head = &self.letterhead;
        let is_token = matches!(queued.kind, MessageKind::Token(_));
        let link = (is_token && head.contents.has_link()).then(|| {
            below(
                &head.public_url,
                &format!("_threepid/link/{}", Link::derive(key, session.sid)),
            )
        });
        let code = (is_token && head.contents.has_code())
            .then(|| Code::derive(key, session.sid, queued.send_attempt, self.medium));
        let writing = Writing {
            kind: queued.kind,
            app_name: &head.app_name,
            server_name: &head.server_name,
            address: queued.to.address(),
            link: link.as_ref().map(Url::as_str),
            code: code.as_ref().map(Code::reveal),
            account: queued.details.user_id.as_deref(),
            network: queued.details.network.as_deref(),
            invitation: None,
            asked_at: queued.queued_at,
            link_minutes: head.lifetimes.link.as_secs() / 60,
            code_minutes: head.lifetimes.code.as_secs() / 60,
            id: match queued.kind {
                MessageKind::PasswordChanged => proof::notice_id(key, session.sid, queued.id),
                _ => proof::message_id(key, session.sid, queued.send_attempt),
            },
            at: now,
        };
        messages::write(self.medium, &writing).map_err(|error| Error::Internal(error.to_string()))
    }
}
