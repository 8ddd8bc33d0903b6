//! A small homeserver around the library: accounts that are made, found, recovered and ended by addresses.
//!
//! `cargo run --example homeserver -- [LISTEN]`. Of a homeserver it has the accounts alone, and keeps them in memory.
//!
//! | file | what it shows |
//! | --- | --- |
//! | `main.rs` | putting the library together, and mounting its routers |
//! | `register.rs`, `registrations.rs`, `wanted.rs` | signing up with a proof: claim it, make the account, take it |
//! | `login.rs` | logging in by user name, email address or phone number |
//! | `account.rs` | asking for the password again, changing it, and the end of an account |
//! | `host.rs` | what the library asks: whose a token is, and a new password |
//! | `users.rs`, `password.rs` | the accounts themselves |
//! | `answer.rs` | bodies, tokens and errors, as all endpoints have them |
//!
//! A real one needs besides: accounts that outlive the process, limits on logins, and a courier that sends.
#![expect(clippy::print_stdout, reason = "it tells its reader where it listens")]
#![expect(clippy::print_stderr, reason = "it has no other log")]

mod account;
mod answer;
mod host;
mod login;
mod password;
mod register;
mod registrations;
mod users;
mod wanted;

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{
        Method,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    routing::{get, post},
};
use serde_json::json;
use threepid::{
    Error, Keyring, Threepid,
    courier::capture::Capture,
    store::sqlite::{Role, SqliteStore},
};
use tower_http::cors::{Any, CorsLayer};

use self::{
    answer::{Answer, Caller, Refusal},
    registrations::Registrations,
    users::Users,
};

/// The part of user ids behind the colon.
const SERVER_NAME: &str = "localhost";
/// The largest body that is read.
const MOST_BYTES: usize = 64 * 1024;

/// What handlers share.
pub(crate) struct Homeserver {
    pub(crate) threepid: Threepid,
    pub(crate) users: Arc<Users>,
    pub(crate) registrations: Registrations,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8008".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let folder = tempfile::tempdir()?;
    let homeserver = assemble(&base, folder.path())?;
    // Delivers messages until it is dropped.
    let _background = homeserver.threepid.start();
    println!("A homeserver on {base}; its messages: {base}/_threepid/mailbox");
    let service = router(homeserver).into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, service).await?)
}

/// The library asks `Users` for accounts, and keeps itself which account has which address. A homeserver that has a table
/// of addresses already implements `Directory` for it.
fn assemble(base: &str, folder: &Path) -> Result<Arc<Homeserver>, Box<dyn std::error::Error>> {
    let users = Arc::new(Users::new(SERVER_NAME));
    let store = SqliteStore::open(&folder.join("threepid.db"), Role::Server)?;
    let mailbox = Arc::new(Capture::in_memory());
    // The key of a real one outlives the process: see `threepid::key_file`.
    let threepid = Threepid::builder(base.parse()?, store, Keyring::generate()?)
        .server_name(SERVER_NAME)
        .accounts(users.clone())
        .email(mailbox.clone())
        .sms(mailbox.clone())
        .mailbox(mailbox)
        .build()?;
    Ok(Arc::new(Homeserver {
        threepid,
        users,
        registrations: Registrations::default(),
    }))
}

/// Our own endpoints, and the library's beside them. No path may be in both.
fn router(homeserver: Arc<Homeserver>) -> Router {
    let threepid = homeserver.threepid.clone();
    let path = |endpoint: &str| format!("/_matrix/client/v3/{endpoint}");
    let own = Router::new()
        .route("/_matrix/client/versions", get(versions))
        .route(&path("capabilities"), get(capabilities))
        .route(&path("register"), post(register::register))
        .route(&path("register/available"), get(wanted::available))
        .route(&path("login"), get(login::flows).post(login::login))
        .route(&path("logout"), post(login::logout))
        .route(&path("logout/all"), post(login::logout_all))
        .route(&path("account/whoami"), get(account::whoami))
        .route(&path("account/deactivate"), post(account::deactivate))
        .method_not_allowed_fallback(async || Refusal::from(Error::MethodNotAllowed))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(cors())
        .with_state(homeserver);
    own.merge(threepid.email_router())
        .merge(threepid.msisdn_router())
        .merge(threepid.contacts_router())
        .merge(threepid.password_router())
        // Only while messages are captured.
        .merge(threepid.mailbox_router())
        .fallback(async || Refusal::from(Error::Unrecognized))
}

/// For clients in browsers (Client-Server API, "Web Browser Clients"). The library's routers have their own.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
}

/// `GET /_matrix/client/versions`
async fn versions() -> Answer {
    Ok(Json(json!({ "versions": ["v1.1"] })))
}

/// `GET /_matrix/client/v3/capabilities`
async fn capabilities(_: Caller) -> Answer {
    let on = json!({ "enabled": true });
    Ok(Json(json!({ "capabilities": {
        "m.change_password": on,
        // Without it, clients hide their settings of addresses.
        "m.3pid_changes": on,
    } })))
}
