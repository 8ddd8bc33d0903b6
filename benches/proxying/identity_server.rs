//! A stand-in for an identity server: HTTP/1.1 over TLS on loopback, in a thread of its own.

use std::{
    convert::Infallible,
    future,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    Failure,
    certificates::{self, Certified},
};

/// How it meets requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Opens a session at once.
    Prompt,
    /// Reads the request, and never answers.
    Silent,
}

/// A running identity server; it runs as long as the benchmark.
pub(crate) struct IdentityServer {
    /// What clients write in `id_server`.
    pub(crate) name: String,
    /// The authority that its certificate is of, as PEM.
    pub(crate) ca_file: PathBuf,
    met: Arc<Met>,
}

/// What it has met so far.
#[derive(Default)]
struct Met {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl IdentityServer {
    /// Starts it; `folder` is for its certificate.
    pub(crate) fn start(manner: Manner, folder: &Path) -> Result<Self, Failure> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let name = format!("localhost:{}", listener.local_addr()?.port());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let met = Arc::<Met>::default();
        let (acceptor, seen) = (
            certificates::acceptor(Certified::Localhost),
            Arc::clone(&met),
        );
        thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(converse(
                        stream,
                        acceptor.clone(),
                        manner,
                        Arc::clone(&seen),
                    ));
                }
            });
        });
        Ok(Self {
            name,
            ca_file: certificates::authority_in(folder),
            met,
        })
    }

    /// How many connections were made to it so far.
    pub(crate) fn connections(&self) -> usize {
        self.met.connections.load(Ordering::SeqCst)
    }

    /// How many requests it has read so far.
    pub(crate) fn requests(&self) -> usize {
        self.met.requests.load(Ordering::SeqCst)
    }
}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    manner: Manner,
    met: Arc<Met>,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    met.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(|request| answer(request, manner, &met));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

async fn answer(
    request: Request<Incoming>,
    manner: Manner,
    met: &Met,
) -> Result<Response<Full<hyper::body::Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let number = met.requests.fetch_add(1, Ordering::SeqCst);
    if manner == Manner::Silent {
        future::pending::<()>().await;
    }
    let mut response = Response::new(Full::from(format!(r#"{{"sid":"theirs{number:07}"}}"#)));
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}
