//! Links and codes: derived from the server key, never stored, checked in constant time.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use crate::{
    id_server::IdServer,
    keys::{Key, KeyId, Keyring, Label},
    secret::{ClientSecret, SessionId, Sid},
    session::Purpose,
    threepid::{Medium, Threepid},
};

const KEY_ID: usize = size_of::<KeyId>();
const LINK_MAC: usize = 20;
const LINK_LENGTH: usize = KEY_ID + SessionId::LENGTH + LINK_MAC;
/// Digits of a code in a mail: with five tries, one guess in twenty million.
const MAIL_DIGITS: u32 = 8;
/// Digits of a code in a text message, which people copy by hand: with five tries, one guess in two hundred thousand.
const SMS_DIGITS: u32 = 6;

/// The opaque value in a mailed link: key id, session and MAC as 60 URL-safe characters. It proves a session by itself.
pub(crate) struct Link([u8; LINK_LENGTH]);

impl Link {
    /// The link of a session, made with the key that its row names.
    pub(crate) fn derive(key: &Key, sid: SessionId) -> Self {
        let mac = key.mac(Label::Link, &[sid.as_bytes()]);
        let mut bytes = [0; LINK_LENGTH];
        bytes[..KEY_ID].copy_from_slice(&key.id());
        bytes[KEY_ID..KEY_ID + SessionId::LENGTH].copy_from_slice(sid.as_bytes());
        bytes[KEY_ID + SessionId::LENGTH..].copy_from_slice(&mac[..LINK_MAC]);
        Self(bytes)
    }

    /// Reads what has the shape of a link, whether or not it is genuine.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The session that a genuine link belongs to; `None` if its MAC is wrong. Asks no database.
    pub(crate) fn verify(&self, keys: &Keyring) -> Option<SessionId> {
        let (id, rest) = self.0.split_first_chunk::<KEY_ID>()?;
        let (sid, _) = rest.split_first_chunk::<{ SessionId::LENGTH }>()?;
        let sid = SessionId::from_bytes(*sid);
        let genuine = Self::derive(keys.find(*id)?, sid);
        bool::from(genuine.0.as_slice().ct_eq(&self.0)).then_some(sid)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The short value that a person types: derived from session and attempt, so that only the newest one counts.
pub(crate) struct Code(String);

impl fmt::Debug for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Code(…)")
    }
}

impl Code {
    /// The code of one attempt of a session, as long as suits the medium.
    pub(crate) fn derive(key: &Key, sid: SessionId, send_attempt: i64, medium: Medium) -> Self {
        let mac = key.mac(Label::Code, &[sid.as_bytes(), &send_attempt.to_be_bytes()]);
        let digits = match medium {
            Medium::Email => MAIL_DIGITS,
            Medium::Msisdn => SMS_DIGITS,
        };
        // 128 bits modulo 10^8: the bias is below one in 10^30.
        let number = u128::from_be_bytes(first_half(mac)) % 10u128.pow(digits);
        Self(format!("{number:0width$}", width = digits as usize))
    }

    /// Whether `given` is this code; blanks and hyphens that people put between digits do not count.
    pub(crate) fn matches(&self, given: &str) -> bool {
        let typed: String = given
            .chars()
            .filter(|letter| !letter.is_whitespace() && *letter != '-')
            .take(self.0.len() + 1)
            .collect();
        self.0.as_bytes().ct_eq(typed.as_bytes()).into()
    }

    /// The code as it is shown to its owner.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// What the store keeps of a `client_secret`: clients use clocks as secrets, so a plain hash could be searched.
pub(crate) fn secret_hash(key: &Key, client_secret: &ClientSecret) -> [u8; 32] {
    key.mac(Label::ClientSecret, &[client_secret.as_bytes()])
}

/// Whether `client_secret` is the one that `hash` was made of, in constant time.
pub(crate) fn secret_matches(key: &Key, client_secret: &ClientSecret, hash: &[u8]) -> bool {
    secret_hash(key, client_secret)
        .as_slice()
        .ct_eq(hash)
        .into()
}

/// What one running count of `send_attempt` belongs to: purpose, address and secret.
pub(crate) fn scope(
    key: &Key,
    purpose: Purpose,
    threepid: &Threepid,
    client_secret: &ClientSecret,
) -> [u8; 16] {
    let address = threepid.address().as_bytes();
    let length = u32::try_from(address.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let kind = [purpose.tag(), threepid.medium().tag()];
    let mac = key.mac(
        Label::Scope,
        &[&kind, &length, address, client_secret.as_bytes()],
    );
    first_half(mac)
}

/// The left half of a mail's `Message-ID`: the same for the same attempt, so that a message sent twice is seen to be one.
pub(crate) fn message_id(key: &Key, sid: SessionId, send_attempt: i64) -> String {
    let mac = key.mac(
        Label::MessageId,
        &[sid.as_bytes(), &send_attempt.to_be_bytes()],
    );
    URL_SAFE_NO_PAD.encode(&mac[..18])
}

/// The same for a notice, which answers no attempt: it is told apart by its place in the outbox. With the name of a mail
/// that came before, a mailbox would show one of the two.
pub(crate) fn notice_id(key: &Key, sid: SessionId, place: i64) -> String {
    let parts: [&[u8]; 3] = [sid.as_bytes(), &place.to_be_bytes(), b"notice"];
    URL_SAFE_NO_PAD.encode(&key.mac(Label::MessageId, &parts)[..18])
}

/// By what the store finds an invitation again, without knowing its token.
pub(crate) fn invite_id(key: &Key, token: &str) -> [u8; 16] {
    first_half(key.mac(Label::Invite, &[token.as_bytes()]))
}

/// The left half of the `Message-ID` of an invitation's mail.
pub(crate) fn invite_message_id(key: &Key, invite: [u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(&key.mac(Label::MessageId, &[&invite, b"invite"])[..18])
}

/// What is sealed of an invitation. Neither opens in place of the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InvitePart {
    /// Its token.
    Token,
    /// What its mail says.
    Mail,
}

impl InvitePart {
    /// What it is sealed for, and opened with.
    pub(crate) fn of(self, invite: [u8; 16]) -> Vec<u8> {
        let part: &[u8] = match self {
            Self::Token => b"token",
            Self::Mail => b"mail",
        };
        [&invite, part].concat()
    }
}

/// By what the store finds a session of an identity server again, without knowing the secret.
pub(crate) fn server_pair(key: &Key, sid: &Sid, client_secret: &ClientSecret) -> [u8; 16] {
    let sid = sid.as_str().as_bytes();
    let length = u32::try_from(sid.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mac = key.mac(Label::ServerPair, &[&length, sid, client_secret.as_bytes()]);
    first_half(mac)
}

/// What the count of attempts belongs to that an identity server keeps: two servers count apart.
pub(crate) fn server_scope(key: &Key, scope: [u8; 16], server: &IdServer) -> [u8; 16] {
    let mac = key.mac(Label::ServerScope, &[&scope, server.to_string().as_bytes()]);
    first_half(mac)
}

/// What the count of attempts belongs to that an account makes: nobody else's request goes on with its session.
pub(crate) fn user_scope(key: &Key, scope: [u8; 16], user_id: &str) -> [u8; 16] {
    first_half(key.mac(Label::UserScope, &[&scope, user_id.as_bytes()]))
}

/// The name of a bucket in the store, which keeps no more addresses than it must: `what` is counted, of `whom`.
pub(crate) fn bucket(key: &Key, what: [u8; 2], whom: &str) -> [u8; 16] {
    let mac = key.mac(Label::Bucket, &[&what, whom.as_bytes()]);
    first_half(mac)
}

fn first_half(mac: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&mac[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_link_proves_its_session_and_an_altered_one_nothing() {
        let keys = Keyring::generate().unwrap();
        let sid = SessionId::generate(Timestamp(0));
        let link = Link::derive(keys.newest(), sid).to_string();
        assert_eq!(link.len(), 60);
        assert_eq!(Link::parse(&link).unwrap().verify(&keys), Some(sid));
        assert_eq!(
            Link::parse(&link)
                .unwrap()
                .verify(&Keyring::generate().unwrap()),
            None
        );
        for place in 0..60 {
            let other = if link.as_bytes()[place] == b'A' {
                "B"
            } else {
                "A"
            };
            let mut altered = link.clone();
            altered.replace_range(place..=place, other);
            assert_eq!(
                Link::parse(&altered).and_then(|link| link.verify(&keys)),
                None,
                "at {place}"
            );
        }
    }

    #[test]
    fn a_code_belongs_to_one_attempt() {
        let keys = Keyring::generate().unwrap();
        let sid = SessionId::generate(Timestamp(0));
        let code = Code::derive(keys.newest(), sid, 1, Medium::Email);
        let (left, right) = code.reveal().split_at(4);
        assert_eq!(code.reveal().len(), 8);
        assert!(
            code.matches(&format!(" {left} {right}\n")) && code.matches(&format!("{left}-{right}"))
        );
        assert!(
            !code.matches("") && !code.matches(left) && !code.matches(&format!("{left}{right}0"))
        );
        assert!(!code.matches(Code::derive(keys.newest(), sid, 2, Medium::Email).reveal()));
        let short = Code::derive(keys.newest(), sid, 1, Medium::Msisdn);
        assert_eq!(short.reveal().len(), 6);
        assert!(!short.matches(code.reveal()) && !code.matches(short.reveal()));
    }

    #[test]
    fn a_link_is_never_taken_for_a_code() {
        assert!(Link::parse("12345678").is_none());
    }
}
