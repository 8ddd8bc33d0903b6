//! What the tests share: small real servers, and how to wait for what they do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::TcpSocket,
    time::{Instant, sleep},
};

pub(crate) mod accounts;
pub(crate) mod app;
pub(crate) mod certificates;
pub(crate) mod federation;
pub(crate) mod gateway;
pub(crate) mod homeserver;
pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod openapi;
pub(crate) mod recorded;
pub(crate) mod resets;
pub(crate) mod smtp;
mod stored;
pub(crate) mod upstream;

/// How long anything is waited for that goes on by itself: far longer than it takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// An address of loopback where nobody listens, and where nobody else can while the socket is kept.
pub(crate) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(any).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// Looks again and again until `is_so`, for a while.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(PAUSE).await;
    }
}
