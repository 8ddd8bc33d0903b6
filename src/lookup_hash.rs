//! What addresses are looked up by: the hash of `address medium pepper` (Identity Service API, "Security considerations" of
//! its lookups; MSC2134).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{secret::random, threepid::Threepid};

/// The hash itself; on the wire it is URL-safe unpadded base64.
pub(crate) type LookupHash = [u8; 32];

/// What peppers consist of (MSC2134: `[a-zA-Z0-9]+`).
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// How long a pepper is: 190 bits of chance.
const PEPPER_LENGTH: usize = 32;

/// The hash of an address.
pub(crate) fn hash(threepid: &Threepid, pepper: &str) -> LookupHash {
    hash_of(threepid.address(), threepid.medium().as_str(), pepper)
}

/// The same of an address that the store kept.
pub(crate) fn hash_of(address: &str, medium: &str, pepper: &str) -> LookupHash {
    let mut digest = Sha256::new();
    for part in [address, " ", medium, " ", pepper] {
        digest.update(part);
    }
    digest.finalize().into()
}

/// Reads a hash as a lookup asks for it; `None` for what is none.
pub(crate) fn decode(text: &str) -> Option<LookupHash> {
    let mut hash = LookupHash::default();
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut hash).ok()?;
    (length == hash.len()).then_some(hash)
}

/// A hash as a lookup asks for it: the one text that is read as this hash.
pub(crate) fn encode(hash: &LookupHash) -> String {
    URL_SAFE_NO_PAD.encode(hash)
}

/// A fresh pepper.
pub(crate) fn generate_pepper() -> String {
    let mut pepper = String::with_capacity(PEPPER_LENGTH);
    while pepper.len() < PEPPER_LENGTH {
        // Those past the last letter are thrown away, so that all letters are equally likely.
        let drawn = random::<PEPPER_LENGTH>().map(|byte| LETTERS.get(usize::from(byte >> 2)));
        let missing = PEPPER_LENGTH - pepper.len();
        let letters = drawn.into_iter().flatten().take(missing);
        pepper.extend(letters.map(|letter| char::from(*letter)));
    }
    pepper
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's example.
    #[test]
    fn hashes_are_those_of_the_specification() {
        for (address, medium, hash) in [
            (
                "alice@example.com",
                "email",
                "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc",
            ),
            (
                "bob@example.com",
                "email",
                "LJwSazmv46n0hlMlsb_iYxI0_HXEqy_yj6Jm636cdT8",
            ),
            (
                "18005552067",
                "msisdn",
                "nlo35_T5fzSGZzJApqu8lgIudJvmOQtDaHtr-I4rU7I",
            ),
        ] {
            assert_eq!(decode(hash), Some(hash_of(address, medium, "matrixrocks")));
        }
    }

    #[test]
    fn an_address_is_hashed_as_it_is_stored() {
        let stored = Threepid::email("Strauß@Example.com").unwrap();
        assert_eq!(
            encode(&hash(&stored, "matrixrocks")),
            "Wvo9OL_UvrDZsRecvnhshdTeilXXGbhk0J5l5rX55Ok"
        );
        // What an app asks for that writes the address in lower case alone.
        assert_eq!(
            encode(&hash_of("strauß@example.com", "email", "matrixrocks")),
            "1FBgMvqsmu6y8fjKGhVb8Ejq0aQknLThQ7hF57hDwQE"
        );
    }

    #[test]
    fn what_is_no_hash_is_none() {
        let good = "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc";
        assert!(decode(good).is_some());
        for bad in [
            "",
            "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZU",
            "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc=",
            // The last letter has bits that mean nothing: another spelling is another text.
            "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUd",
            "LJwSazmv46n0hlMlsb/iYxI0/HXEqy/yj6Jm636cdT8",
            "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUcAAAA",
            " 4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc",
            "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZ\0c",
            "äkenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn peppers_are_letters_and_digits_and_never_twice_the_same() {
        let (one, other) = (generate_pepper(), generate_pepper());
        assert_ne!(one, other);
        assert_eq!(one.len(), PEPPER_LENGTH);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
