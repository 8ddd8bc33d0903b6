//! Sessions of user-interactive authentication (Client-Server API, "User-Interactive Authentication API").
//!
//! A session belongs to one operation: endpoint, account and what is asked for. A proof that was given for one request
//! is worth nothing for another.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use super::AccountRules;
use crate::{
    clock::Timestamp,
    error::Result,
    keys::{Key, KeyId, Keyring, Label},
    secret::random,
    source::Source,
    store::NewUia,
};

/// How long a session of ours, or a challenge of the homeserver's that we passed on, may take.
pub(crate) const LIFE: Duration = Duration::from_hours(1);

const KEY_ID: usize = size_of::<KeyId>();
const CHANCE: usize = 16;
/// How much of a MAC says where a session was begun.
const ORIGIN: usize = 8;
const BODY: usize = KEY_ID + 8 + CHANCE + ORIGIN;
const MAC: usize = 16;

/// The name of a session of ours. It proves itself, so that polls write nothing: key, end, chance, where it was begun, and
/// a MAC of these and the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UiaSession(String);

impl UiaSession {
    /// A fresh one for requests of an endpoint.
    pub(crate) fn begin(keys: &Keyring, endpoint: &str, source: Source, now: Timestamp) -> Self {
        let key = keys.newest();
        let mut bytes = Vec::with_capacity(BODY + MAC);
        let chance = random::<CHANCE>();
        bytes.extend_from_slice(&key.id());
        bytes.extend_from_slice(&(now + LIFE).0.to_be_bytes());
        bytes.extend_from_slice(&chance);
        bytes.extend_from_slice(&origin(key, &chance, source));
        let mac = mac(key, &bytes, endpoint);
        bytes.extend_from_slice(&mac);
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads one; `None` if it is not ours, is for another endpoint, or is over.
    pub(crate) fn read(keys: &Keyring, endpoint: &str, text: &str, now: Timestamp) -> Option<Self> {
        let bytes: [u8; BODY + MAC] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (body, told) = bytes.split_at(BODY);
        let (key_id, rest) = body.split_first_chunk::<KEY_ID>()?;
        let (ends_at, _) = rest.split_first_chunk::<8>()?;
        let genuine = mac(keys.find(*key_id)?, body, endpoint);
        let is_genuine = bool::from(genuine.as_slice().ct_eq(told));
        let is_live = now < Timestamp(i64::from_be_bytes(*ends_at));
        (is_genuine && is_live).then(|| Self(text.to_owned()))
    }

    /// Whether it was begun by a request from this source.
    pub(crate) fn was_begun_at(&self, keys: &Keyring, source: Source) -> bool {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).unwrap_or_default();
        let (Some((key_id, rest)), Some(told)) = (
            bytes.split_first_chunk::<KEY_ID>(),
            bytes.get(BODY - ORIGIN..BODY),
        ) else {
            return false;
        };
        let chance = rest.get(8..8 + CHANCE).unwrap_or_default();
        keys.find(*key_id)
            .is_some_and(|key| origin(key, chance, source) == *told)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn origin(key: &Key, chance: &[u8], source: Source) -> [u8; ORIGIN] {
    let mac = key.mac(
        Label::Uia,
        &[b"source", chance, source.to_string().as_bytes()],
    );
    let mut part = [0; ORIGIN];
    part.copy_from_slice(&mac[..ORIGIN]);
    part
}

fn mac(key: &Key, body: &[u8], endpoint: &str) -> [u8; MAC] {
    let mac = key.mac(Label::Uia, &[body, endpoint.as_bytes()]);
    let mut half = [0; MAC];
    half.copy_from_slice(&mac[..MAC]);
    half
}

impl AccountRules {
    /// Remembers durably that the homeserver's challenge was passed on for an operation; `parts` name it: endpoint,
    /// account, and what is asked for.
    pub(crate) async fn remember_challenge(&self, session: &str, parts: &[&str]) -> Result<()> {
        let expires_at = self.validation.clock.now() + LIFE;
        let challenge = NewUia {
            id: self.challenge_id(session, parts),
            sealed: None,
            expires_at,
        };
        Ok(self.validation.store.remember_uia(challenge).await?)
    }

    /// Whether the homeserver's challenge was passed on for this very operation.
    pub(crate) async fn was_challenged(&self, session: &str, parts: &[&str]) -> Result<bool> {
        let now = self.validation.clock.now();
        let id = self.challenge_id(session, parts);
        Ok(self.validation.store.find_uia(id, now).await?.is_some())
    }

    fn challenge_id(&self, session: &str, parts: &[&str]) -> [u8; 32] {
        let named = [&["challenge", session], parts].concat();
        self.digest(&named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn a_session_is_for_one_endpoint_and_one_hour() {
        let keys = Keyring::generate().unwrap();
        let here = Source::of([192, 0, 2, 1].into());
        let session = UiaSession::begin(&keys, "account/password", here, NOW);
        let read = |endpoint, text: &str, now| UiaSession::read(&keys, endpoint, text, now);

        assert_eq!(
            read("account/password", session.as_str(), NOW),
            Some(session.clone())
        );
        assert_eq!(read("register", session.as_str(), NOW), None);
        assert_eq!(read("account/password", session.as_str(), NOW + LIFE), None);
        let other = Keyring::generate().unwrap();
        assert_eq!(
            UiaSession::read(&other, "account/password", session.as_str(), NOW),
            None
        );
        assert!(session.was_begun_at(&keys, here));
        assert!(!session.was_begun_at(&keys, Source::of([192, 0, 2, 2].into())));
        for text in ["", "abc", &"A".repeat(70), &"A".repeat(200)] {
            assert_eq!(read("account/password", text, NOW), None);
        }
    }
}
