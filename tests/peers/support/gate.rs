//! What stands between the program and its homeserver, and can stop a change at a certain moment.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, Response, StatusCode, header, request::Parts},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

use super::server::{PATIENCE, client};

/// Where changes of accounts are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nowhere: all passes.
    Nowhere,
    /// What an administrator changes, before the homeserver gets to know of it.
    Before,
    /// What an administrator changes, when the homeserver has done it, and before anybody knows.
    After,
    /// The last request of a registration, before the homeserver gets to know of it.
    BeforeAccount,
    /// A new account, when the homeserver has made it, and before anybody knows.
    AfterAccount,
}

/// The running gate; it ends when it is dropped.
pub(crate) struct Gate {
    /// The URL that stands for that of the homeserver.
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    homeserver: String,
    client: reqwest::Client,
    held: watch::Sender<Held>,
    reached: Notify,
}

impl Gate {
    /// Starts one that lets all pass to the homeserver at this URL.
    pub(crate) async fn start(homeserver: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            homeserver: homeserver.to_owned(),
            client: client(),
            held: watch::Sender::new(Held::Nowhere),
            reached: Notify::new(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        let url = format!("http://{address}");
        Self { url, shared, task }
    }

    /// Holds changes from now on, or lets them go on, those that are held as well.
    pub(crate) fn hold(&self, held: Held) {
        self.shared.held.send_replace(held);
    }

    /// Waits until a change is held.
    pub(crate) async fn reached(&self) {
        let reached = timeout(PATIENCE, self.shared.reached.notified()).await;
        reached.expect("a change comes this far");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn wait(&self, here: Held) {
        let mut held = self.held.subscribe();
        if *held.borrow() == here {
            self.reached.notify_one();
            let opened = held.wait_for(|held| *held != here).await;
            opened.expect("the gate lives as long as its requests");
        }
    }

    async fn forward(&self, head: Parts, body: Bytes) -> Response<Body> {
        let url = format!("{}{}", self.homeserver, head.uri);
        let mut headers = head.headers;
        headers.remove(header::HOST);
        let request = self.client.request(head.method, url).headers(headers);
        let answer = request.body(body).send().await;
        let answer = answer.expect("the homeserver answers");
        let mut response = Response::builder().status(answer.status());
        let kind = answer.headers().get(header::CONTENT_TYPE);
        if let Some(kind) = kind {
            response = response.header(header::CONTENT_TYPE, kind);
        }
        let body = answer.bytes().await.expect("a whole answer");
        response.body(body.into()).expect("an answer can be told")
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a whole body");
    let path = head.uri.path();
    let is_change = path.starts_with("/_synapse/admin/") && head.method != Method::GET;
    let is_registration = path.ends_with("/register") && !is_change;
    if is_change {
        shared.wait(Held::Before).await;
    }
    if is_registration && ends_it(&body) {
        shared.wait(Held::BeforeAccount).await;
    }
    let answer = shared.forward(head, body).await;
    if is_change {
        shared.wait(Held::After).await;
    }
    if is_registration && answer.status() == StatusCode::OK {
        shared.wait(Held::AfterAccount).await;
    }
    answer
}

/// Whether a request shows the stage that is kept for the end.
fn ends_it(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["auth"]["type"] == "m.login.dummy"
}
