//! How the identity server does its work: `[identity]`.

use std::{collections::BTreeMap, time::Duration};

use crate::{id_server::IdServer, server_name::ServerName};

/// How the identity server does its work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, a host and perhaps a port: it signs under it, and homeservers sign requests for it.
    pub name: IdServer,
    /// Further names that homeservers may sign requests for.
    pub aliases: Vec<IdServer>,
    /// What users must accept, by the policy's name; empty: nothing.
    pub terms: BTreeMap<String, Policy>,
    /// The homeservers whose users may register; empty: all.
    pub homeservers: Vec<ServerName>,
    /// How long a token works that is not used.
    pub token_lifetime: Duration,
    /// How many tokens a user may have; the oldest give way.
    pub tokens_per_user: u32,
    /// Whether addresses may be looked up in clear (the algorithm `none`) besides `sha256`.
    pub plain_lookups: bool,
    /// How many addresses one lookup may have.
    pub lookup_addresses: usize,
    /// How long a pepper is used; `None`: for ever.
    pub pepper_lifetime: Option<Duration>,
    /// How long an invitation can be used.
    pub invite_lifetime: Duration,
    /// How many open invitations an address may have.
    pub invites_per_address: u32,
    /// Whether forms and the query's `access_token` are taken besides JSON and the header: what the API had before 2019.
    pub legacy: bool,
}

impl Settings {
    /// The defaults, for a server of this name.
    #[must_use]
    pub fn new(name: IdServer) -> Self {
        Self {
            name,
            aliases: Vec::new(),
            terms: BTreeMap::new(),
            homeservers: Vec::new(),
            token_lifetime: Duration::from_hours(30 * 24),
            tokens_per_user: 50,
            plain_lookups: false,
            lookup_addresses: 10_000,
            pepper_lifetime: Some(Duration::from_hours(24)),
            invite_lifetime: Duration::from_hours(180 * 24),
            invites_per_address: 50,
            legacy: false,
        }
    }

    /// Whether requests may be signed for this name.
    pub(crate) fn is_ours(&self, destination: &str) -> bool {
        let named = destination.parse::<IdServer>();
        named.is_ok_and(|named| named == self.name || self.aliases.contains(&named))
    }
}

/// One policy, such as the terms of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its version. Who accepted another one must accept this one too.
    pub version: String,
    /// Its text, by language.
    pub texts: BTreeMap<String, PolicyText>,
}

/// Where a policy can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// Its name in that language.
    pub name: String,
    /// Its address, which names policy, version and language.
    pub url: String,
}
