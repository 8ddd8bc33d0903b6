//! aiosmtpd, a Python package, with TLS, a certificate authority of its own, and a login.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;
use threepid::{
    clock::Timestamp,
    courier::{
        Courier, DeliveryError, Message,
        capture::Capture,
        email::{self, Auth, EmailSettings},
    },
    threepid::Threepid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::support::install::{must_run, python_with};

/// The release that is installed.
const AIOSMTPD: &str = "aiosmtpd==1.4.6";
/// How long the peer may take for one line: it answers at once, if it runs at all.
const PATIENCE: Duration = Duration::from_secs(30);
const USER: &str = "me@example.org";
const PASSWORD: &str = "hunter2 ü";

/// The running peer; it ends when it is dropped.
struct Peer {
    folder: TempDir,
    lines: Lines<BufReader<ChildStdout>>,
    starttls: u64,
    implicit: u64,
    /// Killed by its id when it is dropped.
    _child: Child,
}

impl Peer {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        make_certificates(folder.path());
        let mut child = tokio::process::Command::new(python_with(AIOSMTPD))
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/peers/aiosmtpd_server.py"
            ))
            .args([
                folder.path().join("server.pem"),
                folder.path().join("server.key"),
            ])
            .args([USER, PASSWORD])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut peer = Self {
            folder,
            lines: BufReader::new(stdout).lines(),
            starttls: 0,
            implicit: 0,
            _child: child,
        };
        let ports = peer.line().await;
        peer.starttls = ports["starttls"].as_u64().expect("a port");
        peer.implicit = ports["implicit"].as_u64().expect("a port");
        peer
    }

    /// The next mail that it took.
    async fn line(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line
            .expect("aiosmtpd says something")
            .expect("its output can be read");
        serde_json::from_str(&line.expect("aiosmtpd still runs")).expect("it says JSON")
    }

    /// Settings that reach it, trusting its authority.
    fn settings(&self, implicit: bool) -> EmailSettings {
        let (scheme, port) = if implicit {
            ("smtps", self.implicit)
        } else {
            ("smtp", self.starttls)
        };
        let transport = format!("{scheme}://me%40example.org@localhost:{port}");
        EmailSettings {
            password: Some(SecretString::from(PASSWORD)),
            ca_files: vec![self.folder.path().join("ca.pem")],
            hello_name: Some("threepid.example.org".to_owned()),
            ..EmailSettings::new("Example <no-reply@example.org>", &transport)
        }
    }
}

/// An authority, and a certificate of it for `localhost`.
fn make_certificates(folder: &Path) {
    let request = |name: &str, key: &str, certificate: &str| {
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(folder)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args([
                "-nodes",
                "-days",
                "2",
                "-subj",
                name,
                "-keyout",
                key,
                "-out",
                certificate,
            ]);
        openssl
    };
    must_run(
        request("/CN=Test authority", "ca.key", "ca.pem")
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]),
    );
    must_run(
        request("/CN=localhost", "server.key", "server.pem")
            .args(["-CA", "ca.pem", "-CAkey", "ca.key"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "extendedKeyUsage=serverAuth"]),
    );
}

fn courier(settings: &EmailSettings) -> Arc<dyn Courier> {
    email::courier(settings, &Capture::in_memory()).expect("the settings fit")
}

async fn deliver(courier: &dyn Courier, to: &str) -> Result<String, DeliveryError> {
    let message = Message {
        id: "message-1".to_owned(),
        at: Timestamp(1_795_341_600_000),
        subject: "Bestätige deine Adresse".to_owned(),
        text: "Grüße!\n.\nEnde\n".to_owned(),
        html: "<p>Grüße!</p>".to_owned(),
        language: "de".to_owned(),
    };
    let to = Threepid::email(to).expect("it is an address");
    courier.deliver(&to, &message).await
}

#[tokio::test]
async fn mails_go_through_starttls_with_a_login_and_a_private_authority() {
    let mut peer = Peer::start().await;
    let courier = courier(&peer.settings(false));

    for to in ["alice@example.com", "संपर्क@example.com"] {
        let outcome = deliver(&*courier, to).await.unwrap();
        assert!(outcome.starts_with("sent: 250"), "{outcome}");

        let mail = peer.line().await;
        assert_eq!(mail["tls"], true);
        assert_eq!(mail["user"], USER);
        assert_eq!(mail["hello"], "threepid.example.org");
        assert_eq!(mail["from"], "no-reply@example.org");
        assert_eq!(mail["to"], serde_json::json!([to]));
        let data = mail["data"].as_str().unwrap();
        let parsed = mail_parser::MessageParser::default().parse(data).unwrap();
        assert_eq!(parsed.subject(), Some("Bestätige deine Adresse"));
        assert_eq!(parsed.to().unwrap().first().unwrap().address(), Some(to));
    }
}

#[tokio::test]
async fn mails_go_through_tls_from_the_first_byte_on() {
    let mut peer = Peer::start().await;

    let outcome = deliver(&*courier(&peer.settings(true)), "alice@example.com").await;

    assert_eq!(outcome, Ok("sent: 250 2.0.0".to_owned()));
    let mail = peer.line().await;
    assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &USER.into()));
}

#[tokio::test]
async fn a_login_may_be_by_the_old_mechanism() {
    let mut peer = Peer::start().await;
    let settings = EmailSettings {
        auth: Auth::Login,
        ..peer.settings(false)
    };

    deliver(&*courier(&settings), "alice@example.com")
        .await
        .unwrap();

    assert_eq!(peer.line().await["user"], USER);
}

#[tokio::test]
async fn a_wrong_password_is_transient_and_shows_its_code() {
    let peer = Peer::start().await;
    for implicit in [false, true] {
        let settings = EmailSettings {
            password: Some(SecretString::from("wrong")),
            ..peer.settings(implicit)
        };

        let error = deliver(&*courier(&settings), "alice@example.com")
            .await
            .unwrap_err();

        assert_eq!(error, DeliveryError::transient("AUTH 535 5.7.8"));
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_nothing_is_sent() {
    let mut peer = Peer::start().await;
    for implicit in [false, true] {
        let settings = EmailSettings {
            ca_files: Vec::new(),
            ..peer.settings(implicit)
        };

        let error = deliver(&*courier(&settings), "alice@example.com")
            .await
            .unwrap_err();

        let refusal = "TLS: certificate not trusted";
        assert_eq!(error, DeliveryError::transient(refusal));
    }
    // The first mail that it gets is the one that was sent to the one it is.
    deliver(&*courier(&peer.settings(false)), "bob@example.com")
        .await
        .unwrap();
    assert_eq!(
        peer.line().await["to"],
        serde_json::json!(["bob@example.com"])
    );
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let peer = Peer::start().await;
    for implicit in [false, true] {
        let mut settings = peer.settings(implicit);
        settings.transport = settings.transport.replace("localhost", "127.0.0.1");

        let error = deliver(&*courier(&settings), "alice@example.com")
            .await
            .unwrap_err();

        let refusal = "TLS: certificate of another name";
        assert_eq!(error, DeliveryError::transient(refusal));
    }
}

#[tokio::test]
async fn a_greeting_tells_each_phase() {
    let peer = Peer::start().await;
    for (implicit, port, phases) in [
        (false, peer.starttls, ["relay greets", "STARTTLS"]),
        (true, peer.implicit, ["TLS", "relay greets"]),
    ] {
        let (told, greeted) = courier(&peer.settings(implicit)).greet().await;

        let connected = format!("connected to localhost:{port}");
        let logged_in = format!("logged in as {USER}");
        assert_eq!(told, [&connected, phases[0], phases[1], &logged_in]);
        assert_eq!(greeted, Ok(()));
    }
}
