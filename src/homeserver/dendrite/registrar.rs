//! Registration at Dendrite, by its own `/register`.
//!
//! All of its stages end the registration: it asks for a dummy, or for a captcha. So nothing is lost while it forgets a
//! session, which it does after five minutes, and nothing but [`Registrar::finish`] shows it one that may be complete.

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Dendrite;
use crate::{
    error::{Error, Result},
    homeserver::{
        Origin, PassedBack,
        api::{Overlay, is_in_use, name_query},
        registration::{NewAccount, Registered, Registering, Registrar},
    },
};

impl Dendrite {
    fn overlay(&self) -> Overlay<'_> {
        Overlay {
            client: &self.client,
            token: None,
            shows_stages: true,
        }
    }
}

#[async_trait]
impl Registrar for Dendrite {
    /// Asks for the name before: that it is taken is else told at the end.
    async fn start(&self, params: &Map<String, Value>, origin: &Origin) -> Result<Registering> {
        let overlay = self.overlay();
        if let Some(query) = name_query(params) {
            let told = overlay.available(&query, origin).await?;
            if matches!(
                told.status,
                StatusCode::BAD_REQUEST | StatusCode::TOO_MANY_REQUESTS
            ) {
                return Ok(Registering::Refused(told));
            }
        }
        overlay.start(params, origin).await
    }

    async fn stage(
        &self,
        _: &str,
        params: &Map<String, Value>,
        auth: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Registering> {
        self.overlay().stage(params, auth, origin).await
    }

    /// First tells what the client wants, so that the session is a known one: only then does Dendrite answer once more
    /// when it is asked once more. If the session is complete, that has made the account.
    async fn finish(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        let overlay = self.overlay();
        let session = json!({ "session": account.session });
        match overlay.show(account, session, origin).await? {
            Registering::Stages(_) => overlay.finish(account, origin).await,
            // It looks at the name of a complete session alone: the account may be one that nobody saw it end.
            told if is_in_use(&told) => {
                let cause = "the name of a registration is taken, perhaps by an account that it made before";
                Err(Error::HomeserverTimeout(cause.to_owned()))
            }
            ended => Ok(ended),
        }
    }

    /// Shows the session alone: with anything else, a session whose account has no device would make a second one.
    async fn repeat(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        let params = &Map::new();
        let account = NewAccount { params, ..account };
        Ok(match self.overlay().repeat(account, origin).await? {
            answer @ Registering::Registered(_) => answer,
            Registering::Refused(told) if told.status == StatusCode::TOO_MANY_REQUESTS => {
                Registering::Refused(told)
            }
            _ => Registering::Lost,
        })
    }

    /// A session that Dendrite has forgotten looks like one that is at its beginning. Then there is no account if the name
    /// is free; whose a name is that is taken, nobody can tell.
    async fn made(&self, account: NewAccount<'_>) -> Result<Option<String>> {
        let overlay = self.overlay();
        if let Registering::Registered(Registered { user_id, .. }) = overlay.look(account).await? {
            return if is_meant(account.params, &user_id) {
                Ok(Some(user_id))
            } else {
                let cause = "the homeserver made an account of another name than the client wanted";
                Err(Error::HomeserverTimeout(cause.to_owned()))
            };
        }
        overlay.check_free(account).await?;
        Ok(None)
    }

    async fn available(&self, query: &str, origin: &Origin) -> Result<PassedBack> {
        self.overlay().available(query, origin).await
    }
}

/// Whether an account has the name that was asked for, if one was.
fn is_meant(params: &Map<String, Value>, user_id: &str) -> bool {
    let local_part = user_id.strip_prefix('@').and_then(|id| id.split_once(':'));
    let wanted = params.get("username").and_then(Value::as_str);
    wanted.is_none_or(|wanted| {
        local_part.is_some_and(|(local_part, _)| local_part == wanted.to_lowercase())
    })
}
