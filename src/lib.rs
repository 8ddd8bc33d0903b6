//! Lets a Matrix homeserver prove, by itself, that a person owns an email address.

pub mod clock;
pub mod courier;
pub mod error;
pub mod homeserver;
mod http;
mod keys;
mod messages;
pub mod next_link;
mod proof;
pub mod rate;
pub mod secret;
pub mod session;
pub mod store;
pub mod threepid;

pub use keys::Keyring;
