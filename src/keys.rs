//! The server's keys: made once, kept in a file of their own, and what is derived from them.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{error::Error, secret::random};

const KEY_LENGTH: usize = 32;
const LABEL_LENGTH: usize = 16;

/// Names one key without telling it: the first four bytes of a MAC of nothing.
pub(crate) type KeyId = [u8; 4];

/// What a MAC is for. Labels have one length, so that no two inputs can run together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label {
    KeyId,
    Fingerprint,
    Sealing,
    Link,
    Code,
    ClientSecret,
    Scope,
    MessageId,
    Bucket,
    ServerPair,
    ServerScope,
    UserScope,
    Request,
    Uia,
    UiaSealing,
    Invite,
}

impl Label {
    fn bytes(self) -> [u8; LABEL_LENGTH] {
        *match self {
            Self::KeyId => b"threepid key id ",
            Self::Fingerprint => b"threepid fingerp",
            Self::Sealing => b"threepid sealing",
            Self::Link => b"threepid link   ",
            Self::Code => b"threepid code   ",
            Self::ClientSecret => b"threepid secret ",
            Self::Scope => b"threepid scope  ",
            Self::MessageId => b"threepid message",
            Self::Bucket => b"threepid bucket ",
            Self::ServerPair => b"threepid srvpair",
            Self::ServerScope => b"threepid srvscop",
            Self::UserScope => b"threepid usrscop",
            Self::Request => b"threepid request",
            Self::Uia => b"threepid uia    ",
            Self::UiaSealing => b"threepid uiaseal",
            Self::Invite => b"threepid invite ",
        }
    }
}

/// One key of the server and what its rows are sealed with.
pub(crate) struct Key {
    id: KeyId,
    mac: Hmac<Sha256>,
    sealing: Sealing,
}

/// What seals and opens values.
pub(crate) struct Sealing(LessSafeKey);

impl Key {
    fn new(bytes: &[u8; KEY_LENGTH]) -> Result<Self, String> {
        let mac = Hmac::<Sha256>::new_from_slice(bytes).map_err(|error| error.to_string())?;
        let sealing = Sealing::new(finish(&mac, Label::Sealing, &[]));
        let [a, b, c, d, ..] = finish(&mac, Label::KeyId, &[]);
        Ok(Self {
            id: [a, b, c, d],
            mac,
            sealing,
        })
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    /// HMAC-SHA-256 of the label and `parts`, each of which has a fixed length or stands last.
    pub(crate) fn mac(&self, label: Label, parts: &[&[u8]]) -> [u8; 32] {
        finish(&self.mac, label, parts)
    }

    /// As [`Sealing::seal`], with a key that is this key's alone.
    pub(crate) fn seal(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.sealing.seal(row, plain)
    }

    /// Opens what [`Key::seal`] made for the same row.
    pub(crate) fn open(&self, row: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        self.sealing.open(row, sealed)
    }

    /// A key that only whoever knows `name` can make of this one.
    pub(crate) fn sealing_of(&self, name: &[u8]) -> Sealing {
        Sealing::new(self.mac(Label::UiaSealing, &[name]))
    }
}

impl Sealing {
    fn new(key: [u8; 32]) -> Self {
        let key = Zeroizing::new(key);
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice());
        Self(LessSafeKey::new(
            key.expect("the key has the length of AES-256"),
        ))
    }

    /// Seals `plain` with AES-256-GCM; `row` names the row that it belongs to and can not be exchanged.
    pub(crate) fn seal(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(row),
                &mut sealed,
            )
            .map_err(|_| SealError)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Sealing::seal`] made for the same row.
    pub(crate) fn open(&self, row: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let mut plain = rest.to_vec();
        let length = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(row),
                &mut plain,
            )
            .map_err(|_| SealError)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

fn finish(mac: &Hmac<Sha256>, label: Label, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = mac.clone();
    mac.update(&label.bytes());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// A sealed value that does not open: another key, another row, or altered.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a sealed value does not open with this key")]
pub(crate) struct SealError;

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// The server's keys, newest first. The newest makes new links, codes and hashes; the others still check old ones.
pub struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// One fresh key, which lives as long as the process: for tests and for hosts that keep no store.
    ///
    /// # Errors
    /// If the system's cryptography refuses the key.
    pub fn generate() -> Result<Self, String> {
        Self::parse(&Self::generate_file())
    }

    /// The text of a new key file: one key of 32 random bytes in base64.
    #[must_use]
    pub fn generate_file() -> Zeroizing<String> {
        let key = Zeroizing::new(random::<KEY_LENGTH>());
        Zeroizing::new(format!(
            "# The server key: links, codes and stored hashes are made with it. Keep it secret, back it up.\n\
             # To rotate it, write a new key above it and leave the old one for two days.\n{}\n",
            STANDARD.encode(key.as_slice())
        ))
    }

    /// Reads a key file: one key a line, in base64, newest first; lines that begin with `#` are comments.
    ///
    /// # Errors
    /// A sentence that names the line which is no key, never the line's text.
    pub fn parse(file: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in file.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = Zeroizing::new(STANDARD.decode(line).unwrap_or_default());
            let bytes: &[u8; KEY_LENGTH] = bytes
                .as_slice()
                .try_into()
                .map_err(|_| format!("line {} is not a key of 32 bytes in base64", number + 1))?;
            keys.push(Key::new(bytes)?);
        }
        if keys.is_empty() {
            return Err("there is no key in it".to_owned());
        }
        Ok(Self { keys })
    }

    /// Tells the newest key from others without telling it: what the store remembers of it, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&self.newest().mac(Label::Fingerprint, &[])[..16])
    }

    /// The fingerprints of all keys, newest first.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys
            .iter()
            .map(|key| hex(&key.mac(Label::Fingerprint, &[])[..16]))
            .collect()
    }

    pub(crate) fn newest(&self) -> &Key {
        &self.keys[0]
    }

    /// All of them, the newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    pub(crate) fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

/// Bytes in hexadecimal, lower-case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads what [`hex`] writes, and capitals; `None` for any other length or letter.
#[cfg(feature = "server")]
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |letter: u8| char::from(letter).to_digit(16);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let value = digit(*high)? * 16 + digit(*low)?;
        *byte = u8::try_from(value).ok()?;
    }
    Some(bytes)
}

impl fmt::Debug for Keyring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Keyring({} keys)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_for_its_row_and_key_alone() {
        let (ours, theirs) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
        let sealed = ours
            .newest()
            .seal(b"row 1", b"https://a.org/?secret")
            .unwrap();
        assert_eq!(
            ours.newest().open(b"row 1", &sealed).unwrap(),
            b"https://a.org/?secret"
        );
        assert!(ours.newest().open(b"row 2", &sealed).is_err());
        assert!(theirs.newest().open(b"row 1", &sealed).is_err());
        assert!(ours.newest().open(b"row 1", b"short").is_err());
    }

    #[test]
    fn a_key_file_reads_back_newest_first() {
        let (new, old) = (Keyring::generate_file(), Keyring::generate_file());
        let ring = Keyring::parse(&format!("{}{}", *new, *old)).unwrap();
        assert_eq!(
            ring.fingerprint(),
            Keyring::parse(&new).unwrap().fingerprint()
        );
        let old = Keyring::parse(&old).unwrap();
        assert_eq!(ring.fingerprints()[1], old.fingerprint());
        assert!(ring.find(old.newest().id()).is_some());
        assert!(old.find(ring.newest().id()).is_none());
    }

    #[test]
    fn a_bad_key_file_is_refused_without_showing_it() {
        for bad in ["", "# nothing", "secret-but-short"] {
            assert!(!Keyring::parse(bad).unwrap_err().contains("secret-but"));
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn hexadecimal_is_read_whole() {
        for good in ["009fff", "009FFF"] {
            assert_eq!(unhex(good), Some([0, 0x9f, 0xff]), "{good}");
        }
        for bad in [
            "", "009ff", "009ffff", "009fff00", "009ffg", "+09fff", "é09ff",
        ] {
            assert_eq!(unhex::<3>(bad), None, "{bad}");
        }
    }
}
