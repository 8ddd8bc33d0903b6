//! Invitations.

use crate::error::Error;

pub(crate) async fn store() -> Error {
    Error::Unrecognized
}

pub(crate) async fn sign() -> Error {
    Error::Unrecognized
}
