//! The addresses of an account: `account/3pid` and what lies below it (Client-Server API, "Adding account administrative
//! contact information").

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::uia;
use crate::{
    account::{
        addresses::{Added, Addition, Endpoint, Removal},
        binding::SessionThere,
    },
    clock::Timestamp,
    error::{Error, Result},
    homeserver::{Origin, Requester},
    http::{
        App,
        extract::{Bearer, ClientOrigin, MatrixJson, Object},
    },
    id_server::IdServer,
    secret::{AccessToken, ClientSecret, Sid},
    store::Contact,
    threepid::Medium,
};

/// The keys under which `POST account/3pid` has its session: the specification's, and that of old clients.
const CREDENTIALS: [&str; 2] = ["three_pid_creds", "threePidCreds"];

/// A body that is looked at after the token: whoever has none is told that first.
type Body = Result<MatrixJson>;

/// An address as `GET account/3pid` shows it: all keys are required.
#[derive(Serialize)]
struct Shown {
    medium: String,
    address: String,
    validated_at: Timestamp,
    added_at: Timestamp,
}

impl From<Contact> for Shown {
    fn from(contact: Contact) -> Self {
        Self {
            medium: contact.medium,
            address: contact.address,
            validated_at: contact.validated_at.unwrap_or(contact.added_at),
            added_at: contact.added_at,
        }
    }
}

/// `GET /_matrix/client/v3/account/3pid` (Client-Server API, "Adding account administrative contact information"): what
/// the homeserver holds, whatever identity servers know.
pub(crate) async fn list(
    app: State<App>,
    Bearer(token): Bearer,
    ClientOrigin(origin): ClientOrigin,
) -> Result<Json<Value>> {
    let requester = app.account.requester(token.as_ref(), &origin).await?;
    let addresses = app.account.addresses(&requester).await?;
    let shown: Vec<Shown> = addresses.into_iter().map(Shown::from).collect();
    Ok(Json(json!({ "threepids": shown })))
}

/// `POST /_matrix/client/v3/account/3pid/add` (Client-Server API, "Adding account administrative contact information";
/// MSC2290), with user-interactive authentication.
pub(crate) async fn add(
    app: State<App>,
    Bearer(token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    body: Body,
) -> Result<Response> {
    let requester = changer(&app, token.as_ref(), &origin).await?;
    let MatrixJson(body) = body?;
    let addition = Addition {
        endpoint: Endpoint::Add,
        requester,
        client_secret: ClientSecret::parse(body.string("client_secret")?)?,
        sid: Sid::parse(body.string("sid")?)?,
        origin,
    };
    add_to_account(&app, addition, &body).await
}

/// `POST /_matrix/client/v3/account/3pid` (Client-Server API, "Adding account administrative contact information"),
/// deprecated: the same as `account/3pid/add`, behind the same authentication. It binds nothing (MSC2290).
pub(crate) async fn add_deprecated(
    app: State<App>,
    Bearer(token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    body: Body,
) -> Result<Response> {
    let requester = changer(&app, token.as_ref(), &origin).await?;
    let MatrixJson(body) = body?;
    let (sid, client_secret) = uia::credentials(body.entries(), CREDENTIALS)?;
    let addition = Addition {
        endpoint: Endpoint::Deprecated,
        requester,
        client_secret,
        sid,
        origin,
    };
    let added = add_to_account(&app, addition, &body).await;
    added.map_err(|error| match error {
        Error::ThreepidAuthFailed(why) => Error::ThreepidAuthForbidden(why),
        other => other,
    })
}

async fn add_to_account(app: &App, addition: Addition, body: &Object) -> Result<Response> {
    let auth = body.value("auth");
    if auth.is_some_and(|auth| !auth.is_object()) {
        return Err(Error::BadJson("The key auth must be an object.".into()));
    }
    Ok(match app.account.add(addition, auth.cloned()).await? {
        Added::Done => Json(json!({})).into_response(),
        Added::Challenge(challenge) => uia::challenge(challenge, None),
    })
}

/// `POST /_matrix/client/v3/account/3pid/delete` (Client-Server API, "Adding account administrative contact
/// information"; MSC1915).
pub(crate) async fn delete(
    app: State<App>,
    Bearer(token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    body: Body,
) -> Result<Json<Value>> {
    let requester = changer(&app, token.as_ref(), &origin).await?;
    let removal = removal(requester, origin, &body?.0)?;
    let unbound = app.account.delete(removal).await?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

/// `POST /_matrix/client/v3/account/3pid/unbind` (Client-Server API, "Adding account administrative contact
/// information"; MSC2140).
pub(crate) async fn unbind(
    app: State<App>,
    Bearer(token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    body: Body,
) -> Result<Json<Value>> {
    let requester = counted(&app, token.as_ref(), &origin).await?;
    let removal = removal(requester, origin, &body?.0)?;
    let unbound = app.account.unbind(&removal).await?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

/// `POST /_matrix/client/v3/account/3pid/bind` (Client-Server API, "Adding account administrative contact information";
/// MSC2290). Any identity server may be named: it learns no more than the account chose to tell it.
pub(crate) async fn bind(
    app: State<App>,
    Bearer(token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    body: Body,
) -> Result<Json<Value>> {
    let requester = counted(&app, token.as_ref(), &origin).await?;
    let MatrixJson(body) = body?;
    let (client_secret, sid) = (body.string("client_secret")?, body.string("sid")?);
    let (server, access_token) = (body.string("id_server")?, body.string("id_access_token")?);
    let session = SessionThere {
        server: id_server(server)?,
        sid: Sid::parse(sid)?,
        client_secret: ClientSecret::parse(client_secret)?,
        access_token: AccessToken::parse(access_token)?,
    };
    app.account.bind(requester, session).await?;
    Ok(Json(json!({})))
}

/// Who asks to change addresses, where that is allowed at all.
async fn changer(app: &App, token: Option<&AccessToken>, origin: &Origin) -> Result<Requester> {
    app.account.check_changes()?;
    counted(app, token, origin).await
}

/// Who asks, if their account does not ask too often.
async fn counted(app: &App, token: Option<&AccessToken>, origin: &Origin) -> Result<Requester> {
    let requester = app.account.requester(token, origin).await?;
    app.account.count_change(&requester)?;
    Ok(requester)
}

fn removal(requester: Requester, origin: Origin, body: &Object) -> Result<Removal> {
    let (medium, address) = (body.string("medium")?, body.string("address")?);
    let named = body.optional_string("id_server")?;
    Ok(Removal {
        requester,
        medium: Medium::parse(medium)
            .ok_or_else(|| Error::invalid("medium must be email or msisdn"))?,
        address: address.to_owned(),
        id_server: named.map(id_server).transpose()?,
        origin,
    })
}

fn id_server(text: &str) -> Result<IdServer> {
    text.parse()
        .map_err(|error| Error::invalid(format!("id_server: {error}")))
}
