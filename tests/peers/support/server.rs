//! The real program, as an operator runs it: in a folder of its own, on ports that the system chooses.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

/// Where clients ask for tokens to sign up.
pub(crate) const REGISTER: &str = "/_matrix/client/v3/register/email/requestToken";
/// Where clients show codes.
pub(crate) const SUBMIT: &str = "/_threepid/email/submitToken";
/// How long a process may take for what it does at once unless the machine is very busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait between two looks at a process.
const PAUSE: Duration = Duration::from_millis(20);

/// A folder with a database, and the settings of the servers that run on it one after another.
pub(crate) struct Site {
    dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Site {
    /// A site without limits, whose mails are captured.
    pub(crate) fn new() -> Self {
        Self::plain()
            .set("server.listen", "127.0.0.1:0")
            .set("server.internal_listen", "127.0.0.1:0")
            .set("limits.enabled", "false")
    }

    /// A site that sends its mails; their links are below a public URL that nobody serves.
    pub(crate) fn sending(transport: &str) -> Self {
        Self::new()
            .set("server.public_url", "https://matrix.example.org")
            .set("server.trusted_proxies", "127.0.0.1")
            .set("email.transport", transport)
    }

    /// A site with nothing set at all.
    pub(crate) fn plain() -> Self {
        Self {
            dir: tempfile::tempdir().expect("there is room for temporary files"),
            settings: Vec::new(),
        }
    }

    /// The same with a setting, named as in the configuration file.
    pub(crate) fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        let variable = format!("THREEPID__{}", key.replace('.', "__").to_uppercase());
        self.settings.push((variable, value.into()));
        self
    }

    /// A path in the site's folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What its servers have logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The program with these arguments, and with nothing of our own environment that it reads.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threepid"));
        command.args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Puts a command into the site's folder and environment.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.current_dir(self.dir.path()).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THREEPID") {
                command.env_remove(name);
            }
        }
        for (variable, value) in &self.settings {
            command.env(variable, value);
        }
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().await;
        output.expect("the program runs")
    }

    /// Starts a server, and waits until it listens.
    pub(crate) async fn start(&self) -> Server {
        self.start_by(self.command(&["serve"])).await
    }

    /// The same by a command that becomes the server.
    pub(crate) async fn start_by(&self, mut command: Command) -> Server {
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("the folder can be written");
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let mut told = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut text = String::new();
        // The last of the lines that every server tells.
        while !text.contains("\nMails ") {
            let line = timeout(PATIENCE, told.next_line()).await;
            let line = line.expect("it starts soon").expect("it says text");
            let Some(line) = line else {
                panic!("the server did not start: {}", self.log());
            };
            text = format!("{text}{line}\n");
        }
        Server {
            base: address(&text, "listens on "),
            internal: address(&text, "monitoring: "),
            client: client(),
            child,
            _told: told,
        }
    }
}

/// The URL of the address that stands after `words`.
fn address(text: &str, words: &str) -> String {
    let rest = text.split_once(words).map(|(_, rest)| rest);
    let line = rest.and_then(|rest| rest.lines().next());
    let address = line.expect("the server tells its addresses");
    format!("http://{}", address.trim_end_matches('.'))
}

/// A client that follows no redirect, uses no proxy, and gives up at last.
pub(crate) fn client() -> reqwest::Client {
    client_builder().build().expect("a client")
}

/// The same for servers that this authority, or this certificate itself, vouches for.
pub(crate) fn client_that_trusts(ca_file: &Path) -> reqwest::Client {
    let pem = std::fs::read(ca_file).expect("the certificate is there");
    let authority = reqwest::Certificate::from_pem(&pem).expect("it is a certificate");
    client_builder()
        .tls_certs_only([authority])
        .build()
        .expect("a client")
}

/// What becomes such a client.
fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
}

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    /// The URL of its public listener.
    pub(crate) base: String,
    /// The URL of its internal listener.
    pub(crate) internal: String,
    pub(crate) client: reqwest::Client,
    child: Child,
    _told: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Posts JSON; status and answer, or `None` if the server went away.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let asked = self.client.post(format!("{}{path}", self.base)).json(body);
        let answer = asked.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// Posts JSON to a server that lives.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.try_post(path, body).await;
        answer.expect("the server answers in JSON")
    }

    /// Asks for a token for an address, and demands that it is granted: the `sid`.
    pub(crate) async fn ask(&self, email: &str) -> String {
        let (status, answer) = self.post(REGISTER, &asking(email)).await;
        assert_eq!(status, 200, "{answer}");
        sid(&answer)
    }

    /// Presses the button behind a mailed link; the status.
    pub(crate) async fn press(&self, link: &str) -> u16 {
        let path = link.split_once("/_threepid/").expect("a link of ours").1;
        let url = format!("{}/_threepid/{path}", self.base);
        let answer = self.client.post(url).send().await;
        answer.expect("the server answers").status().as_u16()
    }

    /// Gets a path of the internal listener.
    pub(crate) async fn inside(&self, path: &str) -> (u16, Value) {
        let answer = self.client.get(format!("{}{path}", self.internal)).send();
        let answer = answer.await.expect("the server answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("it answers in JSON"))
    }

    /// Whether and how well it works, as monitoring sees it.
    pub(crate) async fn ready(&self) -> (u16, Value) {
        self.inside("/_threepid/health/ready").await
    }

    /// Waits until no message is on its way any more.
    pub(crate) async fn settle(&self) {
        until("the outbox is empty", async || {
            self.ready().await.1["outbox"]["waiting"] == 0
        })
        .await;
    }

    /// The captured mails, newest first.
    pub(crate) async fn mailbox(&self) -> Vec<Value> {
        let (_, mails) = self.inside("/_threepid/mailbox/messages").await;
        mails.as_array().expect("a list of mails").clone()
    }

    /// The text of the one mail that is captured for an address.
    pub(crate) async fn mail_to(&self, email: &str) -> String {
        let mut text = None;
        until("the mail is there", async || {
            let mails = self.mailbox().await;
            let mail = mails.iter().find(|mail| mail["to"] == email);
            text = mail.and_then(|mail| mail["text"].as_str().map(str::to_owned));
            text.is_some()
        })
        .await;
        text.expect("it was just found")
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it was not waited for yet")
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Sends it a signal: `TERM` tells it to stop, `KILL` ends it as if the machine had lost its power.
    pub(crate) async fn signal(&self, name: &str) {
        send_signal(name, self.id()).await;
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it stops").expect("it is a child of ours")
    }
}

/// Sends a signal to the process with this id.
pub(crate) async fn send_signal(name: &str, id: u32) {
    let kill = format!("kill -s {name} {id}");
    let sent = Command::new("sh").args(["-c", &kill]).status().await;
    assert!(sent.expect("a shell runs").success());
}

/// The body of a `requestToken`.
pub(crate) fn asking(email: &str) -> Value {
    json!({ "client_secret": "monkeys_are_GREAT", "email": email, "send_attempt": 1 })
}

/// The `sid` of an answer.
pub(crate) fn sid(answer: &Value) -> String {
    let sid = answer["sid"].as_str();
    sid.expect("a sid is a string").to_owned()
}

/// Looks again and again until `is_so`, for a while.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asked = Instant::now();
    while !is_so().await {
        assert!(
            asked.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(PAUSE).await;
    }
}
