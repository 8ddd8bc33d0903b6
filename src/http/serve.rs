//! The accept loop: connections that are bounded in number, in time, and at the end.
//!
//! Not `axum::serve`, which waits for ever for the rest of a request's head.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::http::{
    listen::ListenAddress,
    peer::Peer,
    stall::{Handling, Patience, Unstalled},
};

/// How long a client may leave us waiting.
///
/// Between two requests it rests for longer than whoever calls us keeps a connection that is not used: they should
/// close it, who know whether the next request is on its way. The longest seen are two minutes, of Synapse and Caddy.
const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    rests: 13,
    write: Duration::from_secs(30),
};
/// A head this large is refused, unless it arrived at one go: hyper looks after each read, which may be as large again.
const MOST_BUFFERED: usize = 20 * 1024;
/// How long to wait after a failed accept: it fails again until a file descriptor is free.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// Who may talk to our Unix socket: ourselves and our group.
const SOCKET_MODE: u32 = 0o660;

/// Why an address can not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub(crate) struct BindError {
    pub(crate) address: ListenAddress,
    pub(crate) error: io::Error,
}

/// What holds for all connections together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// How many may be open at once; further ones wait.
    pub(crate) connections: usize,
    /// How long requests that are under way may take to finish after the stop.
    pub(crate) grace: Duration,
}

/// Sockets that are bound; connections wait in them until [`Listening::serve`].
#[derive(Debug)]
pub(crate) struct Listening {
    sockets: Vec<Socket>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, which goes when we do.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listening {
    /// Binds all addresses, or none.
    ///
    /// The file of a Unix socket that nobody answers on is replaced.
    pub(crate) async fn bind(addresses: &[ListenAddress]) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for address in addresses {
            let bound = match address {
                ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
                ListenAddress::Unix(path) => bind_unix(path).await,
            };
            let address = || address.clone();
            sockets.push(bound.map_err(|error| BindError {
                address: address(),
                error,
            })?);
        }
        Ok(Self { sockets })
    }

    /// Where we listen in fact: with the port that the system chose for port 0.
    pub(crate) fn addresses(&self) -> Vec<ListenAddress> {
        let address = |socket: &Socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(ListenAddress::Tcp),
            Socket::Unix(_, file) => Some(ListenAddress::Unix(file.0.clone())),
        };
        self.sockets.iter().filter_map(address).collect()
    }

    /// Serves until `stop`; then accepts no more, lets requests that are under way finish, and returns after the grace
    /// at the latest.
    pub(crate) async fn serve(
        self,
        router: Router,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) {
        let connections = Arc::new(Connections {
            router,
            places: Arc::new(Semaphore::new(limits.connections)),
            graceful: GracefulShutdown::new(),
            end: CancellationToken::new(),
        });
        let mut loops = JoinSet::new();
        for socket in self.sockets {
            let (connections, stop) = (Arc::clone(&connections), stop.clone());
            loops.spawn(async move {
                // Ends between two connections: one that has a place is always served.
                stop.run_until_cancelled(connections.accept_all(&socket))
                    .await;
            });
        }
        loops.join_all().await;

        let end = connections.end.clone();
        if let Some(connections) = Arc::into_inner(connections) {
            let finished = timeout(limits.grace, connections.graceful.shutdown()).await;
            if finished.is_err() {
                tracing::warn!("some requests were still under way when the time to stop was over");
            }
        }
        end.cancel();
    }
}

/// What the connections share.
struct Connections {
    router: Router,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
    /// Ends whatever is left.
    end: CancellationToken,
}

impl Connections {
    async fn accept_all(&self, socket: &Socket) {
        loop {
            let failed = match socket {
                Socket::Tcp(listener) => match listener.accept().await {
                    Ok((stream, address)) => {
                        // Without it small answers may wait for the client's acknowledgement.
                        let _ = stream.set_nodelay(true);
                        self.spawn(stream, Peer::Tcp(address)).await;
                        continue;
                    }
                    Err(error) => error,
                },
                Socket::Unix(listener, _) => match listener.accept().await {
                    Ok((stream, _)) => {
                        self.spawn(stream, Peer::Unix).await;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            // A client that left early is no fault of ours.
            if !matches!(
                failed.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
            ) {
                tracing::warn!(error = %failed, "a connection could not be accepted");
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }

    /// Serves a connection as soon as there is a place for it. A socket that nobody connects to takes none from others.
    async fn spawn<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        let handling = Handling::default();
        let (begun, ended) = (handling.clone(), handling.clone());
        let service = self
            .router
            .clone()
            .map_request(move |request: Request<Incoming>| {
                begun.begins();
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                request
            })
            .map_result(move |answer| {
                ended.ends();
                answer
            });
        let stream = Unstalled::new(stream, PATIENCE, handling, Arc::clone(&self.places));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .keep_alive(true)
            .half_close(false)
            .max_buf_size(MOST_BUFFERED)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = self.graceful.watch(connection);
        let end = self.end.clone();
        tokio::spawn(async move {
            if let Some(Err(error)) = end.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}

async fn bind_unix(path: &Path) -> io::Result<Socket> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of this name that is no socket",
            ));
        }
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(Socket::Unix(listener, file))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Extension, routing::get};
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Notify,
        task::JoinHandle,
    };

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections: 8,
        grace: Duration::from_secs(5),
    };

    async fn peer(Extension(peer): Extension<Peer>) -> String {
        format!("{peer:?}")
    }

    /// A route that tells when it is reached and answers when it is let go.
    fn held(reached: &Arc<Notify>, go: &Arc<Notify>) -> Router {
        let (reached, go) = (Arc::clone(reached), Arc::clone(go));
        Router::new().route(
            "/",
            get(async move || {
                reached.notify_one();
                go.notified().await;
                "done"
            }),
        )
    }

    async fn start(
        router: Router,
        limits: ConnectionLimits,
    ) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let any = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listening = Listening::bind(&[any]).await.unwrap();
        let [ListenAddress::Tcp(address)] = listening.addresses()[..] else {
            panic!("one TCP address was asked for");
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(listening.serve(router, limits, stop.clone()));
        (address, stop, served)
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_knows_its_peer() {
        let (address, stop, served) = start(Router::new().route("/", get(peer)), LIMITS).await;

        let stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap();

        assert!(answer(stream).await.ends_with(&format!("Tcp({own})")));
        stop.cancel();
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn half_a_head_is_closed_by_the_timer() {
        let (address, _stop, _served) = start(Router::new(), LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
        // Lets the server see it before the clock begins to jump.
        sleep(Duration::from_millis(50)).await;

        tokio::time::pause();
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE.head * 2, stream.read_to_end(&mut rest)).await;

        assert!(closed.is_ok());
    }

    #[tokio::test]
    async fn a_connection_that_rests_is_closed_by_the_timer() {
        let (address, _stop, _served) = start(Router::new(), LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        sleep(Duration::from_millis(50)).await;

        tokio::time::pause();
        let mut answer = Vec::new();
        let rest = PATIENCE.head * PATIENCE.rests;
        let early = timeout(rest * 9 / 10, stream.read_to_end(&mut answer)).await;
        let closed = timeout(rest, stream.read_to_end(&mut answer)).await;

        assert!(early.is_err());
        assert!(closed.is_ok());
        assert!(answer.starts_with(b"HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_request_under_way_finishes_during_the_stop() {
        let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (address, stop, served) = start(held(&reached, &go), LIMITS).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let asking = tokio::spawn(answer(stream));
        reached.notified().await;

        stop.cancel();
        go.notify_one();

        assert!(asking.await.unwrap().ends_with("done"));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn after_the_grace_the_rest_is_ended() {
        let (reached, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let grace = Duration::from_millis(50);
        let limits = ConnectionLimits { grace, ..LIMITS };
        let (address, stop, served) = start(held(&reached, &never), limits).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let asking = tokio::spawn(answer(stream));
        reached.notified().await;

        stop.cancel();

        served.await.unwrap();
        assert_eq!(asking.await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_a_place() {
        let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let limits = ConnectionLimits {
            connections: 1,
            ..LIMITS
        };
        let (address, _stop, _served) = start(held(&reached, &go), limits).await;
        let first = tokio::spawn(answer(TcpStream::connect(address).await.unwrap()));
        reached.notified().await;
        let second = tokio::spawn(answer(TcpStream::connect(address).await.unwrap()));

        assert!(
            timeout(Duration::from_millis(50), reached.notified())
                .await
                .is_err()
        );
        go.notify_one();
        assert!(first.await.unwrap().ends_with("done"));

        reached.notified().await;
        go.notify_one();
        assert!(second.await.unwrap().ends_with("done"));
    }

    #[tokio::test]
    async fn an_address_that_nobody_connects_to_takes_no_place() {
        let any = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listening = Listening::bind(&[any.clone(), any]).await.unwrap();
        let addresses = listening.addresses();
        let limits = ConnectionLimits {
            connections: 1,
            ..LIMITS
        };
        let router = Router::new().route("/", get(peer));
        tokio::spawn(listening.serve(router, limits, CancellationToken::new()));

        let [ListenAddress::Tcp(one), ListenAddress::Tcp(other)] = addresses[..] else {
            panic!("two TCP addresses were asked for");
        };
        for address in [one, one, other, other] {
            let stream = TcpStream::connect(address).await.unwrap();
            let answered = timeout(Duration::from_secs(5), answer(stream)).await;
            assert!(answered.unwrap().starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_no_answers_loses_its_place() {
        let limits = ConnectionLimits {
            connections: 1,
            ..LIMITS
        };
        let large = || async { "x".repeat(1 << 20) };
        let router = Router::new().route("/", get(large));
        let (address, _stop, _served) = start(router, limits).await;
        let mut deaf = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        deaf.write_all(&request.repeat(64)).await.unwrap();
        // Lets the server write until nothing goes any more, before the clock begins to jump.
        sleep(Duration::from_millis(200)).await;

        tokio::time::pause();
        let next = TcpStream::connect(address).await.unwrap();
        let answered = timeout(PATIENCE.write * 2, answer(next)).await;

        assert!(answered.unwrap().starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_head_is_refused_if_it_is_too_large() {
        let (address, _stop, _served) = start(Router::new().route("/", get(peer)), LIMITS).await;
        for (size, status) in [(8 * 1024, "200"), (40 * 1024, "431")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let filler = "x".repeat(size);
            let head = format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Filler: {filler}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();

            let mut answer = Vec::new();
            // What we sent in vain resets the connection, after the answer or before it.
            let _ = stream.read_to_end(&mut answer).await;

            let answer = String::from_utf8_lossy(&answer);
            let closed = status == "431" && answer.is_empty();
            assert!(
                closed || answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer:.40}"
            );
        }
    }

    #[tokio::test]
    async fn a_unix_socket_serves_and_leaves_no_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("threepid.sock");
        let listening = Listening::bind(&[ListenAddress::Unix(path.clone())])
            .await
            .unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(peer));
        let served = tokio::spawn(listening.serve(router, LIMITS, stop.clone()));

        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let stream = UnixStream::connect(&path).await.unwrap();
        assert!(answer(stream).await.ends_with("Unix"));

        stop.cancel();
        served.await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_answers_on_is_replaced() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("threepid.sock");
        let address = [ListenAddress::Unix(path.clone())];
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let first = Listening::bind(&address).await.unwrap();

        let second = Listening::bind(&address).await.unwrap_err();
        assert_eq!(second.error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        fs::write(&path, "precious").unwrap();
        assert!(Listening::bind(&address).await.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
