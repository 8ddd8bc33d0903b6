//! Signed JSON: canonical form, Ed25519, and the server's own signing keys.

use std::{fmt, fmt::Write};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{
    Engine,
    alphabet::STANDARD as STANDARD_ALPHABET,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD},
    },
};
use ruma_common::CanonicalJsonValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{error::Error, secret::random};

/// An Ed25519 public key, or the seed of a private one, in bytes.
const KEY_LENGTH: usize = 32;

/// Reads base64 with and without padding, whatever the last letter's unused bits are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD_ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An Ed25519 public key.
pub(crate) type PublicKey = [u8; KEY_LENGTH];

/// Base64 as Matrix writes it: the standard alphabet, no padding (Matrix appendices, "Unpadded Base64").
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// Reads base64 of either alphabet, with or without padding. A `+` that was not escaped in a query comes here as a blank,
/// and is read as what it was.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let standard: String = text
        .chars()
        .map(|letter| match letter {
            '-' | ' ' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

/// Reads an Ed25519 public key, or the seed of a private one.
pub(crate) fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
    let bytes = Zeroizing::new(decode(text)?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

/// One Ed25519 key pair and its name.
pub(crate) struct SigningKey {
    version: String,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// The pair that belongs to a seed. `version` is what stands after `ed25519:` in the key's name.
    pub(crate) fn from_seed(version: &str, seed: &[u8; KEY_LENGTH]) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| Error::Internal("an Ed25519 key was refused".to_owned()))?;
        Ok(Self {
            version: version.to_owned(),
            pair,
        })
    }

    /// Its name: `ed25519:0`.
    pub(crate) fn id(&self) -> String {
        format!("ed25519:{}", self.version)
    }

    /// Its public half.
    pub(crate) fn public(&self) -> PublicKey {
        let mut public = [0; KEY_LENGTH];
        public.copy_from_slice(self.pair.public_key().as_ref());
        public
    }

    /// Puts its signature of `object`, made in the name of `entity`, beside those that the object has (Matrix appendices,
    /// "Signing JSON").
    ///
    /// # Errors
    /// [`Error::BadJson`] if the object has no canonical form.
    pub(crate) fn sign(&self, entity: &str, object: &mut Map<String, Value>) -> Result<(), Error> {
        let signature = self.pair.sign(to_be_signed(object)?.as_bytes());
        let signature = Value::String(encode(signature.as_ref()));
        let all = object
            .entry("signatures")
            .or_insert_with(|| Value::Object(Map::new()));
        let all = all.as_object_mut().ok_or_else(no_signatures)?;
        let own = all
            .entry(entity)
            .or_insert_with(|| Value::Object(Map::new()));
        let own = own.as_object_mut().ok_or_else(no_signatures)?;
        own.insert(self.id(), signature);
        Ok(())
    }
}

fn no_signatures() -> Error {
    Error::BadJson("The key signatures must be an object of objects.".into())
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SigningKey({})", self.id())
    }
}

/// A fresh seed, whose public key looks the same in both alphabets of base64: no program on its way can damage it.
pub(crate) fn generate_seed() -> Zeroizing<[u8; KEY_LENGTH]> {
    loop {
        let seed = Zeroizing::new(random::<KEY_LENGTH>());
        let is_plain = |key: SigningKey| !encode(&key.public()).contains(['+', '/']);
        if SigningKey::from_seed("0", &seed).is_ok_and(is_plain) {
            return seed;
        }
    }
}

/// Whether `signature` is `key`'s of the object, as [`SigningKey::sign`] makes it. An object without a canonical form has
/// none.
pub(crate) fn verify(object: &Map<String, Value>, key: &[u8], signature: &[u8]) -> bool {
    to_be_signed(object).is_ok_and(|signed| verify_text(&signed, key, signature))
}

/// The same for an object whose canonical form is at hand, without `signatures` and `unsigned`.
pub(crate) fn verify_text(canonical: &str, key: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(canonical.as_bytes(), signature).is_ok()
}

/// What a signature is made of: the canonical form of the object without `signatures` and `unsigned`.
fn to_be_signed(object: &Map<String, Value>) -> Result<String, Error> {
    let mut bare = object.clone();
    bare.remove("signatures");
    bare.remove("unsigned");
    canonical(bare)
}

/// The canonical form (Matrix appendices, "Canonical JSON").
///
/// # Errors
/// [`Error::BadJson`] for numbers that Matrix does not know: with a fraction, or beyond 2^53 − 1.
pub(crate) fn canonical(object: Map<String, Value>) -> Result<String, Error> {
    let value = CanonicalJsonValue::try_from(Value::Object(object)).map_err(|_| {
        Error::BadJson("A number is no integer between -(2^53 - 1) and 2^53 - 1.".into())
    })?;
    Ok(value.to_string())
}

/// The signing keys of an identity server, newest first. The newest signs; of the others the public halves stay valid.
pub struct SigningKeys {
    keys: Vec<SigningKey>,
}

impl SigningKeys {
    /// One fresh key, which lives as long as the process: for tests.
    ///
    /// # Errors
    /// If the system's cryptography refuses the key.
    pub fn generate() -> Result<Self, String> {
        Self::parse(&Self::generate_file(""))
    }

    /// The text of a key file: a fresh key above those of `older`, the text of the file until now.
    #[must_use]
    pub fn generate_file(older: &str) -> Zeroizing<String> {
        let newest = Self::parse(older).ok().and_then(|keys| {
            let versions = keys.keys.iter().map(|key| key.version.parse::<u64>());
            versions.filter_map(Result::ok).max()
        });
        let version = newest.map_or(0, |newest| newest.saturating_add(1));
        let mut text = Zeroizing::new(format!("ed25519 {version} "));
        STANDARD_NO_PAD.encode_string(generate_seed(), &mut text);
        let _ = write!(text, "\n{older}");
        text
    }

    /// Reads a key file: one key a line, newest first, each `ed25519`, its version and its seed in base64; `#` begins a
    /// comment.
    ///
    /// # Errors
    /// A sentence that names the line and shows nothing of it.
    pub fn parse(file: &str) -> Result<Self, String> {
        const FORM: &str =
            "write \"ed25519\", a version of letters, digits and _, and the key in base64";
        let mut keys: Vec<SigningKey> = Vec::new();
        for (line, number) in file.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (algorithm, version, seed) = (words.next(), words.next(), words.next());
            let (version, seed) = match (algorithm, version, seed, words.next()) {
                (None, ..) => continue,
                (Some("ed25519"), Some(version), Some(seed), None) => (version, seed),
                _ => return Err(format!("line {number} is no key; {FORM}")),
            };
            let is_version = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let seed = decode_key(seed).filter(|_| version.bytes().all(is_version));
            let seed = seed.ok_or_else(|| format!("line {number} is no key; {FORM}"))?;
            if keys.iter().any(|key| key.version == version) {
                return Err(format!(
                    "line {number} has a version that stands above already"
                ));
            }
            let key = SigningKey::from_seed(version, &seed).map_err(|error| error.to_string())?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(format!("it holds no key; {FORM}"));
        }
        Ok(Self { keys })
    }

    /// The key that signs.
    pub(crate) fn newest(&self) -> &SigningKey {
        self.keys
            .first()
            .expect("a ring of signing keys holds at least one")
    }

    /// The name of the key that signs.
    pub(crate) fn newest_id(&self) -> String {
        self.newest().id()
    }

    /// The public half of the key that signs, in base64.
    pub(crate) fn newest_encoded(&self) -> String {
        encode(&self.newest().public())
    }

    /// Whether it is the public half of one of them, in base64.
    pub(crate) fn has_encoded(&self, public: &str) -> bool {
        decode_key(public).is_some_and(|public| self.has(public.as_slice()))
    }

    /// The key of a name such as `ed25519:0`.
    pub(crate) fn find(&self, id: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// Whether it is the public half of one of them.
    pub(crate) fn has(&self, public: &[u8]) -> bool {
        self.keys.iter().any(|key| key.public() == public)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(&self.keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Matrix appendices, "Test Vectors".
    const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

    fn vector(object: &Value) -> Value {
        let key = SigningKey::from_seed("1", &decode_key(SEED).unwrap()).unwrap();
        let mut object = object.as_object().unwrap().clone();
        key.sign("domain", &mut object).unwrap();
        assert!(verify(
            &object,
            &key.public(),
            &decode(
                object["signatures"]["domain"]["ed25519:1"]
                    .as_str()
                    .unwrap()
            )
            .unwrap()
        ));
        object["signatures"]["domain"]["ed25519:1"].clone()
    }

    #[test]
    fn signatures_are_those_of_the_specification() {
        let key = SigningKey::from_seed("1", &decode_key(SEED).unwrap()).unwrap();
        assert_eq!(
            encode(&key.public()),
            "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
        );
        assert_eq!(
            vector(&json!({})),
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
        );
        assert_eq!(
            vector(&json!({ "one": 1, "two": "Two" })),
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
        );
        // The object is that of the Identity Service API's example of `POST sign-ed25519`.
        assert_eq!(
            vector(&json!({ "mxid": "@foo:bar.com", "sender": "@baz:bar.com", "token": "abc123" })),
            "m6rWIAk7XyOljo72hR/3FbuNaq4j8B3FLzrskNgvdOYnXquLyCkljF+40RewSZbMKfF8FugVJOn8SVZxhgahCQ"
        );
    }

    #[test]
    fn the_canonical_form_is_that_of_the_specification() {
        for (object, wanted) in [
            (json!({}), "{}"),
            (json!({ "b": "2", "a": "1" }), r#"{"a":"1","b":"2"}"#),
            (json!({ "本": 2, "日": 1 }), r#"{"日":1,"本":2}"#),
            (json!({ "a": "\u{65e5}" }), r#"{"a":"日"}"#),
            (json!({ "a": null }), r#"{"a":null}"#),
            // By code point: UTF-16 would have the second one first.
            (
                json!({ "\u{10000}": 1, "\u{ff61}": 2 }),
                "{\"\u{ff61}\":2,\"\u{10000}\":1}",
            ),
            (
                json!({ "a": "\t\u{7f}\"\\/" }),
                "{\"a\":\"\\t\u{7f}\\\"\\\\/\"}",
            ),
        ] {
            assert_eq!(
                canonical(object.as_object().unwrap().clone()).unwrap(),
                wanted
            );
        }
        // -0 is refused too: it is read as a number with a fraction, although the specification writes 0 for it.
        for number in ["-0", "1.5", "9007199254740992", "-9007199254740992", "1e30"] {
            let object = serde_json::from_str(&format!("{{\"a\":{number}}}")).unwrap();
            assert!(canonical(object).is_err(), "{number}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_object_alone() {
        let (key, other) = (generate_seed(), generate_seed());
        let key = SigningKey::from_seed("0", &key).unwrap();
        let other = SigningKey::from_seed("0", &other).unwrap();
        let mut object = json!({ "a": 1, "unsigned": { "x": 1.5 } });
        let object = object.as_object_mut().unwrap();
        key.sign("example.org", object).unwrap();
        let signature = object["signatures"]["example.org"]["ed25519:0"].as_str();
        let signature = decode(signature.unwrap()).unwrap();
        assert!(verify(object, &key.public(), &signature));
        assert!(!verify(object, &other.public(), &signature));
        assert!(!verify(object, &key.public()[..31], &signature));
        assert!(!verify(object, &key.public(), &signature[..63]));
        object.insert("a".to_owned(), json!(2));
        assert!(!verify(object, &key.public(), &signature));
    }

    #[test]
    fn base64_is_read_in_every_form() {
        let bytes = [0xfb, 0xff, 0xbf, 0x01];
        for text in ["+/+/AQ", "+/+/AQ==", "-_-_AQ", "-_-_AQ==", " / /AQ"] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_slice()), "{text}");
        }
        for text in ["", "A"] {
            assert!(decode_key(text).is_none());
        }
        assert!(decode("*").is_none());
    }

    #[test]
    fn a_key_file_reads_back_and_a_rotation_keeps_the_older_key() {
        let first = SigningKeys::generate_file("");
        let second = SigningKeys::generate_file(&first);
        let (old, new) = (SigningKeys::parse(&first), SigningKeys::parse(&second));
        let (old, new) = (old.unwrap(), new.unwrap());

        assert_eq!(old.newest().id(), "ed25519:0");
        assert_eq!(new.newest().id(), "ed25519:1");
        assert!(new.has(&old.newest().public()) && new.find("ed25519:0").is_some());
        assert!(!old.has(&new.newest().public()) && old.find("ed25519:1").is_none());
        assert!(!encode(&old.newest().public()).contains(['+', '/']));
    }

    #[test]
    fn a_bad_key_file_is_refused_without_showing_it() {
        let seed = SEED;
        for file in [
            String::new(),
            "# nothing\n".to_owned(),
            format!("ed25519 {seed}"),
            format!("curve25519 0 {seed}"),
            format!("ed25519 0:1 {seed}"),
            format!("ed25519 0 {seed} x"),
            format!("ed25519 0 {seed}A"),
            format!("ed25519 0 {seed}\ned25519 0 {seed}"),
        ] {
            let refused = SigningKeys::parse(&file).unwrap_err();
            assert!(!refused.contains(&seed[..8]), "{refused}");
        }
    }
}
