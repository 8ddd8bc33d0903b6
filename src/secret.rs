//! Client secrets and session ids; the only source of chance.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{clock::Timestamp, error::Error};

/// Random bytes from the operating system's generator.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one source of chance"
)]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A number in `0.0..1.0`, to spread retries.
pub(crate) fn random_fraction() -> f64 {
    f64::from(u32::from_le_bytes(random())) / (f64::from(u32::MAX) + 1.0)
}

/// Whether `text` is 1 to 255 characters out of `[0-9a-zA-Z.=_-]`, the grammar that `client_secret` and `sid` share
/// (Identity Service API, "Establishing associations").
fn is_opaque_id(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte))
}

/// The secret that a client made up for a session: with the `sid` it addresses the session, alone it gives nothing.
///
/// `Debug` shows nothing of it, and it has no `Display`: it is never stored or logged as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// Takes a `client_secret` as a client sent it.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] unless it is 1 to 255 ASCII characters out of `[0-9a-zA-Z.=_-]`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_opaque_id(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(
                "client_secret must be 1 to 255 characters out of a-z A-Z 0-9 . = _ -",
            ))
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ClientSecret(…)")
    }
}

/// A `sid` as a client sent it: one that we made, or one of an identity server that we proxied to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(String);

impl Sid {
    /// Takes a `sid`.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] unless it is 1 to 255 ASCII characters out of `[0-9a-zA-Z.=_-]`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_opaque_id(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(
                "sid must be the one that requestToken answered",
            ))
        }
    }

    /// The `sid` as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a session of ours; `None` for a `sid` that this server can not have made.
    #[must_use]
    pub fn ours(&self) -> Option<SessionId> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).ok()?;
        bytes.try_into().ok().map(SessionId)
    }
}

impl From<SessionId> for Sid {
    fn from(sid: SessionId) -> Self {
        Self(sid.to_string())
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Sid({self})")
    }
}

/// A bearer token, such as an `id_access_token`: it goes to the server that it is for, and nowhere else.
///
/// `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// The longest token that is taken, in bytes.
    const LONGEST: usize = 4096;

    /// Takes a token as a client or a file has it.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] unless it is 1 to 4096 visible ASCII characters: others can not stand in a header.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(Error::invalid(
                "an access token is 1 to 4096 visible ASCII characters",
            ))
        }
    }

    /// Takes what a client sent, whether or not it can be used: where no identity server is asked, nothing about it is an
    /// error.
    pub(crate) fn given(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// Whether it can stand in a header.
    ///
    /// # Errors
    /// As [`AccessToken::parse`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        Self::parse(&self.0).map(drop)
    }

    /// Whether they are equal, in a time that tells nothing of either, not even how long it is.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        let digest = |token: &Self| Sha256::digest(token.0.as_bytes());
        digest(self).ct_eq(&digest(other)).into()
    }

    /// The token itself, for the server that gave it out: a homeserver looks for its digest, and stores nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("AccessToken(…)")
    }
}

/// Names a validation session: 28 URL-safe characters, of which 136 bits are random.
///
/// The first bytes are the second of its making: sessions of one time lie side by side in the store's index, so that
/// its cost does not grow with the number of sessions. Whoever knows the `sid` knows that time anyway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; SessionId::LENGTH]);

impl SessionId {
    /// Its length in bytes; three quarters of its length in characters.
    pub(crate) const LENGTH: usize = 21;

    /// A fresh one.
    pub(crate) fn generate(now: Timestamp) -> Self {
        let mut bytes: [u8; Self::LENGTH] = random();
        let second = u32::try_from(now.0.div_euclid(1000)).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&second.to_be_bytes());
        Self(bytes)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SessionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_secrets_follow_the_grammar() {
        for good in ["a", "0123.=_-Zz", &"x".repeat(255)] {
            assert!(ClientSecret::parse(good).is_ok(), "{good}");
        }
        for bad in ["", &"x".repeat(256), "a b", "é", "a\n", "a:b", "a\0", "ａ"] {
            assert!(
                matches!(ClientSecret::parse(bad), Err(Error::InvalidParam(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_session_id_reads_back_and_a_foreign_one_is_no_error() {
        let sid = SessionId::generate(Timestamp(0));
        assert_eq!(Sid::from(sid).ours(), Some(sid));
        assert_eq!(sid.to_string().len(), 28);
        assert_eq!(Sid::parse("1234").unwrap().ours(), None);
        assert!(Sid::parse("not a sid").is_err());
    }

    #[test]
    fn a_token_matches_itself_alone() {
        let token = |text| AccessToken::parse(text).unwrap();
        assert!(token("hunter2").matches(&token("hunter2")));
        for other in ["hunter", "hunter22", "Hunter2"] {
            assert!(!token("hunter2").matches(&token(other)), "{other}");
        }
        assert_eq!(token("hunter2").reveal(), "hunter2");
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = ClientSecret::parse("hunter2").unwrap();
        let token = AccessToken::parse("hunter2").unwrap();
        assert!(!format!("{secret:?}{token:?}").contains("hunter2"));
    }
}
