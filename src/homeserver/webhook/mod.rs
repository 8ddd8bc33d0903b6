//! Any homeserver that answers a few signed calls: the contract of `docs/webhook.md` and `docs/webhook.openapi.json`.

mod accounts;
mod client;
mod directory;
mod greet;
mod registrar;
mod signature;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use url::Url;

pub use self::signature::SigningKey;
use crate::{
    clock::Clock,
    homeserver::api::{Client, is_base, policy::Remembered},
    loopback::is_loopback_url,
};

/// Where the homeserver takes the calls, and how they are signed: `[homeserver]` with `kind = "webhook"`.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The base of the contract's paths, with a path of its own or without: `https`, or `http` to this machine.
    pub url: Url,
    /// The first signs. Others may stand here while one takes the place of another: they sign nothing.
    pub keys: Vec<SigningKey>,
    /// The longest that one try takes, from the name to the last byte. A call takes at most twice as long, with all its
    /// tries.
    pub timeout: Duration,
    /// Files with further certificates (PEM) to trust.
    pub ca_files: Vec<PathBuf>,
    /// By what the signatures tell the time.
    pub clock: Arc<dyn Clock>,
}

/// A homeserver behind the contract, as directory, as account side, and as the maker of accounts.
pub struct Webhook {
    client: Client,
    /// Of all paths as they are sent; without a slash at its end.
    base_path: String,
    key: SigningKey,
    limit: Duration,
    clock: Arc<dyn Clock>,
    policy: Remembered,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Webhook")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// Prepares to call a homeserver; calls nobody yet.
    ///
    /// # Errors
    /// A sentence that names the setting that can not be used, and what to write instead.
    pub fn new(settings: WebhookSettings) -> Result<Arc<Self>, String> {
        let url = &settings.url;
        if !is_base(url) {
            // Not shown: there may be a password in it.
            return Err("homeserver.url can not be used; write https://host:port, perhaps with a path, and nothing after it".to_owned());
        }
        if url.scheme() == "http" && !is_loopback_url(url) {
            return Err(
                "homeserver.url can not be used: passwords would go through the network in plain; write https://, or \
                 http:// to 127.0.0.1, [::1] or localhost"
                    .to_owned(),
            );
        }
        let missing = "homeserver.webhook_keys has no key; make one with \"openssl rand -hex 32\" for \
                       homeserver.webhook_keys_file";
        let key = settings.keys.into_iter().next();
        Ok(Arc::new(Self {
            client: Client::new(url, settings.timeout, &settings.ca_files)?,
            base_path: url.path().trim_end_matches('/').to_owned(),
            key: key.ok_or_else(|| missing.to_owned())?,
            limit: settings.timeout,
            clock: settings.clock,
            policy: Remembered::default(),
        }))
    }
}
