//! What the same requests cost without us: a handler alone, and a handler with durable commits.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Sender},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::Html,
    routing::{get, post},
    serve::ListenerExt,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::Deserialize;
use serde_json::{Value, json};
use threepid::{
    Threepid,
    courier::capture::Capture,
    key_file,
    secret::{self, ClientSecret},
    session::Purpose,
    store::sqlite::{Role, SqliteStore},
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    Failure,
    commits::{self, Change, Piece, Sid},
};

/// What a person's browser is answered, about as long as our page.
const PAGE: &str = include_str!("../../templates/pages/page.css");

/// Becomes the server that hidden `arguments` ask for: its kind, where it listens, its folder.
pub(crate) fn become_server(arguments: &[String]) -> Result<(), Failure> {
    let [kind, address, folder] = arguments else {
        return Err("a server needs a kind, an address and a folder".into());
    };
    let (address, folder): (SocketAddr, _) = (address.parse()?, PathBuf::from(folder));
    tokio::runtime::Runtime::new()?.block_on(async {
        let router = match kind.as_str() {
            "bare" => bare(),
            "commits" => committing(&folder, None)?,
            "commits-mail" => committing(&folder, Some(&folder.join("mails")))?,
            "check" => checking(&folder).await?,
            _ => return Err("no such server".into()),
        };
        let router = router.route("/_threepid/health/live", get(async || "ok"));
        let listener = TcpListener::bind(address).await?;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        Ok(axum::serve(listener, router).await?)
    })
}

#[derive(Deserialize)]
struct Ask {
    client_secret: String,
    email: String,
    send_attempt: i64,
}

#[derive(Deserialize)]
struct Show {
    sid: String,
    client_secret: String,
    token: Option<String>,
}

fn opened(sid: Sid) -> Json<Value> {
    Json(json!({
        "sid": URL_SAFE_NO_PAD.encode(sid),
        "submit_url": "https://matrix.example.org/_threepid/email/submitToken",
    }))
}

fn routes<S: Clone + Send + Sync + 'static>(
    request: axum::routing::MethodRouter<S>,
    link: axum::routing::MethodRouter<S>,
    code: axum::routing::MethodRouter<S>,
    check: axum::routing::MethodRouter<S>,
) -> Router<S> {
    Router::new()
        .route(crate::REQUEST, request)
        .route("/_threepid/link/{link}", link)
        .route(crate::SUBMIT, code)
        .route(crate::CHECK, check)
}

/// Reads each request and answers it, and that is all.
fn bare() -> Router {
    routes(
        post(async |Json(ask): Json<Ask>| {
            let mut sid = [0; 21];
            sid[0] = u8::try_from(ask.send_attempt).unwrap_or(0);
            sid[1] = u8::try_from(ask.email.len() + ask.client_secret.len()).unwrap_or(0);
            opened(sid)
        }),
        post(async || Html(PAGE)),
        post(async |Json(show): Json<Show>| Json(json!({ "success": show.token.is_some() }))),
        post(async |Json(show): Json<Show>| {
            Json(json!({ "proved": show.sid != show.client_secret }))
        }),
    )
}

/// What the committing handlers share.
#[derive(Clone)]
struct Shared {
    queue: Sender<Piece>,
    database: Arc<Path>,
}

impl Shared {
    /// Hands the change to the writer; returns when it is on the disk.
    async fn commit(&self, change: Change) -> Result<Sid, StatusCode> {
        let (reply, durable) = oneshot::channel();
        let lost = StatusCode::SERVICE_UNAVAILABLE;
        self.queue.send(Piece { change, reply }).map_err(|_| lost)?;
        durable.await.map_err(|_| lost)
    }
}

/// Commits each request durably, in groups, and afterwards the lease and the record of its mail, in groups as well.
/// Derives, renders, limits and decides nothing. With a folder it writes a file for each mail, as `file:` does.
fn committing(folder: &Path, mails: Option<&Path>) -> Result<Router, Failure> {
    let database: Arc<Path> = folder.join("threepid.db").into();
    let queue = commits::start(&database, mails)?;
    let router = routes(
        post(async |State(shared): State<Shared>, Json(ask): Json<Ask>| {
            let change = Change::Open {
                client_secret: ask.client_secret,
                email: ask.email,
                send_attempt: ask.send_attempt,
            };
            shared.commit(change).await.map(opened)
        }),
        post(
            async |State(shared): State<Shared>,
                   axum::extract::Path(link): axum::extract::Path<String>| {
                shared
                    .commit(Change::ByLink(sid(&link)?))
                    .await
                    .map(|_| Html(PAGE))
            },
        ),
        post(
            async |State(shared): State<Shared>, Json(show): Json<Show>| {
                let change = Change::ByCode(sid(&show.sid)?);
                let done = shared.commit(change).await;
                done.map(|_| Json(json!({ "success": show.token.is_some() })))
            },
        ),
        post(
            async |State(shared): State<Shared>, Json(show): Json<Show>| {
                let found = find(&shared.database, sid(&show.sid)?);
                let found = found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
                found
                    .map(|address| Json(json!({ "proved": address })))
                    .ok_or(StatusCode::NOT_FOUND)
            },
        ),
    );
    Ok(router.with_state(Shared { queue, database }))
}

fn sid(text: &str) -> Result<Sid, StatusCode> {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    bytes.try_into().map_err(|_| StatusCode::BAD_REQUEST)
}

/// One row by its key, on a connection of this thread.
fn find(database: &Path, sid: Sid) -> rusqlite::Result<Option<String>> {
    thread_local! {
        static READER: std::cell::OnceCell<Connection> = const { std::cell::OnceCell::new() };
    }
    READER.with(|reader| {
        if reader.get().is_none() {
            let opened = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let _ = reader.set(opened);
        }
        let reader = reader.get().ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        reader
            .prepare_cached(
                "SELECT address FROM session WHERE sid = ?1 AND validated_at IS NOT NULL",
            )?
            .query_row([sid], |row| row.get(0))
            .optional()
    })
}

/// The library's own check of a proof, which no endpoint of ours serves: a homeserver calls it.
async fn checking(folder: &Path) -> Result<Router, Failure> {
    let store = SqliteStore::open(&folder.join("threepid.db"), Role::Server)?;
    let keys = key_file::load_or_create(&folder.join("secret.key"), &store).await?;
    let threepid = Threepid::builder("https://matrix.example.org".parse()?, store, keys)
        .email(Arc::new(Capture::in_memory()))
        .build()?;
    let check = post(
        async |State(threepid): State<Threepid>, Json(show): Json<Show>| {
            let proof = async {
                let sid = secret::Sid::parse(&show.sid)?;
                let client_secret = ClientSecret::parse(&show.client_secret)?;
                let validation = threepid.validation();
                validation
                    .proof(&sid, &client_secret, Purpose::Register, None)
                    .await
            };
            match proof.await {
                Ok(proof) => Ok(Json(json!({ "proved": proof.threepid.address() }))),
                Err(error) => Err((StatusCode::UNAUTHORIZED, error.to_string())),
            }
        },
    );
    Ok(Router::new()
        .route(crate::CHECK, check)
        .with_state(threepid))
}
