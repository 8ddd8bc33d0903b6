//! Terms: what users must accept.

use crate::error::Error;

pub(crate) async fn show() -> Error {
    Error::Unrecognized
}

pub(crate) async fn accept() -> Error {
    Error::Unrecognized
}
