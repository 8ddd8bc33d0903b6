//! A stand-in for an identity server: HTTP/1.1 over TLS on loopback, that answers what it was told to.

use std::{
    io, iter,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use threepid::{id_server::IdServer, outbound::Settings};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificates::{self, Certified};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// Empty if there is none.
    pub(crate) query: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The value of a header, its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How an answer's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Whole,
    /// One byte, then a pause of this length.
    Dripping(Duration),
    /// The body again and again, for ever, in chunks.
    Endless,
    /// Nothing at all: the connection is closed.
    Closing,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
    gate: Option<Arc<Semaphore>>,
    pace: Pace,
}

impl Answer {
    /// Any body, of any type.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
            delay: Duration::ZERO,
            gate: None,
            pace: Pace::Whole,
        }
    }

    /// JSON.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "so that tests read `Answer::json(200, json!({}))`"
    )]
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// A Matrix error.
    pub(crate) fn error(status: u16, errcode: &str) -> Self {
        let body = serde_json::json!({"errcode": errcode, "error": "The server's words"});
        Self::json(status, body)
    }

    /// The connection is closed in the place of an answer.
    pub(crate) fn closing() -> Self {
        Self {
            pace: Pace::Closing,
            ..Self::new(200, "text/plain", "")
        }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// After that time.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Not before the gate has a permit.
    pub(crate) fn behind(self, gate: &Arc<Semaphore>) -> Self {
        let gate = Some(Arc::clone(gate));
        Self { gate, ..self }
    }

    /// One byte at a time, with that pause after each.
    pub(crate) fn dripping(self, pause: Duration) -> Self {
        let pace = Pace::Dripping(pause);
        Self { pace, ..self }
    }

    /// The body without an end, and without its length told.
    pub(crate) fn endless(self) -> Self {
        let pace = Pace::Endless;
        Self { pace, ..self }
    }
}

/// The running server; it ends when it is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    folder: TempDir,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    answers: Mutex<Vec<(String, Answer)>>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
}

impl Upstream {
    /// Starts it on a free port, as `localhost`.
    pub(crate) async fn start() -> Self {
        Self::start_as(Certified::Localhost).await
    }

    /// Starts it with that certificate, whether it fits or not.
    pub(crate) async fn start_as(certified: Certified) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), certified).await
    }

    /// Starts it at that address of loopback.
    pub(crate) async fn start_at(address: SocketAddr, certified: Certified) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let folder = TempDir::new().expect("a folder can be made");
        certificates::authority_in(folder.path());
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let acceptor = certificates::acceptor(certified);
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            address,
            folder,
            shared,
            task,
        }
    }

    /// What a client writes in `id_server`: `localhost:PORT`.
    pub(crate) fn name(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// The same, parsed.
    pub(crate) fn id_server(&self) -> IdServer {
        self.name().parse().expect("it is a host and a port")
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The authority that its certificate is of, as PEM.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// How to call it: its authority is trusted, loopback is allowed.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            allow: ["127.0.0.0/8", "::1/128"]
                .map(|network| network.parse().expect("it is a network"))
                .to_vec(),
            ca_files: vec![self.ca_file()],
            ..Settings::default()
        }
    }

    /// Answers so from now on where method, blank and path end so; with a `?` in it, where all that and the query do, and
    /// before all that have none. Anything else gets 404 `M_UNRECOGNIZED`.
    pub(crate) fn answer(&self, path_suffix: &str, answer: Answer) {
        let mut answers = self.shared.answers.lock().expect("no test panicked in it");
        answers.retain(|(suffix, _)| suffix != path_suffix);
        answers.push((path_suffix.to_owned(), answer));
    }

    /// All requests so far, in their order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let requests = self.shared.requests.lock();
        requests.expect("no test panicked in it").clone()
    }

    /// How many connections were made so far, whether TLS came of them or not.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Dropped with this task, and all conversations with it.
    let mut conversations = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        conversations.spawn(async move {
            // A client may hang up at any time, that is no concern of ours.
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = converse(BufReader::new(stream), &shared).await;
            }
        });
    }
}

async fn converse(mut stream: BufReader<TlsStream<TcpStream>>, shared: &Shared) -> io::Result<()> {
    while let Some(request) = read(&mut stream).await? {
        let answer = shared.choose(&request);
        let requests = shared.requests.lock();
        requests.expect("no test panicked in it").push(request);
        tokio::time::sleep(answer.delay).await;
        if let Some(gate) = &answer.gate {
            let _passes = gate.acquire().await.expect("it is never closed");
        }
        if answer.pace == Pace::Closing {
            break;
        }
        write(&mut stream, &answer).await?;
    }
    stream.shutdown().await
}

impl Shared {
    fn choose(&self, request: &Request) -> Answer {
        let answers = self.answers.lock().expect("no test panicked in it");
        let line = format!("{} {}", request.method, request.path);
        let whole = format!("{line}?{}", request.query);
        let with_query = answers
            .iter()
            .find(|(suffix, _)| suffix.contains('?') && whole.ends_with(suffix));
        let found =
            with_query.or_else(|| answers.iter().find(|(suffix, _)| line.ends_with(suffix)));
        found.map_or_else(
            || Answer::error(404, "M_UNRECOGNIZED"),
            |(_, answer)| answer.clone(),
        )
    }
}

/// The next request of a connection; `None` at its end.
async fn read(stream: &mut BufReader<TlsStream<TcpStream>>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().unwrap_or_default();
        }
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    }))
}

async fn write(stream: &mut BufReader<TlsStream<TcpStream>>, answer: &Answer) -> io::Result<()> {
    let is_told = |name: &str| answer.headers.iter().any(|(known, _)| known == name);
    let length = if answer.pace == Pace::Endless {
        Some("Transfer-Encoding: chunked".to_owned())
    } else {
        // A test may tell another length.
        (!is_told("Content-Length")).then(|| format!("Content-Length: {}", answer.body.len()))
    };
    let told = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"));
    let lines: Vec<String> = iter::once(format!("HTTP/1.1 {} Status", answer.status))
        .chain(told)
        .chain(length)
        .collect();
    let head = lines.join("\r\n");
    stream
        .write_all(format!("{head}\r\n\r\n").as_bytes())
        .await?;
    stream.flush().await?;
    match answer.pace {
        Pace::Whole | Pace::Closing => stream.write_all(&answer.body).await?,
        Pace::Dripping(pause) => {
            for byte in answer.body.chunks(1) {
                stream.write_all(byte).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
        }
        Pace::Endless => loop {
            let size = format!("{:x}\r\n", answer.body.len());
            stream.write_all(size.as_bytes()).await?;
            stream.write_all(&answer.body).await?;
            stream.write_all(b"\r\n").await?;
        },
    }
    stream.flush().await
}
