//! `register`: an account at the homeserver, for whoever proved an address.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::uia::{self, CREDENTIALS, shows_credentials, stage_of};
use crate::{
    account::registration::{Answered, Asker, RegistrationRules, Shown, Wish},
    error::{Error, Result},
    homeserver::{PassedBack, PassedOn},
    http::{
        App,
        extract::{Bearer, ClientOrigin, ClientSource, Object, read_body},
    },
    threepid::Medium,
};

/// How application services say what they are (Application Service API, "Registration").
const APPLICATION_SERVICE: &str = "m.login.application_service";

/// What a new account may be asked for with (Client-Server API, "Account registration"), as text; the last is for guests who
/// become users.
const TEXTS: [&str; 5] = [
    "username",
    "password",
    "device_id",
    "initial_device_display_name",
    "guest_access_token",
];
/// The longest user name and device, device name, password and token, in characters.
const LONGEST_NAME: usize = 255;
const LONGEST_DEVICE_NAME: usize = 100;
const LONGEST_PASSWORD: usize = 512;
const LONGEST_TOKEN: usize = 4096;

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
    let has_token = access_token.is_some() || query.contains("access_token=");
    if is_guest || is_service(&wanted()?, has_token) {
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
        asker: Asker {
            origin,
            source: source.0,
        },
    };
    let answered = rules(&app)?.register(wish).await?;
    Ok(match answered {
        Answered::Challenge(body) => uia::challenge(body, None),
        Answered::Refused(answer) => answer.into_response(),
        Answered::Done(body) => {
            let answer = PassedBack {
                status: StatusCode::OK,
                body,
                retry_after: None,
            };
            answer.into_response()
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

/// Whether an application service asks, which has a token and no stages to show. No key may be there that another reader
/// takes for `auth` or `type` as well: there are homeservers to which `Auth` is the same.
fn is_service(body: &Object, has_token: bool) -> bool {
    let kind = body.value("type").and_then(Value::as_str);
    has_token && kind == Some(APPLICATION_SERVICE) && !body.entries().contains_key("auth") && {
        let mut keys = body.entries().keys();
        keys.all(|key| is_plain(key))
    }
}

/// Whether a key is read by everybody as the same one.
fn is_plain(key: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    key.bytes().all(is_plain)
}

/// What is wanted, and `auth`. Of the body, the homeserver is shown what the specification names, and nothing else: what it
/// would make of the rest, we do not know.
fn split(body: &Object) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let mut params = Map::new();
    for key in TEXTS {
        if let Some(text) = body.optional_string(key)? {
            check_text(key, text)?;
            params.insert(key.to_owned(), text.into());
        }
    }
    for key in ["inhibit_login", "refresh_token"] {
        if let Some(value) = body.optional_bool(key)? {
            params.insert(key.to_owned(), value.into());
        }
    }
    match body.value("auth") {
        None => Ok((params, Map::new())),
        Some(Value::Object(auth)) => Ok((params, auth.clone())),
        Some(_) => Err(Error::BadJson("The key auth must be an object.".into())),
    }
}

/// Whether a homeserver can make the account with it: some look only once it is made.
fn check_text(key: &str, text: &str) -> Result<()> {
    let most = match key {
        "initial_device_display_name" => LONGEST_DEVICE_NAME,
        "password" => LONGEST_PASSWORD,
        "guest_access_token" => LONGEST_TOKEN,
        _ => LONGEST_NAME,
    };
    if text.chars().count() > most || text.contains('\0') {
        return Err(Error::invalid(format!(
            "The key {key} must be at most {most} characters, without a null."
        )));
    }
    Ok(())
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
        None if auth.keys().all(|key| is_plain(key)) => Shown::Other(name, auth),
        None => {
            let why =
                "The keys of auth must be lower-case letters, digits, \"_\", \".\" and \"-\".";
            return Err(Error::BadJson(why.into()));
        }
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
