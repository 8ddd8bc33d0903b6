//! A small HTTP server on loopback that stands in for an SMS gateway and answers by a script.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, Response},
    serve::Listener,
};
use futures_util::{StreamExt, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificates::{self, Certified};

/// The longest body that is taken.
const LONGEST_BODY: usize = 64 * 1024;
/// How much a flood is, in chunks of 64 KiB: 100 MiB.
const FLOOD: usize = 1600;

/// What the gateway does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Says this.
    Say(u16, String),
    /// Leads elsewhere.
    Redirect(String),
    /// Never answers.
    Hang,
    /// Ends the connection instead of an answer.
    HangUp,
    /// Answers the status, and never ends its body.
    HangInBody(u16),
    /// Answers the status and the beginning of a body, and ends the connection.
    BreakOff(u16, String),
    /// Answers the status, and more than anybody wants to read.
    Flood(u16),
}

impl Answer {
    /// Says this JSON.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Say(status, body.to_string())
    }

    fn response(self) -> Response<Body> {
        let build = |status: u16, body| {
            let response = Response::builder().status(status).body(body);
            response.expect("the script has a status")
        };
        match self {
            Self::Say(status, body) => build(status, body.into()),
            Self::Redirect(to) => Response::builder()
                .status(307)
                .header("location", to)
                .body(Body::empty())
                .expect("the script has a location"),
            Self::Hang => build(200, Body::empty()),
            // Nothing but the task of the connection ends, and no report is printed.
            Self::HangUp => std::panic::resume_unwind(Box::new("hangs up")),
            Self::HangInBody(status) => {
                build(status, Body::from_stream(stream::pending::<Chunk>()))
            }
            Self::BreakOff(status, begin) => {
                let begin = stream::iter([Ok(Bytes::from(begin))]);
                let end = stream::once(async {
                    // What was said before is sent meanwhile.
                    tokio::task::yield_now().await;
                    Err(io::Error::from(io::ErrorKind::ConnectionReset))
                });
                build(status, Body::from_stream(begin.chain(end)))
            }
            Self::Flood(status) => {
                let chunk = Bytes::from(vec![b' '; 64 * 1024]);
                let chunks = std::iter::repeat_n(chunk, FLOOD).map(Ok);
                build(
                    status,
                    Body::from_stream(stream::iter::<Vec<Chunk>>(chunks.collect())),
                )
            }
        }
    }
}

type Chunk = io::Result<Bytes>;

/// A request that the gateway was sent.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query, as they were sent.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    /// A header field; nothing if it was not sent.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("it is ASCII"))
    }

    /// The body, read as a form.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        assert_eq!(
            self.header("content-type"),
            "application/x-www-form-urlencoded"
        );
        pairs(&self.body)
    }

    /// The query of the path.
    pub(crate) fn query(&self) -> BTreeMap<String, String> {
        pairs(self.path.split_once('?').unwrap_or_default().1)
    }

    /// The body, read as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect();
    let count = pairs.len();
    let map: BTreeMap<_, _> = pairs.into_iter().collect();
    assert_eq!(map.len(), count, "no key is there twice");
    map
}

/// The running server; it ends when it is dropped.
pub(crate) struct SmsGateway {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

impl SmsGateway {
    /// Starts it on a free port. The last answer is given again and again.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared::new(answers);
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            url: format!("http://{address}"),
            shared,
            task,
        }
    }

    /// The same behind TLS, with a certificate by the authority of [`certificates`].
    pub(crate) async fn start_tls(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared::new(answers);
        let listener = TlsListener {
            listener,
            acceptor: certificates::acceptor(Certified::Localhost),
        };
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            url: format!("https://{address}"),
            shared,
            task,
        }
    }

    /// Where it is, as a URL without a path.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// What it was sent, oldest first.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared
            .asked
            .lock()
            .expect("no test panicked here")
            .clone()
    }

    /// The one request that it was sent.
    pub(crate) fn asked_once(&self) -> Asked {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "it was asked once");
        asked.remove(0)
    }
}

impl Shared {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::default(),
        })
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // A client that does not trust us hangs up; that is its right.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn serve<L: Listener<Addr = SocketAddr>>(listener: L, shared: Arc<Shared>) {
    let router = Router::new().fallback(answer).with_state(shared);
    axum::serve(listener, router)
        .await
        .expect("loopback can be listened on");
}

impl Drop for SmsGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, LONGEST_BODY).await.expect("a short body");
    let asked = Asked {
        method: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("the body is text"),
    };
    shared
        .asked
        .lock()
        .expect("no test panicked here")
        .push(asked);
    let answer = {
        let mut answers = shared.answers.lock().expect("no test panicked here");
        let next = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        next.expect("the script has an answer")
    };
    if matches!(answer, Answer::Hang) {
        std::future::pending::<()>().await;
    }
    answer.response()
}
