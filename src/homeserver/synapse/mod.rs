//! Synapse, and what speaks as it does: accounts by the Client-Server API, and their addresses and passwords by the admin
//! API.

mod accounts;
mod detect;
mod directory;
mod list;
mod registrar;
mod shared_secret;
mod unsettled;
mod users;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use url::Url;

pub use self::shared_secret::SharedSecret;
use self::unsettled::Unsettled;
use crate::{
    error::{Error, Result},
    homeserver::api::Client,
    secret::AccessToken,
    turns::Turns,
};

/// Where the homeserver is, and who we are there: `[homeserver]`.
#[derive(Clone, Debug)]
pub struct SynapseSettings {
    /// The base of its URLs: `http` or `https`, as it is reached from here. Nothing that routes requests back to us.
    pub url: Url,
    /// The access token of a server admin. Without one there is no directory, and no password is set.
    pub admin_token: Option<AccessToken>,
    /// The longest that one call takes, from the name to the last byte.
    pub timeout: Duration,
    /// Files with further certificates (PEM) to trust.
    pub ca_files: Vec<PathBuf>,
    /// How accounts are made, if we stand before its `/register`.
    pub registration: Registration,
}

/// How accounts are made at a Synapse.
#[derive(Clone, Debug)]
pub enum Registration {
    /// By its own `/register`, whose stages clients do. With a `token` that nobody but us knows, and a Synapse that
    /// demands one, nobody registers without us.
    Overlay {
        /// The registration token; its stage is ours.
        token: Option<AccessToken>,
    },
    /// By its own `/register` and such a token alone: captcha and terms are lost.
    Token(AccessToken),
    /// By the secret that it shares: see [`SharedSecret`].
    SharedSecret(SharedSecret),
}

impl Default for Registration {
    fn default() -> Self {
        Self::Overlay { token: None }
    }
}

/// A homeserver with Synapse's admin API, as directory and as account side.
///
/// Its `PUT users/{id}` replaces the whole list of an account's addresses, with nothing to compare it with, and takes an
/// address from whoever has it. So all changes of one account, and all that give one address away, go one after the
/// other here, and are read back. That holds within one process: there must be no second writer.
pub struct Synapse {
    client: Client,
    admin_token: Option<AccessToken>,
    registration: Registration,
    turns: Turns,
    unsettled: Unsettled,
}

impl fmt::Debug for Synapse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Synapse")
            .field("client", &self.client)
            .field("has_admin_token", &self.admin_token.is_some())
            .finish_non_exhaustive()
    }
}

impl Synapse {
    /// Prepares to call a homeserver; calls nobody yet.
    ///
    /// # Errors
    /// A sentence that names the setting that can not be used, and what to write instead.
    pub fn new(settings: SynapseSettings) -> Result<Arc<Self>, String> {
        if let Some(Err(why)) = settings.admin_token.as_ref().map(AccessToken::check) {
            return Err(format!("homeserver.admin_token can not be used: {why}"));
        }
        let client = Client::new(&settings.url, settings.timeout, &settings.ca_files)?;
        Ok(Arc::new(Self {
            client,
            admin_token: settings.admin_token,
            registration: settings.registration,
            turns: Turns::default(),
            unsettled: Unsettled::default(),
        }))
    }

    /// The admin's token.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`] if there is none.
    fn admin(&self) -> Result<&AccessToken> {
        let missing = || {
            let cause = "there is no admin token for the homeserver: write one into homeserver.admin_token_file";
            Error::HomeserverFailed(cause.to_owned())
        };
        self.admin_token.as_ref().ok_or_else(missing)
    }

    /// The secret that it shares.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`] if there is none.
    fn secret(&self) -> Result<&SharedSecret> {
        if let Registration::SharedSecret(secret) = &self.registration {
            return Ok(secret);
        }
        let cause = "there is no shared secret for the homeserver";
        Err(Error::HomeserverFailed(cause.to_owned()))
    }
}
