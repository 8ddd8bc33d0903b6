//! Proving addresses to the identity server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::http::Request;
use serde_json::{Value, json};
use threepid::{
    Keyring, Threepid,
    courier::{Courier, DeliveryError, Message, capture::Capture},
    error::Error,
    limits,
    next_link::NextLinkPolicy,
    policy::{self, Lists, Numbers},
    rate::Rate,
    secret::{AccessToken, ClientSecret, Sid},
    session::Purpose,
    store::sqlite::{Role, SqliteStore},
    threepid::Threepid as Address,
};

use crate::support::app::*;

const ALICE: &str = "@alice:example.org";
const ASK: &str = "validate/email/requestToken";
const ASK_PHONE: &str = "validate/msisdn/requestToken";
const SHOW: &str = "validate/email/submitToken";
const SHOW_PHONE: &str = "validate/msisdn/submitToken";
const FORM: &str = "application/x-www-form-urlencoded";
const MINUTE: Duration = Duration::from_mins(1);

async fn started() -> (TestApp, AccessToken) {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    (app, token)
}

/// Whether the session proves its address to a user of the identity server.
async fn is_proved(app: &TestApp, sid: &str, user_id: &str) -> bool {
    let sid = Sid::parse(sid).expect("a sid");
    let secret = ClientSecret::parse("monkeys_are_GREAT").expect("a secret");
    let validation = app.threepid.validation();
    let proof = validation.proof(&sid, &secret, Purpose::Identity, Some(user_id));
    match proof.await {
        Ok(_) => true,
        Err(Error::SessionNotValidated) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_code_in_a_mail_proves_the_address() {
    let (app, token) = started().await;

    let asked = app.post_as(&token, ASK, &alice(1)).await;
    let mail = app.mail().await;
    let right = app
        .post_as(&token, SHOW, &shown(&asked.sid(), &code(&mail)))
        .await;

    assert_eq!(asked.json(), json!({ "sid": asked.sid() }), "no submit_url");
    assert_eq!(mail.to, "alice@example.org");
    assert!(mail.text.contains(ALICE), "{}", mail.text);
    assert_eq!(right.json(), json!({ "success": true }));
    assert!(is_proved(&app, &asked.sid(), ALICE).await);
}

#[tokio::test]
async fn the_link_in_a_mail_proves_the_address() {
    let (app, token) = started().await;
    let sid = app.post_as(&token, ASK, &alice(1)).await.sid();
    let link = link_path(&app.mail().await);
    assert!(!is_proved(&app, &sid, ALICE).await);

    let page = app.bare("POST", &link, &[]).await;

    assert_eq!(page.status, 200, "{}", page.text);
    assert!(is_proved(&app, &sid, ALICE).await);
}

#[tokio::test]
async fn the_code_in_a_text_message_proves_the_number() {
    let (app, token) = started().await;

    let asked = app.post_as(&token, ASK_PHONE, &alices_phone(1)).await;
    let code = code(&app.mail().await);
    let wrong = app
        .post_as(&token, SHOW_PHONE, &shown(&asked.sid(), "x"))
        .await;
    let right = app
        .post_as(&token, SHOW_PHONE, &shown(&asked.sid(), &code))
        .await;

    let number = json!({
        "sid": asked.sid(), "msisdn": "447700900001", "intl_fmt": "+44 7700 900001", "success": true,
    });
    assert_eq!(asked.json(), number);
    assert_eq!(wrong.refusal(), refusal(400, "M_TOKEN_INCORRECT"));
    assert_eq!(
        (right.status.as_u16(), right.json()),
        (200, json!({ "success": true }))
    );
}

#[tokio::test]
async fn a_proof_is_for_the_account_that_asked_and_for_nothing_else() {
    let (app, token) = started().await;
    let sid = app.post_as(&token, ASK, &alice(1)).await.sid();
    let code = code(&app.mail().await);
    app.post_as(&token, SHOW, &shown(&sid, &code)).await;

    let sid = Sid::parse(&sid).expect("a sid");
    let secret = ClientSecret::parse("monkeys_are_GREAT").expect("a secret");
    let validation = app.threepid.validation();
    for (wanted, user_id) in [
        (Purpose::Identity, Some("@bob:example.org")),
        (Purpose::Identity, None),
        (Purpose::Add, Some(ALICE)),
        (Purpose::Register, None),
        (Purpose::Password, Some(ALICE)),
    ] {
        let proof = validation.proof(&sid, &secret, wanted, user_id).await;
        assert_eq!(proof, Err(Error::NoValidSession), "{wanted} {user_id:?}");
    }
}

#[tokio::test]
async fn two_accounts_with_one_secret_do_not_meet() {
    let (app, alice_s) = started().await;
    let bob_s = app.identity_token("@bob:example.org").await;

    let hers = app.post_as(&alice_s, ASK, &alice(1)).await.sid();
    let his = app.post_as(&bob_s, ASK, &alice(1)).await.sid();
    let client_s = app.post(REGISTER, &alice(1)).await.sid();

    assert!(hers != his && hers != client_s && his != client_s);
    assert_eq!(app.mails().await.len(), 3);
}

#[tokio::test]
async fn a_repeated_send_attempt_sends_one_mail_also_as_a_string() {
    let (app, token) = started().await;
    let with = |send_attempt: Value| {
        let mut body = alice(0);
        body["send_attempt"] = send_attempt;
        body
    };
    let sid = app.post_as(&token, ASK, &with(json!("1"))).await.sid();
    for again in [json!("1"), json!(1), json!("0"), json!("01")] {
        assert_eq!(app.post_as(&token, ASK, &with(again)).await.sid(), sid);
    }
    assert_eq!(app.mails().await.len(), 1);

    assert_eq!(app.post_as(&token, ASK, &with(json!("2"))).await.sid(), sid);

    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn the_first_attempt_may_be_number_zero() {
    let (app, token) = started().await;
    assert_eq!(app.post_as(&token, ASK, &alice(0)).await.status, 200);
    assert_eq!(
        app.post_as(&token, ASK_PHONE, &alices_phone(0))
            .await
            .status,
        200
    );
    assert_eq!(app.mails().await.len(), 2);
}

#[tokio::test]
async fn an_address_that_somebody_has_is_proved_all_the_same() {
    let (app, token) = started().await;
    app.own("@carol:example.org", "alice@example.org").await;
    app.own("@carol:example.org", "07700900001").await;

    let sid = app.post_as(&token, ASK, &alice(1)).await.sid();
    let mail = app.mail().await;
    let right = app.post_as(&token, SHOW, &shown(&sid, &code(&mail))).await;
    let phone = app.post_as(&token, ASK_PHONE, &alices_phone(1)).await.sid();
    let sms = app.mail().await;
    let right_too = app
        .post_as(&token, SHOW_PHONE, &shown(&phone, &code(&sms)))
        .await;

    assert_eq!(
        (right.status.as_u16(), right_too.status.as_u16()),
        (200, 200)
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn bad_requests_get_the_identity_service_s_words_and_no_message() {
    let (app, token) = started().await;
    let email = |email: Value| json!({ "client_secret": "s", "email": email, "send_attempt": 1 });
    let number = |country: &str, number: &str| json!({ "client_secret": "s", "country": country, "phone_number": number, "send_attempt": 1 });
    for (path, body, errcode) in [
        (ASK, email(json!("alice")), "M_INVALID_EMAIL"),
        (
            ASK,
            email(json!("Alice <alice@example.org>")),
            "M_INVALID_EMAIL",
        ),
        (ASK, email(json!("a@b@example.org")), "M_INVALID_EMAIL"),
        (
            ASK,
            email(json!("a@example.org\r\nBcc: b@example.org")),
            "M_INVALID_EMAIL",
        ),
        (ASK, email(json!(1)), "M_BAD_JSON"),
        (
            ASK,
            json!({ "client_secret": "s", "send_attempt": 1 }),
            "M_MISSING_PARAMS",
        ),
        (
            ASK,
            json!({ "email": "a@b.org", "send_attempt": 1 }),
            "M_MISSING_PARAMS",
        ),
        (
            ASK,
            json!({ "client_secret": "s", "email": "a@b.org" }),
            "M_MISSING_PARAMS",
        ),
        (
            ASK,
            json!({ "client_secret": "é", "email": "a@b.org", "send_attempt": 1 }),
            "M_INVALID_PARAM",
        ),
        (
            ASK,
            json!({ "client_secret": "s", "email": "a@b.org", "send_attempt": -1 }),
            "M_INVALID_PARAM",
        ),
        (
            ASK,
            json!({ "client_secret": "s", "email": "a@b.org", "send_attempt": "-1" }),
            "M_BAD_JSON",
        ),
        (
            ASK,
            json!({ "client_secret": "s", "email": "a@b.org", "send_attempt": "one" }),
            "M_BAD_JSON",
        ),
        (ASK, json!([]), "M_BAD_JSON"),
        (ASK_PHONE, number("GB", "0"), "M_INVALID_ADDRESS"),
        (ASK_PHONE, number("GB", "0770090000x"), "M_INVALID_ADDRESS"),
        (ASK_PHONE, number("gb", "07700900001"), "M_INVALID_PARAM"),
        (
            ASK_PHONE,
            json!({ "client_secret": "s", "phone_number": "+447700900001", "send_attempt": 1 }),
            "M_MISSING_PARAMS",
        ),
    ] {
        let answer = app.post_as(&token, path, &body).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{path} {body}");
    }
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn what_names_an_identity_server_means_nothing_here() {
    let (app, token) = started().await;
    let mut body = alice(1);
    body["id_server"] = json!(["nonsense"]);
    body["id_access_token"] = json!(1);
    body["extra"] = json!({});

    assert_eq!(app.post_as(&token, ASK, &body).await.status, 200);

    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn only_admitted_links_are_where_the_browser_goes_next() {
    let next_links = NextLinkPolicy::new(["app.example.org"]).expect("a list");
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).next_links(next_links);
        with_identity(builder, |_| {})
    });
    let token = app.identity_token(ALICE).await;
    let with = |next_link: &str, send_attempt| {
        let mut body = alice(send_attempt);
        body["next_link"] = json!(next_link);
        body
    };

    let admitted = app
        .post_as(&token, ASK, &with("https://app.example.org/#/done", 1))
        .await;
    let other = app
        .post_as(&token, ASK, &with("https://evil.example.net/", 2))
        .await;

    assert_eq!(other.refusal(), refusal(400, "M_INVALID_PARAM"));
    let page = format!(
        "{IDENTITY}/{SHOW}?sid={}&client_secret=monkeys_are_GREAT&token={}",
        admitted.sid(),
        code(&app.mail().await)
    );
    let page = app.get(&page, &[]).await;
    let is_there = page.text.contains("app.example.org")
        || page.header("location").contains("app.example.org");
    assert!(is_there, "{}", page.text);
}

#[tokio::test]
async fn addresses_that_the_operator_does_not_admit_are_told_apart_by_medium() {
    let policy = policy::Settings {
        general: Lists::new(&["example.org"], &["+4477009*"]).expect("patterns"),
        numbers: Numbers {
            allowed_calling_codes: vec![44],
            ..Numbers::default()
        },
        ..policy::Settings::default()
    };
    let app = TestApp::with(|builder| {
        with_identity(builder.limits(limits::Settings::OFF).policy(policy), |_| {})
    });
    let token = app.identity_token(ALICE).await;
    let french = json!({ "client_secret": "s", "country": "FR", "phone_number": "0612345678", "send_attempt": 1 });
    let elsewhere = json!({ "client_secret": "s", "email": "a@example.net", "send_attempt": 1 });

    let email = app.post_as(&token, ASK, &elsewhere).await;
    let listed = app.post_as(&token, ASK_PHONE, &alices_phone(1)).await;
    let abroad = app.post_as(&token, ASK_PHONE, &french).await;

    assert_eq!(email.refusal(), refusal(403, "M_THREEPID_DENIED"));
    assert_eq!(listed.refusal(), refusal(400, "M_DESTINATION_REJECTED"));
    assert_eq!(abroad.refusal(), refusal(400, "M_DESTINATION_REJECTED"));
    assert!(app.mails().await.is_empty());
}

/// A courier whose relay can be taken down.
#[derive(Debug, Default)]
struct Relay {
    is_down: AtomicBool,
}

impl Relay {
    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }
}

#[async_trait]
impl Courier for Relay {
    async fn deliver(&self, _: &Address, _: &Message) -> Result<String, DeliveryError> {
        if self.is_down.load(Ordering::SeqCst) {
            Err(DeliveryError::transient("down"))
        } else {
            Ok("taken".to_owned())
        }
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        (Vec::new(), Ok(()))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Alice's request with a secret of its own.
fn fresh(number: u32) -> Value {
    json!({ "client_secret": format!("s{number}"), "email": format!("u{number}@example.org"), "send_attempt": 1 })
}

/// A server whose relay is down, and has been tried once.
async fn without_relay() -> (TestApp, AccessToken, Arc<Relay>) {
    let relay = Arc::new(Relay::default());
    relay.set_down(true);
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).email(relay.clone());
        with_identity(builder, |_| {})
    });
    let token = app.identity_token(ALICE).await;
    assert_eq!(app.post_as(&token, ASK, &fresh(0)).await.status, 200);
    app.threepid.deliver_due().await.expect("the store answers");
    (app, token, relay)
}

#[tokio::test]
async fn a_relay_that_fails_for_a_while_is_told_and_nothing_is_queued() {
    let (app, token, _relay) = without_relay().await;
    app.wait(MINUTE * 4);
    assert_eq!(
        app.post_as(&token, ASK, &fresh(1)).await.status,
        200,
        "it may pass"
    );
    app.wait(MINUTE);

    let refused = app.post_as(&token, ASK, &fresh(2)).await;
    let phone = app.post_as(&token, ASK_PHONE, &alices_phone(1)).await;

    assert_eq!(refused.refusal(), refusal(400, "M_EMAIL_SEND_ERROR"));
    assert_eq!(phone.status, 200, "the other medium works");
    let listed = threepid::store::Outbox::list(&*app.store, 9).await;
    let listed = listed.expect("the store answers");
    let waiting = listed.iter().filter(|message| message.due_at.is_some());
    assert_eq!(waiting.count(), 3);
}

#[tokio::test]
async fn a_relay_that_is_back_is_noticed_also_if_nothing_waits_any_more() {
    let (app, token, relay) = without_relay().await;
    app.wait(MINUTE * 70);
    app.threepid.deliver_due().await.expect("the store answers");
    assert_eq!(
        app.post_as(&token, ASK, &fresh(1)).await.status,
        200,
        "one is let through"
    );
    let refused = app.post_as(&token, ASK, &fresh(2)).await;
    assert_eq!(refused.refusal(), refusal(400, "M_EMAIL_SEND_ERROR"));

    relay.set_down(false);
    app.threepid.deliver_due().await.expect("the store answers");

    assert_eq!(app.post_as(&token, ASK, &fresh(2)).await.status, 200);
}

#[tokio::test]
async fn a_repeated_request_wastes_no_chance_to_see_whether_the_relay_is_back() {
    let (app, token, _relay) = without_relay().await;
    app.wait(MINUTE * 6);

    let repeated = app.post_as(&token, ASK, &fresh(0)).await;

    assert_eq!(repeated.status, 200, "{}", repeated.text);
    assert_eq!(app.post_as(&token, ASK, &fresh(1)).await.status, 200);
    let refused = app.post_as(&token, ASK, &fresh(2)).await;
    assert_eq!(refused.refusal(), refusal(400, "M_EMAIL_SEND_ERROR"));
}

#[tokio::test]
async fn a_medium_that_nothing_is_sent_by_is_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("threepid.db");
    let store = SqliteStore::open(&path, Role::Server).expect("a store of our own");
    let keys = Keyring::parse(&Keyring::generate_file()).expect("a key");
    let builder = Threepid::builder(PUBLIC_URL.parse().expect("a URL"), store, keys);
    let builder = builder
        .limits(limits::Settings::OFF)
        .email(Arc::new(Capture::in_memory()));
    let server = with_identity(builder, |_| {})
        .build()
        .expect("settings that fit together");
    let token = server.identity_token(ALICE).await.expect("a token");
    let ask = |path: &str, body: Value| {
        Request::post(format!("{IDENTITY}/{path}"))
            .header("authorization", format!("Bearer {}", token.reveal()))
            .body(body.to_string().into())
            .expect("a request")
    };

    let router = server.router();
    let phone = send(&router, "127.0.0.1:1", ask(ASK_PHONE, alices_phone(1))).await;
    let email = send(&router, "127.0.0.1:1", ask(ASK, alice(1))).await;

    assert_eq!(phone.refusal(), refusal(400, "M_SEND_ERROR"));
    assert_eq!(email.status, 200);
}

#[tokio::test]
async fn requests_are_limited_per_source_per_account_and_per_address() {
    let twice = Rate::new(2, MINUTE * 60);
    for set in [
        |limits: &mut limits::Settings, rate| limits.per_source = rate,
        |limits: &mut limits::Settings, rate| limits.per_account = rate,
        |limits: &mut limits::Settings, rate| limits.per_address = rate,
    ] {
        let mut limits = limits::Settings::OFF;
        set(&mut limits, twice);
        let app = TestApp::with(|builder| with_identity(builder.limits(limits), |_| {}));
        let token = app.identity_token(ALICE).await;
        for number in 1..=2 {
            let asked = app.post_as(&token, ASK, &alice(number)).await;
            assert_eq!(asked.status, 200);
            app.mail().await;
        }

        let third = app.post_as(&token, ASK, &alice(3)).await;

        assert_eq!(third.refusal(), refusal(429, "M_LIMIT_EXCEEDED"));
        assert!(!third.header("retry-after").is_empty());
        assert!(app.mails().await.is_empty());
    }
}

#[tokio::test]
async fn wrong_submissions_get_the_identity_service_s_words() {
    let (app, token) = started().await;
    let sid = app.post_as(&token, ASK, &alice(1)).await.sid();
    let right = code(&app.mail().await);
    let body = |sid: &str, secret: &str, token: &str| json!({ "sid": sid, "client_secret": secret, "token": token });
    let secret = "monkeys_are_GREAT";
    for (path, body, status, errcode) in [
        (
            SHOW,
            body(&sid, secret, "00000000"),
            400,
            "M_TOKEN_INCORRECT",
        ),
        (SHOW, body(&sid, secret, ""), 400, "M_INVALID_PARAM"),
        (
            SHOW,
            body(&sid, secret, &"x".repeat(256)),
            400,
            "M_INVALID_PARAM",
        ),
        (SHOW, body("a b", secret, &right), 400, "M_INVALID_PARAM"),
        (SHOW, body(&sid, "wrong", &right), 404, "M_NO_VALID_SESSION"),
        (
            SHOW,
            body("1234", secret, &right),
            404,
            "M_NO_VALID_SESSION",
        ),
        (
            SHOW_PHONE,
            body(&sid, secret, &right),
            404,
            "M_NO_VALID_SESSION",
        ),
        (
            SHOW,
            json!({ "sid": sid, "client_secret": secret }),
            400,
            "M_MISSING_PARAMS",
        ),
        (
            SHOW,
            json!({ "sid": 1, "client_secret": secret, "token": right }),
            400,
            "M_BAD_JSON",
        ),
    ] {
        let answer = app.post_as(&token, path, &body).await;
        assert_eq!(answer.refusal(), refusal(status, errcode), "{path} {body}");
    }
    app.wait(MINUTE * 15);
    let late = app.post_as(&token, SHOW, &body(&sid, secret, &right)).await;

    assert_eq!(late.refusal(), refusal(400, "M_SESSION_EXPIRED"));
    assert!(!is_proved(&app, &sid, ALICE).await);
}

#[tokio::test]
async fn people_open_the_page_without_a_token_and_head_and_prefetches_change_nothing() {
    let (app, token) = started().await;
    for (ask, show, body) in [
        (ASK, SHOW, alice(1)),
        (ASK_PHONE, SHOW_PHONE, alices_phone(1)),
    ] {
        let sid = app.post_as(&token, ask, &body).await.sid();
        let path = |token: &str| {
            format!("{IDENTITY}/{show}?sid={sid}&client_secret=monkeys_are_GREAT&token={token}")
        };
        let right = path(&code(&app.mail().await));
        assert_eq!(app.bare("HEAD", &right, &[]).await.status, 200);
        assert_eq!(
            app.get(&right, &[("sec-purpose", "prefetch")]).await.status,
            200
        );
        assert_eq!(app.get(&path("1"), &[]).await.status, 400);
        assert!(!is_proved(&app, &sid, ALICE).await, "{show}");

        let page = app.get(&right, &[]).await;

        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(is_proved(&app, &sid, ALICE).await, "{show}");
    }
}

#[tokio::test]
async fn a_page_that_fails_is_a_page() {
    let app = TestApp::identity(|_| {});
    for (query, status) in [
        ("", 400),
        ("?sid=1&client_secret=s", 400),
        ("?sid=1&sid=2&client_secret=s&token=1", 400),
        ("?sid=1&client_secret=s&token=1", 404),
    ] {
        let page = app.get(&format!("{IDENTITY}/{SHOW}{query}"), &[]).await;
        assert_eq!(page.status, status, "{query}");
        assert!(page.header("content-type").starts_with("text/html"));
    }
}

/// Posts a body of a type in a user's name.
async fn post_as_type(
    app: &TestApp,
    token: &AccessToken,
    path: &str,
    (kind, body): (&str, &str),
) -> Answer {
    let request = Request::post(format!("{IDENTITY}/{path}"))
        .header("authorization", format!("Bearer {}", token.reveal()))
        .header("content-type", kind);
    app.send(request.body(body.to_owned().into()).expect("a request"))
        .await
}

#[tokio::test]
async fn forms_are_taken_where_the_operator_says_so() {
    for kind in [
        FORM,
        "application/x-form-www-urlencoded",
        "Application/X-WWW-Form-urlencoded; charset=UTF-8",
    ] {
        let app = TestApp::identity(|settings| settings.legacy = true);
        let token = app.identity_token(ALICE).await;
        let ask = "client_secret=monkeys_are_GREAT&email=alice%40example.org&send_attempt=1";
        let asked = post_as_type(&app, &token, ASK, (kind, ask)).await;
        let right = code(&app.mail().await);
        let show = format!(
            "sid={}&client_secret=monkeys_are_GREAT&token={right}",
            asked.sid()
        );

        let shown = post_as_type(&app, &token, SHOW, (kind, &show)).await;

        assert_eq!(shown.json(), json!({ "success": true }), "{kind}");
    }
}

#[tokio::test]
async fn bad_forms_are_refused_as_bad_json_is() {
    let app = TestApp::identity(|settings| settings.legacy = true);
    let token = app.identity_token(ALICE).await;
    for (body, errcode) in [
        ("", "M_MISSING_PARAMS"),
        ("client_secret=s&email=a%40b.org", "M_MISSING_PARAMS"),
        (
            "client_secret=s&email=a%40b.org&send_attempt=one",
            "M_BAD_JSON",
        ),
        (
            "client_secret=s&email=a%40b.org&email=c%40b.org&send_attempt=1",
            "M_INVALID_PARAM",
        ),
        (
            "client_secret=%FF&email=a%40b.org&send_attempt=1",
            "M_INVALID_PARAM",
        ),
        ("client_secret=s&email=a&send_attempt=1", "M_INVALID_EMAIL"),
    ] {
        let answer = post_as_type(&app, &token, ASK, (FORM, body)).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{body}");
    }
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn json_is_read_as_json_whatever_its_type_says() {
    for legacy in [false, true] {
        let app = TestApp::identity(|settings| settings.legacy = legacy);
        let token = app.identity_token(ALICE).await;
        for (kind, number) in [
            (FORM, 1),
            ("text/plain", 2),
            ("", 3),
            ("application/json", 4),
        ] {
            let body = format!(" \n{}", alice(number));
            let answer = post_as_type(&app, &token, ASK, (kind, &body)).await;
            assert_eq!(answer.status, 200, "{kind} {}", answer.text);
        }
    }
}

#[tokio::test]
async fn forms_are_no_json_where_the_operator_does_not_want_them() {
    let (app, token) = started().await;
    let ask = "client_secret=s&email=a%40b.org&send_attempt=1";

    let asked = post_as_type(&app, &token, ASK, (FORM, ask)).await;
    let shown = post_as_type(&app, &token, SHOW, (FORM, "sid=1&client_secret=s&token=1")).await;

    assert_eq!(asked.refusal(), refusal(400, "M_NOT_JSON"));
    assert_eq!(shown.refusal(), refusal(400, "M_NOT_JSON"));
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn without_a_known_token_no_form_and_no_query_does_anything() {
    let app = TestApp::identity(|settings| settings.legacy = true);
    let token = app.identity_token(ALICE).await;
    let ask = |query: &str| {
        Request::post(format!("{IDENTITY}/{ASK}{query}"))
            .header("content-type", FORM)
            .body("client_secret=s&email=a%40b.org&send_attempt=1".into())
            .expect("a request")
    };

    let without = app.send(ask("")).await;
    let wrong = app.send(ask("?access_token=nonsense")).await;
    assert!(app.mails().await.is_empty());
    let right = app
        .send(ask(&format!("?access_token={}", token.reveal())))
        .await;

    assert_eq!(without.refusal(), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(wrong.refusal(), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(right.status, 200, "{}", right.text);
}
