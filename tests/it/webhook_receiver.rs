//! The receiver of the webhook's tests: the example's accounts on loopback, with faults before them, and a look of its own
//! at each signature.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use threepid::{
    clock::{ManualClock, Timestamp},
    homeserver::webhook::{SigningKey, Webhook, WebhookSettings},
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tower::ServiceExt;

#[path = "../../examples/webhook_server.rs"]
#[expect(
    dead_code,
    reason = "its main and what only that calls are the example's"
)]
mod example;

pub(crate) const KEY: &str = "a_key_that_nobody_guesses";
pub(crate) const OLD_KEY: &str = "the_key_before_that_one_is";
pub(crate) const NOW: i64 = 1_795_341_600_123;
/// What a fault that never answers costs a test, twice.
const SHORT: Duration = Duration::from_secs(1);

/// What goes wrong with a call. Those named `…After` do first what they were asked to.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is answered thus.
    Answer(u16, String),
    /// It is sent elsewhere, 307.
    Redirect(String),
    DropAfter,
    StatusAfter(u16),
    Silent,
}

impl Fault {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, body.to_string())
    }

    pub(crate) fn error(status: u16, errcode: &str) -> Self {
        let words = format!("Words for {errcode}");
        Self::json(status, &json!({ "errcode": errcode, "error": words }))
    }
}

/// A call as it came, and what was answered.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// With the base's.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) is_signed: bool,
    /// `None` if the answer was lost.
    pub(crate) answer: Option<(u16, Value)>,
}

impl Call {
    /// The path below the base.
    pub(crate) fn verb(&self) -> &str {
        self.path.trim_start_matches("/threepid")
    }

    pub(crate) fn signature(&self) -> &str {
        let value = self.headers.get("X-Threepid-Signature");
        value.map_or("", |value| value.to_str().unwrap_or("?"))
    }
}

struct Shared {
    router: Router,
    clock: Arc<ManualClock>,
    faults: Mutex<VecDeque<Fault>>,
    always: Mutex<Option<Fault>>,
    seen: Mutex<Vec<Call>>,
}

/// A receiver on loopback. Dropped, it is gone.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// One without accounts, that knows two keys.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let clock = Arc::new(ManualClock::new(Timestamp(NOW)));
        let keys = vec![OLD_KEY.to_owned(), KEY.to_owned()];
        let shared = Arc::new(Shared {
            router: example::router(keys, Arc::clone(&clock) as _),
            clock,
            faults: Mutex::default(),
            always: Mutex::default(),
            seen: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            shared,
            address,
            serving,
        }
    }

    pub(crate) fn settings(&self) -> WebhookSettings {
        WebhookSettings {
            url: format!("http://{}/threepid/", self.address)
                .parse()
                .expect("a URL"),
            keys: vec![SigningKey::parse(KEY).expect("a key")],
            timeout: Duration::from_secs(20),
            ca_files: Vec::new(),
            clock: Arc::clone(&self.shared.clock) as _,
        }
    }

    pub(crate) fn webhook(&self) -> Arc<Webhook> {
        Webhook::new(self.settings()).expect("settings that can be used")
    }

    /// As soon as something takes too long it counts as too late.
    pub(crate) fn impatient(&self) -> Arc<Webhook> {
        let settings = WebhookSettings {
            timeout: SHORT,
            ..self.settings()
        };
        Webhook::new(settings).expect("settings that can be used")
    }

    pub(crate) fn clock(&self) -> &ManualClock {
        &self.shared.clock
    }

    /// Lets the next calls go wrong, one after the other.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared.faults).extend(faults);
    }

    /// Lets all calls go wrong.
    pub(crate) fn set(&self, fault: Fault) {
        *lock(&self.shared.always) = Some(fault);
    }

    /// All calls that have come since this was last asked, oldest first.
    pub(crate) fn seen(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.shared.seen))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the task, and the connections with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        connections.spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Whatever the client made of it shows in the test.
            let _ = connection.await;
        });
    }
}

/// An error breaks the connection off without an answer.
async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut call = Call {
        path: parts.uri.path().to_owned(),
        is_signed: false,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        headers: parts.headers.clone(),
        answer: None,
    };
    call.is_signed = is_signed(call.signature(), &call.path, &body);
    let next = lock(&shared.faults).pop_front();
    let fault = next.or_else(|| lock(&shared.always).clone());
    let done = match &fault {
        None | Some(Fault::DropAfter | Fault::StatusAfter(_)) => {
            let request = Request::from_parts(parts, Body::from(body));
            let done = shared.router.clone().oneshot(request).await;
            Some(read(done.expect("a router always answers")).await)
        }
        Some(_) => None,
    };
    let reply = match &fault {
        None => done,
        Some(Fault::Answer(status, body)) => Some((*status, body.clone())),
        Some(Fault::StatusAfter(status)) => Some((*status, String::new())),
        Some(_) => None,
    };
    let told = reply.as_ref();
    call.answer = told.map(|(status, body)| (*status, json_or_null(body)));
    lock(&shared.seen).push(call);
    let response = Response::builder();
    let response = match (reply, fault) {
        (Some((status, body)), _) => response
            .status(status)
            .header("Retry-After", "7")
            .body(Body::from(body)),
        (None, Some(Fault::Redirect(to))) => response
            .status(307)
            .header("Location", to)
            .body(Body::empty()),
        (None, Some(Fault::Silent)) => pending().await,
        (None, _) => return Err(io::Error::other("broken off")),
    };
    Ok(response.expect("an answer"))
}

fn json_or_null(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

async fn read(response: Response<Body>) -> (u16, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("it is in memory").to_bytes();
    (
        parts.status.as_u16(),
        String::from_utf8(body.to_vec()).expect("JSON is text"),
    )
}

/// Whether the newer key has signed it at the time of the test's clock, made out otherwise than the receiver does.
fn is_signed(signature: &str, path: &str, body: &[u8]) -> bool {
    let seconds = signature.trim_start_matches("t=").split(',').next();
    let seconds = seconds.unwrap_or_default();
    let text = [seconds.as_bytes(), b".", path.as_bytes(), b".", body].concat();
    let mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("any length will do");
    let bytes = mac.chain_update(text).finalize().into_bytes();
    let parts = signature.split_once(",v1=").map(|(_, hex)| hex);
    let digit = |at: usize| char::from_digit(u32::from(bytes[at / 2] >> (4 - at % 2 * 4) & 15), 16);
    let hex: Option<String> = (0..2 * bytes.len()).map(digit).collect();
    hex.as_deref() == parts
}
