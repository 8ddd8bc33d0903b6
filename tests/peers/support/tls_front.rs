//! TLS before a server that has none, as a reverse proxy gives it: with a certificate for `localhost`.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::certificates::{Certified, acceptor};

/// A port that is taken already, and served later: others must know it before the server behind it can start.
pub(crate) struct TlsFront(TcpListener);

/// The running front; it ends when it is dropped.
pub(crate) struct ServingFront(JoinHandle<()>);

impl TlsFront {
    /// Takes a free port.
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Self(listener.expect("a port is free"))
    }

    /// What it is called in URLs, and as a Matrix server: `localhost` and its port.
    pub(crate) fn name(&self) -> String {
        let address = self.0.local_addr().expect("it is bound");
        format!("localhost:{}", address.port())
    }

    /// Passes everything on to the server at this plain URL.
    pub(crate) fn before(self, base: &str) -> ServingFront {
        let server = base.trim_start_matches("http://").to_owned();
        let acceptor = acceptor(Certified::Localhost);
        ServingFront(tokio::spawn(async move {
            // Dropped with this task, it ends the tasks of all connections.
            let mut connections = JoinSet::new();
            loop {
                let (outer, _) = self.0.accept().await.expect("it accepts");
                let (acceptor, server) = (acceptor.clone(), server.clone());
                connections.spawn(async move {
                    // Whoever trusts nobody here, or goes away, ends his own connection alone.
                    if let Ok(mut outer) = acceptor.accept(outer).await
                        && let Ok(mut inner) = TcpStream::connect(server).await
                    {
                        let _ = copy_bidirectional(&mut outer, &mut inner).await;
                    }
                });
            }
        }))
    }
}

impl Drop for ServingFront {
    fn drop(&mut self) {
        self.0.abort();
    }
}
