//! The whole app: real store, real rules, real router; a captured mailbox and a clock that is moved by hand.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use threepid::{
    Builder, Keyring, SigningKeys, Threepid,
    clock::{ManualClock, Timestamp},
    courier::capture::{Capture, Captured},
    http::peer::Peer,
    identity, limits,
    secret::AccessToken,
    store::sqlite::{Role, SqliteStore},
    threepid::Threepid as Address,
};
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::stored;

/// Where tests ask for tokens.
pub(crate) const REGISTER: &str = "/_matrix/client/v3/register/email/requestToken";
/// Where tests ask for tokens to reset a password.
pub(crate) const PASSWORD: &str = "/_matrix/client/v3/account/password/email/requestToken";
/// Where tests ask for tokens to add an address.
pub(crate) const ADD: &str = "/_matrix/client/v3/account/3pid/email/requestToken";
/// Where tests show tokens.
pub(crate) const SUBMIT: &str = "/_threepid/email/submitToken";
/// Where tests ask for tokens for a phone number.
pub(crate) const REGISTER_PHONE: &str = "/_matrix/client/v3/register/msisdn/requestToken";
/// Where tests ask for tokens to add a phone number.
pub(crate) const ADD_PHONE: &str = "/_matrix/client/v3/account/3pid/msisdn/requestToken";
/// Where tests ask for tokens to reset a password by a phone number.
pub(crate) const PASSWORD_PHONE: &str = "/_matrix/client/v3/account/password/msisdn/requestToken";
/// Where tests show tokens of phone numbers.
pub(crate) const SUBMIT_PHONE: &str = "/_threepid/msisdn/submitToken";
/// The base of all URLs that the app tells.
pub(crate) const PUBLIC_URL: &str = "https://matrix.example.org";

/// What the paths of the identity server begin with.
pub(crate) const IDENTITY: &str = "/_matrix/identity/v2";
/// The name of the identity server.
pub(crate) const IDENTITY_NAME: &str = "matrix.example.org";

/// Makes it an identity server, with settings of the test's own and a fresh signing key.
pub(crate) fn with_identity(
    builder: Builder,
    set: impl FnOnce(&mut identity::Settings),
) -> Builder {
    let mut settings = identity::Settings::new(IDENTITY_NAME.parse().expect("a name"));
    set(&mut settings);
    builder.identity(settings, SigningKeys::generate().expect("a key"))
}

/// A server without a network.
pub(crate) struct TestApp {
    pub(crate) threepid: Threepid,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) mailbox: Arc<Capture>,
    pub(crate) store: Arc<SqliteStore>,
    router: Router,
    dir: TempDir,
    key_file: Zeroizing<String>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The `errcode` of a Matrix error, which has an `error` too.
    pub(crate) fn errcode(&self) -> String {
        let body = self.json();
        assert!(
            body["error"].is_string(),
            "an error says what is wrong: {body}"
        );
        body["errcode"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and `errcode` of a Matrix error.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status.as_u16(), self.errcode())
    }

    /// A header as text; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or("?"))
    }

    /// The `sid` of a `requestToken` answered with 200.
    pub(crate) fn sid(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["sid"]
            .as_str()
            .expect("a sid is a string")
            .to_owned()
    }
}

/// What [`Answer::refusal`] is to be.
pub(crate) fn refusal(status: u16, errcode: &str) -> (u16, String) {
    (status, errcode.to_owned())
}

impl TestApp {
    /// An app without limits.
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder.limits(limits::Settings::OFF))
    }

    /// An app with settings of the test's own.
    pub(crate) fn with(set: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        stored::fill(&dir.path().join("threepid.db"));
        let clock = Arc::new(ManualClock::new(Timestamp(1_795_341_600_000)));
        Self::over(dir, clock, Keyring::generate_file(), set)
    }

    /// The same server, ended and begun again over its database, with settings of the test's own.
    pub(crate) fn restarted(self, set: impl FnOnce(Builder) -> Builder) -> Self {
        let Self {
            threepid,
            clock,
            store,
            router,
            dir,
            key_file,
            ..
        } = self;
        drop((threepid, store, router));
        Self::over(dir, clock, key_file, set)
    }

    fn over(
        dir: TempDir,
        clock: Arc<ManualClock>,
        key_file: Zeroizing<String>,
        set: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let path = dir.path().join("threepid.db");
        let store = SqliteStore::open(&path, Role::Server).expect("a store of our own");
        let mailbox = Arc::new(Capture::in_memory());
        let keys = Keyring::parse(&key_file).expect("a key");
        let builder =
            Threepid::builder(PUBLIC_URL.parse().expect("a URL"), Arc::clone(&store), keys)
                .clock(clock.clone())
                .email(mailbox.clone())
                .sms(mailbox.clone())
                .mailbox(mailbox.clone());
        let threepid = set(builder).build().expect("settings that fit together");
        let router = threepid.router();
        Self {
            threepid,
            clock,
            mailbox,
            store,
            router,
            dir,
            key_file,
        }
    }

    /// An app without limits that is an identity server too, with settings of the test's own.
    pub(crate) fn identity(set: impl FnOnce(&mut identity::Settings)) -> Self {
        Self::with(|builder| with_identity(builder.limits(limits::Settings::OFF), set))
    }

    /// A token of the identity server.
    pub(crate) async fn identity_token(&self, user_id: &str) -> AccessToken {
        let token = self.threepid.identity_token(user_id).await;
        token.expect("the store answers")
    }

    /// Posts JSON to the identity server, with a user's token.
    pub(crate) async fn post_as(&self, token: &AccessToken, path: &str, body: &Value) -> Answer {
        let request = Request::post(format!("{IDENTITY}/{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        self.send(request.body(body.to_string().into()).expect("a request"))
            .await
    }

    /// Gets something of the identity server, with a user's token.
    pub(crate) async fn get_as(&self, token: &AccessToken, path: &str) -> Answer {
        let bearer = format!("Bearer {}", token.reveal());
        self.get(&format!("{IDENTITY}/{path}"), &[("authorization", &bearer)])
            .await
    }

    /// The folder of the database.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Moves the clock.
    pub(crate) fn wait(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// Gives an address to a local account.
    pub(crate) async fn own(&self, user_id: &str, address: &str) {
        let address = if address.contains('@') {
            Address::email(address)
        } else {
            Address::msisdn("GB", address)
        };
        let address = address.expect("an address");
        self.threepid
            .directory()
            .bind(user_id, &address, None, Timestamp(0))
            .await
            .expect("a free address");
    }

    /// Sends a request from a loopback address.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from("127.0.0.1:4711", request).await
    }

    /// Sends a request from an address.
    pub(crate) async fn send_from(&self, from: &str, request: Request<Body>) -> Answer {
        send(&self.router, from, request).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    /// Posts any text as if it were JSON.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.into()).expect("a request"))
            .await
    }

    /// Gets a page, with headers.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.bare("GET", path, headers).await
    }

    /// Sends a form as a browser does from a page of ours.
    pub(crate) async fn submit_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, "null")
            .header("sec-fetch-site", "same-origin");
        self.send(request.body(body.into()).expect("a request"))
            .await
    }

    /// Sends a request without a body.
    pub(crate) async fn bare(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).expect("a request"))
            .await
    }

    /// Delivers what is due; the mails that arrived since the last time, oldest first.
    pub(crate) async fn mails(&self) -> Vec<Captured> {
        self.threepid
            .deliver_due()
            .await
            .expect("the store answers");
        let mut mails = self.mailbox.messages();
        self.mailbox.clear().expect("a mailbox in memory");
        mails.reverse();
        mails
    }

    /// Delivers what is due; the one mail that arrived.
    pub(crate) async fn mail(&self) -> Captured {
        let mut mails = self.mails().await;
        assert_eq!(mails.len(), 1, "exactly one mail");
        mails.remove(0)
    }
}

/// Sends a request to a router from an address.
pub(crate) async fn send(router: &Router, from: &str, mut request: Request<Body>) -> Answer {
    let peer: SocketAddr = from.parse().expect("an address with a port");
    request.extensions_mut().insert(Peer::Tcp(peer));
    let response = router
        .clone()
        .oneshot(request)
        .await
        .expect("a router never fails");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body in memory").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// The body of alice's `requestToken`.
pub(crate) fn alice(send_attempt: u32) -> Value {
    json!({ "client_secret": "monkeys_are_GREAT", "email": "alice@example.org", "send_attempt": send_attempt })
}

/// The body of a `requestToken` for alice's phone.
pub(crate) fn alices_phone(send_attempt: u32) -> Value {
    phone("07700900001", "monkeys_are_GREAT", send_attempt)
}

/// The body of a `requestToken` for a phone in Great Britain.
pub(crate) fn phone(number: &str, client_secret: &str, send_attempt: u32) -> Value {
    json!({ "client_secret": client_secret, "country": "GB", "phone_number": number, "send_attempt": send_attempt })
}

/// The body of a `submitToken` of alice.
pub(crate) fn shown(sid: &str, token: &str) -> Value {
    json!({ "sid": sid, "client_secret": "monkeys_are_GREAT", "token": token })
}

/// The path of the link in a mail.
pub(crate) fn link_path(mail: &Captured) -> String {
    let url = mail
        .text
        .split_whitespace()
        .find(|word| word.contains("/_threepid/link/"))
        .expect("a link in the mail");
    url.strip_prefix(PUBLIC_URL)
        .expect("the link is below the public URL")
        .to_owned()
}

/// The value of the link in a mail.
pub(crate) fn link_value(mail: &Captured) -> String {
    link_path(mail)
        .rsplit('/')
        .next()
        .expect("a path has parts")
        .to_owned()
}

/// The code in a mail: eight digits that stand alone; or in a text message: six.
pub(crate) fn code(mail: &Captured) -> String {
    let length = if mail.medium == "msisdn" { 6 } else { 8 };
    let is_code =
        |word: &&str| word.len() == length && word.bytes().all(|byte| byte.is_ascii_digit());
    let words = mail
        .text
        .split(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .into_iter()
        .find(is_code)
        .expect("a code in the mail")
        .to_owned()
}
