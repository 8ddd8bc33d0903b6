//! `[homeserver]`, `[accounts]` and `[delegate]`: who keeps the accounts, what they may do here, and which homeservers
//! hand their validations over to us.

use std::{convert::Infallible, path::PathBuf, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use url::Url;

use super::{
    Config,
    registration::RegistrationWay,
    sections::hidden,
    values::{List, Network, Span, choice, optional_choice, plain_url},
};
use crate::{
    homeserver::registration::Requires,
    http::delegate::{self, Prefix},
    secret::AccessToken,
    threepid::Medium,
};

/// Who keeps the accounts.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Homeserver {
    pub(crate) kind: HomeserverKind,
    pub(crate) url: Option<HomeserverUrl>,
    #[serde(serialize_with = "hidden")]
    pub(crate) admin_token: Option<SecretString>,
    pub(crate) admin_token_file: Option<PathBuf>,
    #[serde(deserialize_with = "choice")]
    pub(crate) phone_numbers: PhoneNumbers,
    /// Our own name, letter by letter as Dendrite trusts it.
    pub(crate) id_server_name: Option<String>,
    /// The first one signs.
    #[serde(serialize_with = "none_at_all")]
    pub(crate) webhook_keys: List<SecretKey>,
    /// One on each line.
    pub(crate) webhook_keys_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional_choice")]
    pub(crate) registration: Option<RegistrationWay>,
    #[serde(serialize_with = "hidden")]
    pub(crate) registration_token: Option<SecretString>,
    pub(crate) registration_token_file: Option<PathBuf>,
    #[serde(serialize_with = "hidden")]
    pub(crate) registration_shared_secret: Option<SecretString>,
    pub(crate) registration_shared_secret_file: Option<PathBuf>,
    /// For one call.
    pub(crate) timeout: Span,
    pub(crate) ca_files: List<PathBuf>,
}

impl Default for Homeserver {
    fn default() -> Self {
        Self {
            kind: HomeserverKind::Local,
            url: None,
            admin_token: None,
            admin_token_file: None,
            phone_numbers: PhoneNumbers::Homeserver,
            id_server_name: None,
            webhook_keys: List::default(),
            webhook_keys_file: None,
            registration: None,
            registration_token: None,
            registration_token_file: None,
            registration_shared_secret: None,
            registration_shared_secret_file: None,
            timeout: Span(Duration::from_secs(5)),
            ca_files: List::default(),
        }
    }
}

impl Homeserver {
    /// Where it answers, if it is asked.
    pub(crate) fn url(&self) -> Option<&Url> {
        self.url.as_ref().map(|HomeserverUrl(url)| url)
    }

    /// The access token of an administrator's account.
    ///
    /// # Errors
    /// Why it is none; never what it is.
    pub(crate) fn admin_token(&self) -> Result<Option<AccessToken>, String> {
        token(self.admin_token.as_ref())
    }

    /// Whether our own table says who has an address of a medium.
    pub(crate) fn keeps_here(&self, medium: Medium) -> bool {
        match self.kind {
            HomeserverKind::Local | HomeserverKind::Dendrite => true,
            HomeserverKind::Synapse => {
                medium == Medium::Msisdn && self.phone_numbers == PhoneNumbers::Here
            }
            HomeserverKind::None | HomeserverKind::Webhook => false,
        }
    }
}

/// A token, if one is written.
///
/// # Errors
/// Why it is none; never what it is.
pub(super) fn token(written: Option<&SecretString>) -> Result<Option<AccessToken>, String> {
    let parsed = written.map(|text| AccessToken::parse(text.expose_secret()));
    parsed.transpose().map_err(|error| error.to_string())
}

/// Which homeserver it is: what stands behind `Directory` and `Accounts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "kebab-case")]
pub(crate) enum HomeserverKind {
    /// A table of our own has the addresses.
    #[default]
    Local,
    /// There is none that we could ask.
    None,
    /// Synapse has the addresses, and is asked through its admin API.
    Synapse,
    /// A table of our own has the addresses; Dendrite has the accounts.
    Dendrite,
    /// Any homeserver, which takes our signed calls.
    Webhook,
}

impl TryFrom<String> for HomeserverKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "local" => Ok(Self::Local),
            "none" => Ok(Self::None),
            "synapse" => Ok(Self::Synapse),
            "dendrite" => Ok(Self::Dendrite),
            "webhook" => Ok(Self::Webhook),
            _ => Err(format!(
                "{text:?} is not known; write \"local\" (threepid itself keeps which account has which address), \
                 \"synapse\", \"dendrite\", \"webhook\" or \"none\""
            )),
        }
    }
}

/// Who keeps the phone numbers of accounts, while Synapse's admin API keeps the email addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PhoneNumbers {
    /// The homeserver, as the email addresses.
    Homeserver,
    /// A table of our own: tuwunel keeps none.
    Here,
}

/// Where the homeserver answers: what stands before `/_matrix` in its paths, or before the paths of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct HomeserverUrl(pub(crate) Url);

impl<'de> Deserialize<'de> for HomeserverUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl FromStr for HomeserverUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as \"http://127.0.0.1:8008\"";
        plain_url(text)
            .map(Self)
            .map_err(|why| format!("{why}; {FORM}"))
    }
}

/// What accounts may do here, and what is told of them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key that an operator turns on and off by itself"
)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Accounts {
    pub(crate) reveal: bool,
    pub(crate) allow_changes: bool,
    pub(crate) password_change: bool,
    pub(crate) registration: bool,
    #[serde(deserialize_with = "choice")]
    pub(crate) registration_requires: Requires,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            reveal: false,
            allow_changes: true,
            password_change: true,
            registration: true,
            registration_requires: Requires::Any,
        }
    }
}

/// Homeservers that call us as their identity server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Delegate {
    #[serde(serialize_with = "none_at_all")]
    pub(crate) prefixes: List<SecretPrefix>,
    /// One on each line.
    pub(crate) prefixes_file: Option<PathBuf>,
    pub(crate) networks: List<Network>,
    pub(crate) public: bool,
}

impl Default for Delegate {
    fn default() -> Self {
        Self {
            prefixes: List::default(),
            prefixes_file: None,
            networks: List(vec![
                Network(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into()),
                Network(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128).into()),
            ]),
            public: false,
        }
    }
}

impl Delegate {
    /// Whether anybody calls.
    pub(crate) fn is_on(&self) -> bool {
        !self.prefixes.0.is_empty()
    }

    /// The same, as it is served; `None` if nobody calls.
    ///
    /// # Errors
    /// Why a prefix is none; never what it is.
    pub(crate) fn settings(&self) -> Result<Option<delegate::Settings>, String> {
        let prefixes = self.prefixes.0.iter();
        let prefixes = prefixes.map(|SecretPrefix(text)| Prefix::parse(text.expose_secret()));
        let networks = self.networks.0.iter();
        let settings = delegate::Settings {
            prefixes: prefixes.collect::<Result<_, _>>()?,
            networks: networks.map(|Network(network)| *network).collect(),
            public: self.public,
        };
        Ok(self.is_on().then_some(settings))
    }
}

/// What stands before the paths that a homeserver calls, and shows who it is.
#[derive(Clone, Debug)]
pub(crate) struct SecretPrefix(pub(crate) SecretString);

impl FromStr for SecretPrefix {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().trim_matches('/').into()))
    }
}

/// What calls of a webhook are signed with.
#[derive(Clone, Debug)]
pub(crate) struct SecretKey(pub(crate) SecretString);

impl FromStr for SecretKey {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().into()))
    }
}

/// Secrets are written as if there were none.
fn none_at_all<T, S: Serializer>(_: &List<T>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq([(); 0])
}

impl Config {
    /// The token by which a homeserver calls the internal routes.
    ///
    /// # Errors
    /// Why it is none; never what it is.
    pub(crate) fn api_token(&self) -> Result<Option<AccessToken>, String> {
        token(self.server.api_token.as_ref())
    }
}
