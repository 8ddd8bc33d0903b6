//! A new password, and what a homeserver demands of one.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The longest password, in characters: homeservers hash it with functions that take no more in reasonable time.
const LONGEST: usize = 512;

/// The password that an account is to have. `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPassword(Zeroizing<String>);

impl NewPassword {
    /// Takes a `new_password` as a person chose it.
    ///
    /// # Errors
    /// [`Error::WeakPassword`] if there is nothing in it, [`Error::InvalidParam`] over 512 characters.
    pub fn parse(text: &str) -> Result<Self> {
        match text.chars().count() {
            0 => Err(Error::WeakPassword("The new password is empty.".into())),
            1..=LONGEST => Ok(Self(Zeroizing::new(text.to_owned()))),
            _ => Err(Error::invalid(format!(
                "new_password must be at most {LONGEST} characters"
            ))),
        }
    }

    /// The password itself, for the homeserver alone.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NewPassword {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("NewPassword(…)")
    }
}

/// What a password must have (MSC2000, which homeservers serve at `GET /_matrix/client/v3/password_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the document has these keys, each true or false"
)]
pub struct PasswordPolicy {
    /// The fewest characters.
    #[serde(rename = "m.minimum_length")]
    pub minimum_length: u32,
    /// Whether a digit must be among them.
    #[serde(rename = "m.require_digit")]
    pub require_digit: bool,
    /// Whether a symbol, neither letter nor digit, must be among them.
    #[serde(rename = "m.require_symbol")]
    pub require_symbol: bool,
    /// Whether a lower-case letter must be among them.
    #[serde(rename = "m.require_lowercase")]
    pub require_lowercase: bool,
    /// Whether an upper-case letter must be among them.
    #[serde(rename = "m.require_uppercase")]
    pub require_uppercase: bool,
}

impl PasswordPolicy {
    /// Whether the policy admits a password.
    ///
    /// # Errors
    /// [`Error::WeakPassword`], whose sentence says all that is missing.
    pub fn check(&self, password: &NewPassword) -> Result<()> {
        let missing = self.missing(password.reveal());
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(Error::WeakPassword(
            format!("The new password is too weak. It needs {missing}.").into(),
        ))
    }

    /// What the policy demands, in words: `at least 8 characters, a digit`. Empty if it demands nothing.
    #[must_use]
    pub fn demands(&self) -> String {
        self.missing("").join(", ")
    }

    /// What a text lacks.
    fn missing(self, text: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        if length < self.minimum_length {
            missing.push(format!("at least {} characters", self.minimum_length));
        }
        for (is_required, is_met, what) in [
            (self.require_digit, has(text, char::is_numeric), "a digit"),
            (
                self.require_lowercase,
                has(text, char::is_lowercase),
                "a lower-case letter",
            ),
            (
                self.require_uppercase,
                has(text, char::is_uppercase),
                "an upper-case letter",
            ),
            (
                self.require_symbol,
                has(text, |letter| !letter.is_alphanumeric()),
                "a symbol such as ! or ?",
            ),
        ] {
            if is_required && !is_met {
                missing.push(what.to_owned());
            }
        }
        missing
    }
}

fn has(text: &str, is_it: impl FnMut(char) -> bool) -> bool {
    text.chars().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weak(policy: PasswordPolicy, text: &str) -> Option<String> {
        let password = NewPassword::parse(text).unwrap();
        policy.check(&password).err().map(|error| error.to_string())
    }

    #[test]
    fn a_password_has_some_length() {
        assert!(matches!(
            NewPassword::parse(""),
            Err(Error::WeakPassword(_))
        ));
        assert!(NewPassword::parse(&"ä".repeat(512)).is_ok());
        assert!(matches!(
            NewPassword::parse(&"a".repeat(513)),
            Err(Error::InvalidParam(_))
        ));
    }

    #[test]
    fn a_policy_says_all_that_is_missing() {
        let policy: PasswordPolicy = serde_json::from_str(
            r#"{"m.minimum_length":10,"m.require_digit":true,"m.require_symbol":true,
                "m.require_lowercase":true,"m.require_uppercase":true,"x":1}"#,
        )
        .unwrap();

        assert_eq!(
            weak(policy, "abc").unwrap(),
            "The new password is too weak. It needs at least 10 characters, a digit, an upper-case letter, a symbol \
             such as ! or ?."
        );
        assert!(
            policy
                .demands()
                .starts_with("at least 10 characters, a digit")
        );
        assert_eq!(PasswordPolicy::default().demands(), "");
        assert_eq!(weak(policy, "Abcdefgh1!"), None);
        assert_eq!(weak(PasswordPolicy::default(), "a"), None);
    }

    #[test]
    fn debug_shows_no_password() {
        let password = NewPassword::parse("hunter2").unwrap();
        assert!(!format!("{password:?}").contains("hunter2"));
    }
}
