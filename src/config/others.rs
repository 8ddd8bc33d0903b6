//! `[identity_servers]` and `[outbound]`: other servers, and the calls to them.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    Config,
    sections::hidden,
    values::{List, Network, Server, Span},
};
use crate::{id_server::IdServer, outbound, secret::AccessToken, validation};

/// Whom requests may be passed on to.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdentityServers {
    pub(crate) trusted: List<Server>,
    pub(crate) default_server: Option<Server>,
    #[serde(serialize_with = "hidden")]
    pub(crate) default_server_token: Option<SecretString>,
    pub(crate) default_server_token_file: Option<PathBuf>,
    pub(crate) allow_password_reset: bool,
}

impl IdentityServers {
    /// Whether there is anybody at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.trusted.0.is_empty() && self.default_server.is_none()
    }

    /// The names of all that are trusted; the default one, which is trusted too, last.
    pub(crate) fn names(&self) -> Vec<String> {
        let default = self.default_server.iter();
        let default = default.filter(|server| !self.trusted.0.contains(server));
        let trusted = self.trusted.0.iter();
        trusted
            .chain(default)
            .map(|Server(server)| server.to_string())
            .collect()
    }

    /// Our token at the default server.
    ///
    /// # Errors
    /// Why it is none; never what it is.
    pub(crate) fn token(&self) -> Result<Option<AccessToken>, String> {
        let Some(token) = &self.default_server_token else {
            return Ok(None);
        };
        AccessToken::parse(token.expose_secret())
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

/// How other servers are called.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outbound {
    pub(crate) allow: List<Network>,
    pub(crate) ca_files: List<PathBuf>,
    pub(crate) danger_accept_invalid_certs: bool,
    pub(crate) timeout: Span,
}

impl Default for Outbound {
    fn default() -> Self {
        let outbound = outbound::Settings::default();
        Self {
            allow: List(outbound.allow.into_iter().map(Network).collect()),
            ca_files: List(outbound.ca_files),
            danger_accept_invalid_certs: outbound.danger_accept_invalid_certs,
            timeout: Span(outbound.timeout),
        }
    }
}

impl Outbound {
    /// The same, as whoever calls takes it.
    pub(crate) fn settings(&self) -> outbound::Settings {
        outbound::Settings {
            allow: self
                .allow
                .0
                .iter()
                .map(|Network(network)| *network)
                .collect(),
            ca_files: self.ca_files.0.clone(),
            danger_accept_invalid_certs: self.danger_accept_invalid_certs,
            timeout: self.timeout.0,
        }
    }
}

impl Config {
    /// The identity servers, and which of their names are our own.
    ///
    /// # Errors
    /// Why our token at the default server is none.
    pub(crate) fn identity_servers(&self) -> Result<validation::IdentityServers, String> {
        let written = &self.identity_servers;
        let default = written.default_server.clone().map(|Server(server)| server);
        Ok(validation::IdentityServers {
            trusted: written
                .trusted
                .0
                .iter()
                .map(|Server(server)| server.clone())
                .collect(),
            default_server: default.zip(written.token()?),
            allow_password_reset: written.allow_password_reset,
            ours: self.own_names(),
        })
    }

    /// What a client may call us in `id_server`: a client that names one of these names nobody.
    fn own_names(&self) -> Vec<IdServer> {
        let of_identity = self.identity.name.iter().chain(&self.identity.aliases.0);
        let of_identity = of_identity.filter(|_| self.identity.enabled);
        let mut ours: Vec<IdServer> = Vec::new();
        let names = self.name_of_public_url().into_iter();
        let names = names.chain(self.server_name().parse());
        for name in names.chain(of_identity.map(|Server(name)| name.clone())) {
            if !ours.contains(&name) {
                ours.push(name);
            }
        }
        ours
    }
}
