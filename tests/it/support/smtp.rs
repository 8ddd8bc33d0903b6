//! A small SMTP server on loopback that follows a script.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A point of the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Body,
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The lines that EHLO answers: `STARTTLS`, `AUTH PLAIN LOGIN`, `SMTPUTF8`. There is no TLS behind `STARTTLS`.
    pub(crate) extensions: Vec<&'static str>,
    /// Answers in the place of the usual ones.
    pub(crate) replies: Vec<(Phase, &'static str)>,
    /// Where it stops answering.
    pub(crate) hangs_at: Option<Phase>,
    /// Whether it hangs up after the first line of a body.
    pub(crate) drops_in_data: bool,
    /// Whether it hangs up after each mail, as if the connection had been idle for too long.
    pub(crate) closes_after_mail: bool,
    /// How long it thinks about a mail before it answers the body.
    pub(crate) delay: Duration,
}

impl Default for Script {
    /// Takes every mail.
    fn default() -> Self {
        Self {
            extensions: vec!["8BITMIME", "SMTPUTF8"],
            replies: Vec::new(),
            hangs_at: None,
            drops_in_data: false,
            closes_after_mail: false,
            delay: Duration::ZERO,
        }
    }
}

impl Script {
    /// Gives `reply` at `phase`, and is as usual otherwise.
    pub(crate) fn replying(phase: Phase, reply: &'static str) -> Self {
        Self {
            replies: vec![(phase, reply)],
            ..Self::default()
        }
    }

    /// Stops answering at `phase`.
    pub(crate) fn hanging_at(phase: Phase) -> Self {
        Self {
            hangs_at: Some(phase),
            ..Self::default()
        }
    }

    /// Takes every mail, and offers just these extensions.
    pub(crate) fn offering(extensions: &[&'static str]) -> Self {
        Self {
            extensions: extensions.to_vec(),
            ..Self::default()
        }
    }
}

/// A mail that the server has taken.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which connection it came through; the first one is 1.
    pub(crate) connection: usize,
    /// The argument of MAIL.
    pub(crate) from: String,
    /// The argument of RCPT.
    pub(crate) to: String,
    /// Header and body, without the dots that SMTP adds.
    pub(crate) data: String,
}

/// The running server; it ends when it is dropped.
pub(crate) struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    mails: Mutex<Vec<Received>>,
    lines: watch::Sender<Vec<String>>,
    connections: AtomicUsize,
}

impl SmtpServer {
    /// Starts it on a free port.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            mails: Mutex::default(),
            lines: watch::Sender::default(),
            connections: AtomicUsize::new(0),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    /// Its address, as `host:port`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Follows another script from the next command on. Whoever hangs goes on hanging.
    pub(crate) fn set(&self, script: Script) {
        *self.shared.script.lock().expect("no test panicked here") = script;
    }

    /// The mails that it took, oldest first.
    pub(crate) fn mails(&self) -> Vec<Received> {
        self.shared
            .mails
            .lock()
            .expect("no test panicked here")
            .clone()
    }

    /// The lines that clients sent, bodies excepted.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.shared.lines.borrow().clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until a client has sent, after the first `skipped` lines, one that begins with `start`. The end of a body
    /// is the line `.`.
    pub(crate) async fn saw(&self, skipped: usize, start: &str) {
        let mut lines = self.shared.lines.subscribe();
        let seen =
            |lines: &Vec<String>| lines[skipped..].iter().any(|line| line.starts_with(start));
        lines.wait_for(seen).await.expect("the server runs");
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut dialogues = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let dialogue = Dialogue {
            stream: BufReader::new(stream),
            shared: Arc::clone(&shared),
            number,
        };
        // A client that hangs up ends its dialogue by an error; that is its right.
        dialogues.spawn(async move { drop(dialogue.run().await) });
    }
}

struct Dialogue {
    stream: BufReader<TcpStream>,
    shared: Arc<Shared>,
    number: usize,
}

impl Dialogue {
    async fn run(mut self) -> std::io::Result<()> {
        self.answer(Phase::Greeting, "220 scripted ESMTP").await?;
        let (mut from, mut to) = (String::new(), String::new());
        while let Some(line) = self.line().await? {
            self.shared
                .lines
                .send_modify(|lines| lines.push(line.clone()));
            let verb = line.split(' ').next().unwrap_or_default();
            let argument = || line.split_once(':').unwrap_or_default().1.to_owned();
            match verb {
                "EHLO" => self.greet().await?,
                "STARTTLS" => self.answer(Phase::StartTls, "220 2.0.0 go on").await?,
                "AUTH" => self.answer(Phase::Auth, "235 2.7.0 welcome").await?,
                "MAIL" => {
                    from = argument();
                    self.answer(Phase::Mail, "250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    to = argument();
                    self.answer(Phase::Rcpt, "250 2.1.5 ok").await?;
                }
                "DATA" => {
                    self.answer(Phase::Data, "354 go on").await?;
                    if !self.body(&from, &to).await? {
                        return Ok(());
                    }
                }
                "NOOP" => self.say("250 2.0.0 ok").await?,
                "QUIT" => return self.say("221 2.0.0 bye").await,
                _ => self.say("500 5.5.2 what").await?,
            }
        }
        Ok(())
    }

    async fn greet(&mut self) -> std::io::Result<()> {
        let mut answer = String::from("250-scripted");
        for extension in self.script().extensions {
            answer.push_str("\r\n250-");
            answer.push_str(extension);
        }
        answer.push_str("\r\n250 HELP");
        self.answer(Phase::Ehlo, &answer).await
    }

    /// Takes a body; whether the dialogue goes on.
    async fn body(&mut self, from: &str, to: &str) -> std::io::Result<bool> {
        let mut data = String::new();
        while let Some(line) = self.line().await? {
            if self.script().drops_in_data {
                return Ok(false);
            }
            if line == "." {
                self.shared.lines.send_modify(|lines| lines.push(line));
                return self.take(from, to, data).await;
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
            data.push_str("\r\n");
        }
        Ok(false)
    }

    async fn take(&mut self, from: &str, to: &str, data: String) -> std::io::Result<bool> {
        let script = self.script();
        if script.hangs_at != Some(Phase::Body) && script.reply(Phase::Body).is_none() {
            let mut mails = self.shared.mails.lock().expect("no test panicked here");
            mails.push(Received {
                connection: self.number,
                from: from.to_owned(),
                to: to.to_owned(),
                data,
            });
        }
        tokio::time::sleep(script.delay).await;
        self.answer(Phase::Body, "250 2.0.0 taken").await?;
        Ok(!script.closes_after_mail)
    }

    /// Answers as the script says, or else `usual`; or never.
    async fn answer(&mut self, phase: Phase, usual: &str) -> std::io::Result<()> {
        let script = self.script();
        if script.hangs_at == Some(phase) {
            std::future::pending::<()>().await;
        }
        self.say(script.reply(phase).unwrap_or(usual)).await
    }

    async fn say(&mut self, reply: &str) -> std::io::Result<()> {
        let reply = format!("{reply}\r\n");
        self.stream.get_mut().write_all(reply.as_bytes()).await
    }

    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).await?;
        Ok((length > 0).then(|| line.trim_end_matches("\r\n").to_owned()))
    }

    fn script(&self) -> Script {
        self.shared
            .script
            .lock()
            .expect("no test panicked here")
            .clone()
    }
}

impl Script {
    fn reply(&self, phase: Phase) -> Option<&'static str> {
        let found = self.replies.iter().find(|(at, _)| *at == phase);
        found.map(|(_, reply)| *reply)
    }
}
