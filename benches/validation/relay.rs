//! A mail relay on loopback, which is slow or refuses.

use std::{net::Ipv4Addr, thread, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::Failure;

/// How a relay meets mails.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// Takes each after this time.
    Slow(Duration),
    /// Takes none: "try again later".
    Refusing,
}

/// Starts a relay in a thread of its own, for as long as the benchmark runs; its transport.
pub(crate) fn start(manner: Manner) -> Result<String, Failure> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, manner));
            }
        });
    });
    Ok(format!("smtp://127.0.0.1:{port}?tls=none"))
}

async fn talk(stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 relay\r\n").await?;
    let (mut line, mut in_body) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_ascii_uppercase();
        let reply = match (in_body, command.as_str()) {
            (true, ".") => {
                in_body = false;
                if let Manner::Slow(delay) = manner {
                    tokio::time::sleep(delay).await;
                }
                "250 taken\r\n"
            }
            (true, _) => continue,
            (_, "DATA") => {
                in_body = true;
                "354 go on\r\n"
            }
            (_, "QUIT") => "221 bye\r\n",
            (_, command) if command.starts_with("EHLO") => "250-relay\r\n250 8BITMIME\r\n",
            (_, command) if command.starts_with("RCPT") && matches!(manner, Manner::Refusing) => {
                "451 try again later\r\n"
            }
            _ => "250 fine\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}
