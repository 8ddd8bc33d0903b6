//! Lets a Matrix homeserver prove, by itself, that a person owns an email address.

pub mod clock;
pub mod courier;
pub mod error;
pub mod homeserver;
mod keys;
pub mod limits;
pub mod next_link;
pub mod policy;
mod proof;
pub mod rate;
pub mod secret;
pub mod session;
pub mod source;
pub mod store;
pub mod threepid;
pub mod validation;

pub use keys::Keyring;
