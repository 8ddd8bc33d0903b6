//! Associations: shown, made, and ended.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method, Uri, header},
};
use serde_json::{Value, json};

use super::{
    account::{Account, rules},
    body::{IdentityJson, SignedJson, mxid},
};
use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{self, ClientSource, Object},
    },
    identity::{
        associations::BindRequest,
        unbind::{SignedRequest, Unbinding},
    },
    secret::{ClientSecret, Sid},
    threepid::Threepid,
    x_matrix::XMatrix,
};

/// `GET /_matrix/identity/v2/3pid/getValidated3pid` (Identity Service API, "Establishing associations").
pub(crate) async fn validated(app: State<App>, account: Account, uri: Uri) -> Result<Json<Value>> {
    let query = Object::from_form(uri.query().unwrap_or_default().as_bytes())?;
    let (sid, client_secret) = pair(&query)?;
    let asker = Some(account.user_id.as_str());
    let proving = app.validation.identity_proof(&sid, &client_secret, asker);
    let proof = proving.await?;
    Ok(Json(json!({
        "medium": proof.threepid.medium().as_str(),
        "address": proof.threepid.address(),
        "validated_at": proof.validated_at,
    })))
}

/// `POST /_matrix/identity/v2/3pid/bind` (Identity Service API, "Establishing associations").
pub(crate) async fn bind(
    app: State<App>,
    account: Account,
    IdentityJson(body): IdentityJson,
) -> Result<Json<Value>> {
    let (sid, client_secret) = pair(&body)?;
    let (mxid, _) = mxid(&body)?;
    let request = BindRequest {
        account: account.user_id,
        mxid: mxid.to_owned(),
        sid,
        client_secret,
    };
    Ok(Json(rules(&app)?.bind(request).await?))
}

/// `POST /_matrix/identity/v2/3pid/unbind` (Identity Service API, "Establishing associations"). It asks for no access
/// token: a homeserver has none, and whoever proves the address needs none (MSC2140).
pub(crate) async fn unbind(
    app: State<App>,
    ClientSource(source): ClientSource,
    (method, uri): (Method, Uri),
    headers: HeaderMap,
    SignedJson(body): SignedJson,
) -> Result<Json<Value>> {
    let (mxid, server) = mxid(&body)?;
    let path_and_query = uri
        .path_and_query()
        .map_or(uri.path(), |path| path.as_str());
    let unbinding = Unbinding {
        threepid: threepid(&body)?,
        user_id: mxid.to_owned(),
        server,
        session: session(&body)?,
        request: SignedRequest {
            signatures: signatures(&headers),
            method: method.to_string(),
            uri: path_and_query.to_owned(),
            content: body.entries().clone(),
        },
    };
    rules(&app)?.unbind(&unbinding, source).await?;
    Ok(Json(json!({})))
}

fn pair(params: &Object) -> Result<(Sid, ClientSecret)> {
    let sid = Sid::parse(params.string("sid")?)?;
    let client_secret = ClientSecret::parse(params.string("client_secret")?)?;
    Ok((sid, client_secret))
}

/// The pair of a body that may have none; half of one is an error.
fn session(body: &Object) -> Result<Option<(Sid, ClientSecret)>> {
    match (body.value("sid"), body.value("client_secret")) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::MissingParam("client_secret")),
        (None, Some(_)) => Err(Error::MissingParam("sid")),
        (Some(_), Some(_)) => pair(body).map(Some),
    }
}

/// All signatures that come with a request; what can not be read is none.
fn signatures(headers: &HeaderMap) -> Vec<XMatrix> {
    let lines = headers.get_all(header::AUTHORIZATION).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines.filter_map(XMatrix::parse).collect()
}

/// The address whose association is to end.
fn threepid(body: &Object) -> Result<Threepid> {
    let named = body
        .value("threepid")
        .ok_or(Error::MissingParam("threepid"))?
        .as_object()
        .ok_or_else(|| Error::BadJson("The key threepid must be an object.".into()))?;
    extract::threepid(named).map_err(|error| match error {
        // To this endpoint an address that can be nobody's is a wrong value like any other.
        Error::InvalidAddress(_) | Error::InvalidNumber(_) => Error::invalid(error.to_string()),
        error => error,
    })
}
