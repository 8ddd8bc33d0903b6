//! Signing keys, as whoever checks a signature asks for them.

use super::IdentityRules;
use crate::{
    error::{Error, Result},
    signing::{PublicKey, decode_key, encode},
};

impl IdentityRules {
    /// The public half of a signing key of ours, in unpadded base64; `key_id` is a name such as `ed25519:0`.
    ///
    /// # Errors
    /// [`Error::UnknownKey`].
    pub(crate) fn public_key(&self, key_id: &str) -> Result<String> {
        let key = self.signing.find(key_id).ok_or(Error::UnknownKey)?;
        Ok(encode(&key.public()))
    }

    /// Whether it is the public half of a signing key of ours, the newest or an older one. What is no key at all is none of
    /// ours.
    pub(crate) fn is_own_key(&self, public_key: &str) -> bool {
        read(public_key).is_some_and(|public_key| self.signing.has(&public_key))
    }

    /// Whether it is the public half of the key of an open invitation. What is no key at all is none.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn is_ephemeral_key(&self, public_key: &str) -> Result<bool> {
        let Some(public_key) = read(public_key) else {
            return Ok(false);
        };
        let now = self.validation.clock.now();
        let store = &self.validation.store;
        Ok(store.is_ephemeral_key(public_key, now).await?)
    }
}

fn read(public_key: &str) -> Option<PublicKey> {
    decode_key(public_key).map(|public_key| *public_key)
}
