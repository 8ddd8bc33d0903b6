//! Who is found by which address.

use crate::error::Error;

pub(crate) async fn hash_details() -> Error {
    Error::Unrecognized
}

pub(crate) async fn look_up() -> Error {
    Error::Unrecognized
}
