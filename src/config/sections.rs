//! The sections of the configuration file, with their defaults.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use super::values::{List, PublicUrl, Span, choice, optional_choice};
use crate::{
    courier::email::Auth,
    http::listen::ListenAddress,
    limits,
    loopback::is_loopback_url,
    rate::Rate,
    validation::{Contents, Validate, Validates},
};

/// Where the program listens and how the world reaches it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "server_name is the specification's word"
)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) public_url: Option<PublicUrl>,
    pub(crate) server_name: Option<String>,
    pub(crate) listen: List<ListenAddress>,
    pub(crate) trusted_proxies: List<String>,
    /// An address, or `off`.
    pub(crate) internal_listen: String,
    /// Opens the routes for a homeserver.
    #[serde(serialize_with = "hidden")]
    pub(crate) api_token: Option<SecretString>,
    pub(crate) api_token_file: Option<PathBuf>,
    pub(crate) max_connections: usize,
    pub(crate) request_timeout: Span,
    pub(crate) shutdown_grace: Span,
    pub(crate) danger_allow_plain_public_url: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            public_url: None,
            server_name: None,
            listen: List(vec![ListenAddress::Tcp(([127, 0, 0, 1], 8090).into())]),
            trusted_proxies: List::default(),
            internal_listen: "127.0.0.1:8091".to_owned(),
            api_token: None,
            api_token_file: None,
            max_connections: 1024,
            request_timeout: Span(Duration::from_secs(30)),
            shutdown_grace: Span(Duration::from_secs(20)),
            danger_allow_plain_public_url: false,
        }
    }
}

impl Server {
    /// The URL that is written, else that of the first address we listen on, seen from this machine.
    pub(crate) fn public_url(&self) -> Url {
        if let Some(PublicUrl(url)) = &self.public_url {
            return url.clone();
        }
        let own = self.listen.0.iter().find_map(ListenAddress::local_url);
        own.unwrap_or_else(|| {
            Url::parse("http://127.0.0.1:8090/").expect("a literal that is a URL")
        })
    }

    /// Whether the public URL leads to this machine alone.
    pub(crate) fn is_for_this_machine(&self) -> bool {
        is_loopback_url(&self.public_url())
    }

    /// Where the internal routes are served; `None` if they are not.
    pub(crate) fn internal_address(&self) -> Result<Option<ListenAddress>, String> {
        match self.internal_listen.as_str() {
            "off" => Ok(None),
            address => address.parse().map(Some),
        }
    }
}

/// Where the data lies.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Storage {
    pub(crate) url: String,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            url: "sqlite:threepid-data/threepid.db".to_owned(),
        }
    }
}

impl Storage {
    /// The file of the database.
    pub(crate) fn path(&self) -> Result<PathBuf, String> {
        const FORM: &str = "write \"sqlite:\" and the path of a file, for example \"sqlite:threepid-data/threepid.db\"";
        let path = self.url.strip_prefix("sqlite:").ok_or(FORM)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path == ":memory:" {
            return Err(format!(
                "a database in memory would forget everything; {FORM}"
            ));
        }
        if path.is_empty() || path.ends_with('/') || path.contains('?') {
            return Err(FORM.to_owned());
        }
        Ok(PathBuf::from(path))
    }
}

/// The key that links, codes and stored hashes are made with.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Secrets {
    pub(crate) key_file: PathBuf,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            key_file: PathBuf::from("threepid-data/secret.key"),
        }
    }
}

/// Email: whether, how and what is sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Email {
    pub(crate) transport: String,
    pub(crate) from: Option<String>,
    #[serde(serialize_with = "hidden")]
    pub(crate) password: Option<SecretString>,
    pub(crate) password_file: Option<PathBuf>,
    #[serde(deserialize_with = "choice")]
    pub(crate) contents: Contents,
    #[serde(deserialize_with = "choice")]
    pub(crate) validate: Validate,
    #[serde(deserialize_with = "optional_choice")]
    pub(crate) validate_register: Option<Validate>,
    #[serde(deserialize_with = "optional_choice")]
    pub(crate) validate_add: Option<Validate>,
    #[serde(deserialize_with = "optional_choice")]
    pub(crate) validate_password: Option<Validate>,
    #[serde(deserialize_with = "choice")]
    pub(crate) validate_identity: Validate,
    #[serde(deserialize_with = "choice")]
    pub(crate) auth: Auth,
    pub(crate) ca_files: List<PathBuf>,
    pub(crate) hello_name: Option<String>,
    pub(crate) phase_timeout: Span,
    pub(crate) body_timeout: Span,
    pub(crate) workers: usize,
}

/// A secret is written as if it were unset.
#[expect(clippy::ref_option, reason = "serde calls it with the field")]
pub(super) fn hidden<S: serde::Serializer>(
    _: &Option<SecretString>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_none()
}

impl Default for Email {
    fn default() -> Self {
        Self {
            transport: "capture".to_owned(),
            from: None,
            password: None,
            password_file: None,
            contents: Contents::Both,
            validate: Validate::Here,
            validate_register: None,
            validate_add: None,
            validate_password: None,
            validate_identity: Validate::Here,
            auth: Auth::Auto,
            ca_files: List::default(),
            hello_name: None,
            phase_timeout: Span(Duration::from_secs(30)),
            body_timeout: Span(Duration::from_mins(10)),
            workers: 4,
        }
    }
}

impl Email {
    pub(super) fn validates(&self) -> Validates {
        Validates {
            register: self.validate_register.unwrap_or(self.validate),
            add: self.validate_add.unwrap_or(self.validate),
            password: self.validate_password.unwrap_or(self.validate),
            identity: self.validate_identity,
        }
    }
}

/// How long things live.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sessions {
    pub(crate) link_lifetime: Span,
    pub(crate) code_lifetime: Span,
    pub(crate) session_lifetime: Span,
    pub(crate) code_tries: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            link_lifetime: Span(Duration::from_hours(1)),
            code_lifetime: Span(Duration::from_mins(15)),
            session_lifetime: Span(Duration::from_hours(24)),
            code_tries: 5,
        }
    }
}

/// How often things may be asked for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) enabled: bool,
    pub(crate) per_address: Rate,
    pub(crate) per_source: Rate,
    pub(crate) per_source_submit: Rate,
    pub(crate) per_source_register: Rate,
    pub(crate) per_account: Rate,
    pub(crate) lookups_per_account: Rate,
    pub(crate) lookups_per_homeserver: Rate,
    pub(crate) invites_per_account: Rate,
    pub(crate) invites_per_homeserver: Rate,
    pub(crate) per_session: Rate,
    pub(crate) code_tries_per_address: Rate,
    pub(crate) global: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = limits::Settings::default();
        Self {
            enabled: true,
            per_address: limits.per_address,
            per_source: limits.per_source,
            per_source_submit: limits.per_source_submit,
            per_source_register: limits.per_source_register,
            per_account: limits.per_account,
            lookups_per_account: limits.lookups_per_account,
            lookups_per_homeserver: limits.lookups_per_homeserver,
            invites_per_account: limits.invites_per_account,
            invites_per_homeserver: limits.invites_per_homeserver,
            per_session: limits.per_session,
            code_tries_per_address: limits.code_tries_per_address,
            global: limits.global,
        }
    }
}

/// Which addresses are taken, in general and for each purpose.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    pub(crate) allowed: List<String>,
    pub(crate) denied: List<String>,
    pub(crate) register: PurposePolicy,
    pub(crate) add: PurposePolicy,
    pub(crate) password: PurposePolicy,
}

/// What one purpose has instead of the general lists.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PurposePolicy {
    pub(crate) allowed: Option<List<String>>,
    pub(crate) denied: Option<List<String>>,
}

/// Where a browser may be sent afterwards.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NextLinks {
    pub(crate) allowed: List<String>,
}

/// What people see.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pages {
    pub(crate) app_name: String,
    pub(crate) finish_password_reset: bool,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            app_name: "threepid".to_owned(),
            finish_password_reset: true,
        }
    }
}

/// What operators see.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) level: String,
    #[serde(deserialize_with = "choice")]
    pub(crate) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}
