//! Signing up with a proved email address (Client-Server API, "Account registration").

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use threepid::{
    Error,
    secret::{ClientSecret, Sid},
    session::{Proof, Purpose},
    threepid::Medium,
    validation::{Claim, ClaimRequest},
};

use crate::{
    Homeserver,
    answer::{Answer, Body, Refusal, required, text},
    password::PasswordHash,
    registrations::{Made, Progress, Registration},
    wanted::{check, in_use},
};

/// The only stage (Client-Server API, "Email-based (identity / homeserver)").
const EMAIL: &str = "m.login.email.identity";
/// How long it may take to make an account. If the process dies in it, the same session may go on after that.
const LEASE: Duration = Duration::from_secs(30);

/// `POST /_matrix/client/v3/register`
pub(crate) async fn register(
    State(homeserver): State<Arc<Homeserver>>,
    Query(query): Query<HashMap<String, String>>,
    Body(mut body): Body,
) -> Answer {
    if query.get("kind").is_some_and(|kind| kind == "guest") {
        let (errcode, error) = ("M_GUEST_ACCESS_FORBIDDEN", "There are no guests here.");
        return Err(Refusal::new(StatusCode::FORBIDDEN, errcode, error));
    }
    let auth = match body.remove("auth") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(auth)) => auth,
        Some(_) => return Err(Error::BadJson("The key auth must be an object.".into()).into()),
    };
    let now = homeserver.threepid.now();
    let session = text(&auth, "session")?;
    let session = session.and_then(|name| homeserver.registrations.find(name, now));
    let Some(session) = session else {
        // Said before anybody opens a mail for it.
        check(&homeserver, &body)?;
        let session = homeserver.registrations.begin(body, now)?;
        return Err(Refusal::challenge(EMAIL, &session.name, None));
    };
    // In a task of its own: if the client goes away, nothing is left half done.
    let work = tokio::spawn(go_on(homeserver, session, body, auth));
    let panicked = |_| Err(Error::Internal("a registration panicked".to_owned()).into());
    work.await.unwrap_or_else(panicked)
}

/// A request in a session: claims the proof, makes the account, gives it the address, and takes the proof. A repeated
/// request is answered with the same account.
async fn go_on(
    homeserver: Arc<Homeserver>,
    session: Arc<Registration>,
    body: Map<String, Value>,
    auth: Map<String, Value>,
) -> Answer {
    let mut progress = session.progress.lock().await;
    if progress.made.is_none() && !body.is_empty() {
        check(&homeserver, &body)?;
        progress.wanted = body;
    }
    let Some((sid, client_secret)) = credentials(&auth)? else {
        return Err(Refusal::challenge(EMAIL, &session.name, None));
    };
    let op_id = format!("register {}", session.name);
    let request = ClaimRequest {
        purpose: Purpose::Register,
        user_id: None,
        digest: Sha256::digest(&op_id).into(),
        op_id: op_id.clone(),
        lease: LEASE,
    };
    let validation = homeserver.threepid.validation();
    match validation.claim(&sid, &client_secret, request).await {
        Ok(Claim::Yours(proof)) => {
            let made = make(&homeserver, &session.name, &mut progress, &proof).await;
            // A refusal is certain: the person may go on with the same proof. After a fault only this session may.
            if made.as_ref().is_err_and(|why| why.status.is_client_error()) {
                if let Some(made) = progress.made.take() {
                    homeserver.users.forget(&made.user_id);
                }
                validation.release(&op_id).await?;
            }
            made?;
            validation.take(&op_id).await?;
            progress.wanted.remove("password");
        }
        Ok(Claim::DoneBefore) => {}
        Err(error) if is_not_yet(&error) => return Err(not_yet(&session.name, &error)),
        Err(error) => return Err(error.into()),
    }
    log_in(&homeserver, &progress)
}

/// Makes the account, unless an earlier request of the session did, and gives it the address.
async fn make(
    homeserver: &Homeserver,
    session: &str,
    progress: &mut Progress,
    proof: &Proof,
) -> Result<(), Refusal> {
    // The pair of a phone number is no email address.
    if proof.threepid.medium() != Medium::Email {
        return Err(not_yet(session, &Error::SessionNotValidated));
    }
    let made = match progress.made.take() {
        Some(made) => made,
        None => create(homeserver, &progress.wanted).await?,
    };
    let made = progress.made.insert(made);
    let threepids = std::slice::from_ref(&proof.threepid);
    let given = homeserver
        .threepid
        .account_registered(&made.user_id, threepids);
    Ok(given.await?)
}

async fn create(homeserver: &Homeserver, wanted: &Map<String, Value>) -> Result<Made, Refusal> {
    let name = text(wanted, "username")?
        .map_or_else(|| format!("u{:x}", rand::random::<u64>()), str::to_owned);
    let user_id = homeserver.users.user_id(&name);
    let password = PasswordHash::of(required(wanted, "password")?).await;
    if homeserver.users.create(&user_id, password.clone()) {
        Ok(Made { user_id, password })
    } else {
        Err(in_use())
    }
}

fn log_in(homeserver: &Homeserver, progress: &Progress) -> Answer {
    let made = progress.made.as_ref();
    let made = made.ok_or(Error::Internal("a proof was taken for nobody".to_owned()))?;
    let mut reply = json!({ "user_id": made.user_id });
    if progress.wanted.get("inhibit_login") != Some(&Value::Bool(true)) {
        let device_id = text(&progress.wanted, "device_id")?;
        let device = homeserver
            .users
            .log_in(&made.user_id, &made.password, device_id);
        let device = device.ok_or(Error::Forbidden(
            "This account exists already. Log in.".into(),
        ))?;
        reply["access_token"] = json!(device.access_token);
        reply["device_id"] = json!(device.device_id);
    }
    Ok(Json(reply))
}

/// The session that `auth` shows; `None` if it shows none, and only asks how far things are.
fn credentials(auth: &Map<String, Value>) -> Result<Option<(Sid, ClientSecret)>, Error> {
    match text(auth, "type")? {
        None => return Ok(None),
        Some(EMAIL) => {}
        Some(_) => {
            return Err(Error::InvalidParam(
                format!("auth.type must be {EMAIL}").into(),
            ));
        }
    }
    let shown = auth.get("threepid_creds");
    let shown = shown
        .ok_or(Error::MissingParam("threepid_creds"))?
        .as_object();
    let shown = shown.ok_or_else(|| Error::BadJson("threepid_creds must be an object.".into()))?;
    let sid = Sid::parse(required(shown, "sid")?)?;
    let client_secret = ClientSecret::parse(required(shown, "client_secret")?)?;
    Ok(Some((sid, client_secret)))
}

/// Whether a stage that met this is one that is not done.
fn is_not_yet(error: &Error) -> bool {
    matches!(
        error,
        Error::NoValidSession
            | Error::SessionNotValidated
            | Error::SessionExpired
            | Error::ProofSpent
    )
}

/// Clients ask again every few seconds as long as they are told `M_UNAUTHORIZED`, and take all else for the end.
fn not_yet(session: &str, error: &Error) -> Refusal {
    Refusal::challenge(EMAIL, session, Some(("M_UNAUTHORIZED", &error.to_string())))
}
