//! The way to a gateway: TCP, TLS, and how to tell what failed on it.

use std::{
    error::Error as StdError,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::redirect::Policy;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, CertificateError, ClientConfig,
        pki_types::{CertificateDer, ServerName},
    },
};
use url::{Host, Url};

use crate::courier::tls::{certificates, client_config};

/// How long it takes at most to connect, TLS included, where the whole may take at least twice as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next message: less than most servers wait before they hang up.
const KEPT_IDLE: Duration = Duration::from_secs(30);

/// Where a gateway is, and whom we trust to be it.
pub(super) struct Way {
    host: String,
    port: u16,
    /// `None` for plain HTTP.
    name: Option<ServerName<'static>>,
    tls: Arc<ClientConfig>,
    limit: Duration,
}

impl Way {
    /// The way to the host of `url`; `at` is the gateway's name in the configuration, `limit` what one try takes at
    /// most.
    ///
    /// # Errors
    /// Which setting can not be used, and what to write instead.
    pub(super) fn new(
        url: &Url,
        ca_files: &[PathBuf],
        limit: Duration,
        at: &str,
    ) -> Result<Self, String> {
        let no_host =
            || format!("{at}.url has no host that can be called; write https://host/path");
        // Without the brackets that an IPv6 address has in a URL.
        let host = match url.host().ok_or_else(no_host)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let name = match url.scheme() {
            "https" => Some(ServerName::try_from(host.clone()).map_err(|_| no_host())?),
            _ => None,
        };
        Ok(Self {
            host,
            port: url.port_or_known_default().ok_or_else(no_host)?,
            name,
            tls: Arc::new(tls(ca_files, at)?),
            limit,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What keeps the connections to the gateway. It goes straight there, and nowhere else.
    pub(super) fn client(&self) -> Result<reqwest::Client, String> {
        reqwest::Client::builder()
            .tls_backend_preconfigured((*self.tls).clone())
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            // Well before the whole: what takes too long after this has a connection, and may have been sent.
            .connect_timeout(CONNECT_TIMEOUT.min(self.limit / 2))
            .pool_idle_timeout(KEPT_IDLE)
            .user_agent("threepid")
            .build()
            .map_err(|why| format!("an HTTP client can not be made: {}", why.without_url()))
    }

    /// Connects and sends nothing; tells each phase that went well.
    ///
    /// # Errors
    /// The phase that failed, and how.
    pub(super) async fn greet(&self, gateway: &str, told: &mut Vec<String>) -> Result<(), String> {
        let Ok(greeted) = timeout(self.limit, self.connect(gateway, told)).await else {
            return Err("timed out".to_owned());
        };
        greeted
    }

    async fn connect(&self, gateway: &str, told: &mut Vec<String>) -> Result<(), String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|why| format!("connect: {}", reason(&why)))?;
        told.push(format!(
            "{gateway}: connected to {}:{}",
            self.host, self.port
        ));
        if let Some(name) = &self.name {
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let handshake = connector.connect(name.clone(), stream).await;
            handshake.map_err(|why| format!("TLS: {}", reason(&why)))?;
            told.push(format!("{gateway}: TLS, certificate trusted"));
        }
        Ok(())
    }
}

fn tls(ca_files: &[PathBuf], at: &str) -> Result<ClientConfig, String> {
    let mut roots = Vec::new();
    for file in ca_files {
        roots.extend(read(file).map_err(|why| format!("{at}.ca_files: {why}"))?);
    }
    let mut config = client_config(roots)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let pem = fs::read(file)
        .map_err(|why| format!("the file {shown} can not be read ({why}); correct its path"))?;
    certificates(&pem).ok_or_else(|| {
        format!(
            "the file {shown} holds no certificate; it must be PEM, with \"-----BEGIN CERTIFICATE-----\""
        )
    })
}

/// What failed in a request, in our own words: the phase, then how.
pub(super) fn told(error: &reqwest::Error) -> String {
    let reason = reason(error);
    if reason.starts_with("certificate") || reason == "handshake failed" {
        return format!("TLS: {reason}");
    }
    let phase = if error.is_connect() {
        "connect"
    } else {
        "request"
    };
    format!("{phase}: {reason}")
}

/// The innermost cause that has a name.
fn reason(error: &(dyn StdError + 'static)) -> &'static str {
    let mut found = "network error";
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return of_tls(error);
        }
        // The library that looks names up has no other sign.
        if error.to_string() == "dns error" {
            return "name not found";
        }
        next = error.source();
        if let Some(error) = error.downcast_ref::<io::Error>() {
            found = of_io(error.kind()).unwrap_or(found);
            // The error of TLS lies inside of one of I/O, whose `source` skips it.
            next = error.get_ref().map(|inner| inner as _).or(next);
        } else if let Some(error) = error.downcast_ref::<reqwest::Error>()
            && error.is_timeout()
        {
            found = "timed out";
        }
    }
    found
}

fn of_io(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("refused"),
        io::ErrorKind::TimedOut => Some("timed out"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some("unreachable"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => Some("connection closed"),
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(why) = error else {
        return "handshake failed";
    };
    match why {
        CertificateError::UnknownIssuer => "certificate not trusted",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate expired"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate of another name"
        }
        CertificateError::Revoked => "certificate revoked",
        _ => "certificate refused",
    }
}
