//! Calls to hosts that strangers name: every address checked, the checked one dialled, no redirects, bounded in time
//! and size.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{id_server::IdServer, secret::AccessToken};

/// How calls are made: `[outbound]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks that may be dialled although they are private, loopback or otherwise not of the public internet.
    pub allow: Vec<IpNet>,
    /// Files with further certificates (PEM) to trust.
    pub ca_files: Vec<PathBuf>,
    /// Whether any certificate is taken. For tests only.
    pub danger_accept_invalid_certs: bool,
    /// The longest that one call takes, from the name to the last byte.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            ca_files: Vec::new(),
            danger_accept_invalid_certs: false,
            timeout: Duration::from_secs(10),
        }
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: http::Method,
    pub(crate) server: &'a IdServer,
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    pub(crate) bearer: Option<&'a AccessToken>,
    /// A whole `Authorization` header instead of a bearer token: `X-Matrix …`.
    pub(crate) authorization: Option<&'a str>,
    /// The JSON body.
    pub(crate) body: Option<Vec<u8>>,
}

/// What came back, with any status.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: http::StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Why nothing came back. Causes are for the log: they hold no token and no query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It took too long.
    #[error("{0}")]
    TimedOut(String),
    /// Too many calls are under way.
    #[error("{0}")]
    Busy(String),
    /// Anything else: no such name, a forbidden address, no connection, a wrong certificate, too large an answer.
    #[error("{0}")]
    Failed(String),
}

/// Makes calls. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Outbound {
    settings: Settings,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
        }
    }
}

impl Outbound {
    /// Reads the certificates.
    ///
    /// # Errors
    /// A sentence that names the file that holds none.
    pub fn new(settings: Settings) -> Result<Self, String> {
        Ok(Self { settings })
    }

    /// Makes one call.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let _ = (&self.settings, call);
        Err(CallError::Failed("not built".to_owned()))
    }
}
