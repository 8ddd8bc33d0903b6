//! Homeservers that have us for the identity server which validates their users' addresses.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    body::Body,
    http::{Method, Request, header, request},
};
use serde_json::{Value, json};
use threepid::{
    Builder, Error,
    clock::Timestamp,
    homeserver::Directory,
    http::{
        delegate::{Prefix, Settings},
        peer::TrustedProxies,
    },
    limits,
    secret::AccessToken,
    store::{Bound, Contact},
    threepid::{Medium, Threepid},
    validation::{IdentityServers, Validate, Validates},
};

use crate::{
    proxy::{answered, not_validated, validated, with_servers},
    support::{
        app::*,
        upstream::{self, Upstream},
    },
};

const PREFIX: &str = "hs/7f0c5a1e9b2d4836a5c4e1f0d2b3a4958677";
const OTHER: &str = "0123456789abcdef0123456789abcdef";
const SYNAPSE: [(&str, &str); 3] = [
    ("user-agent", "Synapse/1.163.2"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip"),
];

fn settings(public: bool) -> Settings {
    Settings {
        prefixes: [PREFIX, OTHER]
            .map(|prefix| Prefix::parse(prefix).expect("long enough"))
            .into(),
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        public,
    }
}

fn delegate(builder: Builder) -> Builder {
    builder
        .limits(limits::Settings::OFF)
        .delegate(settings(false))
}

fn path(endpoint: &str) -> String {
    format!("/{PREFIX}/_matrix/identity/api/v1/{endpoint}")
}

/// A homeserver that calls us.
struct Caller {
    app: TestApp,
}

impl Caller {
    fn new() -> Self {
        Self::with(delegate)
    }

    fn with(set: impl FnOnce(Builder) -> Builder) -> Self {
        Self::of(TestApp::with(set))
    }

    fn of(app: TestApp) -> Self {
        Self { app }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from("127.0.0.1:4711", request).await
    }

    async fn send_from(&self, from: &str, request: Request<Body>) -> Answer {
        send(&self.app.threepid.internal_router(), from, request).await
    }

    /// As Synapse does it.
    async fn post(&self, endpoint: &str, body: &Value) -> Answer {
        let request = call(Method::POST, &path(endpoint), &SYNAPSE);
        let request = request.header("content-type", "application/json");
        let body = Body::from(body.to_string());
        self.send(request.body(body).expect("a request")).await
    }

    async fn get(&self, endpoint: &str) -> Answer {
        let request = call(Method::GET, &path(endpoint), &SYNAPSE);
        self.send(request.body(Body::empty()).expect("a request"))
            .await
    }

    /// As Dendrite does it.
    async fn form(&self, endpoint: &str, body: &str) -> Answer {
        let request = Request::post(path(endpoint))
            .header("user-agent", "Go-http-client/1.1")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body.to_owned()));
        self.send(request.expect("a request")).await
    }

    async fn ask_phone(&self) -> String {
        let body = alices_phone(1);
        self.post("validate/msisdn/requestToken", &body).await.sid()
    }

    async fn submit(&self, medium: &str, sid: &str, token: &str) -> Answer {
        let endpoint = format!("validate/{medium}/submitToken");
        self.post(&endpoint, &shown(sid, token)).await
    }

    async fn validated(&self, sid: &str) -> Answer {
        self.get(&validated_query(sid, "monkeys_are_GREAT")).await
    }

    /// A phone number that is proved.
    async fn proved(&self) -> String {
        let sid = self.ask_phone().await;
        let code = code(&self.app.mail().await);
        let submitted = self.submit("msisdn", &sid, &code).await;
        assert_eq!(submitted.json(), json!({ "success": true }));
        sid
    }
}

fn call(method: Method, path: &str, headers: &[(&str, &str)]) -> request::Builder {
    let request = Request::builder().method(method).uri(path);
    headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    })
}

fn validated_query(sid: &str, client_secret: &str) -> String {
    format!("3pid/getValidated3pid?sid={sid}&client_secret={client_secret}")
}

#[tokio::test]
async fn synapse_has_a_phone_number_validated() {
    let caller = Caller::new();
    let body = r#"{"client_secret": "monkeys_are_GREAT", "country": "GB", "phone_number": "07700 900001",
                   "send_attempt": 1, "next_link": "https://app.example.org/#/"}"#;
    let body: Value = serde_json::from_str(body).expect("JSON");

    let asked = caller.post("validate/msisdn/requestToken", &body).await;
    let sid = asked.sid();
    let before = caller.validated(&sid).await;
    let sms = caller.app.mail().await;
    let submitted = caller.submit("msisdn", &sid, &code(&sms)).await;
    let proof = caller.validated(&sid).await;

    assert_eq!(
        asked.text,
        format!(
            r#"{{"success":true,"sid":"{sid}","msisdn":"447700900001","intl_fmt":"+44 7700 900001"}}"#
        )
    );
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(before.refusal(), refusal(400, "M_SESSION_NOT_VALIDATED"));
    assert_eq!(
        (submitted.status.as_u16(), submitted.text.as_str()),
        (200, r#"{"success":true}"#)
    );
    assert_eq!(
        (proof.status.as_u16(), proof.json()),
        (
            200,
            json!({"medium": "msisdn", "address": "447700900001", "validated_at": 1_795_341_600_000_i64})
        )
    );
}

#[tokio::test]
async fn dendrite_has_an_email_address_validated() {
    let caller = Caller::new();
    let body = "client_secret=monkeys_are_GREAT&email=Alice%2B1%40example.org&send_attempt=1";

    let asked = caller.form("validate/email/requestToken", body).await;
    let again = caller.form("validate/email/requestToken", body).await;
    let sid = asked.sid();
    let mail = caller.app.mail().await;
    let clicked = caller.app.bare("POST", &link_path(&mail), &[]).await;
    let proof = caller.validated(&sid).await;

    assert_eq!(asked.text, format!(r#"{{"success":true,"sid":"{sid}"}}"#));
    assert_eq!(again.sid(), sid);
    assert_eq!(clicked.status, 200);
    assert_eq!(proof.json()["medium"], "email");
    assert_eq!(proof.json()["address"], "alice+1@example.org");
}

#[tokio::test]
async fn a_body_is_read_as_its_type_says_or_as_it_turns_out() {
    let caller = Caller::new();
    let form = "client_secret=s&country=GB&phone_number=%2B447700900001&send_attempt=1";
    let json =
        r#"{"client_secret":"s","country":"GB","phone_number":"+447700900001","send_attempt":"1"}"#;
    let mut sids = Vec::new();
    for (content_type, body) in [
        (Some("application/json"), json),
        (Some("Application/JSON; charset=utf-8"), json),
        (Some("application/x-www-form-urlencoded"), form),
        (Some("text/plain"), json),
        (Some("text/plain"), form),
        (None, json),
        (None, form),
    ] {
        let mut request = Request::post(path("validate/msisdn/requestToken"));
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let answer = caller.send(request.body(Body::from(body)).expect("a request"));
        sids.push(answer.await.sid());
    }
    assert!(
        sids.iter().all(|sid| *sid == sids[0]),
        "one session: {sids:?}"
    );
    assert_eq!(caller.app.mails().await.len(), 1);
}

#[tokio::test]
async fn a_wrong_code_is_no_failure_of_the_server() {
    let caller = Caller::new();
    let sid = caller.ask_phone().await;
    let code = code(&caller.app.mail().await);
    for _ in 0..5 {
        let wrong = caller.submit("msisdn", &sid, "x").await;
        assert_eq!(
            (wrong.status.as_u16(), wrong.text.as_str()),
            (200, r#"{"success":false}"#)
        );
    }

    let late = caller.submit("msisdn", &sid, &code).await;

    assert_eq!(late.refusal(), refusal(400, "M_SESSION_EXPIRED"));
}

#[tokio::test]
async fn a_right_code_after_a_wrong_one_is_right() {
    let caller = Caller::new();
    let sid = caller.ask_phone().await;
    let code = code(&caller.app.mail().await);

    let wrong = caller.submit("msisdn", &sid, "x").await;
    let query = format!("sid={sid}&client_secret=monkeys_are_GREAT&token={code}");
    let right = caller
        .get(&format!("validate/msisdn/submitToken?{query}"))
        .await;
    let again = caller.submit("msisdn", &sid, &code).await;

    assert_eq!(wrong.json(), json!({ "success": false }));
    assert_eq!(right.json(), json!({ "success": true }));
    assert_eq!(right.header("content-type"), "application/json");
    assert_eq!(again.json(), json!({ "success": true }));
}

#[tokio::test]
async fn a_head_request_validates_nothing() {
    let caller = Caller::new();
    let sid = caller.ask_phone().await;
    let code = code(&caller.app.mail().await);
    let query = format!("sid={sid}&client_secret=monkeys_are_GREAT&token={code}");
    let head = path(&format!("validate/msisdn/submitToken?{query}"));

    let request = Request::head(head).body(Body::empty());
    let answer = caller.send(request.expect("a request")).await;

    assert_eq!(answer.status, 405);
    let proof = caller.validated(&sid).await;
    assert_eq!(proof.errcode(), "M_SESSION_NOT_VALIDATED");
}

#[tokio::test]
async fn a_request_that_is_wrong_is_told_why() {
    let caller = Caller::new();
    let phone = |number: &str, country: &str| json!({"client_secret": "s", "country": country, "phone_number": number, "send_attempt": 1});
    let email = |email: &str, attempt: &str| json!({"client_secret": "s", "email": email, "send_attempt": attempt});
    for (medium, body, errcode) in [
        ("msisdn", json!([]), "M_BAD_JSON"),
        ("msisdn", json!({}), "M_MISSING_PARAMS"),
        ("msisdn", phone("12", "GB"), "M_INVALID_ADDRESS"),
        ("msisdn", phone("07700900001", "gb"), "M_INVALID_PARAM"),
        ("email", email("nobody", "1"), "M_INVALID_EMAIL"),
        ("email", email("a@b.org", "one"), "M_BAD_JSON"),
        ("email", email("a@b.org", "-1"), "M_BAD_JSON"),
    ] {
        let endpoint = format!("validate/{medium}/requestToken");
        let answer = caller.post(&endpoint, &body).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{medium} {body}");
    }
}

#[tokio::test]
async fn every_failure_has_its_code() {
    let caller = Caller::new();
    let sid = caller.ask_phone().await;
    let (phone, email) = ("validate/msisdn/submitToken", "validate/email/submitToken");
    let (right, unknown) = (shown(&sid, "123456"), shown("unknown", "123456"));
    for (endpoint, body, status, errcode) in [
        (phone, json!({"sid": sid}), 400, "M_MISSING_PARAMS"),
        (phone, shown(&sid, ""), 400, "M_INVALID_PARAM"),
        (phone, unknown, 404, "M_NO_VALID_SESSION"),
        (email, right, 404, "M_NO_VALID_SESSION"),
        ("3pid/getValidated3pid", json!({}), 405, "M_UNRECOGNIZED"),
        ("3pid/bind", json!({}), 404, "M_UNRECOGNIZED"),
    ] {
        let answer = caller.post(endpoint, &body).await;
        let expected = (status, errcode.to_owned());
        assert_eq!(answer.refusal(), expected, "{endpoint} {body}");
    }
}

#[tokio::test]
async fn what_proves_nothing_is_told_why() {
    let caller = Caller::new();
    let sid = caller.proved().await;
    for (query, status, errcode) in [
        (validated_query(&sid, "another"), 404, "M_NO_VALID_SESSION"),
        (validated_query("unknown", "s"), 404, "M_NO_VALID_SESSION"),
        (validated_query(&sid, "%zz"), 400, "M_INVALID_PARAM"),
        (validated_query(&sid, "a%20b"), 400, "M_INVALID_PARAM"),
        (validated_query("%ff", "s"), 400, "M_INVALID_PARAM"),
        (
            format!("3pid/getValidated3pid?sid={sid}"),
            400,
            "M_MISSING_PARAMS",
        ),
        ("3pid/getValidated3pid".to_owned(), 400, "M_MISSING_PARAMS"),
        (
            format!("{}&sid=x", validated_query(&sid, "s")),
            400,
            "M_INVALID_PARAM",
        ),
    ] {
        let answer = caller.get(&query).await;
        assert_eq!(answer.refusal(), refusal(status, errcode), "{query}");
    }
    let escaped = caller
        .get(&validated_query(&sid, "monkeys%5Fare%5FGREAT"))
        .await;
    assert_eq!(escaped.status, 200);

    caller.app.wait(Duration::from_hours(24));
    let late = caller.validated(&sid).await;
    assert_eq!(late.refusal(), refusal(400, "M_SESSION_EXPIRED"));
}

#[tokio::test]
async fn a_proof_is_told_as_often_as_it_is_asked_for_until_somebody_has_the_address() {
    let caller = Caller::new();
    let sid = caller.proved().await;
    let first = caller.validated(&sid).await;
    caller.app.wait(Duration::from_hours(1));
    assert_eq!(caller.validated(&sid).await.text, first.text);

    caller.app.own("@bob:example.org", "07700900001").await;

    let refused = caller.validated(&sid).await;
    assert_eq!(refused.refusal(), refusal(400, "M_THREEPID_IN_USE"));
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let caller = Caller::new();
    let sid = caller.ask_phone().await;
    let code = code(&caller.app.mail().await);
    let caller = Caller::of(caller.app.restarted(delegate));
    caller.submit("msisdn", &sid, &code).await;
    let before = caller.validated(&sid).await;

    let caller = Caller::of(caller.app.restarted(delegate));

    assert_eq!(before.status, 200);
    assert_eq!(caller.validated(&sid).await.text, before.text);
}

#[tokio::test]
async fn no_reset_is_told_and_an_addition_is() {
    let caller = Caller::new();
    caller.app.own("@bob:example.org", "bob@example.org").await;
    let bob = json!({"client_secret": "monkeys_are_GREAT", "email": "bob@example.org", "send_attempt": 1});
    let mut told_of = Vec::new();
    for (ask, body) in [(PASSWORD, bob), (ADD, alice(1))] {
        let sid = caller.app.post(ask, &body).await.sid();
        let mail = caller.app.mail().await;
        let shown = shown(&sid, &code(&mail));
        assert_eq!(caller.app.post(SUBMIT, &shown).await.status, 200);
        told_of.push(caller.validated(&sid).await);
    }

    assert_eq!(told_of[0].refusal(), refusal(404, "M_NO_VALID_SESSION"));
    assert_eq!(told_of[1].json()["address"], "alice@example.org");
}

#[tokio::test]
async fn an_address_that_is_in_use_is_answered_like_any_other() {
    let caller = Caller::new();
    caller.app.own("@bob:example.org", "07700900001").await;

    let asked = caller
        .post("validate/msisdn/requestToken", &alices_phone(1))
        .await;
    let sms = caller.app.mail().await;

    assert_eq!(asked.json()["msisdn"], "447700900001");
    assert!(sms.text.contains("already"), "{}", sms.text);
    let proof = caller.validated(&asked.sid()).await;
    assert_eq!(proof.errcode(), "M_SESSION_NOT_VALIDATED");
}

#[tokio::test]
async fn whoever_is_no_homeserver_finds_nothing_there() {
    let caller = Caller::new();
    let upper = PREFIX.to_uppercase();
    let shorter = &PREFIX[..PREFIX.len() - 1];
    let rest = "_matrix/identity/api/v1/3pid/getValidated3pid?sid=a&client_secret=b";
    let nothing = call_at(&caller, "/nothing/at/all").await;
    assert_eq!(nothing.refusal(), refusal(404, "M_UNRECOGNIZED"));
    for path in [
        format!("/{rest}"),
        format!("//{rest}"),
        format!("/{OTHER}x/{rest}"),
        format!("/{upper}/{rest}"),
        format!("/{shorter}/{rest}"),
        format!("/{PREFIX}x/{rest}"),
        format!("/x/{PREFIX}/{rest}"),
        format!("//{PREFIX}/{rest}"),
        format!("/{PREFIX}//{rest}"),
        format!("/./{PREFIX}/{rest}"),
        format!("/{}/{rest}", PREFIX.replace('/', "%2f")),
        format!("/{}/{rest}", PREFIX.replace('/', "//")),
        format!("/{PREFIX}%2f{rest}"),
        format!("/{PREFIX}/{}", rest.replace("/api", "%2Fapi")),
        format!("/{PREFIX}/{}", rest.replace("v1", "v2")),
        format!("/{PREFIX}"),
        format!("/?/{PREFIX}/{rest}"),
    ] {
        let answer = call_at(&caller, &path).await;
        assert_eq!(
            (answer.status, &answer.text, &answer.headers),
            (nothing.status, &nothing.text, &nothing.headers),
            "{path}"
        );
    }
    let known = call_at(&caller, &format!("/{OTHER}/{rest}")).await;
    assert_eq!(known.errcode(), "M_NO_VALID_SESSION", "the second prefix");
}

async fn call_at(caller: &Caller, path: &str) -> Answer {
    let request = Request::get(path).body(Body::empty());
    caller.send(request.expect("a request")).await
}

#[tokio::test]
async fn the_prefix_alone_does_not_make_a_homeserver() {
    let caller = Caller::with(|builder| {
        let trusted = TrustedProxies::new(&["127.0.0.1"]).expect("a proxy");
        delegate(builder).trusted_proxies(trusted)
    });
    let path = path("3pid/getValidated3pid");
    let nothing = call_at(&caller, "/nothing").await;
    for (from, forwarded, is_known) in [
        ("127.0.0.1:1", None, true),
        ("[::ffff:127.0.0.1]:1", None, true),
        ("127.0.0.1:1", Some("127.0.0.9"), true),
        ("203.0.113.9:1", None, false),
        ("203.0.113.9:1", Some("127.0.0.1"), false),
        ("127.0.0.1:1", Some("203.0.113.9"), false),
        ("127.0.0.1:1", Some("127.0.0.1, 203.0.113.9"), false),
        ("127.0.0.1:1", Some("nonsense"), false),
    ] {
        let mut request = Request::get(&path);
        if let Some(forwarded) = forwarded {
            request = request.header("x-forwarded-for", forwarded);
        }
        let request = request.body(Body::empty()).expect("a request");
        let answer = caller.send_from(from, request).await;
        if is_known {
            assert_eq!(answer.errcode(), "M_MISSING_PARAMS", "{from} {forwarded:?}");
        } else {
            assert_eq!(
                (answer.status, &answer.text, &answer.headers),
                (nothing.status, &nothing.text, &nothing.headers),
                "{from} {forwarded:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_public_listener_serves_it_only_if_it_is_told_to() {
    for (public, errcode) in [(false, "M_UNRECOGNIZED"), (true, "M_MISSING_PARAMS")] {
        let app = TestApp::with(|builder| builder.delegate(settings(public)));
        let answer = app.get(&path("3pid/getValidated3pid"), &[]).await;
        assert_eq!(answer.errcode(), errcode);
        let nothing = app.get("/nothing", &[]).await;
        assert_eq!(nothing.errcode(), "M_UNRECOGNIZED");
        let inside = Caller::of(app).get("3pid/getValidated3pid").await;
        assert_eq!(inside.errcode(), "M_MISSING_PARAMS");
    }
    let app = TestApp::new();
    let nobody = Caller::of(app).get("3pid/getValidated3pid").await;
    assert_eq!(nobody.errcode(), "M_UNRECOGNIZED", "no homeserver is known");
}

#[tokio::test]
async fn a_hundred_users_of_one_homeserver_are_not_one_source() {
    let caller = Caller::with(|builder| builder.delegate(settings(false)));
    for number in 0..100 {
        let body = phone(&format!("07700900{number:03}"), &format!("s{number}"), 1);
        let answer = caller.post("validate/msisdn/requestToken", &body).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text);
        let wrong =
            json!({"sid": answer.sid(), "client_secret": format!("s{number}"), "token": "x"});
        for _ in 0..4 {
            let answer = caller.post("validate/msisdn/submitToken", &wrong).await;
            assert_eq!(answer.json(), json!({ "success": false }), "{number}");
        }
    }

    let body = phone("07700900100", "s", 1);
    let over = caller.post("validate/msisdn/requestToken", &body).await;

    assert_eq!(
        over.refusal(),
        refusal(429, "M_LIMIT_EXCEEDED"),
        "its country has a ceiling"
    );
    assert!(over.json()["retry_after_ms"].is_u64());
}

#[tokio::test]
async fn messages_for_a_homeserver_s_users_name_no_network() {
    let caller = Caller::new();
    caller.post("validate/email/requestToken", &alice(1)).await;
    let mail = caller.app.mail().await;
    assert!(!mail.text.contains("127.0.0"), "{}", mail.text);
}

#[tokio::test]
async fn what_is_off_for_signing_up_is_off_here() {
    let caller = Caller::with(|builder| {
        let off = Validates::all(Validate::Off);
        delegate(builder).validates(Medium::Msisdn, off)
    });
    let answer = caller
        .post("validate/msisdn/requestToken", &alices_phone(1))
        .await;
    assert_eq!(
        answer.refusal(),
        refusal(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
    );
}

#[tokio::test]
async fn what_an_identity_server_proves_is_told_too() {
    let upstream = Upstream::start().await;
    upstream.answer(
        "/validate/msisdn/requestToken",
        answered(json!({ "sid": "5678" })),
    );
    not_validated(&upstream);
    let servers = IdentityServers {
        default_server: Some((
            upstream.id_server(),
            AccessToken::parse("ours").expect("a token"),
        )),
        ..Default::default()
    };
    let set = with_servers(&upstream, servers, Validate::IdentityServer);
    let caller = Caller::with(|builder| delegate(set(builder)));
    let sid = caller.ask_phone().await;
    let wrong = upstream::Answer::error(400, "M_TOKEN_INCORRECT");
    upstream.answer("/validate/msisdn/submitToken", wrong);
    let wrong = caller.submit("msisdn", &sid, "111111").await;
    let right = answered(json!({ "success": true }));
    upstream.answer("/validate/msisdn/submitToken", right);

    let before = caller.validated(&sid).await;
    validated(&upstream, "msisdn", "447700900001");
    let right = caller.submit("msisdn", &sid, "424242").await;
    let proof = caller.validated(&sid).await;

    assert_eq!(
        (sid.as_str(), wrong.json()),
        ("5678", json!({ "success": false }))
    );
    assert_eq!(before.refusal(), refusal(400, "M_SESSION_NOT_VALIDATED"));
    assert_eq!(right.json(), json!({ "success": true }));
    assert_eq!(proof.json()["address"], "447700900001");
}

/// A directory that does not do its work.
#[derive(Debug)]
struct Failing(Error);

#[async_trait]
impl Directory for Failing {
    async fn owner(&self, _: &Threepid) -> Result<Option<String>, Error> {
        Err(self.0.clone())
    }

    async fn bind(
        &self,
        _: &str,
        _: &Threepid,
        _: Option<Timestamp>,
        _: Timestamp,
    ) -> Result<Bound, Error> {
        unreachable!("nobody binds")
    }

    async fn unbind(&self, _: &str, _: &Threepid) -> Result<bool, Error> {
        unreachable!("nobody unbinds")
    }

    async fn list(&self, _: &str) -> Result<Vec<Contact>, Error> {
        unreachable!("nobody lists")
    }
}

#[tokio::test]
async fn a_directory_that_fails_never_says_that_an_address_is_free() {
    for (error, status) in [
        (Error::HomeserverFailed("a detail".to_owned()), 502),
        (Error::HomeserverTimeout("a detail".to_owned()), 504),
    ] {
        let caller = Caller::new();
        let sid = caller.proved().await;
        let restarted = caller
            .app
            .restarted(|builder| delegate(builder).directory(Arc::new(Failing(error))));

        let answer = Caller::of(restarted).validated(&sid).await;

        assert_eq!(answer.refusal(), refusal(status, "M_UNKNOWN"));
        assert!(!answer.text.contains("detail"));
    }
}

#[test]
fn nothing_shows_a_prefix() {
    let shown = format!("{:?}", settings(true));
    assert!(!shown.contains(&PREFIX[3..12]) && !shown.contains(&OTHER[..8]));
}
