//! What the tests share: small real servers.

pub(crate) mod accounts;
pub(crate) mod app;
pub(crate) mod certificates;
pub(crate) mod federation;
pub(crate) mod gateway;
pub(crate) mod homeserver;
pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod openapi;
pub(crate) mod recorded;
pub(crate) mod resets;
pub(crate) mod smtp;
mod stored;
pub(crate) mod upstream;
