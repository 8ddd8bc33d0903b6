//! Requests that are proxied to the identity server that the client names.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use threepid::{
    Builder, Error, limits,
    outbound::Outbound,
    rate::Rate,
    secret::{AccessToken, ClientSecret, Sid},
    session::Purpose,
    threepid::Medium,
    validation::{Claim, ClaimRequest, IdentityServers, Validate, Validates},
};

use crate::support::{
    app::*,
    upstream::{self, Upstream},
};

const EMAIL_THERE: &str = "/validate/email/requestToken";
const PHONE_THERE: &str = "/validate/msisdn/requestToken";
pub(crate) const SUBMIT_THERE: &str = "/validate/msisdn/submitToken";
const VALIDATED_THERE: &str = "/3pid/getValidated3pid";

pub(crate) fn answered(body: Value) -> upstream::Answer {
    upstream::Answer::json(200, body)
}

/// Settings under which clients choose, and `upstream` is trusted.
pub(crate) fn client_choice(upstream: &Upstream) -> impl Fn(Builder) -> Builder + use<> {
    let servers = IdentityServers {
        trusted: vec![upstream.id_server()],
        ..IdentityServers::default()
    };
    with_servers(upstream, servers, Validate::ClientChoice)
}

pub(crate) fn with_servers(
    upstream: &Upstream,
    servers: IdentityServers,
    validate: Validate,
) -> impl Fn(Builder) -> Builder + use<> {
    let outbound = Outbound::new(upstream.settings()).expect("its certificate");
    move |builder| {
        builder
            .limits(limits::Settings::OFF)
            .validates(Medium::Email, Validates::all(validate))
            .validates(Medium::Msisdn, Validates::all(validate))
            .identity_servers(servers.clone())
            .outbound(outbound.clone())
    }
}

/// A body that names `server`, with a token.
pub(crate) fn named(mut body: Value, server: &str) -> Value {
    body["id_server"] = json!(server);
    body["id_access_token"] = json!("their_token");
    body
}

/// An upstream that opens sessions `1234` and `5678`, and takes the code 424242.
pub(crate) async fn willing() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.answer(EMAIL_THERE, answered(json!({ "sid": "1234" })));
    upstream.answer(
        PHONE_THERE,
        answered(json!({ "sid": "5678", "success": true })),
    );
    upstream.answer(SUBMIT_THERE, answered(json!({ "success": true })));
    not_validated(&upstream);
    upstream
}

pub(crate) fn not_validated(upstream: &Upstream) {
    let answer = upstream::Answer::error(400, "M_SESSION_NOT_VALIDATED");
    upstream.answer(VALIDATED_THERE, answer);
}

pub(crate) fn validated(upstream: &Upstream, medium: &str, address: &str) {
    let proof =
        json!({ "medium": medium, "address": address, "validated_at": 1_795_341_600_000_i64 });
    upstream.answer(VALIDATED_THERE, answered(proof));
}

/// What alice's client knows of a session.
pub(crate) fn pair(sid: &str) -> (Sid, ClientSecret) {
    let (sid, secret) = (Sid::parse(sid), ClientSecret::parse("monkeys_are_GREAT"));
    (sid.expect("a sid"), secret.expect("a secret"))
}

/// A claim that differs from others by its name.
pub(crate) fn claim(op_id: &str) -> ClaimRequest {
    ClaimRequest {
        purpose: Purpose::Register,
        user_id: None,
        op_id: op_id.to_owned(),
        digest: [op_id.len().try_into().expect("short"); 32],
        lease: Duration::from_mins(1),
    }
}

pub(crate) async fn proof(app: &TestApp, sid: &str, wanted: Purpose) -> Result<String, Error> {
    let (sid, secret) = pair(sid);
    let proof = app.threepid.validation().proof(&sid, &secret, wanted, None);
    proof.await.map(|proof| proof.threepid.address().to_owned())
}

#[tokio::test]
async fn an_email_goes_to_the_server_that_the_client_names() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    let mut body = named(alice(3), &upstream.name());
    body["next_link"] = json!("https://app.example.org/#/done?x=1");

    let answer = app.post(REGISTER, &body).await;

    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({ "sid": "1234" }))
    );
    let asked = upstream.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some("Bearer their_token"));
    assert_eq!(
        asked[0].json(),
        json!({
            "client_secret": "monkeys_are_GREAT",
            "email": "alice@example.org",
            "send_attempt": 3,
            "next_link": "https://app.example.org/#/done?x=1",
        })
    );
    assert!(app.mails().await.is_empty(), "we send nothing ourselves");
}

#[tokio::test]
async fn a_phone_s_code_is_relayed_without_the_client_naming_the_server_again() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    let asked = app
        .post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    assert_eq!(
        asked.json(),
        json!({
            "sid": "5678",
            "submit_url": format!("{PUBLIC_URL}{SUBMIT_PHONE}"),
            "msisdn": "447700900001",
            "intl_fmt": "+44 7700 900001",
            "success": true,
        })
    );
    validated(&upstream, "msisdn", "447700900001");

    let submitted = app.post(SUBMIT_PHONE, &shown("5678", "424242")).await;

    assert_eq!(
        (submitted.status.as_u16(), submitted.json()),
        (200, json!({ "success": true }))
    );
    let relayed = &upstream.requests()[1];
    assert_eq!(relayed.header("authorization"), Some("Bearer their_token"));
    assert_eq!(relayed.json(), shown("5678", "424242"));
    assert_eq!(
        proof(&app, "5678", Purpose::Add).await.as_deref(),
        Ok("447700900001")
    );
}

#[tokio::test]
async fn our_own_identity_server_does_not_know_what_was_passed_on() {
    let upstream = willing().await;
    let app = TestApp::with(|builder| with_identity(client_choice(&upstream)(builder), |_| {}));
    let token = app.identity_token("@alice:example.org").await;
    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;

    let path = "validate/msisdn/submitToken";
    let refused = app.post_as(&token, path, &shown("5678", "424242")).await;

    assert_eq!(refused.refusal(), refusal(404, "M_NO_VALID_SESSION"));
    assert_eq!(upstream.requests().len(), 1, "no code was passed on");
}

#[tokio::test]
async fn a_restart_forgets_neither_session_nor_server_nor_token() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(REGISTER, &named(alice(1), &upstream.name())).await;
    let bytes = std::fs::read(app.dir().join("threepid.db-wal")).unwrap();
    let app = app.restarted(client_choice(&upstream));

    let pending = proof(&app, "1234", Purpose::Register).await;
    validated(&upstream, "email", "Alice@Example.org");
    let proved = proof(&app, "1234", Purpose::Register).await;
    let asked_so_far = upstream.requests().len();
    let again = proof(&app, "1234", Purpose::Add).await;

    assert_eq!(pending, Err(Error::SessionNotValidated));
    assert_eq!(proved.as_deref(), Ok("alice@example.org"));
    assert_eq!(again, proved, "what is known is not asked again");
    assert_eq!(upstream.requests().len(), asked_so_far);
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.header("authorization") == Some("Bearer their_token"))
    );
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("1234") && !text.contains("their_token"),
        "the token is sealed"
    );
}

#[tokio::test]
async fn a_server_s_proof_is_taken_once_by_whoever_claims_it() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(REGISTER, &named(alice(1), &upstream.name())).await;
    validated(&upstream, "email", "alice@example.org");
    let app = app.restarted(client_choice(&upstream));
    let (sid, secret) = pair("1234");
    let validation = app.threepid.validation();
    let claim = |op_id: &str| validation.claim(&sid, &secret, claim(op_id));

    let first = claim("a").await;
    let second = claim("bb").await;
    let taken = validation.take("a").await;

    assert!(
        matches!(first, Ok(Claim::Yours(proof)) if proof.threepid.address() == "alice@example.org")
    );
    assert_eq!(second, Err(Error::ProofHeld));
    assert_eq!(taken, Ok(true));
    assert_eq!(claim("bb").await, Err(Error::ProofSpent));
    assert_eq!(claim("a").await, Ok(Claim::DoneBefore));
}

#[tokio::test]
async fn a_repeated_attempt_is_not_passed_on_again() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    let body = named(alice(1), &upstream.name());

    let first = app.post(REGISTER, &body).await;
    let repeated = app.post(REGISTER, &body).await;
    let greater = app.post(REGISTER, &named(alice(2), &upstream.name())).await;

    assert_eq!(
        (first.json(), repeated.json()),
        (greater.json(), first.json())
    );
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_equal_requests_at_once_one_is_passed_on() {
    let upstream = willing().await;
    let slow = answered(json!({ "sid": "1234" })).after(Duration::from_millis(200));
    upstream.answer(EMAIL_THERE, slow);
    let app = Arc::new(TestApp::with(client_choice(&upstream)));
    let body = named(alice(1), &upstream.name());

    let asked = (0..16).map(|_| {
        let (app, body) = (Arc::clone(&app), body.clone());
        tokio::spawn(async move { app.post(REGISTER, &body).await })
    });
    let answers = join_all(asked).await;

    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().sid() == "1234")
    );
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_relayed_and_nothing_of_it_remembered() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    for (there, status, errcode) in [
        (
            upstream::Answer::error(403, "M_TERMS_NOT_SIGNED"),
            403,
            "M_TERMS_NOT_SIGNED",
        ),
        (
            upstream::Answer::error(401, "M_UNAUTHORIZED"),
            401,
            "M_UNAUTHORIZED",
        ),
        (
            upstream::Answer::error(401, "M_UNKNOWN_TOKEN"),
            401,
            "M_UNAUTHORIZED",
        ),
        (
            upstream::Answer::error(400, "M_EMAIL_SEND_ERROR"),
            400,
            "M_EMAIL_SEND_ERROR",
        ),
        (upstream::Answer::error(500, "M_UNKNOWN"), 502, "M_UNKNOWN"),
        (
            upstream::Answer::new(200, "text/html", "<html>"),
            502,
            "M_UNKNOWN",
        ),
        (
            answered(json!({ "errcode": "M_X", "error": "no" })),
            502,
            "M_UNKNOWN",
        ),
        (answered(json!({ "sid": "not a sid" })), 502, "M_UNKNOWN"),
    ] {
        upstream.answer(EMAIL_THERE, there);
        let answer = app.post(REGISTER, &named(alice(1), &upstream.name())).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (status, errcode)
        );
    }
    upstream.answer(EMAIL_THERE, answered(json!({ "sid": "1234" })));
    let answer = app.post(REGISTER, &named(alice(1), &upstream.name())).await;
    assert_eq!(answer.sid(), "1234", "the attempt is still unused");
}

#[tokio::test]
async fn only_status_errcode_error_and_the_wait_are_relayed() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    let body = json!({
        "errcode": "M_LIMIT_EXCEEDED", "error": "slowly", "retry_after_ms": 2500,
        "soft_logout": true, "access_token": "x", "flows": [],
    });
    let there = upstream::Answer::json(429, body).header("set-cookie", "a=b");
    upstream.answer(EMAIL_THERE, there);

    let answer = app.post(REGISTER, &named(alice(1), &upstream.name())).await;

    assert_eq!(answer.status, 429);
    assert_eq!(
        answer.json(),
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "slowly", "retry_after_ms": 2500 })
    );
    assert_eq!(
        (answer.header("retry-after"), answer.header("set-cookie")),
        ("3", "")
    );
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_a_gateway_s_time_out() {
    let upstream = willing().await;
    let mut settings = upstream.settings();
    settings.timeout = Duration::from_millis(200);
    let outbound = Outbound::new(settings).unwrap();
    let servers = IdentityServers {
        trusted: vec![upstream.id_server()],
        ..IdentityServers::default()
    };
    let app = TestApp::with(|builder| {
        client_choice(&upstream)(builder)
            .identity_servers(servers)
            .outbound(outbound)
    });
    let drip = answered(json!({ "sid": "1234" })).dripping(Duration::from_mins(1));
    upstream.answer(EMAIL_THERE, drip);

    let answer = app.post(REGISTER, &named(alice(1), &upstream.name())).await;

    assert_eq!(
        (answer.status.as_u16(), answer.errcode().as_str()),
        (504, "M_UNKNOWN")
    );
}

#[tokio::test]
async fn a_wrong_code_is_told_and_tries_are_counted_here_too() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    upstream.answer(SUBMIT_THERE, answered(json!({ "success": false })));
    for _ in 0..5 {
        let wrong = app.post(SUBMIT_PHONE, &shown("5678", "000000")).await;
        assert_eq!(
            (wrong.status.as_u16(), wrong.errcode().as_str()),
            (400, "M_TOKEN_INCORRECT")
        );
    }
    let asked = upstream.requests().len();
    upstream.answer(SUBMIT_THERE, answered(json!({ "success": true })));

    let right = app.post(SUBMIT_PHONE, &shown("5678", "424242")).await;

    assert_eq!(right.errcode(), "M_SESSION_EXPIRED");
    assert_eq!(
        upstream.requests().len(),
        asked,
        "and the server is not asked"
    );
}

#[tokio::test]
async fn a_proof_of_another_address_is_none() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(REGISTER, &named(alice(1), &upstream.name())).await;
    for (medium, address) in [("email", "mallory@example.org"), ("msisdn", "447700900001")] {
        validated(&upstream, medium, address);
        let proved = proof(&app, "1234", Purpose::Register).await;
        assert!(
            matches!(proved, Err(Error::UpstreamFailed(_))),
            "{proved:?}"
        );
    }
}

#[tokio::test]
async fn another_s_secret_finds_no_session_of_a_server() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    let asked = upstream.requests().len();
    let guess = json!({ "sid": "5678", "client_secret": "other", "token": "424242" });

    let answer = app.post(SUBMIT_PHONE, &guess).await;
    let unknown = app.post(SUBMIT_PHONE, &shown("8765", "424242")).await;
    let crossed = app.post(SUBMIT, &shown("5678", "424242")).await;

    for answer in [answer, unknown, crossed] {
        assert_eq!(answer.errcode(), "M_NO_VALID_SESSION");
    }
    assert_eq!(upstream.requests().len(), asked);
}

#[tokio::test]
async fn a_server_that_is_trusted_no_more_is_not_asked() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    let servers = IdentityServers::default();
    let app = app.restarted(with_servers(&upstream, servers, Validate::ClientChoice));
    let asked = upstream.requests().len();

    let answer = app.post(SUBMIT_PHONE, &shown("5678", "424242")).await;

    assert_eq!(answer.errcode(), "M_NO_VALID_SESSION");
    assert_eq!(upstream.requests().len(), asked);
}

#[tokio::test]
async fn the_default_server_is_asked_with_our_own_token() {
    let upstream = willing().await;
    let servers = IdentityServers {
        default_server: Some((
            upstream.id_server(),
            AccessToken::parse("our_token").unwrap(),
        )),
        ..IdentityServers::default()
    };
    let app = TestApp::with(with_servers(&upstream, servers, Validate::IdentityServer));
    let mut ourselves = alice(1);
    ourselves["id_server"] = json!("MATRIX.example.org:443");
    ourselves["client_secret"] = json!("other");

    let nobody = app.post(REGISTER, &alice(1)).await;
    upstream.answer(EMAIL_THERE, upstream::Answer::error(401, "M_UNAUTHORIZED"));
    let refused = app.post(REGISTER, &alice(2)).await;

    assert_eq!(nobody.sid(), "1234");
    assert_eq!(
        upstream.requests()[0].header("authorization"),
        Some("Bearer our_token")
    );
    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (502, "M_UNKNOWN"),
        "our account is not the client's business"
    );
}

#[tokio::test]
async fn whoever_proves_a_taken_address_is_told_and_nobody_else() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.own("@owner:example.org", "alice@example.org").await;

    let taken = app.post(REGISTER, &named(alice(1), &upstream.name())).await;
    let pending = proof(&app, "1234", Purpose::Register).await;
    validated(&upstream, "email", "alice@example.org");
    let told = proof(&app, "1234", Purpose::Register).await;

    assert_eq!(taken.json(), json!({ "sid": "1234" }));
    assert_eq!(pending, Err(Error::SessionNotValidated));
    assert_eq!(told, Err(Error::InUse));
    assert_eq!(
        proof(&app, "1234", Purpose::Register).await,
        told,
        "never takeable"
    );
}

#[tokio::test]
async fn the_limit_of_an_address_holds_for_what_is_proxied() {
    let upstream = willing().await;
    let settings = limits::Settings {
        per_address: Rate::new(2, Duration::from_hours(1)),
        ..limits::Settings::OFF
    };
    let app = TestApp::with(|builder| client_choice(&upstream)(builder).limits(settings));
    for (attempt, status) in [(1, 200), (2, 200), (2, 200), (3, 429)] {
        let answer = app
            .post(REGISTER, &named(alice(attempt), &upstream.name()))
            .await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn odd_names_of_servers_name_nobody_that_is_trusted() {
    let upstream = willing().await;
    let servers = IdentityServers {
        trusted: vec![upstream.id_server()],
        ..IdentityServers::default()
    };
    let app = TestApp::with(with_servers(&upstream, servers, Validate::IdentityServer));
    let port = upstream.port();
    for (number, name) in [
        format!("https://localhost:{port}"),
        format!("localhost:{port}/"),
        format!("localhost:{port}/_matrix"),
        format!("x@localhost:{port}"),
        format!("localhost.:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("[::1]:{port}"),
        format!("127.0.0.1:{port}"),
        "169.254.169.254".to_owned(),
        "10.0.0.1".to_owned(),
        "localhost:22".to_owned(),
        "\u{0}".to_owned(),
        "x".repeat(5000),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = named(alice(1), &name);
        body["client_secret"] = json!(format!("s{number}"));
        let answer = app.post(REGISTER, &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (400, "M_SERVER_NOT_TRUSTED"),
            "{name:.60}"
        );
    }
    let upper = named(alice(1), &upstream.name().to_uppercase());
    assert_eq!(app.post(REGISTER, &upper).await.sid(), "1234");
    assert_eq!(upstream.requests().len(), 1);
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn a_server_at_a_private_address_is_not_dialled_unless_it_is_allowed() {
    let upstream = willing().await;
    let mut settings = upstream.settings();
    settings.allow.clear();
    let outbound = Outbound::new(settings).unwrap();
    let servers = IdentityServers {
        trusted: vec![
            upstream.id_server(),
            format!("127.0.0.1:{}", upstream.port()).parse().unwrap(),
        ],
        ..IdentityServers::default()
    };
    let app = TestApp::with(|builder| {
        client_choice(&upstream)(builder)
            .identity_servers(servers)
            .outbound(outbound)
    });
    for name in [upstream.name(), format!("127.0.0.1:{}", upstream.port())] {
        let answer = app.post(REGISTER, &named(alice(1), &name)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (502, "M_UNKNOWN")
        );
    }
    assert_eq!(upstream.connections(), 0);
}
