//! The Client-Server API's handlers, and those of the URLs that it tells to clients and people.

pub(super) mod contacts;
pub(super) mod discovery;
pub(super) mod fallback;
pub(super) mod link;
pub(super) mod password;
pub(super) mod register;
pub(super) mod request_token;
pub(super) mod submit_token;
pub(super) mod uia;
