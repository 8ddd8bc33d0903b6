//! The configuration: one typed struct, made of defaults, a TOML file and the environment, in this order.
//!
//! `examples/config.toml` explains every key.

use serde::{Deserialize, Serialize};

mod check;
mod homeserver;
mod identity;
mod known;
mod load;
mod others;
mod registration;
mod secret_files;
mod sections;
mod sms;
#[cfg(test)]
mod tests;
mod values;

use crate::{
    session::Purpose,
    threepid::Medium,
    validation::{Validate, Validates},
};
use homeserver::{Accounts, Delegate};
pub(crate) use homeserver::{Homeserver, HomeserverKind};
use identity::Identity;
pub(crate) use load::{Loaded, load};
use others::{IdentityServers, Outbound};
pub(crate) use registration::RegistrationWay;
use sections::{Email, Limits, NextLinks, Pages, Policy, Secrets, Server, Sessions, Storage};
pub(crate) use sections::{Log, LogFormat, PurposePolicy};
use sms::Sms;
pub(crate) use sms::SmsTransport;

/// All that can be configured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) storage: Storage,
    pub(crate) secrets: Secrets,
    pub(crate) homeserver: Homeserver,
    pub(crate) email: Email,
    pub(crate) sms: Sms,
    pub(crate) identity_servers: IdentityServers,
    pub(crate) identity: Identity,
    pub(crate) outbound: Outbound,
    pub(crate) accounts: Accounts,
    pub(crate) delegate: Delegate,
    pub(crate) sessions: Sessions,
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    pub(crate) next_links: NextLinks,
    pub(crate) pages: Pages,
    pub(crate) log: Log,
}

impl Config {
    /// The name of the homeserver: the one that is written, else the host of the public URL.
    pub(crate) fn server_name(&self) -> String {
        if let Some(name) = &self.server.server_name {
            return name.clone();
        }
        if self.server.is_for_this_machine() {
            return "localhost".to_owned();
        }
        self.server
            .public_url()
            .host_str()
            .unwrap_or("localhost")
            .to_owned()
    }

    /// Who validates addresses of a medium. Without a homeserver there is no password to reset.
    pub(crate) fn validates(&self, medium: Medium) -> Validates {
        let written = match medium {
            Medium::Email => self.email.validates(),
            Medium::Msisdn => self.sms.validates(),
        };
        match self.homeserver.kind {
            HomeserverKind::None => Validates {
                password: Validate::Off,
                ..written
            },
            HomeserverKind::Local
            | HomeserverKind::Synapse
            | HomeserverKind::Dendrite
            | HomeserverKind::Webhook => written,
        }
    }

    /// Whether any address of a medium is validated at all, be it for the users of our identity server.
    pub(crate) fn is_on(&self, medium: Medium) -> bool {
        let validates = self.validates(medium);
        Purpose::ALL.iter().any(|purpose| {
            let is_there = *purpose != Purpose::Identity || self.identity.enabled;
            is_there && validates.of(*purpose) != Validate::Off
        })
    }

    /// Who the mails come from.
    pub(crate) fn from(&self) -> String {
        let server_name = self.server_name();
        let host = values::without_port(&server_name);
        let default = || format!("threepid <no-reply@{host}>");
        self.email.from.clone().unwrap_or_else(default)
    }
}
