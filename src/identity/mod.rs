//! The identity server: whom an address leads to (Identity Service API v2).
//!
//! It is a second skin on the rules of [`crate::validation`], with what an identity server does besides: accounts, terms,
//! associations, look-ups and invitations.

mod accounts;
pub(crate) mod associations;
pub(crate) mod invites;
mod keys;
pub(crate) mod lookup;
mod onbind;
mod rotation;
mod settings;
mod terms;
pub(crate) mod unbind;
pub(crate) mod validate;

use std::{fmt, sync::Arc};

use tokio::sync::Notify;

pub use self::settings::{Policy, PolicyText, Settings};
use crate::{
    federation::Federation, outbox::Deliveries, signing::SigningKeys, validation::Validation,
};

/// The rules of the identity server, and what they ask.
pub(crate) struct IdentityRules {
    pub(crate) settings: Settings,
    pub(crate) signing: SigningKeys,
    pub(crate) federation: Federation,
    pub(crate) validation: Arc<Validation>,
    /// Who sends messages: an identity server says so when none can be sent.
    pub(crate) deliveries: Arc<[Arc<Deliveries>]>,
    /// Requests that show whether messages can be sent again.
    pub(crate) let_through: validate::LetThrough,
    /// Wakes whoever tells homeservers of associations.
    pub(crate) onbind_wake: Notify,
}

impl fmt::Debug for IdentityRules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("IdentityRules")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
