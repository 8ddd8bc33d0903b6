//! Calls whose path goes out letter by letter: whatever reads URLs puts an odd path in order before it is sent.

use std::{fmt, fs, io, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use url::{Host, Url};

use crate::courier::tls;

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// What came back.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The body; `null` if it is no JSON.
    pub(super) body: Value,
}

/// Calls one server, over a connection for each call.
pub(super) struct Caller {
    host: String,
    port: u16,
    /// As in the header.
    authority: HeaderValue,
    /// What stands before each path.
    base: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    limit: Duration,
}

impl fmt::Debug for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Caller({}:{})", self.host, self.port)
    }
}

impl Caller {
    /// Prepares to call the server of `url`, and to trust the certificates of `ca_files` besides the platform's.
    pub(super) fn new(url: &Url, ca_files: &[PathBuf], limit: Duration) -> Result<Self, String> {
        let unusable = || format!("{url} can not be called");
        let host = match url.host().ok_or_else(unusable)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let shown = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{shown}:{port}"),
            None => shown.to_owned(),
        };
        let tls = if url.scheme() == "http" {
            None
        } else {
            let name = ServerName::try_from(host.clone()).map_err(|_| unusable())?;
            Some((TlsConnector::from(Arc::new(trust(ca_files)?)), name))
        };
        Ok(Self {
            port: url.port_or_known_default().ok_or_else(unusable)?,
            authority: HeaderValue::from_str(&authority).map_err(|_| unusable())?,
            base: url.path().trim_end_matches('/').to_owned(),
            host,
            tls,
            limit,
        })
    }

    /// Sends `{}` to a path.
    pub(super) async fn post(&self, path: &str) -> Result<Reply, String> {
        self.call(Method::POST, path, "{}").await
    }

    /// Asks for a path.
    pub(super) async fn get(&self, path: &str) -> Result<Reply, String> {
        self.call(Method::GET, path, "").await
    }

    async fn call(&self, method: Method, path: &str, body: &'static str) -> Result<Reply, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, "threepid")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .map_err(|_| "this can not be asked for".to_owned())?;
        let late = |_| format!("no answer within {} s", self.limit.as_secs());
        timeout(self.limit, self.exchange(request))
            .await
            .map_err(late)?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let unreachable = |why: io::Error| format!("it can not be reached: {why}");
        let tcp = TcpStream::connect((self.host.as_str(), self.port));
        let tcp = tcp.await.map_err(unreachable)?;
        match &self.tls {
            None => exchange(tcp, request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp);
                let stream = stream.await.map_err(|why| format!("TLS: {why}"))?;
                exchange(stream, request).await
            }
        }
    }
}

fn trust(ca_files: &[PathBuf]) -> Result<ClientConfig, String> {
    let mut roots = Vec::new();
    for file in ca_files {
        let shown = file.display();
        let pem = fs::read(file).map_err(|why| format!("{shown} can not be read: {why}"))?;
        let found = tls::certificates(&pem);
        roots.extend(found.ok_or_else(|| format!("{shown} holds no certificate"))?);
    }
    let mut config = tls::client_config(roots)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |why: hyper::Error| format!("it gave no answer: {why}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // What becomes of the connection, the answer tells.
    tokio::spawn(async { drop(connection.await) });
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER)
        .collect()
        .await;
    let body = body.map(Collected::to_bytes).unwrap_or_default();
    Ok(Reply {
        status,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}
