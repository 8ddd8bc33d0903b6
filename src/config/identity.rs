//! `[identity]`: our own identity server.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Config,
    values::{List, Server, Span},
};
use crate::{
    id_server::IdServer,
    identity::{Policy, PolicyText, Settings},
    server_name::ServerName,
};

/// The algorithms of a lookup (Identity Service API, "Supported algorithms").
const SHA256: &str = "sha256";
const NONE: &str = "none";

/// Whether and how we are an identity server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    pub(crate) enabled: bool,
    pub(crate) name: Option<Server>,
    pub(crate) aliases: List<Server>,
    pub(crate) signing_key_file: PathBuf,
    pub(crate) homeservers: List<String>,
    pub(crate) token_lifetime: Span,
    pub(crate) tokens_per_user: u32,
    pub(crate) lookup_algorithms: List<String>,
    pub(crate) lookup_addresses: usize,
    /// A time, or `off`.
    pub(crate) pepper_lifetime: String,
    pub(crate) invite_lifetime: Span,
    pub(crate) invites_per_address: u32,
    pub(crate) legacy: bool,
    /// By the policy's name.
    pub(crate) terms: BTreeMap<String, Terms>,
}

/// One policy: its version, and by language where it can be read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Terms {
    pub(crate) version: String,
    #[serde(flatten)]
    pub(crate) texts: BTreeMap<String, Text>,
}

/// Where a policy can be read in one language.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Default for Identity {
    fn default() -> Self {
        let name = "localhost".parse().expect("a literal that is a host");
        let defaults = Settings::new(name);
        Self {
            enabled: false,
            name: None,
            aliases: List::default(),
            signing_key_file: PathBuf::from("threepid-data/signing.key"),
            homeservers: List::default(),
            token_lifetime: Span(defaults.token_lifetime),
            tokens_per_user: defaults.tokens_per_user,
            lookup_algorithms: List(vec![SHA256.to_owned()]),
            lookup_addresses: defaults.lookup_addresses,
            pepper_lifetime: defaults
                .pepper_lifetime
                .map_or_else(|| "off".to_owned(), |span| Span(span).to_string()),
            invite_lifetime: Span(defaults.invite_lifetime),
            invites_per_address: defaults.invites_per_address,
            legacy: false,
            terms: BTreeMap::new(),
        }
    }
}

impl Identity {
    /// How long a pepper is used; `None`: for ever.
    pub(super) fn pepper_lifetime(&self) -> Result<Option<Duration>, String> {
        if self.pepper_lifetime == "off" {
            return Ok(None);
        }
        let Span(span) = self
            .pepper_lifetime
            .parse()
            .map_err(|why| format!("{why}, or \"off\""))?;
        if span < Duration::from_mins(10) {
            let why = "clients would hash in vain all the time; write 10m at least, or \"off\"";
            return Err(why.to_owned());
        }
        Ok(Some(span))
    }

    /// Whether addresses may be looked up in clear.
    pub(super) fn plain_lookups(&self) -> Result<bool, String> {
        let algorithms = &self.lookup_algorithms.0;
        let is_known = |name: &String| [SHA256, NONE].contains(&name.as_str());
        if !algorithms.iter().all(is_known) || !algorithms.iter().any(|name| name == SHA256) {
            return Err(
                "every client must find sha256; write [\"sha256\"], or [\"sha256\", \"none\"]"
                    .to_owned(),
            );
        }
        Ok(algorithms.iter().any(|name| name == NONE))
    }

    /// The homeservers whose users may register.
    pub(super) fn homeservers(&self) -> Result<Vec<ServerName>, String> {
        let read = |name: &String| name.parse().map_err(|why| format!("{name:?}: {why}"));
        self.homeservers.0.iter().map(read).collect()
    }
}

impl Config {
    /// What the identity server does, if there is one.
    ///
    /// # Errors
    /// What does not work.
    pub(crate) fn identity(&self) -> Result<Option<Settings>, String> {
        let written = &self.identity;
        if !written.enabled {
            return Ok(None);
        }
        let name = self.identity_name().ok_or("it has no name")?;
        let text = |text: &Text| PolicyText {
            name: text.name.clone(),
            url: text.url.clone(),
        };
        let policy = |terms: &Terms| Policy {
            version: terms.version.clone(),
            texts: terms
                .texts
                .iter()
                .map(|(language, found)| (language.clone(), text(found)))
                .collect(),
        };
        Ok(Some(Settings {
            aliases: self.identity_aliases(&name),
            terms: written
                .terms
                .iter()
                .map(|(id, terms)| (id.clone(), policy(terms)))
                .collect(),
            homeservers: written.homeservers()?,
            token_lifetime: written.token_lifetime.0,
            tokens_per_user: written.tokens_per_user,
            plain_lookups: written.plain_lookups()?,
            lookup_addresses: written.lookup_addresses,
            pepper_lifetime: written.pepper_lifetime()?,
            invite_lifetime: written.invite_lifetime.0,
            invites_per_address: written.invites_per_address,
            legacy: written.legacy,
            ..Settings::new(name)
        }))
    }

    /// The identity server's name: the one that is written, else that of the public URL.
    pub(crate) fn identity_name(&self) -> Option<IdServer> {
        match &self.identity.name {
            Some(Server(name)) => Some(name.clone()),
            None => self.name_of_public_url(),
        }
    }

    /// Its other names. That of the public URL is always one: clients may know the server by it.
    fn identity_aliases(&self, name: &IdServer) -> Vec<IdServer> {
        let written = self.identity.aliases.0.iter();
        let written = written.map(|Server(alias)| alias.clone());
        let all = written.chain(self.name_of_public_url());
        all.filter(|alias| alias != name).collect()
    }

    /// Host and port of the public URL.
    pub(super) fn name_of_public_url(&self) -> Option<IdServer> {
        let public_url = self.server.public_url();
        let host = public_url.host_str().unwrap_or_default();
        match public_url.port() {
            Some(port) => format!("{host}:{port}").parse().ok(),
            None => host.parse().ok(),
        }
    }
}
