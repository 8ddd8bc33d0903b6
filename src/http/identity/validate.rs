//! Asking for a token, and showing it.

use crate::error::Error;

pub(crate) async fn request_email() -> Error {
    Error::Unrecognized
}

pub(crate) async fn request_msisdn() -> Error {
    Error::Unrecognized
}

pub(crate) async fn submit_email() -> Error {
    Error::Unrecognized
}

pub(crate) async fn submit_msisdn() -> Error {
    Error::Unrecognized
}

pub(crate) async fn show_email() -> Error {
    Error::Unrecognized
}

pub(crate) async fn show_msisdn() -> Error {
    Error::Unrecognized
}

pub(crate) async fn head() -> Error {
    Error::Unrecognized
}
