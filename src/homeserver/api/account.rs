//! The account side of the Client-Server API, in the name of whoever asks.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Asked, Call, Client, answer::Answer, is_user_id, policy};
use crate::{
    error::{Error, Result},
    homeserver::{Origin, PassedBack, PassedOn, Reauth, Requester},
    id_server::{IdServer, Unbound},
    password::PasswordPolicy,
    secret::AccessToken,
    threepid::Threepid,
};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const DELETE_DEVICES: &str = "/_matrix/client/v3/delete_devices";
const DEVICES: &str = "/_matrix/client/v3/devices";
const UNBIND: &str = "/_matrix/client/v3/account/3pid/unbind";
const PASSWORD_POLICY: &str = "/_matrix/client/v3/password_policy";

/// A device that nobody has. Never an empty list instead: there are homeservers that then delete all devices.
const NO_DEVICE: &str = "3PID-REAUTH";

impl Client {
    /// Who has this token (`GET /_matrix/client/v3/account/whoami`).
    pub(in crate::homeserver) async fn whoami(
        &self,
        access_token: &AccessToken,
        origin: &Origin,
    ) -> Result<Requester> {
        let call = Call::get(WHOAMI, WHOAMI.to_owned())
            .bearer(access_token)
            .origin(origin);
        requester(self.send(call).await?, access_token)
    }

    /// The homeserver asks before it deletes devices, so it is asked to delete one that is not there (Client-Server API,
    /// `POST /_matrix/client/v3/delete_devices`).
    pub(in crate::homeserver) async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        origin: &Origin,
    ) -> Result<Reauth> {
        // There is nothing that it could delete.
        let asked = Asked::reading(Method::POST, DELETE_DEVICES);
        let call = Call::new(asked, DELETE_DEVICES.to_owned())
            .bearer(&requester.access_token)
            .origin(origin);
        let body = json!({ "devices": [NO_DEVICE] });
        self.challenge(call, body, auth).await
    }

    /// The same by the path that names one device (Client-Server API, `DELETE /_matrix/client/v3/devices/{deviceId}`): there
    /// are homeservers that ask for no password where it names many.
    pub(in crate::homeserver) async fn reauth_by_device(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        origin: &Origin,
    ) -> Result<Reauth> {
        let asked = Asked::reading(Method::DELETE, DEVICES);
        let call = Call::new(asked, format!("{DEVICES}/{NO_DEVICE}"))
            .bearer(&requester.access_token)
            .origin(origin);
        self.challenge(call, json!({}), auth).await
    }

    async fn challenge(
        &self,
        call: Call<'_>,
        mut body: Value,
        auth: Option<&Value>,
    ) -> Result<Reauth> {
        if let Some(auth) = auth {
            body["auth"] = auth.clone();
        }
        reauthenticated(self.send(call.json(&body)).await?)
    }

    /// MSC2000, `GET /_matrix/client/v3/password_policy`, remembered for a while. Synapse's admin API does not enforce it.
    pub(in crate::homeserver) async fn password_policy(&self) -> Result<PasswordPolicy> {
        if let Some(policy) = self.policy.recall() {
            return Ok(policy);
        }
        let call = Call::get(PASSWORD_POLICY, PASSWORD_POLICY.to_owned());
        let answer = self.send(call).await?;
        let policy = match answer.status {
            StatusCode::NOT_FOUND => PasswordPolicy::default(),
            _ => policy::read(&answer.success()?),
        };
        self.policy.remember(policy);
        Ok(policy)
    }

    /// Client-Server API, `POST /_matrix/client/v3/account/3pid/unbind`.
    pub(in crate::homeserver) async fn unbind(
        &self,
        requester: &Requester,
        threepid: &Threepid,
        id_server: &IdServer,
        origin: &Origin,
    ) -> Result<Option<Unbound>> {
        let body = json!({
            "medium": threepid.medium().as_str(),
            "address": threepid.address(),
            "id_server": id_server.to_string(),
        });
        let call = Call::new(Asked::changing(Method::POST, UNBIND), UNBIND.to_owned())
            .bearer(&requester.access_token)
            .json(&body)
            .origin(origin);
        let answer = self.send(call).await?;
        match answer.status {
            StatusCode::OK => unbound(answer).map(Some),
            StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            status if answer.says(status, "M_UNRECOGNIZED") => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => Err(answer.client_fault()),
            status => match answer.matrix_error() {
                Some(error) if status.is_client_error() => Err(answer.relay(error)),
                _ => Err(answer.fault()),
            },
        }
    }

    /// A request as it came, and the answer as it is, if it is JSON.
    pub(in crate::homeserver) async fn pass_on(
        &self,
        request: PassedOn,
        origin: &Origin,
    ) -> Result<PassedBack> {
        if !request.path_and_query.starts_with('/') {
            return Err(Error::Internal("a path without a slash".to_owned()));
        }
        let asked = if request.method.is_safe() {
            Asked::reading(request.method, "a request that was passed on")
        } else {
            Asked::changing(request.method, "a request that was passed on")
        };
        let mut call = Call::new(asked, request.path_and_query).origin(origin);
        call.bearer = request.access_token.as_ref();
        call.body = (!request.body.is_empty()).then_some(request.body);
        let answer = self.send(call).await?;
        // Anything else is a proxy's, and no answer to a Matrix client.
        if answer.object().is_none() {
            return Err(answer.fault());
        }
        Ok(answer.into_passed_back())
    }
}

/// What `account/whoami` tells.
pub(in crate::homeserver) fn requester(
    answer: Answer,
    access_token: &AccessToken,
) -> Result<Requester> {
    if answer.status != StatusCode::OK {
        return Err(answer.client_fault());
    }
    let asked = answer.asked.clone();
    let body = answer.success()?;
    if body.get("is_guest") == Some(&Value::Bool(true)) {
        return Err(Error::GuestForbidden);
    }
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let user_id = text("user_id").filter(|user_id| is_user_id(user_id));
    Ok(Requester {
        user_id: user_id.ok_or_else(|| asked.broken("200 and no user_id"))?,
        device_id: text("device_id"),
        access_token: access_token.clone(),
    })
}

/// What an endpoint behind user-interactive authentication tells of it.
pub(in crate::homeserver) fn reauthenticated(answer: Answer) -> Result<Reauth> {
    if answer.status == StatusCode::OK {
        return answer.success().map(|_| Reauth::Done);
    }
    let challenge = (answer.status == StatusCode::UNAUTHORIZED).then(|| answer.object());
    match challenge.flatten() {
        Some(body) if body.get("flows").is_some_and(Value::is_array) => Ok(Reauth::Challenge(body)),
        // What `auth` lacks, in the homeserver's words.
        _ => match answer.matrix_error() {
            Some(error) if answer.status == StatusCode::BAD_REQUEST => Err(answer.relay(error)),
            _ => Err(answer.client_fault()),
        },
    }
}

fn unbound(answer: Answer) -> Result<Unbound> {
    let asked = answer.asked.clone();
    let body: Map<String, Value> = answer.success()?;
    let told = body.get("id_server_unbind_result");
    match told.and_then(Value::as_str) {
        Some("success") => Ok(Unbound::Success),
        Some("no-support") => Ok(Unbound::NoSupport),
        _ => Err(asked.broken("200 and no id_server_unbind_result")),
    }
}
