//! Ports for programs that must be told theirs, because others have to know it before they start.

use std::net::TcpListener;

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
