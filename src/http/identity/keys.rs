//! Signing keys.

use crate::error::Error;

pub(crate) async fn is_valid() -> Error {
    Error::Unrecognized
}

pub(crate) async fn is_ephemeral_valid() -> Error {
    Error::Unrecognized
}

pub(crate) async fn public_key() -> Error {
    Error::Unrecognized
}
