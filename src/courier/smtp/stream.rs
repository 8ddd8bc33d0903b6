//! The byte stream to a relay.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// The first byte that a TLS client sends: a record of the handshake (RFC 8446, 5.1). No SMTP command begins so.
const HANDSHAKE: u8 = 22;

/// TCP to a relay, or TLS over it from the first byte on.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP, that may turn into TLS at STARTTLS.
    Tcp {
        /// The connection.
        tcp: TcpStream,
        /// Whether to read one byte at a time until the handshake begins.
        ///
        /// What somebody on the line appends to the answer to STARTTLS, hoping that it passes for encrypted
        /// (CVE-2011-0411), so stays in the socket, and the handshake stumbles over it; lettre's buffer would keep it.
        byte_by_byte: bool,
    },
    /// TLS from the first byte.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncTokioStream for Stream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp { tcp, .. } => tcp.peer_addr(),
            Self::Tls(tls) => tls.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp {
                tcp,
                byte_by_byte: true,
            } if buffer.remaining() > 0 => {
                let mut byte = [0];
                let mut one = ReadBuf::new(&mut byte);
                let polled = Pin::new(tcp).poll_read(context, &mut one);
                buffer.put_slice(one.filled());
                polled
            }
            Self::Tcp { tcp, .. } => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp { tcp, byte_by_byte } => {
                if bytes.first() == Some(&HANDSHAKE) {
                    *byte_by_byte = false;
                }
                Pin::new(tcp).poll_write(context, bytes)
            }
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp { tcp, .. } => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp { tcp, .. } => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
