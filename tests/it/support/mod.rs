//! What the tests share: small real servers.

pub(crate) mod smtp;
