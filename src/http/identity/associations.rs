//! Associations.

use crate::error::Error;

pub(crate) async fn validated() -> Error {
    Error::Unrecognized
}

pub(crate) async fn bind() -> Error {
    Error::Unrecognized
}

pub(crate) async fn unbind() -> Error {
    Error::Unrecognized
}
