//! A homeserver that answers what a file says, in the file's order: `tests/it/exchanges/{homeserver}/*.json`.
//!
//! Each exchange has `method`, `path` with its query, `token` (absent if no access token is to be shown), `request` (absent
//! for no body), `status` and `response`. A request that differs fails the test, and so does one that does not come.

use std::{
    collections::VecDeque,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use axum::body::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

/// What happens while a request waits for its answer.
type Meanwhile = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct Shared {
    expected: Mutex<VecDeque<Value>>,
    /// The first request that differed.
    wrong: Mutex<Option<String>>,
    meanwhile: Mutex<Option<(&'static str, Meanwhile)>>,
}

/// A homeserver on loopback. Dropped, it fails the test unless all exchanges took place.
pub(crate) struct Recorded {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Recorded {
    /// One that answers as these files say, one after the other.
    pub(crate) async fn start(homeserver: &str, files: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        let recorded = Self {
            shared,
            address,
            serving,
        };
        for file in files {
            recorded.expect(homeserver, file, &[]);
        }
        recorded
    }

    /// Expects another file's exchanges after the others, with `{name}` replaced by a value in all of its texts.
    pub(crate) fn expect(&self, homeserver: &str, file: &str, values: &[(&str, &str)]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/exchanges")
            .join(homeserver)
            .join(format!("{file}.json"));
        let mut text = fs::read_to_string(path).expect("a file of exchanges");
        for (name, value) in values {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        let exchanges: Vec<Value> = serde_json::from_str(&text).expect("a list of exchanges");
        lock(&self.shared.expected).extend(exchanges);
    }

    /// Does something before the next request to this path is answered.
    pub(crate) fn meanwhile(&self, path: &'static str, act: Meanwhile) {
        *lock(&self.shared.meanwhile) = Some((path, act));
    }

    /// The base of its URLs.
    pub(crate) fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a URL")
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.serving.abort();
        if !thread::panicking() {
            assert_eq!(*lock(&self.shared.wrong), None);
            let left = lock(&self.shared.expected);
            assert!(left.is_empty(), "these requests never came: {left:#?}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Whatever the client made of it shows in the test.
            let _ = connection.await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let bearer = parts.headers.get(header::AUTHORIZATION);
    let bearer = bearer.map(|value| value.to_str().unwrap_or("?"));
    let came = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.to_string(),
        "token": bearer.map(|value| value.trim_start_matches("Bearer ")),
        "request": serde_json::from_slice::<Value>(&body).unwrap_or_default(),
    });
    let exchange = lock(&shared.expected).pop_front().unwrap_or_default();
    let is_it = came
        .as_object()
        .expect("an object")
        .iter()
        .all(|(key, value)| exchange[key] == *value);
    if !is_it {
        let wrong = format!("this came: {came:#}\nand this was expected: {exchange:#}");
        lock(&shared.wrong).get_or_insert(wrong);
        return Ok(response(500, &json!({ "errcode": "M_NOT_RECORDED" })));
    }
    let path = parts.uri.path();
    let act = lock(&shared.meanwhile).take_if(|(wanted, _)| *wanted == path);
    if let Some((_, act)) = act {
        act().await;
    }
    let status = exchange["status"].as_u64().expect("a status");
    Ok(response(status, &exchange["response"]))
}

fn response(status: u64, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(u16::try_from(status).expect("a status"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.to_string().into()))
        .expect("an answer")
}

#[tokio::test]
#[should_panic(expected = "this came")]
async fn a_request_that_differs_fails_the_test() {
    let recorded = Recorded::start("dendrite", &["whoami"]).await;
    let url = recorded.url().join("_matrix/client/v3/account/whoami");
    let client = reqwest::Client::builder().no_proxy().build();
    let asked = client.expect("a client").get(url.expect("a URL"));
    let answer = asked.send().await;
    assert_eq!(answer.expect("an answer").status(), 500, "no token");
}

#[tokio::test]
#[should_panic(expected = "these requests never came")]
async fn a_request_that_does_not_come_fails_the_test() {
    let _recorded = Recorded::start("dendrite", &["whoami"]).await;
}
