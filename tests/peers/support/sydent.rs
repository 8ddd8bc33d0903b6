//! Sydent, the reference identity server, as `examples/sydent` runs it: behind TLS, with a sink for all that it sends.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    install::python_with,
    server::{PATIENCE, client_that_trusts},
};

/// The release that is installed. Without the extra it does not start.
const SYDENT: &str = "matrix-sydent[prometheus]==2.6.1";
/// The script that runs it.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/sydent/sydent.py");

/// A message that a person would have got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// `email` or `msisdn`.
    pub(crate) medium: String,
    /// The address.
    pub(crate) to: String,
    /// The plain text.
    pub(crate) text: String,
}

impl Sent {
    /// The token: the last word of both texts.
    pub(crate) fn token(&self) -> &str {
        let last = self.text.split_whitespace().next_back();
        last.expect("a text with a token")
    }
}

/// The running identity server.
pub(crate) struct Sydent {
    identity_server: String,
    homeserver: String,
    ca_file: PathBuf,
    client: reqwest::Client,
    /// Killed by its id when it is dropped.
    _child: Child,
    _told: Lines<BufReader<ChildStdout>>,
}

impl Sydent {
    /// Installs it if need be, and starts it with its state in `dir`; with `terms`, accounts have to agree to some.
    pub(crate) async fn start(dir: &Path, terms: bool) -> Self {
        fs::create_dir_all(dir).expect("the folder can be made");
        let errors = dir.join("stderr");
        let mut command = Command::new(python_with(SYDENT));
        command
            .args([SCRIPT, "--port", "0", "--dir"])
            .arg(dir)
            .args(terms.then_some("--terms"))
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("the folder can be written"))
            .kill_on_drop(true);
        let mut child = command.spawn().expect("python starts");
        let mut told = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = timeout(PATIENCE, told.next_line()).await;
        let Some(line) = line.expect("it starts soon").expect("it says text") else {
            let why = fs::read_to_string(&errors).unwrap_or_default();
            panic!("Sydent did not start: {why}");
        };
        let ready: Value = serde_json::from_str(&line).expect("it says JSON");
        let ca_file = PathBuf::from(text(&ready["ca_file"]));
        Self {
            identity_server: text(&ready["identity_server"]),
            homeserver: text(&ready["homeserver"]),
            client: client_that_trusts(&ca_file),
            ca_file,
            _child: child,
            _told: told,
        }
    }

    /// Its name, as clients write it in `id_server`.
    pub(crate) fn identity_server(&self) -> &str {
        &self.identity_server
    }

    /// The certificate of the authority that signed its own.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The whole id of a user of the homeserver that vouches for everybody.
    pub(crate) fn user_id(&self, user: &str) -> String {
        format!("@{user}:{}", self.homeserver)
    }

    /// Opens an account for a user; its access token.
    pub(crate) async fn register(&self, user: &str) -> String {
        let shown = json!({ "matrix_server_name": self.homeserver, "access_token": user });
        let (status, answer) = self.post("account/register", "", &shown).await;
        assert_eq!(status, 200, "{answer}");
        text(&answer["token"])
    }

    /// Agrees to all terms.
    pub(crate) async fn agree(&self, access_token: &str) {
        let (_, terms) = self.get("terms", access_token).await;
        let policies = terms["policies"].as_object().expect("policies");
        let urls: Vec<_> = policies.values().map(|one| &one["en"]["url"]).collect();
        let accepts = json!({ "user_accepts": urls });
        let (status, answer) = self.post("terms", access_token, &accepts).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Posts JSON to a path of its API's second version; status and answer.
    pub(crate) async fn post(&self, path: &str, access_token: &str, body: &Value) -> (u16, Value) {
        let path = format!("/_matrix/identity/v2/{path}");
        self.send(Method::POST, &path, access_token, Some(body))
            .await
    }

    /// Gets a path of its API's second version; status and answer.
    pub(crate) async fn get(&self, path: &str, access_token: &str) -> (u16, Value) {
        let path = format!("/_matrix/identity/v2/{path}");
        self.send(Method::GET, &path, access_token, None).await
    }

    /// What it says of a session.
    pub(crate) async fn validated(
        &self,
        access_token: &str,
        sid: &str,
        secret: &str,
    ) -> (u16, Value) {
        let path = format!("3pid/getValidated3pid?sid={sid}&client_secret={secret}");
        self.get(&path, access_token).await
    }

    /// Everything that it has sent so far, newest last.
    pub(crate) async fn messages(&self) -> Vec<Sent> {
        let (_, sent) = self.send(Method::GET, "/_sink/messages", "", None).await;
        let sent = sent.as_array().expect("a list").iter();
        sent.map(|one| Sent {
            medium: text(&one["medium"]),
            to: text(&one["to"]),
            text: text(&one["text"]),
        })
        .collect()
    }

    /// Sends a request, with a token unless it is empty.
    async fn send(
        &self,
        method: Method,
        path: &str,
        access_token: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let url = format!("https://{}{path}", self.identity_server);
        let mut request = self.client.request(method, url);
        if !access_token.is_empty() {
            request = request.bearer_auth(access_token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("Sydent answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("it answers in JSON"))
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
