//! Invitations of people who have no user id yet.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::IdentityRules;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    limits::limited,
    messages::{Invitation, shortened},
    proof::{self, InvitePart},
    secret::random,
    session::Purpose,
    signing::{PublicKey, SigningKey, encode, generate_seed},
    source::Source,
    store::{Invite, InviteStored, NewInvite},
    threepid::{Threepid, is_invisible},
};

/// For how long a mail is tried to be sent.
const MAIL_TRIED_FOR: Duration = Duration::from_hours(48);
/// The longest name of a room that is taken, in bytes (Matrix appendices, "Room IDs").
const LONGEST_ROOM_ID: usize = 255;
/// The type of a room that is a space (Client-Server API, "Spaces").
const SPACE: &str = "m.space";

/// One `store-invite`, its values parsed.
#[derive(Debug)]
pub(crate) struct InviteRequest {
    /// Whom it invites: an email address.
    pub(crate) threepid: Threepid,
    /// Where to.
    pub(crate) room_id: RoomId,
    /// Who invites; whoever asks.
    pub(crate) sender: String,
    /// What they call themselves.
    pub(crate) sender_name: Option<String>,
    /// What the room is called.
    pub(crate) room_name: Option<String>,
    /// Its type.
    pub(crate) room_type: Option<String>,
    /// Where the request came from.
    pub(crate) source: Source,
}

/// The answer to a `store-invite`. `Debug` shows nothing of the token.
pub(crate) struct Invited {
    pub(crate) token: String,
    /// Of the key that signs here.
    pub(crate) long_term_key: PublicKey,
    /// Of the invitation's own key.
    pub(crate) ephemeral_key: PublicKey,
    /// The address, redacted.
    pub(crate) display_name: String,
}

impl std::fmt::Debug for Invited {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Invited({})", self.display_name)
    }
}

/// The name of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoomId(String);

impl RoomId {
    /// Takes any name that can be shown: what rooms are called is for homeservers to know.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] unless it is 1 to 255 bytes without blanks and what can not be seen.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let is_seen =
            |letter: char| !letter.is_control() && !letter.is_whitespace() && !is_invisible(letter);
        if (1..=LONGEST_ROOM_ID).contains(&text.len()) && text.chars().all(is_seen) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(
                "room_id must be 1 to 255 bytes without blanks, such as \"!abc:example.org\".",
            ))
        }
    }
}

impl IdentityRules {
    /// Keeps an invitation until its address is somebody's, and tells the address of it.
    ///
    /// When it returns, invitation and mail are on the disk.
    ///
    /// # Errors
    /// [`Error::Limited`], [`Error::Denied`], [`Error::CanNotSend`]; [`Error::InUseBy`] if the address is a user's already;
    /// [`Error::TooMany`] if it has as many open invitations as it may have, of this sender, of their homeserver or at all.
    pub(crate) async fn store_invite(&self, request: InviteRequest) -> Result<Invited> {
        let (validation, now) = (&self.validation, self.validation.clock.now());
        validation.limiter.count_request(request.source, now)?;
        let asker = self.asker(&request.sender, request.source);
        validation.limiter.count_invite(&asker, now)?;
        let homeserver = asker.homeserver;
        let policy = &validation.settings.policy;
        policy.check(Purpose::Identity, &request.threepid, None)?;
        let medium = request.threepid.medium();
        let seed = generate_seed();
        let invited = Invited {
            token: URL_SAFE_NO_PAD.encode(random::<32>()),
            long_term_key: self.signing.newest().public(),
            ephemeral_key: SigningKey::from_seed("0", &seed)?.public(),
            display_name: redacted(&request.threepid),
        };
        let new = self.new_invite(request, homeserver, &invited, &encoded(&seed), now)?;
        let slot = self.check_sending(medium, now)?;
        let stored = validation.store.add_invite(new).await;
        if !matches!(stored, Ok(InviteStored::Yes)) {
            self.give_back(slot.as_ref());
        }
        match stored? {
            InviteStored::Yes => {
                validation.wakes.of(medium).notify_one();
                Ok(invited)
            }
            InviteStored::Associated(user_id) => Err(Error::InUseBy { user_id }),
            InviteStored::Limited(wait) => Err(limited(wait)),
            InviteStored::TooMany => Err(Error::TooMany(
                "This address has too many invitations that wait already: of yours, of your homeserver's users, or of \
                 all. Tell the person in another way, or invite them by their user id."
                    .into(),
            )),
        }
    }

    fn new_invite(
        &self,
        request: InviteRequest,
        homeserver: Option<String>,
        invited: &Invited,
        private_key: &str,
        now: Timestamp,
    ) -> Result<NewInvite> {
        let key = self.validation.keys.newest();
        let id = proof::invite_id(key, &invited.token);
        let expires_at = now + self.settings.invite_lifetime;
        let invitation = Invitation {
            sender: request.sender.clone(),
            sender_name: request.sender_name.as_deref().map(shortened),
            room_name: request.room_name.as_deref().map(shortened),
            is_space: request.room_type.as_deref() == Some(SPACE),
            identity_server: self.settings.name.to_string(),
            token: invited.token.clone(),
            private_key: private_key.to_owned(),
            expires_at: expires_at.0,
        };
        let mail = serde_json::to_vec(&invitation).map(Zeroizing::new);
        let mail = mail.map_err(|error| Error::Internal(error.to_string()))?;
        let bucket = self.validation.messages_bucket(&request.threepid);
        Ok(NewInvite {
            mail: key.seal(&InvitePart::Mail.of(id), &mail)?,
            mail_useless_at: expires_at.min(now + MAIL_TRIED_FOR),
            buckets: vec![bucket],
            most: self.settings.invites_per_address,
            homeserver,
            invite: Invite {
                id,
                key_id: key.id(),
                token: key.seal(&InvitePart::Token.of(id), invited.token.as_bytes())?,
                threepid: request.threepid,
                room_id: request.room_id.0,
                sender: request.sender,
                public_key: invited.ephemeral_key,
                created_at: now,
                expires_at,
            },
        })
    }

    /// Signs the acceptance of an invitation with the key that whoever accepts has shown, never with ours.
    ///
    /// # Errors
    /// [`Error::UnknownInvitation`] for a token that is unknown, or whose invitation was used, was withdrawn or has run out;
    /// [`Error::Limited`].
    pub(crate) async fn sign_acceptance(
        &self,
        mxid: &str,
        token: &str,
        private_key: &[u8; 32],
        source: Source,
    ) -> Result<Map<String, Value>> {
        let now = self.validation.clock.now();
        self.validation.limiter.count_submission(source, now)?;
        let invite = self.find_invite(token, now).await?;
        let mut accepted = Map::new();
        for (key, value) in [("mxid", mxid), ("sender", &invite.sender), ("token", token)] {
            accepted.insert(key.to_owned(), value.into());
        }
        let key = SigningKey::from_seed("0", private_key)?;
        key.sign(&self.settings.name.to_string(), &mut accepted)?;
        Ok(accepted)
    }

    /// The open invitation of a token.
    async fn find_invite(&self, token: &str, now: Timestamp) -> Result<Invite> {
        for key in self.validation.keys.iter() {
            let id = proof::invite_id(key, token);
            if let Some(invite) = self.validation.store.invite(id, now).await? {
                return Ok(invite);
            }
        }
        Err(Error::UnknownInvitation)
    }

    /// The token of an invitation, as the room knows it.
    ///
    /// # Errors
    /// [`Error::Internal`] if the server key that it was sealed with is gone.
    pub(crate) fn open_token(&self, invite: &Invite) -> Result<String> {
        let key = self.validation.keys.find(invite.key_id);
        let key = key.ok_or_else(|| Error::Internal("the invitation's key is gone".to_owned()))?;
        let token = key.open(&InvitePart::Token.of(invite.id), &invite.token)?;
        String::from_utf8(token).map_err(|_| Error::Internal("a token is no text".to_owned()))
    }
}

fn encoded(seed: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(encode(seed))
}

/// A name for whoever is invited that does not give their address away: `f...@b...` (Identity Service API, "Invitation
/// storage").
fn redacted(threepid: &Threepid) -> String {
    let address = threepid.address();
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    // The domain's last part says little; the one before would be told whole if it is one letter.
    let host = domain.split('.').next().unwrap_or_default();
    format!("{}...@{}...", first_of(local), first_of(host))
}

/// The first character, unless it is all there is.
fn first_of(part: &str) -> &str {
    match part.char_indices().nth(1) {
        Some((end, _)) => &part[..end],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_address_shows_one_character_of_each_part_at_most() {
        for (address, shown) in [
            ("foo@bar.com", "f...@b..."),
            ("Foo.Bar+tag@mail.example.org", "f...@m..."),
            ("ab@cd.ef", "a...@c..."),
            ("a@bar.com", "...@b..."),
            ("foo@b.com", "f...@..."),
            ("a@b.c", "...@..."),
            ("me@localhost", "m...@l..."),
            ("σίσυφος@xn--strae-oqa.example", "σ...@x..."),
            ("é@example.org", "...@e..."),
        ] {
            let threepid = Threepid::email(address).unwrap();
            assert_eq!(redacted(&threepid), shown, "{address}");
        }
    }

    #[test]
    fn the_name_of_a_room_is_anything_that_can_be_shown() {
        let longest = format!("!{}", "a".repeat(254));
        for good in [
            "!room:example.org",
            "$event:example.org",
            "!dW5pcXVl-_",
            "!é:example.org",
            "x",
            &longest,
        ] {
            assert_eq!(RoomId::parse(good).unwrap().0, good);
        }
        let too_long = format!("{longest}a");
        for bad in [
            "",
            "!a b:c",
            "!a\r\nBcc:x",
            "!a\0:b",
            "!\u{202e}a:b",
            "!a\u{200b}:b",
            "!a\u{a0}:b",
            &too_long,
        ] {
            assert!(
                matches!(RoomId::parse(bad), Err(Error::InvalidParam(_))),
                "{bad:?}"
            );
        }
    }
}
