//! Dendrite: accounts by the Client-Server API, and their passwords by its admin API.
//!
//! It tells nobody who has an address, so that is kept in a table of ours; at most it holds a copy.

mod accounts;
mod registrar;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use url::Url;

use crate::{
    error::{Error, Result},
    homeserver::api::Client,
    id_server::IdServer,
    secret::AccessToken,
};

/// Where the homeserver is, and who we are there: `[homeserver]`.
#[derive(Clone, Debug)]
pub struct DendriteSettings {
    /// The base of its URLs: `http` or `https`, as it is reached from here. Nothing that routes requests back to us.
    pub url: Url,
    /// The access token of a server admin. Without one no password is set.
    pub admin_token: Option<AccessToken>,
    /// What it calls us as its identity server, letter for letter as in its `trusted_third_party_id_servers`: then it keeps
    /// a copy of each address that is added, and asks us for it at `https://` and this name. Without one it keeps none.
    pub id_server_name: Option<String>,
    /// The longest that one call takes, from the name to the last byte.
    pub timeout: Duration,
    /// Files with further certificates (PEM) to trust.
    pub ca_files: Vec<PathBuf>,
}

/// A Dendrite, as account side.
///
/// It makes accounts by its own `/register`, which remembers a session for five minutes and takes the name of one that it
/// does not know for that of a new one.
pub struct Dendrite {
    client: Client,
    admin_token: Option<AccessToken>,
    id_server_name: Option<String>,
}

impl fmt::Debug for Dendrite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Dendrite")
            .field("client", &self.client)
            .field("has_admin_token", &self.admin_token.is_some())
            .field("id_server_name", &self.id_server_name)
            .finish()
    }
}

impl Dendrite {
    /// Prepares to call a homeserver; calls nobody yet.
    ///
    /// # Errors
    /// A sentence that names the setting that can not be used, and what to write instead.
    pub fn new(settings: DendriteSettings) -> Result<Arc<Self>, String> {
        if let Some(Err(why)) = settings.admin_token.as_ref().map(AccessToken::check) {
            return Err(format!("homeserver.admin_token can not be used: {why}"));
        }
        let name = settings.id_server_name.as_deref();
        if let Some(Err(why)) = name.map(str::parse::<IdServer>) {
            return Err(format!(
                "homeserver.id_server_name can not be used: {why}, as in Dendrite's trusted_third_party_id_servers"
            ));
        }
        let client = Client::new(&settings.url, settings.timeout, &settings.ca_files)?;
        Ok(Arc::new(Self {
            client,
            admin_token: settings.admin_token,
            id_server_name: settings.id_server_name,
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
}
