//! What kind of homeserver it is: for the start, and for `threepid check`.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Synapse;
use crate::{
    error::Result,
    homeserver::{
        Directory,
        api::{Asked, Call, made_up, sentence},
    },
};

/// Where a homeserver says which OAuth account server it has (Client-Server API, "OAuth 2.0 API"; MSC2965 before).
const AUTH_METADATA: [&str; 2] = [
    "/_matrix/client/v1/auth_metadata",
    "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata",
];
/// What a homeserver serves exactly if it keeps the addresses of its accounts.
const REQUEST_TOKEN: &str = "/_matrix/client/v3/account/3pid/email/requestToken";
const VERSIONS: &str = "/_matrix/client/versions";

impl Synapse {
    /// Whether the homeserver has handed its accounts to an OAuth account server: then it takes no addresses and no
    /// passwords from us.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`](crate::error::Error::HomeserverFailed), [`Error::HomeserverTimeout`](crate::error::Error::HomeserverTimeout) and [`Error::Limited`](crate::error::Error::Limited) if it does not say so now.
    pub async fn accounts_live_elsewhere(&self) -> Result<bool> {
        if !self.has_account_server().await? {
            return Ok(false);
        }
        // An OAuth server beside accounts of its own is none that they live in.
        let asked = Asked::reading(Method::POST, REQUEST_TOKEN);
        let call = Call::new(asked, REQUEST_TOKEN.to_owned()).json(&json!({}));
        let answer = self.client.send(call).await?;
        let is_refused = answer.status.is_client_error() && answer.matrix_error().is_some();
        if !is_refused || answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(answer.fault());
        }
        Ok(answer.says(StatusCode::NOT_FOUND, "M_UNRECOGNIZED"))
    }

    async fn has_account_server(&self) -> Result<bool> {
        for path in AUTH_METADATA {
            let answer = self.client.send(Call::get(path, path.to_owned())).await?;
            let is_silent =
                answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS;
            if is_silent {
                return Err(answer.fault());
            }
            if answer.status == StatusCode::OK {
                let issuer = answer.success()?.remove("issuer");
                if issuer.is_some_and(|issuer| issuer.is_string()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Looks what works, for an operator: the steps that went well, and the one that did not.
    pub async fn greet(&self) -> (Vec<String>, Result<(), String>) {
        let mut told = Vec::new();
        let end = self.walk(&mut told).await;
        (told, end)
    }

    async fn walk(&self, told: &mut Vec<String>) -> Result<(), String> {
        let base = self.client.base();
        let answer = self.client.send(Call::get(VERSIONS, VERSIONS.to_owned()));
        let body = answer.await.and_then(|answer| match answer.status {
            StatusCode::OK => answer.success(),
            _ => Err(answer.fault()),
        });
        let body = body.map_err(|error| format!("{base}: {}", sentence(&error)))?;
        let versions = body.get("versions").and_then(Value::as_array);
        let newest = versions.and_then(|versions| versions.last()?.as_str());
        let newest = newest.ok_or_else(|| {
            format!("{base} does not answer as a homeserver: {VERSIONS} tells no versions")
        })?;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
        let newest: String = newest
            .chars()
            .filter(|letter| is_plain(*letter))
            .take(40)
            .collect();
        told.push(format!("{base} answers, Client-Server API up to {newest}"));
        if self.admin_token.is_some() {
            let owner = self.owner(&made_up()).await;
            owner.map_err(|error| sentence(&error))?;
            told.push("the admin token is accepted".to_owned());
        } else {
            told.push("no admin token: no password is set there, and no address".to_owned());
        }
        match self.accounts_live_elsewhere().await {
            Ok(false) => told.push("it keeps its accounts itself".to_owned()),
            Ok(true) => {
                return Err(
                    "it has handed its accounts to an OAuth account server, which takes \
                            care of addresses and passwords by itself; threepid can do nothing \
                            beside it"
                        .to_owned(),
                );
            }
            Err(error) => return Err(sentence(&error)),
        }
        Ok(())
    }
}
