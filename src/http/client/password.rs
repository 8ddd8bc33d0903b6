//! `account/password`: a new password, for whoever proved an address of the account.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::uia::{self, CREDENTIALS, shows_credentials};
use crate::{
    account::{
        fallback::PageOf,
        password::{Reset, Stage, Wanted},
        uia::UiaSession,
    },
    error::{Error, Result},
    homeserver::{Origin, PassedOn},
    http::{
        App,
        extract::{Bearer, ClientOrigin, ClientSource, Object, read_body},
    },
    password::NewPassword,
    secret::AccessToken,
    source::Source,
    threepid::Medium,
};

/// `POST /_matrix/client/v3/account/password` (Client-Server API, "Password management"). With an access token it goes
/// to the homeserver as it came; without one, a proved address selects the account.
///
/// A stage that is not done is 401 `M_UNAUTHORIZED`, whatever the reason: clients ask again until it is. So nothing
/// else is: a stage that was not offered is 400 `M_INVALID_PARAM`, since asking again would change nothing.
pub(crate) async fn post(
    State(app): State<App>,
    Bearer(access_token): Bearer,
    ClientOrigin(origin): ClientOrigin,
    source: ClientSource,
    request: Request,
) -> Result<Response> {
    app.account.check_password_change()?;
    if let Some(access_token) = access_token {
        return pass_on(&app, access_token, &origin, request).await;
    }
    let body = Object::parse(&read_body(request).await?)?;
    let auth = match body.value("auth") {
        None => return Ok(challenge(&app, None, source.0, None)),
        Some(Value::Object(auth)) => auth,
        Some(_) => return Err(Error::BadJson("The key auth must be an object.".into())),
    };
    let session = auth.get("session").and_then(Value::as_str);
    let session = session.and_then(|text| app.account.read_session(text));
    let Some(stage) = stage(&app, auth, session.as_ref()).await? else {
        return Ok(challenge(&app, session, source.0, None));
    };
    // What was kept before need not be kept once more.
    let keeps = session.as_ref().filter(|_| shows_credentials(auth));
    let reset = app.account.reset(&stage, keeps, wanted(&body), source.0);
    match reset.await? {
        Reset::Done => Ok(axum::Json(json!({})).into_response()),
        Reset::NotYet => Ok(challenge(
            &app,
            session,
            source.0,
            Some(&Error::SessionNotValidated),
        )),
    }
}

/// What the request asks for, once its stage is done.
fn wanted(body: &Object) -> Result<Wanted> {
    Ok(Wanted {
        new: NewPassword::parse(body.string("new_password")?)?,
        logout_devices: body.optional_bool("logout_devices")?.unwrap_or(true),
    })
}

/// The stage that a request shows; without credentials the one that its session has kept. `None` if it shows none, and
/// only asks whether it is done by now.
async fn stage(
    app: &App,
    auth: &Map<String, Value>,
    session: Option<&UiaSession>,
) -> Result<Option<Stage>> {
    let named = match auth.get("type") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(offered(app, name)?),
        Some(_) => return Err(Error::BadJson("The key type must be a string.".into())),
    };
    let shows_credentials = shows_credentials(auth);
    if let (Some(medium), true) = (named, shows_credentials) {
        let (sid, client_secret) = uia::credentials(auth, CREDENTIALS)?;
        return Ok(Some(Stage {
            medium,
            sid,
            client_secret,
        }));
    }
    if shows_credentials {
        return Err(Error::MissingParam("type"));
    }
    if let Some(session) = session {
        for medium in Medium::ALL {
            let is_meant = named.is_none_or(|named| named == medium);
            let kept = if is_meant {
                app.account
                    .kept_stage(&PageOf::reset(session), medium)
                    .await?
            } else {
                None
            };
            if kept.is_some() {
                return Ok(kept);
            }
        }
    }
    match named {
        Some(_) => Err(Error::MissingParam(CREDENTIALS[0])),
        None => Ok(None),
    }
}

/// The medium of a stage that is offered.
fn offered(app: &App, name: &str) -> Result<Medium> {
    let medium = Medium::ALL
        .into_iter()
        .find(|medium| uia::stage_of(*medium) == name);
    medium
        .filter(|medium| app.account.opens_resets(*medium))
        .ok_or_else(|| Error::invalid("auth.type must be one of the stages in flows"))
}

/// The 401 that tells the flows, in the session that the client named, or in a fresh one.
fn challenge(
    app: &App,
    session: Option<UiaSession>,
    source: Source,
    error: Option<&Error>,
) -> Response {
    let session = session.unwrap_or_else(|| app.account.begin_session(source));
    let flows: Vec<Value> = Medium::ALL
        .into_iter()
        .filter(|medium| app.account.opens_resets(*medium))
        .map(|medium| json!({ "stages": [uia::stage_of(medium)] }))
        .collect();
    let mut body = Map::new();
    body.insert("session".to_owned(), json!(session.as_str()));
    body.insert("flows".to_owned(), json!(flows));
    body.insert("params".to_owned(), json!({}));
    body.insert("completed".to_owned(), json!([]));
    uia::challenge(body, error)
}

async fn pass_on(
    app: &App,
    access_token: AccessToken,
    origin: &Origin,
    request: Request,
) -> Result<Response> {
    let path = request.uri().path_and_query();
    let passed_on = PassedOn {
        method: request.method().clone(),
        path_and_query: path.map_or("/", |path| path.as_str()).to_owned(),
        access_token: Some(access_token),
        body: read_body(request).await?.to_vec(),
    };
    let answer = app.account.change(passed_on, origin).await?;
    Ok(answer.into_response())
}
