//! What a homeserver asks of us in operations of its own: on the internal listener, with the API token.

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use serde_json::{Map, Value, json};

use super::{
    App,
    extract::{Bearer, MatrixJson, Object, text, threepid},
};
use crate::{
    account::host::{HostClaim, HostOperation},
    error::{Error, Result},
    secret::{ClientSecret, Sid},
    session::{Proof, Purpose},
    threepid::Threepid,
    user_id::is_user_id,
};

/// The most addresses that one account is given at once.
const MOST_ADDRESSES: usize = 100;

/// All of them, for those who show the token.
pub(super) fn routes(app: &App) -> Router<App> {
    let path = |endpoint: &str| format!("/_threepid/homeserver/v1/{endpoint}");
    Router::new()
        .route(&path("session"), post(session))
        .route(&path("session/claim"), post(claim))
        .route(&path("session/take"), post(take))
        .route(&path("session/release"), post(release))
        .route(&path("account/registered"), post(registered))
        .route(&path("account/deactivated"), post(deactivated))
        .route(&path("owner"), post(owner))
        .route(&path("login"), post(login))
        .route_layer(middleware::from_fn_with_state(app.clone(), admit))
}

/// Lets the homeserver in.
async fn admit(
    State(app): State<App>,
    Bearer(given): Bearer,
    request: Request,
    next: Next,
) -> Result<Response> {
    let given = given.ok_or(Error::MissingToken)?;
    let is_known = app
        .api_token
        .as_ref()
        .is_some_and(|token| token.matches(&given));
    if is_known {
        Ok(next.run(request).await)
    } else {
        Err(Error::UnknownToken { soft_logout: false })
    }
}

/// `POST /_threepid/homeserver/v1/session`: whether a pair proves an address for a purpose. Changes nothing.
async fn session(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    let (sid, client_secret) = pair(&body)?;
    let user_id = optional_user_id(&body)?;
    let proof = app
        .validation
        .proof(&sid, &client_secret, purpose(&body)?, user_id);
    Ok(Json(shown(&proof.await?)))
}

/// `POST /_threepid/homeserver/v1/session/claim`: the proof of a pair, for one operation alone.
async fn claim(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    let (sid, client_secret) = pair(&body)?;
    let claim = HostClaim {
        sid,
        client_secret,
        purpose: purpose(&body)?,
        user_id: optional_user_id(&body)?.map(str::to_owned),
        operation: operation(&body)?,
        digest: body.optional_string("digest")?.map(str::to_owned),
    };
    let (proof, done_before) = app.account.claim_for_host(claim).await?;
    let mut reply = shown(&proof);
    reply["done_before"] = json!(done_before);
    Ok(Json(reply))
}

/// `POST /_threepid/homeserver/v1/session/take`: the operation is done, and its proof used up.
async fn take(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    app.account.take_for_host(&operation(&body)?).await?;
    Ok(Json(json!({})))
}

/// `POST /_threepid/homeserver/v1/session/release`: the operation was refused, and its proof is free again.
async fn release(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    app.account.release_for_host(&operation(&body)?).await?;
    Ok(Json(json!({})))
}

/// `POST /_threepid/homeserver/v1/account/registered`: a new account has these addresses (Client-Server API,
/// "Email-based (identity / homeserver)").
async fn registered(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    let user_id = user_id(&body)?;
    let list = body.value("threepids");
    let list = list.ok_or(Error::MissingParam("threepids"))?.as_array();
    let list = list.ok_or_else(|| Error::BadJson("The key threepids must be a list.".into()))?;
    if list.len() > MOST_ADDRESSES {
        return Err(Error::invalid("threepids must be at most 100 addresses"));
    }
    let threepids: Result<Vec<_>> = list.iter().map(|one| threepid(object(one)?)).collect();
    app.account.registered(user_id, &threepids?).await?;
    Ok(Json(json!({})))
}

/// `POST /_threepid/homeserver/v1/account/deactivated`: an account has ended (Client-Server API,
/// `POST /_matrix/client/v3/account/deactivate`; MSC1915, MSC4025).
async fn deactivated(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    let user_id = user_id(&body)?;
    let erase = body.optional_bool("erase")?.unwrap_or(false);
    let unbound = app.account.deactivated(user_id, erase).await?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

/// `POST /_threepid/homeserver/v1/owner`: which account has an address.
async fn owner(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    owned(&app, Some(threepid(body.entries())?)).await
}

/// `POST /_threepid/homeserver/v1/login`: which account the `identifier` of a login, or of `m.login.password`, means
/// (Client-Server API, "Identifier types").
async fn login(app: State<App>, MatrixJson(body): MatrixJson) -> Result<Json<Value>> {
    let identifier = body.value("identifier");
    let threepid = identified(identifier.ok_or(Error::MissingParam("identifier"))?)?;
    owned(&app, threepid).await
}

/// The address that an identifier names; `None` if it is no address: nobody has it, which is all that the person is to
/// learn.
pub(crate) fn identified(identifier: &Value) -> Result<Option<Threepid>> {
    let identifier = object(identifier)?;
    let read = match text(identifier, "type")? {
        "m.id.thirdparty" => threepid(identifier),
        "m.id.phone" => {
            // Clients send "phone" as it is specified, and "number" as it was before.
            let key = if identifier.contains_key("phone") {
                "phone"
            } else {
                "number"
            };
            Threepid::msisdn(text(identifier, "country")?, text(identifier, key)?)
        }
        _ => Err(Error::invalid(
            "identifier must be an m.id.thirdparty or an m.id.phone",
        )),
    };
    match read {
        Ok(threepid) => Ok(Some(threepid)),
        Err(Error::InvalidAddress(_) | Error::InvalidNumber(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn owned(app: &App, threepid: Option<Threepid>) -> Result<Json<Value>> {
    let user_id = match threepid {
        Some(threepid) => app.validation.directory.owner(&threepid).await?,
        None => None,
    };
    Ok(Json(json!({ "user_id": user_id })))
}

/// A proof as a homeserver sees it (Identity Service API, `GET 3pid/getValidated3pid`).
fn shown(proof: &Proof) -> Value {
    let mut shown = json!({
        "medium": proof.threepid.medium().as_str(),
        "address": proof.threepid.address(),
        "validated_at": proof.validated_at,
    });
    if let Some(user_id) = &proof.user_id {
        shown["user_id"] = json!(user_id);
    }
    shown
}

fn pair(body: &Object) -> Result<(Sid, ClientSecret)> {
    let (sid, client_secret) = (body.string("sid")?, body.string("client_secret")?);
    Ok((Sid::parse(sid)?, ClientSecret::parse(client_secret)?))
}

fn purpose(body: &Object) -> Result<Purpose> {
    Purpose::parse(body.string("purpose")?)
        // A proof for the identity server is shown to the identity server.
        .filter(|purpose| *purpose != Purpose::Identity)
        .ok_or_else(|| Error::invalid("purpose must be register, add or password"))
}

fn operation(body: &Object) -> Result<HostOperation> {
    HostOperation::parse(body.string("op_id")?)
}

fn user_id(body: &Object) -> Result<&str> {
    check_user_id(body.string("user_id")?)
}

fn optional_user_id(body: &Object) -> Result<Option<&str>> {
    body.optional_string("user_id")?
        .map(check_user_id)
        .transpose()
}

fn check_user_id(text: &str) -> Result<&str> {
    if is_user_id(text) {
        Ok(text)
    } else {
        Err(Error::invalid(
            "user_id must be of the form @alice:example.org",
        ))
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().ok_or_else(|| {
        Error::BadJson("identifier, and each of threepids, must be an object.".into())
    })
}
