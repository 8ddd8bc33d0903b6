//! The load: HTTP/1.1 over connections that stay open, one request at a time on each.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::Failure;

/// The longest that one measurement goes on asking.
const LONGEST: Duration = Duration::from_secs(20);

/// What a load of requests met.
pub(crate) struct Outcome {
    /// How long each request took, the shortest first.
    latencies: Vec<Duration>,
    /// How long all of them took together.
    wall: Duration,
    /// The bodies of the answers, in no order, each with the number of its request.
    pub(crate) answers: Vec<(usize, Vec<u8>)>,
}

impl Outcome {
    /// What requests met that were answered after `latencies`, all of them within `wall`.
    pub(crate) fn new(
        mut latencies: Vec<Duration>,
        wall: Duration,
        answers: Vec<(usize, Vec<u8>)>,
    ) -> Result<Self, Failure> {
        if latencies.is_empty() {
            return Err("a load without requests".into());
        }
        latencies.sort_unstable();
        Ok(Self {
            latencies,
            wall,
            answers,
        })
    }

    /// How many requests were answered.
    pub(crate) fn count(&self) -> usize {
        self.latencies.len()
    }

    /// Answers in a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.count()) / self.wall.as_secs_f64()
    }

    /// The latency that `share` of all requests, from 0 to 1, did not exceed, in milliseconds.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let place = (count(self.count()) * share).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small whole number"
        )]
        let place = (place as usize).clamp(1, self.count());
        self.latencies[place - 1].as_secs_f64() * 1000.0
    }
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

/// A request whose body is JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    post_as("", path, body)
}

/// The same with more headers, each with its line's end.
pub(crate) fn post_as(headers: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: matrix.example.org\r\nX-Forwarded-For: 203.0.113.7\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends all `requests` through `concurrency` connections. Every answer must be 200.
pub(crate) async fn run(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    concurrency: usize,
) -> Result<Outcome, Failure> {
    run_until(address, requests, concurrency, 200).await
}

/// The same, where every answer must have this status.
pub(crate) async fn run_until(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    concurrency: usize,
    status: u16,
) -> Result<Outcome, Failure> {
    let wanted = format!("http/1.1 {status}");
    let shared = Arc::new((requests, AtomicUsize::new(0), wanted));
    let mut streams = Vec::new();
    for _ in 0..concurrency {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let began = now();
    let mut clients = JoinSet::new();
    for stream in streams {
        clients.spawn(ask(stream, Arc::clone(&shared), began));
    }
    let (mut latencies, mut answers) = (Vec::new(), Vec::new());
    while let Some(client) = clients.join_next().await {
        for (number, latency, body) in client.map_err(io::Error::other)?? {
            latencies.push(latency);
            answers.push((number, body));
        }
    }
    Outcome::new(latencies, began.elapsed(), answers)
}

type Answered = Vec<(usize, Duration, Vec<u8>)>;

/// One connection: takes the next request until there is none.
async fn ask(
    mut stream: TcpStream,
    shared: Arc<(Vec<Vec<u8>>, AtomicUsize, String)>,
    began: Instant,
) -> Result<Answered, Failure> {
    let (requests, next, wanted) = &*shared;
    let (mut answered, mut buffer) = (Vec::new(), Vec::with_capacity(8192));
    while began.elapsed() < LONGEST {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(number) else {
            break;
        };
        let asked = now();
        stream.write_all(request).await?;
        let body = answer(&mut stream, &mut buffer, wanted).await?;
        answered.push((number, asked.elapsed(), body));
    }
    Ok(answered)
}

/// Reads one answer, whose first line begins as `wanted`, in small letters; its body.
pub(crate) async fn answer(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    wanted: &str,
) -> Result<Vec<u8>, Failure> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server hung up".into());
        }
        let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse().ok())
            .ok_or("an answer without a length")?;
        let body = &buffer[end + 4..];
        if body.len() < length {
            continue;
        }
        if !head.starts_with(wanted) {
            let body = String::from_utf8_lossy(body);
            return Err(format!("a request was refused: {head}\n{body}").into());
        }
        return Ok(body.to_vec());
    }
}

/// The time, to measure by.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
