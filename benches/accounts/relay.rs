//! A mail relay on loopback that can be held: mails wait for it in the outbox, and cost the server nothing meanwhile.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use mail_parser::MessageParser;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    time::timeout,
};

use crate::Failure;

/// The longest that a mail may take.
const DELIVERY_LIMIT: Duration = Duration::from_mins(2);

/// A running relay; it runs as long as the benchmark.
pub(crate) struct Relay {
    /// What threepid is told of it.
    pub(crate) transport: String,
    is_held: watch::Sender<bool>,
    post: Arc<Post>,
}

/// The codes in the mails that it took, by recipient.
#[derive(Default)]
struct Post {
    codes: Mutex<HashMap<String, String>>,
    arrived: Notify,
}

impl Relay {
    pub(crate) fn start() -> Result<Self, Failure> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let transport = format!("smtp://{}?tls=none", listener.local_addr()?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let is_held = watch::Sender::new(false);
        let post = Arc::<Post>::default();
        let (held, taken) = (is_held.subscribe(), Arc::clone(&post));
        thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(talk(stream, held.clone(), Arc::clone(&taken)));
                }
            });
        });
        Ok(Self {
            transport,
            is_held,
            post,
        })
    }

    /// Lets every mail wait, or go on.
    pub(crate) fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// The code that an address was sent, as soon as it is.
    pub(crate) async fn code(&self, address: &str) -> Result<String, Failure> {
        let wait = async {
            loop {
                let arrived = self.post.arrived.notified();
                if let Some(code) = self.post.codes().remove(address) {
                    return code;
                }
                arrived.await;
            }
        };
        let code = timeout(DELIVERY_LIMIT, wait).await;
        Ok(code.map_err(|_| "a mail is missing")?)
    }
}

impl Post {
    fn codes(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, mail: &str) {
        if let Some((address, code)) = read(mail) {
            self.codes().insert(address, code);
            self.arrived.notify_waiters();
        }
    }
}

async fn talk(
    stream: TcpStream,
    mut is_held: watch::Receiver<bool>,
    post: Arc<Post>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 relay\r\n").await?;
    let (mut line, mut mail) = (String::new(), None::<String>);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if let Some(text) = &mut mail {
            if line != ".\r\n" {
                text.push_str(&line);
                continue;
            }
            post.take(text);
            mail = None;
            stream.write_all(b"250 taken\r\n").await?;
            continue;
        }
        let command = line.trim_end().to_ascii_uppercase();
        let reply = match command.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => "250-relay\r\n250 8BITMIME\r\n",
            "MAIL" => {
                // It fails with the benchmark alone.
                let _ = is_held.wait_for(|is_held| !is_held).await;
                "250 fine\r\n"
            }
            "DATA" => {
                mail = Some(String::new());
                "354 go on\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 fine\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// The recipient, and the code.
fn read(mail: &str) -> Option<(String, String)> {
    let mail = MessageParser::default().parse(mail)?;
    let to = mail.to()?.first()?.address()?.to_owned();
    let is_code = |line: &&str| line.len() >= 8 && line.chars().all(|digit| digit.is_ascii_digit());
    let text = mail.body_text(0)?;
    let code = text.lines().map(str::trim).find(is_code)?;
    Some((to, code.to_owned()))
}
