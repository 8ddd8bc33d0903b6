//! A small homeserver that mounts the email endpoints and finishes a registration with `m.login.email.identity`.
//!
//! `cargo run --example embed -- [LISTEN]`, and `cargo run --example client` beside it.
#![expect(clippy::print_stdout, reason = "it tells its reader where it listens")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use threepid::{
    Error, Keyring, Threepid,
    courier::capture::Capture,
    secret::{ClientSecret, Sid},
    session::Purpose,
    store::{
        Bound,
        sqlite::{Role, SqliteStore},
    },
    validation::{Claim, ClaimRequest},
};

struct Homeserver {
    threepid: Threepid,
    accounts: Mutex<HashSet<String>>,
}

impl Homeserver {
    fn create(&self, user: &str) -> bool {
        self.accounts
            .lock()
            .is_ok_and(|mut accounts| accounts.insert(user.to_owned()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8008".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(&folder.path().join("threepid.db"), Role::Server)?;
    let mailbox = Arc::new(Capture::in_memory());
    let threepid = Threepid::builder(base.parse()?, store, Keyring::generate()?)
        .email(mailbox.clone())
        .mailbox(mailbox)
        .build()?;
    let _background = threepid.start();
    let accounts = Mutex::default();
    let homeserver = Arc::new(Homeserver {
        threepid: threepid.clone(),
        accounts,
    });
    let router = Router::new()
        .route("/_matrix/client/v3/register", post(register))
        .with_state(homeserver)
        .merge(threepid.email_router())
        .merge(threepid.mailbox_router());
    println!("A homeserver on {base}; its mails: {base}/_threepid/mailbox");
    Ok(axum::serve(
        listener,
        router.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await?)
}

/// `POST /_matrix/client/v3/register`, with one stage: an email address.
async fn register(
    State(homeserver): State<Arc<Homeserver>>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    match finish(&homeserver, &body).await {
        Ok(account) => (StatusCode::OK, Json(account)),
        Err(why) => (
            StatusCode::UNAUTHORIZED,
            Json(json!({
                "session": "s", "params": {}, "completed": [], "flows": [{ "stages": ["m.login.email.identity"] }],
                "errcode": "M_UNAUTHORIZED", "error": why.to_string(),
            })),
        ),
    }
}

/// Claims the proof, makes the account, binds the address, takes the proof: a repeated request gets the same account.
async fn finish(homeserver: &Homeserver, body: &Value) -> Result<Value, Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let user = format!("@{}:localhost", text(&body["username"]));
    let creds = &body["auth"]["threepid_creds"];
    let sid = Sid::parse(&text(&creds["sid"]))?;
    let secret = ClientSecret::parse(&text(&creds["client_secret"]))?;
    let request = ClaimRequest {
        purpose: Purpose::Register,
        user_id: None,
        op_id: format!("register {user} {}", text(&creds["sid"])),
        digest: Sha256::digest(format!("register {user} {}", text(&body["password"]))).into(),
        lease: Duration::from_secs(30),
    };
    let (validation, op_id) = (homeserver.threepid.validation(), request.op_id.clone());
    if let Claim::Yours(proof) = validation.claim(&sid, &secret, request).await? {
        let address = &proof.threepid;
        let bound = homeserver
            .threepid
            .directory()
            .bind(
                &user,
                address,
                Some(proof.validated_at),
                homeserver.threepid.now(),
            )
            .await?;
        if bound == Bound::OwnedByOther || !homeserver.create(&user) {
            validation.release(&op_id).await?;
            return Err(Error::InUse);
        }
        validation.take(&op_id).await?;
    }
    Ok(json!({ "user_id": user, "access_token": "t", "device_id": "D" }))
}
