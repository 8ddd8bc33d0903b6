//! How validation is done here.

use std::time::Duration;

use url::Url;

pub use crate::routing::Validate;
use crate::{
    id_server::IdServer,
    limits,
    next_link::NextLinkPolicy,
    policy,
    secret::AccessToken,
    session::{Lifetimes, Purpose},
    threepid::Medium,
};

/// What a mail holds: `[email] contents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contents {
    /// A link to click.
    Link,
    /// A code to type into the client.
    Code,
    /// Both.
    #[default]
    Both,
}

impl Contents {
    /// Whether a message holds a link.
    #[must_use]
    pub fn has_link(self) -> bool {
        self != Self::Code
    }

    /// Whether a message holds a code: then, and only then, clients are told a `submit_url` (MSC2078).
    #[must_use]
    pub fn has_code(self) -> bool {
        self != Self::Link
    }
}

/// Who validates addresses of one medium, for each purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validates {
    /// For signing up.
    pub register: Validate,
    /// For adding to an account.
    pub add: Validate,
    /// For resetting a password.
    pub password: Validate,
    /// For the users of our own identity server: [`Validate::Off`], or we do.
    pub identity: Validate,
}

impl Validates {
    /// The same for every purpose but our own identity server, which goes on.
    #[must_use]
    pub fn all(validate: Validate) -> Self {
        Self {
            register: validate,
            add: validate,
            password: validate,
            identity: Validate::Here,
        }
    }

    /// The same, but that a phone number opens no password reset, because numbers are given to other people after a
    /// while.
    #[must_use]
    pub fn all_but_password(validate: Validate) -> Self {
        Self {
            password: Validate::Off,
            ..Self::all(validate)
        }
    }

    pub(crate) fn of(self, purpose: Purpose) -> Validate {
        match purpose {
            Purpose::Register => self.register,
            Purpose::Add => self.add,
            Purpose::Password => self.password,
            Purpose::Identity => match self.identity {
                Validate::Off => Validate::Off,
                // Whoever asks an identity server asks nobody else.
                Validate::Here | Validate::ClientChoice | Validate::IdentityServer => {
                    Validate::Here
                }
            },
        }
    }
}

/// How addresses of one medium are validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumSettings {
    /// Who does it.
    pub validates: Validates,
    /// Whether we can send messages of this medium.
    pub has_transport: bool,
    /// What our messages hold.
    pub contents: Contents,
}

/// The identity servers that requests may be proxied to: `[identity_servers]`.
#[derive(Clone, Debug, Default)]
pub struct IdentityServers {
    /// Those that a client may name.
    pub trusted: Vec<IdServer>,
    /// The one that is used where a client names none, and the token of our own account there.
    pub default_server: Option<(IdServer, AccessToken)>,
    /// Whether a password may be reset with an address that an identity server vouches for: it could then take over
    /// every account.
    pub allow_password_reset: bool,
    /// Names of our own: a client that names one of them names nobody.
    pub ours: Vec<IdServer>,
}

impl IdentityServers {
    /// Whether the operator trusts no server at all.
    pub(crate) fn are_none(&self) -> bool {
        self.trusted.is_empty() && self.default_server.is_none()
    }

    /// Whether the operator trusts `server`.
    pub(crate) fn is_trusted(&self, server: &IdServer) -> bool {
        let is_default = matches!(&self.default_server, Some((default, _)) if default == server);
        is_default || self.trusted.contains(server)
    }
}

/// How validation is done here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Email addresses.
    pub email: MediumSettings,
    /// Phone numbers.
    pub msisdn: MediumSettings,
    /// To whom requests may be proxied.
    pub identity_servers: IdentityServers,
    /// How long things live.
    pub lifetimes: Lifetimes,
    /// How often things may happen.
    pub limits: limits::Settings,
    /// Which addresses are admitted.
    pub policy: policy::Settings,
    /// Where browsers may be sent.
    pub next_links: NextLinkPolicy,
    /// Whether it is told who has an account.
    pub reveal: bool,
    /// The base of every URL that is told to anybody.
    pub public_url: Url,
}

impl Settings {
    /// The settings of a medium.
    #[must_use]
    pub fn of(&self, medium: Medium) -> &MediumSettings {
        match medium {
            Medium::Email => &self.email,
            Medium::Msisdn => &self.msisdn,
        }
    }

    /// How long what a message holds works, the longer of both.
    pub(crate) fn useful_for(&self, medium: Medium) -> Duration {
        if self.of(medium).contents.has_link() {
            self.lifetimes.link
        } else {
            self.lifetimes.code
        }
    }
}
