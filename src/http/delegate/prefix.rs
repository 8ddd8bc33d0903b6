//! The secret before a homeserver's paths: the one thing by which we know it.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The fewest characters besides slashes. Of 64 different ones, so many hold the 128 bits that nobody guesses.
const FEWEST: usize = 22;

/// What a homeserver that has us for its delegate writes behind our base URL: `hs/…`.
///
/// Only its digest is kept, so that nothing can show it.
#[derive(Clone)]
pub struct Prefix([u8; 32]);

impl Prefix {
    /// Takes a prefix: letters, digits and `- _ . ~`, in segments between slashes, with none at either end.
    ///
    /// # Errors
    /// A sentence that says what to write instead; never the prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.~".contains(&letter);
        let is_segment = |segment: &str| {
            // Programs on the way drop segments of dots; and what follows the prefix begins with this one.
            let is_special = matches!(segment, "" | "." | ".." | "_matrix");
            !is_special && segment.bytes().all(is_plain)
        };
        if !text.split('/').all(is_segment) {
            return Err(format!(
                "a prefix has letters, digits and - _ . ~ alone, perhaps with slashes inside; {MAKE_ONE}"
            ));
        }
        let length = text.bytes().filter(|letter| *letter != b'/').count();
        if length < FEWEST {
            return Err(format!(
                "a prefix is a secret that nobody may guess, so it has at least {FEWEST} characters besides slashes; \
                 {MAKE_ONE}"
            ));
        }
        Ok(Self(digest(text)))
    }

    /// Whether `given` is one of `prefixes`, in a time that tells nothing of any of them.
    pub(super) fn is_one_of(prefixes: &[Self], given: &str) -> bool {
        let given = digest(given);
        let found = prefixes.iter().fold(Choice::from(0), |found, prefix| {
            found | prefix.0.ct_eq(&given)
        });
        found.into()
    }
}

const MAKE_ONE: &str = "make one with \"openssl rand -hex 32\"";

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl fmt::Debug for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Prefix(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hs/0123456789abcdef.~_-x";

    #[test]
    fn prefixes_are_plain_and_long() {
        let hex = "0".repeat(64);
        for good in [
            SECRET,
            &hex,
            "a/b/0123456789012345678.",
            "..a/012345678901234567890",
        ] {
            assert!(Prefix::parse(good).is_ok(), "{good}");
        }
        let encoded = format!("{hex}%2f");
        let (before, after) = (format!("/{hex}"), format!("{hex}/"));
        for bad in [
            "",
            "hs",
            "012345678901234567890",
            "a/b/c/d/e/f/g/h/i/j/k/l/m",
            "0123456789//0123456789abc",
            "0123456789/../0123456789abc",
            "0123456789/./0123456789abcd",
            "0123456789/_matrix/0123456789abcd",
            "0123456789 0123456789abc",
            "0123456789?0123456789abc",
            "0123456789é0123456789abc",
            &encoded,
            &before,
            &after,
        ] {
            let why = Prefix::parse(bad).unwrap_err();
            assert!(why.contains("openssl rand -hex 32"), "{why}");
            assert!(bad.len() < 3 || !why.contains(bad), "{why}");
        }
    }

    #[test]
    fn a_prefix_is_known_whole_and_shown_never() {
        let prefixes = [Prefix::parse(&"0".repeat(64)), Prefix::parse(SECRET)].map(Result::unwrap);
        assert!(Prefix::is_one_of(&prefixes, SECRET));
        for other in [
            "",
            "hs",
            &SECRET[1..],
            &SECRET[..SECRET.len() - 1],
            &SECRET.to_uppercase(),
        ] {
            assert!(!Prefix::is_one_of(&prefixes, other), "{other}");
        }
        assert!(!Prefix::is_one_of(&[], SECRET));
        assert_eq!(format!("{:?}", prefixes[1]), "Prefix(…)");
    }
}
