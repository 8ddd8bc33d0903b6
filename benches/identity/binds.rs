//! `3pid/bind`, with its signature: through the router, without a network and without anything beside it.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use threepid::{
    Keyring, SigningKeys, Threepid,
    courier::capture::Capture,
    identity, limits,
    store::sqlite::{Role, SqliteStore},
};
use tower::ServiceExt;

use crate::{
    Failure, Plan,
    load::{Outcome, now},
    server::cpu_of,
};

const ALICE: &str = "@alice:example.org";
const PREFIX: &str = "/_matrix/identity/v2";

/// One user binds one proved address again and again; how long each took, and the CPU time of all, commits included.
pub(crate) async fn measure(plan: &Plan, folder: &Path) -> Result<(Outcome, Duration), Failure> {
    eprintln!("bind");
    let store = SqliteStore::open(&folder.join("threepid.db"), Role::Server)?;
    let mailbox = Arc::new(Capture::in_memory());
    let settings = identity::Settings::new("id.example.org".parse()?);
    let url = "https://id.example.org".parse()?;
    let threepid = Threepid::builder(url, Arc::clone(&store), Keyring::generate()?)
        .email(mailbox.clone())
        .limits(limits::Settings::OFF)
        .identity(settings, SigningKeys::generate()?)
        .build()?;
    let token = threepid.identity_token(ALICE).await?;
    let (router, bearer) = (threepid.router(), format!("Bearer {}", token.reveal()));
    let post = async |path: &str, body: &Value| post(&router, &bearer, path, body).await;

    let asked = json!({ "client_secret": "s", "email": "alice@example.org", "send_attempt": 1 });
    let sid = post("validate/email/requestToken", &asked).await?["sid"].clone();
    threepid.deliver_due().await?;
    let text = mailbox.messages().pop().ok_or("no mail")?.text;
    let is_code = |line: &&str| line.len() == 8 && line.bytes().all(|byte| byte.is_ascii_digit());
    let code = text.lines().find(is_code).ok_or("no code")?;
    let shown = json!({ "sid": sid, "client_secret": "s", "token": code });
    post("validate/email/submitToken", &shown).await?;

    let body = json!({ "sid": sid, "client_secret": "s", "mxid": ALICE });
    let (began, before, mut latencies) = (now(), cpu_of("self")?, Vec::new());
    for _ in 0..plan.binds {
        let sent = now();
        let bound = post("3pid/bind", &body).await?;
        latencies.push(sent.elapsed());
        if bound["signatures"].is_null() {
            return Err(format!("it is not bound: {bound}").into());
        }
    }
    let cpu = cpu_of("self")?.saturating_sub(before);
    let outcome = Outcome::new(latencies, began.elapsed(), Vec::new())?;
    drop((router, threepid));
    store.close().await;
    Ok((outcome, cpu))
}

async fn post(router: &Router, bearer: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let request = Request::post(format!("{PREFIX}/{path}"))
        .header(header::AUTHORIZATION, bearer)
        .body(Body::from(body.to_string()))?;
    let response = router.clone().oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
