//! `submitToken` at our `submit_url`: JSON for clients, a page for people (MSC2078, MSC4183).

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::link;
use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{ClientSource, MatrixJson, Object},
        pages,
    },
    secret::{ClientSecret, Sid},
    session::{Api, Session},
    source::Source,
    threepid::Medium,
};

/// The longest token, in Unicode code points (Identity Service API, "Establishing associations").
const LONGEST_TOKEN: usize = 255;

/// `POST /_threepid/email/submitToken`: what the Identity Service API says of `POST …/validate/email/submitToken`,
/// without an access token.
pub(crate) async fn post_email(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Value>> {
    post(&app, Api::Client, Medium::Email, source, &body).await
}

/// `POST /_threepid/msisdn/submitToken`: what the Identity Service API says of `POST …/validate/msisdn/submitToken`,
/// without an access token. A code of an identity server's goes on to that server.
pub(crate) async fn post_msisdn(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Value>> {
    post(&app, Api::Client, Medium::Msisdn, source, &body).await
}

/// `POST /_matrix/client/unstable/add_threepid/msisdn/submit_token`: the same, where Synapse's clients know it. Not
/// specified; it is what Synapse tells as `submit_url`.
pub(crate) async fn post_add_threepid(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Value>> {
    post(&app, Api::Client, Medium::Msisdn, source, &body).await
}

/// The rule behind every `POST …/submitToken`; `api` is that which asks.
pub(in crate::http) async fn post(
    app: &App,
    api: Api,
    medium: Medium,
    source: ClientSource,
    body: &Object,
) -> Result<Json<Value>> {
    let (sid, client_secret) = (body.string("sid")?, body.string("client_secret")?);
    let token = body.string("token")?;
    submit(app, api, medium, (sid, client_secret), token, source.0).await?;
    Ok(Json(json!({ "success": true })))
}

/// `GET /_threepid/email/submitToken`: the same for people, with the effect that the Identity Service API specifies.
/// No message of ours links to it.
pub(crate) async fn get_email(
    app: State<App>,
    source: ClientSource,
    headers: HeaderMap,
    query: Shown,
) -> Result<Response> {
    show(&app, Api::Client, Medium::Email, source, &headers, query).await
}

/// `GET /_threepid/msisdn/submitToken`: the same for phone numbers.
pub(crate) async fn get_msisdn(
    app: State<App>,
    source: ClientSource,
    headers: HeaderMap,
    query: Shown,
) -> Result<Response> {
    show(&app, Api::Client, Medium::Msisdn, source, &headers, query).await
}

/// The query of a GET, if it is one.
pub(in crate::http) type Shown = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// What is behind every `GET …/submitToken`.
pub(in crate::http) async fn show(
    app: &App,
    api: Api,
    medium: Medium,
    source: ClientSource,
    headers: &HeaderMap,
    query: Shown,
) -> Result<Response> {
    if is_prefetch(headers) {
        return Ok(pages::prefetched(&app.name));
    }
    let query = query.map(|Query(pairs)| pairs).unwrap_or_default();
    let value = |name: &'static str| {
        let mut values = query
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (None, _) => Err(Error::MissingParam(name)),
            (Some(value), None) => Ok(value),
            (Some(_), Some(_)) => Err(Error::invalid(format!("The key {name} stands twice."))),
        }
    };
    let (sid, client_secret) = (value("sid")?, value("client_secret")?);
    let token = value("token")?;
    let session = submit(app, api, medium, (sid, client_secret), token, source.0).await?;
    Ok(link::done(app, &app.validation.view(session)?))
}

/// `HEAD` of the same: changes nothing, whatever the query says.
pub(crate) async fn head() -> Response {
    StatusCode::OK.into_response()
}

/// Whether a browser loads the page before anybody asked for it.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .any(|name| {
            let told = headers
                .get(*name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_ascii_lowercase();
            told.contains("prefetch") || told.contains("preview") || told.contains("prerender")
        })
}

pub(in crate::http) async fn submit(
    app: &App,
    api: Api,
    medium: Medium,
    (sid, client_secret): (&str, &str),
    token: &str,
    source: Source,
) -> Result<Session> {
    let sid = Sid::parse(sid)?;
    let client_secret = ClientSecret::parse(client_secret)?;
    if token.is_empty() || token.chars().count() > LONGEST_TOKEN {
        return Err(Error::invalid("token must be 1 to 255 characters"));
    }
    app.validation
        .submit_token(api, medium, (&sid, &client_secret), token, source)
        .await
}
