//! `register`: an account at the homeserver, for whoever proved an address.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::uia::{self, CREDENTIALS, shows_credentials, stage_of};
use crate::{
    account::registration::{Answered, RegistrationRules, Shown, Wish},
    error::{Error, Result},
    homeserver::PassedOn,
    http::{
        App,
        extract::{Bearer, ClientOrigin, ClientSource, Object, read_body},
    },
    threepid::Medium,
};

/// How application services say what they are (Application Service API, "Registration").
const APPLICATION_SERVICE: &str = "m.login.application_service";

/// `POST /_matrix/client/v3/register` (Client-Server API, "Account registration"). The homeserver's own, with our stage
/// in its flows. Guests and application services, who have no address, are the homeserver's alone.
///
/// A stage of ours that is not done is 401 `M_UNAUTHORIZED`, whatever the reason: clients ask again until it is.
pub(crate) async fn post(
    State(app): State<App>,
    path: MatchedPath,
    Bearer(access_token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    source: ClientSource,
    request: Request,
) -> Result<Response> {
    let is_guest = is_guest(request.uri().query().unwrap_or_default())?;
    let query = match request.uri().query() {
        // Nothing else of it: there are homeservers that read it otherwise than we do.
        Some(_) if is_guest => "?kind=guest".to_owned(),
        Some(query) => format!("?{query}"),
        None => String::new(),
    };
    let body = read_body(request).await?;
    let wanted = || Object::parse(&body);
    if is_guest || is_service(&wanted()?) {
        let passed_on = PassedOn {
            method: Method::POST,
            path_and_query: format!("{}{query}", path.as_str()),
            access_token,
            body: body.to_vec(),
        };
        let answer = app.account.accounts.pass_on(passed_on, &origin).await?;
        return Ok(answer.into_response());
    }
    let (params, auth) = split(&wanted()?)?;
    let wish = Wish {
        params,
        session: session(&auth)?,
        stage: shown(auth)?,
        origin,
        source: source.0,
    };
    let answered = rules(&app)?.register(wish).await?;
    Ok(match answered {
        Answered::Challenge(body) => uia::challenge(body, None),
        Answered::Refused(answer) => answer.into_response(),
        Answered::Done(body) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, body).into_response()
        }
    })
}

/// `GET /_matrix/client/v3/register/available` (Client-Server API, "Account registration").
pub(crate) async fn available(
    State(app): State<App>,
    ClientOrigin(origin): ClientOrigin,
    request: Request,
) -> Result<Response> {
    let rules = rules(&app)?;
    rules.check_open()?;
    let query = request.uri().query().unwrap_or_default();
    let username = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "username");
    let (_, username) = username.ok_or(Error::MissingParam("username"))?;
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("username", &username)
        .finish();
    let answer = rules.registrar.available(&query, &origin).await?;
    Ok(answer.into_response())
}

fn rules(app: &App) -> Result<&std::sync::Arc<RegistrationRules>> {
    app.registration.as_ref().ok_or(Error::Unrecognized)
}

/// Whether a guest's account is asked for. Nobody may be a guest to us and a user to the homeserver: what could be read
/// in two ways is refused.
fn is_guest(query: &str) -> Result<bool> {
    let kinds = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "kind");
    let kinds: Vec<_> = kinds.map(|(_, kind)| kind).collect();
    match kinds.as_slice() {
        [] => Ok(false),
        [kind] if kind == "user" => Ok(false),
        [kind] if kind == "guest" => Ok(true),
        _ => Err(Error::invalid("kind must be user or guest, once")),
    }
}

/// Whether an application service asks, which has no stages to show: without one, the homeserver makes an account for
/// those alone whose token it knows.
fn is_service(body: &Object) -> bool {
    let kind = body.value("type").and_then(Value::as_str);
    kind == Some(APPLICATION_SERVICE) && body.value("auth").is_none()
}

/// What is wanted, and `auth`.
fn split(body: &Object) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let mut params = body.entries().clone();
    match params.remove("auth") {
        None | Some(Value::Null) => Ok((params, Map::new())),
        Some(Value::Object(auth)) => Ok((params, auth)),
        Some(_) => Err(Error::BadJson("The key auth must be an object.".into())),
    }
}

fn session(auth: &Map<String, Value>) -> Result<Option<String>> {
    match auth.get("session") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(session)) => Ok(Some(session.clone())),
        Some(_) => Err(Error::BadJson("The key session must be a string.".into())),
    }
}

/// The stage that a request shows; `None` if it only asks how far it is.
fn shown(auth: Map<String, Value>) -> Result<Option<Shown>> {
    let shows_credentials = shows_credentials(&auth);
    let name = match auth.get("type") {
        None | Some(Value::Null) if shows_credentials => return Err(Error::MissingParam("type")),
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err(Error::BadJson("The key type must be a string.".into())),
    };
    let medium = Medium::ALL
        .into_iter()
        .find(|medium| stage_of(*medium) == name);
    Ok(Some(match medium {
        Some(medium) => {
            let credentials = shows_credentials.then(|| uia::credentials(&auth, CREDENTIALS));
            Shown::Address(medium, credentials.transpose()?)
        }
        None => Shown::Other(name, auth),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_be_two_is_nobody() {
        for (query, expected) in [
            ("", Some(false)),
            ("kind=user", Some(false)),
            ("kind=guest", Some(true)),
            ("x=1&kind=guest", Some(true)),
            ("ki%6ed=guest", Some(true)),
            ("kind=guest&kind=user", None),
            ("kind=user&kind=guest", None),
            ("kind=guest&kind=guest", None),
            ("kind=Guest", None),
            ("kind=", None),
        ] {
            assert_eq!(is_guest(query).ok(), expected, "{query}");
        }
    }
}
