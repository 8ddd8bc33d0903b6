//! Lets a Matrix homeserver prove, by itself, that a person owns an email address or a phone
//! number.
//!
//! Everything is one of two steps: *ask for a token* and *show the token*. A homeserver in Rust mounts
//! [`Threepid::email_router`] and calls [`Threepid::validation`] when it needs the proof; others run the binary beside
//! them.
//!
//! From the inside out:
//!
//! - values that can not be wrong: [`threepid`], [`secret`], [`next_link`], [`rate`], [`source`], [`session`], and the
//!   server's keys ([`Keyring`]);
//! - rules: [`validation`] (both steps, and the use of a proof), [`limits`], [`policy`], the outbox and the texts;
//! - ports, and what stands behind them: [`store`], [`courier`], [`homeserver`];
//! - the wire: [`http`].
//!
//! Whoever wants to know how a request is answered reads three functions: the handler, the rule, the table of errors
//! ([`Error::wire`](error::Error::wire)).

mod account;
mod background;
mod builder;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
mod config;
pub mod courier;
pub mod error;
pub mod federation;
pub mod homeserver;
mod host;
pub mod http;
pub mod id_server;
pub mod identity;
pub mod identity_client;
mod in_flight;
pub mod key_file;
mod keys;
pub mod limits;
mod lookup_hash;
mod loopback;
mod matrix_error;
mod messages;
pub mod next_link;
pub mod outbound;
mod outbox;
pub mod password;
pub mod phone;
pub mod policy;
mod proof;
pub mod rate;
mod routing;
pub mod secret;
pub mod server_name;
pub mod session;
mod signing;
pub mod source;
pub mod store;
pub mod threepid;
mod turns;
mod user_id;
pub mod validation;
mod x_matrix;

pub use background::Background;
pub use builder::{Builder, Threepid};
pub use error::Error;
pub use keys::Keyring;
pub use signing::SigningKeys;
