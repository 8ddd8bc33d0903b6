//! Registration at Synapse: by its own `/register`, or by the secret that it shares.

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{Registration, Synapse};
use crate::{
    error::{Error, Result},
    homeserver::{
        Origin, PassedBack,
        api::{Asked, Call, Overlay},
        registration::{NewAccount, Registering, Registrar},
    },
};

/// Whether a name is free, for an administrator.
const USERNAME_AVAILABLE: &str = "/_synapse/admin/v1/username_available";

impl Synapse {
    /// How clients register, unless it is by the shared secret.
    fn overlay(&self) -> Option<Overlay<'_>> {
        let (token, shows_stages) = match &self.registration {
            Registration::Overlay { token } => (token.as_ref(), true),
            Registration::Token(token) => (Some(token), false),
            Registration::SharedSecret(_) => return None,
        };
        Some(Overlay {
            client: &self.client,
            token,
            shows_stages,
        })
    }

    /// `GET /_synapse/admin/v1/username_available`, which is not limited as that of clients is, and works where they may
    /// not register.
    pub(super) async fn username_available(&self, query: &str) -> Result<PassedBack> {
        let path = format!("{USERNAME_AVAILABLE}?{query}");
        let asked = Asked::reading(Method::GET, USERNAME_AVAILABLE);
        let call = Call::new(asked, path).bearer(self.admin()?);
        let answer = self.client.send(call).await?;
        let is_told = matches!(answer.status, StatusCode::OK | StatusCode::BAD_REQUEST);
        if is_told && answer.object().is_some() {
            Ok(answer.into_passed_back())
        } else {
            Err(answer.admin_fault())
        }
    }
}

#[async_trait]
impl Registrar for Synapse {
    async fn start(&self, params: &Map<String, Value>, origin: &Origin) -> Result<Registering> {
        match self.overlay() {
            Some(overlay) => overlay.start(params, origin).await,
            None => self.start_by_secret(params).await,
        }
    }

    async fn stage(
        &self,
        _: &str,
        params: &Map<String, Value>,
        auth: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Registering> {
        match self.overlay() {
            Some(overlay) => overlay.stage(params, auth, origin).await,
            None => Err(Error::Internal("there is no stage to show".to_owned())),
        }
    }

    async fn finish(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        match self.overlay() {
            Some(overlay) => overlay.finish(account, origin).await,
            None => self.finish_by_secret(account, origin).await,
        }
    }

    async fn repeat(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        match self.overlay() {
            Some(overlay) => overlay.repeat(account, origin).await,
            None => self.repeat_by_secret(account, origin).await,
        }
    }

    async fn made(&self, account: NewAccount<'_>) -> Result<Option<String>> {
        match self.overlay() {
            Some(overlay) => overlay.made(account).await,
            None => self.made_by_secret(account).await,
        }
    }

    async fn available(&self, query: &str, origin: &Origin) -> Result<PassedBack> {
        match self.overlay() {
            Some(overlay) => overlay.available(query, origin).await,
            None => self.username_available(query).await,
        }
    }
}
