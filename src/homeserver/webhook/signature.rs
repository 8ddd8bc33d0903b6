//! The signature of a call: who makes it, when, where to, and with what.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::keys::hex;

/// The fewest characters that nobody guesses: 128 bits in base64.
const FEWEST: usize = 22;
/// The most characters of a key.
const MOST: usize = 512;
const MAKE_ONE: &str = "make one with \"openssl rand -hex 32\"";

/// A key that both sides know: its bytes are those of its text.
///
/// `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Zeroizing<String>);

impl SigningKey {
    /// Takes a key as a file has it.
    ///
    /// # Errors
    /// A sentence that says what to write instead, unless it is 22 to 512 visible ASCII characters; never the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "a key has visible ASCII characters alone, and no spaces; {MAKE_ONE}"
            ));
        }
        if !(FEWEST..=MOST).contains(&text.len()) {
            return Err(format!(
                "a key is a secret that nobody may guess, so it has {FEWEST} to {MOST} characters; {MAKE_ONE}"
            ));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The value of `X-Threepid-Signature`: `t=<seconds since 1970>,v1=<hex>`, where `hex` is the HMAC-SHA-256 of
    /// `t "." path "." body`, and `path` is that of the URL as it is sent, percent-encoded.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn sign(&self, seconds: i64, path: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(format!("{seconds}.{path}.").as_bytes());
        mac.update(body);
        format!("t={seconds},v1={}", hex(&mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "hunter2hunter2hunter2hunter2";

    #[test]
    fn a_key_is_long_enough_and_can_be_seen() {
        for good in [&"k".repeat(FEWEST), &"~".repeat(MOST), KEY] {
            assert!(SigningKey::parse(good).is_ok(), "{good}");
        }
        let with_space = format!("{KEY} {KEY}");
        let with_letter = format!("{KEY}é");
        for bad in [
            "",
            &"k".repeat(FEWEST - 1),
            &"k".repeat(MOST + 1),
            &with_space,
            &with_letter,
        ] {
            let why = SigningKey::parse(bad).unwrap_err();
            assert!(why.contains("openssl") && !why.contains(KEY), "{why}");
        }
    }

    #[test]
    fn all_that_is_sent_is_signed() {
        let key = SigningKey::parse(KEY).unwrap();
        let signed = key.sign(1, "/a", b"b");

        assert_eq!(signed.len(), "t=1,v1=".len() + 64);
        let other = SigningKey::parse(&KEY.to_uppercase()).unwrap();
        for different in [
            key.sign(2, "/a", b"b"),
            key.sign(1, "/b", b"b"),
            key.sign(1, "/a", b"c"),
            other.sign(1, "/a", b"b"),
        ] {
            assert_ne!(different.split(",v1=").nth(1), signed.split(",v1=").nth(1));
        }
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
    }
}
