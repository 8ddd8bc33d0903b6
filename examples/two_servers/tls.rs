//! TLS with certificates of an authority that is made for this run alone. A real server has a reverse proxy for it.

use std::{
    error::Error, fs, io, net::SocketAddr, path::Path, path::PathBuf, process::Command, sync::Arc,
};

use axum::serve::Listener;
use reqwest::{Certificate, Client};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// An authority, and a certificate of its for `localhost`.
pub(crate) struct Authority(TempDir);

impl Authority {
    /// Has `openssl` make both.
    pub(crate) fn make() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        let authority = "-subj /CN=Authority -keyout ca.key -out ca.pem \
                         -addext keyUsage=critical,keyCertSign";
        let site = "-subj /CN=localhost -keyout site.key -out site.pem -CA ca.pem -CAkey ca.key \
                    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost";
        for certificate in [authority, site] {
            let arguments = key.split_whitespace().chain(certificate.split_whitespace());
            let mut openssl = Command::new("openssl");
            let made = openssl.current_dir(&folder).args(arguments).output()?;
            if !made.status.success() {
                return Err(String::from_utf8_lossy(&made.stderr).into());
            }
        }
        Ok(Self(folder))
    }

    /// The file with the authority's own certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// A client that trusts nobody else.
    pub(crate) fn client(&self) -> Result<Client, Box<dyn Error>> {
        let authority = Certificate::from_pem(&fs::read(self.ca_file())?)?;
        let client = Client::builder().tls_certs_only([authority]).no_proxy();
        Ok(client.build()?)
    }

    /// A free port of loopback, with that certificate.
    pub(crate) async fn listen(&self) -> Result<TlsListener, Box<dyn Error>> {
        let certificate = CertificateDer::from_pem_file(self.path("site.pem"))?;
        let key = PrivateKeyDer::from_pem_file(self.path("site.key"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(TlsListener {
            tcp: TcpListener::bind("127.0.0.1:0").await?,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}

/// Where one server listens.
pub(crate) struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    /// Its name as a Matrix server: `localhost` and the port.
    pub(crate) fn name(&self) -> io::Result<String> {
        Ok(format!("localhost:{}", self.local_addr()?.port()))
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    /// The next connection whose handshake succeeds. One that is slow about it holds up the others.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.tcp.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
