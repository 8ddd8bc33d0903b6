//! Accounts: registering with the word of one's homeserver, and logging out.

use crate::error::Error;

pub(crate) async fn versions() -> Error {
    Error::Unrecognized
}

pub(crate) async fn ping() -> Error {
    Error::Unrecognized
}

pub(crate) async fn whoami() -> Error {
    Error::Unrecognized
}

pub(crate) async fn register() -> Error {
    Error::Unrecognized
}

pub(crate) async fn logout() -> Error {
    Error::Unrecognized
}
