//! Where secrets of the identity server do not get: its database, its log, and the homeserver's API.

use std::{
    fs::{self, File},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use threepid::courier::capture::Captured;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::sleep,
};

use crate::{
    cli,
    contacts::THREEPID,
    support::{
        app::*,
        federation::{FederationServer, POST_ONBIND},
        host::{HERS, Host, as_user},
    },
};

const OPENID: &str = "0penid-of-alice";
const CLIENT_SECRET: &str = "monkeys_are_GREAT";

/// The OpenID object of a homeserver.
fn openid(homeserver: &FederationServer) -> Value {
    json!({ "access_token": OPENID, "token_type": "Bearer", "matrix_server_name": homeserver.name(), "expires_in": 3600 })
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

#[tokio::test]
async fn access_tokens_are_stored_as_hashes() {
    let homeserver = FederationServer::start().await;
    homeserver.knows(OPENID, &homeserver.user("alice"));
    let outbound = homeserver.outbound();
    let app = TestApp::with(|builder| with_identity(builder.outbound(outbound), |_| {}));

    let path = format!("{IDENTITY}/account/register");
    let answer = app.post(&path, &openid(&homeserver)).await;
    let token = text(&answer.json()["token"]);
    let bearer = format!("Bearer {token}");
    let used = app
        .get(
            &format!("{IDENTITY}/account"),
            &[("authorization", &bearer)],
        )
        .await;

    assert_eq!(used.status, 200, "{}", used.text);
    let files = fs::read_dir(app.dir()).expect("the folder of the database");
    let files = files.map(|file| fs::read(file.expect("a file").path()).expect("its content"));
    let stored = files.collect::<Vec<_>>().concat();
    let has = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
    assert!(
        has(homeserver.user("alice").as_bytes()),
        "the account is there"
    );
    let raw = URL_SAFE_NO_PAD.decode(&token).expect("it is base64");
    for secret in [token.as_bytes(), &raw, OPENID.as_bytes()] {
        assert!(!has(secret));
    }
}

#[tokio::test]
async fn a_token_of_the_identity_server_is_none_of_the_homeserver_s() {
    let host = Host::new();
    let set = host.set();
    let app = TestApp::with(|builder| with_identity(set(builder), |_| {}));
    let token = app.identity_token("@alice:example.org").await;
    let ask = |token: &str| as_user("GET", token, THREEPID, &Value::Null);

    let hers = app.send(ask(HERS)).await;
    let refused = app.send(ask(token.reveal())).await;

    assert_eq!(hers.status, 200, "{}", hers.text);
    let told = (refused.status.as_u16(), refused.errcode());
    assert_eq!(told, (401, "M_UNKNOWN_TOKEN".to_owned()));
}

/// The program as an identity server that logs all there is to log.
struct Program {
    dir: TempDir,
    base: String,
    internal: String,
    client: reqwest::Client,
    _child: Child,
    _told: BufReader<ChildStdout>,
}

impl Program {
    async fn start(homeserver: &FederationServer) -> Self {
        let dir = cli::empty();
        let ca_file = homeserver.upstream().ca_file();
        let settings = format!(
            "[server]\npublic_url = \"https://id.example.org\"\ntrusted_proxies = [\"127.0.0.1\"]\nlisten = [\"127.0.0.1:0\"]\ninternal_listen = \"127.0.0.1:0\"\n\
             [log]\nlevel = \"trace\"\n[identity]\nenabled = true\n[limits]\nenabled = false\n\
             [outbound]\nallow = [\"127.0.0.0/8\", \"::1/128\"]\nca_files = [\"{}\"]\n",
            ca_file.display()
        );
        fs::write(dir.path().join("threepid.toml"), settings).expect("the folder can be written");
        let log = File::create(dir.path().join("log")).expect("the folder can be written");
        let mut command = Command::from(cli::threepid(&dir, &["serve"]));
        let command = command
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let mut told = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut start = String::new();
        while !start.contains("Mails are not sent") {
            let read = told.read_line(&mut start).await.expect("it says text");
            assert!(
                read > 0,
                "{}",
                fs::read_to_string(dir.path().join("log")).unwrap_or_default()
            );
        }
        let address = |words: &str| {
            let (_, rest) = start.split_once(words).expect("it tells its addresses");
            let address = rest.lines().next().expect("a line");
            format!("http://{}", address.trim_end_matches('.'))
        };
        Self {
            base: address("listens on "),
            internal: address("monitoring: "),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            dir,
            _child: child,
            _told: told,
        }
    }

    /// Posts JSON to the identity server, and demands that it is taken.
    async fn post(&self, path: &str, token: &str, body: &Value) -> Value {
        let asked = self.client.post(format!("{}{IDENTITY}/{path}", self.base));
        let answer = asked.bearer_auth(token).json(body).send().await;
        let answer = answer.expect("it answers");
        let (status, text) = (answer.status(), answer.text().await.expect("text"));
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Gets a path, and demands that there is something.
    async fn get(&self, path: &str) {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await;
        let answer = answer.expect("it answers");
        assert_eq!(answer.status(), 200, "{path}");
    }

    /// The token of a user, whose homeserver knows this OpenID token.
    async fn register(&self, homeserver: &FederationServer) -> String {
        text(&self.post("account/register", "", &openid(homeserver)).await["token"])
    }

    /// The text of the newest mail, once there are so many.
    async fn mail(&self, count: usize) -> Captured {
        loop {
            let asked = format!("{}/_threepid/mailbox/messages", self.internal);
            let answer = self.client.get(asked).send().await.expect("it answers");
            let mails: Vec<Captured> = answer.json().await.expect("a list of mails");
            if mails.len() == count {
                return mails.into_iter().next().expect("one at least");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("there is a log")
    }
}

/// What follows a line of a text.
fn below(text: &str, heading: &str) -> String {
    let mut lines = text.lines();
    lines.find(|line| *line == heading).expect("the heading");
    lines.next().expect("a line below it").to_owned()
}

#[tokio::test]
async fn no_log_of_the_identity_server_holds_a_secret_whatever_is_asked_for() {
    let homeserver = FederationServer::start().await;
    let alice = homeserver.user("alice");
    homeserver.knows(OPENID, &alice);
    let server = Program::start(&homeserver).await;
    let token = server.register(&homeserver).await;

    let body = json!({
        "medium": "email", "address": "alice@example.org", "room_id": "!room:example.org", "sender": alice,
    });
    let invited = server.post("store-invite", &token, &body).await;
    let private_key = below(&server.mail(1).await.text, "Private key:");
    let body = json!({ "mxid": alice, "token": invited["token"], "private_key": private_key });
    server.post("sign-ed25519", &token, &body).await;
    let body =
        json!({ "client_secret": CLIENT_SECRET, "email": "alice@example.org", "send_attempt": 1 });
    let sid = text(
        &server
            .post("validate/email/requestToken", &token, &body)
            .await["sid"],
    );
    let mail = server.mail(2).await;
    let (code, link) = (code(&mail), link_at(&mail));
    let wrong =
        format!("{IDENTITY}/validate/email/submitToken?sid={sid}&client_secret={CLIENT_SECRET}");
    server.get(&format!("/_threepid/link/{link}")).await;
    let body = json!({ "sid": sid, "client_secret": CLIENT_SECRET, "token": code });
    server
        .post("validate/email/submitToken", &token, &body)
        .await;
    server.get(&format!("{wrong}&token={code}")).await;
    server
        .get(&format!("{IDENTITY}/hash_details?access_token={token}"))
        .await;
    let body = json!({ "sid": sid, "client_secret": CLIENT_SECRET, "mxid": alice });
    server.post("3pid/bind", &token, &body).await;
    while homeserver.count(POST_ONBIND) == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    server.post("account/logout", &token, &json!({})).await;

    let log = server.log();
    assert!(
        log.contains("TRACE") && log.contains("answered"),
        "there is a log"
    );
    let invitation = text(&invited["token"]);
    for (what, secret) in [
        ("OpenID token", OPENID),
        ("access token", &token),
        ("client_secret", CLIENT_SECRET),
        ("private key", &private_key),
        ("invitation", &invitation),
        ("link", &link),
        ("code", &code),
        ("address", "alice@example.org"),
    ] {
        let found = log.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{what}");
    }
}

/// The value of the link in a mail.
fn link_at(mail: &Captured) -> String {
    let (_, link) = mail.text.split_once("/_threepid/link/").expect("a link");
    link.split_whitespace().next().expect("a value").to_owned()
}
