//! Invitations of people who have no user id yet.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use ruma_common::CanonicalJsonValue;
use rusqlite::Connection;
use serde_json::{Value, json};
use threepid::{
    Builder,
    clock::Clock,
    courier::{
        Courier, DeliveryError, Message,
        capture::{Capture, Captured},
    },
    limits,
    policy::{self, Lists},
    rate::Rate,
    store::{Association, Associations, InviteEntry, Invites, Outbox, OutboxEntry},
    threepid::Threepid,
};

use crate::support::app::*;

const BOB: &str = "@bob:example.net";
const STORE: &str = "store-invite";
const SIGN: &str = "sign-ed25519";

/// Bob's invitation of alice, with what a room may tell.
fn alice_by_bob() -> Value {
    json!({
        "medium": "email",
        "address": "Alice@Example.org",
        "room_id": "!room:example.net",
        "sender": BOB,
        "room_alias": "#messages:example.net",
        "room_avatar_url": "mxc://example.net/room",
        "room_join_rules": "invite",
        "room_name": "Bob's Emporium of Messages",
        "sender_display_name": "Bob Smith",
        "sender_avatar_url": "mxc://example.net/bob",
        "org.example.more": { "anything": true },
    })
}

/// Bob's invitation of somebody else.
fn of(address: &str) -> Value {
    let mut body = alice_by_bob();
    body["address"] = json!(address);
    body
}

async fn invite(app: &TestApp, body: &Value) -> Answer {
    let token = app.identity_token(BOB).await;
    app.post_as(&token, STORE, body).await
}

/// Somebody's invitation of alice.
async fn invite_by(app: &TestApp, number: u32) -> Answer {
    let sender = format!("@user{number}:example.net");
    let mut body = alice_by_bob();
    body["sender"] = json!(sender);
    let token = app.identity_token(&sender).await;
    app.post_as(&token, STORE, &body).await
}

/// An invitation that is taken; the answer.
async fn invited(app: &TestApp, body: &Value) -> Value {
    let answer = invite(app, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// What follows a line of a mail's text.
fn below(mail: &Captured, heading: &str) -> String {
    let mut lines = mail.text.lines();
    lines.find(|line| *line == heading).expect("the heading");
    lines.next().expect("a line below it").to_owned()
}

fn private_key(mail: &Captured) -> String {
    below(mail, "Private key:")
}

async fn sign(app: &TestApp, token: &Value, private_key: &str) -> Answer {
    let body = json!({ "mxid": "@alice:example.org", "token": token, "private_key": private_key });
    let account = app.identity_token("@alice:example.org").await;
    app.post_as(&account, SIGN, &body).await
}

/// Whether a key of an invitation is valid, as a homeserver asks: at the URL that the answer told.
async fn is_valid(app: &TestApp, key: &Value) -> bool {
    let url = key["key_validity_url"].as_str().expect("a URL");
    let path = url.strip_prefix(PUBLIC_URL).expect("below the public URL");
    let public_key = key["public_key"].as_str().expect("a key");
    let asked = format!("{path}?public_key={public_key}");
    let answer = app.get(&asked, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["valid"].as_bool().expect("a truth value")
}

async fn entries(app: &TestApp) -> Vec<InviteEntry> {
    let entries = app.store.list_invites(100, app.clock.now()).await;
    entries.expect("the store answers")
}

/// The names of invitations, newest first.
async fn ids(app: &TestApp) -> Vec<[u8; 16]> {
    let byte = |text: &str, at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16);
    let id = |entry: InviteEntry| std::array::from_fn(|at| byte(&entry.id, at).expect("a byte"));
    entries(app).await.into_iter().map(id).collect()
}

async fn newest(app: &TestApp) -> OutboxEntry {
    let messages = app.store.list(1).await.expect("the store answers");
    messages.into_iter().next().expect("a message")
}

/// How many mails of invitations can still be read with the server key.
fn sealed(app: &TestApp) -> u32 {
    let connection = Connection::open(app.dir().join("threepid.db")).expect("the database");
    let count = "SELECT count(*) FROM outbox WHERE sealed IS NOT NULL";
    connection
        .query_row(count, [], |row| row.get(0))
        .expect("a count")
}

async fn associate(app: &TestApp, address: &str, user_id: &str) {
    let association = Association {
        threepid: Threepid::email(address).expect("an address"),
        user_id: user_id.to_owned(),
        at: app.clock.now(),
    };
    let associated = app.store.associate(association, None, "pepper").await;
    associated.expect("the store answers");
}

/// A relay that takes mails, puts them off or refuses them.
#[derive(Debug)]
struct Relay {
    mood: AtomicU8,
    taken: Capture,
}

const TAKES: u8 = 0;
const PUTS_OFF: u8 = 1;
const REFUSES: u8 = 2;

impl Relay {
    fn new(mood: u8) -> Arc<Self> {
        Arc::new(Self {
            mood: AtomicU8::new(mood),
            taken: Capture::in_memory(),
        })
    }
}

#[async_trait]
impl Courier for Relay {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        let taken = self.taken.deliver(to, message).await?;
        match self.mood.load(Ordering::SeqCst) {
            PUTS_OFF => Err(DeliveryError::transient("later")),
            REFUSES => Err(DeliveryError::permanent("no")),
            _ => Ok(taken),
        }
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        (Vec::new(), Ok(()))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// An identity server without limits, whose mails go to `relay`.
fn with_relay(relay: &Arc<Relay>) -> TestApp {
    let relay = Arc::clone(relay);
    TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).email(relay);
        with_identity(builder, |_| {})
    })
}

fn with_limits(limits: limits::Settings) -> TestApp {
    TestApp::with(|builder| with_identity(builder.limits(limits), |_| {}))
}

#[tokio::test]
async fn an_invitation_is_answered_with_a_token_and_two_keys() {
    let app = TestApp::identity(|_| {});

    let answer = invite(&app, &alice_by_bob()).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    let token = body["token"].as_str().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(token).unwrap().len(), 32);
    let keys = body["public_keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(body["public_key"], keys[0]["public_key"]);
    for (key, path) in keys
        .iter()
        .zip(["pubkey/isvalid", "pubkey/ephemeral/isvalid"])
    {
        let url = format!("{PUBLIC_URL}{IDENTITY}/{path}");
        assert_eq!(key["key_validity_url"], url);
        let public_key = key["public_key"].as_str().unwrap();
        assert_eq!(STANDARD_NO_PAD.decode(public_key).unwrap().len(), 32);
        assert!(!public_key.contains(['+', '/']), "alike in both alphabets");
        assert!(is_valid(&app, key).await);
    }
    assert_eq!(body["display_name"], "a...@e...");
    assert_eq!(body.as_object().unwrap().len(), 4);
}

#[tokio::test]
async fn the_mail_names_who_invites_and_whereto_and_carries_token_and_key() {
    let app = TestApp::identity(|settings| settings.name = "id.example.com".parse().unwrap());

    let body = invited(&app, &alice_by_bob()).await;

    let mail = app.mail().await;
    assert_eq!(mail.to, "alice@example.org");
    assert_eq!(
        mail.subject,
        format!("{BOB} invites you to a room on Matrix")
    );
    assert_eq!(below(&mail, "Token:"), body["token"].as_str().unwrap());
    for text in [&mail.text, &mail.html] {
        for word in [
            BOB,
            "Bob Smith",
            "Emporium",
            "id.example.com",
            "alice@example.org",
        ] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(text.contains(&private_key(&mail)));
        assert!(!text.contains("mxc:") && !text.contains("!room"), "{text}");
    }
}

#[tokio::test]
async fn a_space_is_called_one() {
    let app = TestApp::identity(|_| {});
    let mut body = alice_by_bob();
    body["room_type"] = json!("m.space");

    invited(&app, &body).await;

    let mail = app.mail().await;
    assert!(mail.subject.contains("a space"), "{}", mail.subject);
    assert!(mail.text.contains("a space"), "{}", mail.text);
}

#[tokio::test]
async fn what_the_mail_carries_signs_the_acceptance() {
    let app = TestApp::identity(|_| {});
    let body = invited(&app, &alice_by_bob()).await;
    let mail = app.mail().await;

    let answer = sign(&app, &json!(below(&mail, "Token:")), &private_key(&mail)).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut signed = answer.json();
    let signatures = signed.as_object_mut().unwrap().remove("signatures");
    let expected = json!({ "mxid": "@alice:example.org", "sender": BOB, "token": body["token"] });
    assert_eq!(signed, expected);
    let signatures = signatures.unwrap();
    let signature = signatures[IDENTITY_NAME]["ed25519:0"].as_str().unwrap();
    let of_ours = json!({ IDENTITY_NAME: { "ed25519:0": signature } });
    assert_eq!(signatures, of_ours, "one signature");
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).unwrap();
    let [long_term, ephemeral] = [0, 1].map(|place: usize| {
        let public_key = body["public_keys"][place]["public_key"].as_str().unwrap();
        let canonical = CanonicalJsonValue::try_from(signed.clone()).unwrap();
        UnparsedPublicKey::new(&ED25519, decode(public_key))
            .verify(canonical.to_string().as_bytes(), &decode(signature))
    });
    assert!(ephemeral.is_ok() && long_term.is_err(), "never our own key");
}

#[tokio::test]
async fn a_private_key_is_read_in_every_form_of_base64() {
    let app = TestApp::identity(|_| {});
    let token = invited(&app, &alice_by_bob()).await["token"].clone();
    let key = [0xfb; 32];

    let mut answers = Vec::new();
    for form in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        answers.push(sign(&app, &token, &form.encode(key)).await);
    }

    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.text, answers[0].text);
    }
}

#[tokio::test]
async fn what_can_not_be_signed_is_refused() {
    let app = TestApp::identity(|_| {});
    let token = invited(&app, &alice_by_bob()).await["token"].clone();
    let account = app.identity_token(BOB).await;
    let key = STANDARD_NO_PAD.encode([7; 32]);
    let (short, long) = (
        STANDARD_NO_PAD.encode([7; 31]),
        STANDARD_NO_PAD.encode([7; 33]),
    );
    for (field, value, status, errcode) in [
        ("token", json!("unknown"), 404, "M_UNRECOGNIZED"),
        ("token", json!(""), 404, "M_UNRECOGNIZED"),
        ("token", json!("x".repeat(10_000)), 404, "M_UNRECOGNIZED"),
        ("token", json!(1), 400, "M_BAD_JSON"),
        ("token", Value::Null, 400, "M_BAD_JSON"),
        ("private_key", json!(short), 400, "M_INVALID_PARAM"),
        ("private_key", json!(long), 400, "M_INVALID_PARAM"),
        ("private_key", json!("*"), 400, "M_INVALID_PARAM"),
        ("private_key", json!(""), 400, "M_INVALID_PARAM"),
        ("private_key", json!([7]), 400, "M_BAD_JSON"),
        ("mxid", json!("alice"), 400, "M_INVALID_PARAM"),
        ("mxid", json!("@a b:example.org"), 400, "M_INVALID_PARAM"),
        (
            "mxid",
            json!("@a\u{2800}b:example.org"),
            400,
            "M_INVALID_PARAM",
        ),
        ("mxid", json!("@a:evil:b.org"), 400, "M_INVALID_PARAM"),
        ("mxid", json!(false), 400, "M_BAD_JSON"),
    ] {
        let mut body = json!({ "mxid": "@a:example.org", "token": token, "private_key": key });
        body[field] = value.clone();
        let answer = app.post_as(&account, SIGN, &body).await;
        assert_eq!(answer.status, status, "{field} {value}: {}", answer.text);
        assert_eq!(answer.errcode(), errcode, "{field} {value}");
        assert!(!answer.text.contains(&key), "{}", answer.text);

        let mut body = json!({ "mxid": "@a:example.org", "token": token, "private_key": key });
        body.as_object_mut().unwrap().remove(field);
        let answer = app.post_as(&account, SIGN, &body).await;
        assert_eq!(answer.errcode(), "M_MISSING_PARAMS", "{field}");
    }
}

#[tokio::test]
async fn whoever_has_no_token_is_refused_before_anything_is_read() {
    let app = TestApp::identity(|settings| {
        let texts = std::collections::BTreeMap::new();
        let policy = threepid::identity::Policy {
            version: "1".to_owned(),
            texts,
        };
        settings.terms.insert("terms".to_owned(), policy);
    });
    for path in [STORE, SIGN] {
        let answer = app
            .post(&format!("{IDENTITY}/{path}"), &alice_by_bob())
            .await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.errcode(), "M_UNAUTHORIZED");
        let token = app.identity_token(BOB).await;
        let answer = app.post_as(&token, path, &json!([])).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.errcode(), "M_TERMS_NOT_SIGNED");
    }
}

#[tokio::test]
async fn what_is_no_invitation_is_refused_and_nobody_is_told() {
    let app = TestApp::identity(|_| {});
    let long = format!("!{}", "a".repeat(255));
    for (field, value, status, errcode) in [
        ("medium", json!("msisdn"), 400, "M_UNRECOGNIZED"),
        ("medium", json!("pigeon"), 400, "M_UNRECOGNIZED"),
        ("medium", json!(""), 400, "M_UNRECOGNIZED"),
        ("medium", json!(1), 400, "M_BAD_JSON"),
        ("address", json!("alice"), 400, "M_INVALID_EMAIL"),
        (
            "address",
            json!("a@b.org\r\nBcc: x@y.org"),
            400,
            "M_INVALID_EMAIL",
        ),
        (
            "address",
            json!("<alice@example.org>"),
            400,
            "M_INVALID_EMAIL",
        ),
        ("address", json!("a,b@example.org"), 400, "M_INVALID_EMAIL"),
        ("address", json!(null), 400, "M_BAD_JSON"),
        ("room_id", json!(""), 400, "M_INVALID_PARAM"),
        ("room_id", json!(long), 400, "M_INVALID_PARAM"),
        ("room_id", json!("!a b:c"), 400, "M_INVALID_PARAM"),
        ("room_id", json!("!\r\n:c"), 400, "M_INVALID_PARAM"),
        ("room_id", json!("!\u{202e}:c"), 400, "M_INVALID_PARAM"),
        ("room_id", json!({}), 400, "M_BAD_JSON"),
        ("sender", json!("@eve:example.net"), 403, "M_UNAUTHORIZED"),
        ("sender", json!("bob"), 403, "M_UNAUTHORIZED"),
        ("sender", json!(["@bob:example.net"]), 400, "M_BAD_JSON"),
    ] {
        let mut body = alice_by_bob();
        body[field] = value.clone();
        let answer = invite(&app, &body).await;
        assert_eq!(answer.status, status, "{field} {value}: {}", answer.text);
        assert_eq!(answer.errcode(), errcode, "{field} {value}");

        let mut body = alice_by_bob();
        body.as_object_mut().unwrap().remove(field);
        let answer = invite(&app, &body).await;
        assert_eq!(answer.status, 400, "{field}");
        assert_eq!(answer.errcode(), "M_MISSING_PARAMS", "{field}");
    }
    assert!(app.mails().await.is_empty() && entries(&app).await.is_empty());
}

#[tokio::test]
async fn what_a_room_may_tell_is_never_an_error() {
    let app = TestApp::identity(|_| {});
    for value in [
        json!(null),
        json!(1),
        json!(["x"]),
        json!({ "x": 1 }),
        json!(""),
        json!(true),
    ] {
        let mut body = alice_by_bob();
        body["room_id"] = json!("$room");
        for field in [
            "room_alias",
            "room_avatar_url",
            "room_join_rules",
            "room_name",
            "sender_display_name",
            "sender_avatar_url",
            "room_type",
        ] {
            body[field] = value.clone();
        }

        invited(&app, &body).await;

        let mail = app.mail().await;
        let told = format!("{BOB} invites you to a room on Matrix.");
        assert!(mail.text.contains(&told), "{value}: {}", mail.text);
        assert!(
            mail.html
                .contains("</strong> invites you to a room on Matrix.")
        );
    }
}

#[tokio::test]
async fn hostile_words_stay_words_in_every_field() {
    let app = TestApp::identity(|_| {});
    let fields = [
        "room_alias",
        "room_avatar_url",
        "room_join_rules",
        "room_name",
        "sender_display_name",
        "sender_avatar_url",
        "room_type",
        "org.example.more",
    ];
    for foul in [
        "<script>alert(1)</script><img src=https://evil.example/x>",
        "\"><a href='https://evil.example/'>click</a>",
        "{{ mail.address }}{% include \"mail.html\" %}",
        "x\r\nBcc: eve@evil.example\r\n\r\nhello",
        "\u{202e}evil\u{2066}\u{200b}.\u{200b}example\u{2028}\0",
        "log in at https://evil.example/login or www.evil.example now",
        &"evil.example ".repeat(4000),
    ] {
        let mut all = alice_by_bob();
        // Of 40 kB there is room for one.
        let at_once = if foul.len() > 1000 {
            &fields[3..4]
        } else {
            &fields[..]
        };
        for field in at_once {
            all[*field] = json!(foul);
        }

        invited(&app, &all).await;

        let mail = app.mail().await;
        assert!(mail.text.len() < 3000 && mail.html.len() < 6000);
        assert!(mail.subject.starts_with(BOB) && mail.subject.len() < 80);
        for tag in ["<script", "<img", "<a "] {
            assert!(!mail.html.contains(tag), "{}", mail.html);
        }
        for shown in [&mail.subject, &mail.text, &mail.html] {
            for part in [
                "\nBcc",
                "\r",
                "\0",
                "\u{202e}",
                "\u{2066}",
                "\u{200b}",
                "\u{2028}",
                "evil.example",
                "https:/",
                "mxc:",
            ] {
                assert!(!shown.contains(part), "{part:?} in {shown}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_of_100_kilobytes_is_refused() {
    let app = TestApp::identity(|_| {});
    for field in ["room_name", "sender_display_name", "room_id", "anything"] {
        let mut body = alice_by_bob();
        body[field] = json!("x".repeat(100_000));
        let answer = invite(&app, &body).await;
        assert_eq!(answer.status, 413, "{field}");
        assert_eq!(answer.errcode(), "M_TOO_LARGE");
    }
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn two_invitations_of_one_address_have_nothing_in_common() {
    let app = TestApp::identity(|_| {});

    let first = invited(&app, &alice_by_bob()).await;
    let second = invited(&app, &alice_by_bob()).await;

    assert_ne!(first["token"], second["token"]);
    assert_eq!(first["public_keys"][0], second["public_keys"][0]);
    assert_ne!(first["public_keys"][1], second["public_keys"][1]);
    let mails = app.mails().await;
    assert_eq!(mails.len(), 2);
    assert_ne!(private_key(&mails[0]), private_key(&mails[1]));
    assert_ne!(mails[0].id, mails[1].id);
}

#[tokio::test]
async fn a_restart_keeps_the_invitation_and_its_mail() {
    let app = TestApp::identity(|_| {});
    let body = invited(&app, &alice_by_bob()).await;

    let app = app.restarted(|builder| with_identity(builder.limits(limits::Settings::OFF), |_| {}));

    assert!(is_valid(&app, &body["public_keys"][1]).await);
    let mail = app.mail().await;
    assert_eq!(below(&mail, "Token:"), body["token"].as_str().unwrap());
    let answer = sign(&app, &body["token"], &private_key(&mail)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_withdrawn_invitation_is_worth_nothing_and_its_mail_does_not_go() {
    let app = TestApp::identity(|_| {});
    let other = invited(&app, &of("carol@example.org")).await;
    app.wait(Duration::from_secs(1));
    let body = invited(&app, &alice_by_bob()).await;
    let id = ids(&app).await[0];

    assert!(
        app.store
            .withdraw_invite(id, app.clock.now())
            .await
            .unwrap()
    );

    assert!(
        !app.store
            .withdraw_invite(id, app.clock.now())
            .await
            .unwrap()
    );
    assert!(!is_valid(&app, &body["public_keys"][1]).await);
    let answer = sign(&app, &body["token"], &STANDARD.encode([7; 32])).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.errcode(), "M_UNRECOGNIZED");
    let dropped = newest(&app).await;
    assert_eq!(
        (dropped.state, dropped.outcome.as_deref()),
        ("dropped", Some("the invitation was withdrawn"))
    );
    assert_eq!(sealed(&app), 1, "carol's");
    assert_eq!(app.mail().await.to, "carol@example.org");
    assert!(is_valid(&app, &other["public_keys"][1]).await);
}

#[tokio::test]
async fn an_invitation_that_has_run_out_is_worth_nothing_and_its_mail_does_not_go() {
    let app = TestApp::identity(|settings| settings.invite_lifetime = Duration::from_hours(1));
    let body = invited(&app, &alice_by_bob()).await;
    app.wait(Duration::from_secs(60 * 60 - 1));
    assert!(is_valid(&app, &body["public_keys"][1]).await);

    app.wait(Duration::from_secs(1));

    assert!(!is_valid(&app, &body["public_keys"][1]).await);
    let answer = sign(&app, &body["token"], &STANDARD.encode([7; 32])).await;
    assert_eq!(answer.errcode(), "M_UNRECOGNIZED");
    assert!(app.mails().await.is_empty());
    assert_eq!((newest(&app).await.state, sealed(&app)), ("dropped", 0));
    assert_eq!(entries(&app).await[0].state, "expired");
    let id = ids(&app).await[0];
    assert!(
        !app.store
            .withdraw_invite(id, app.clock.now())
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_used_invitation_is_worth_nothing_and_its_mail_does_not_go() {
    let app = TestApp::identity(|_| {});
    let body = invited(&app, &alice_by_bob()).await;
    associate(&app, "alice@example.org", "@alice:example.org").await;
    let now = app.clock.now();
    let due = app.store.lease_onbinds(now, now, 9, 9).await.unwrap();
    assert!(
        is_valid(&app, &body["public_keys"][1]).await,
        "not told yet"
    );

    let told = app.store.finish_onbind(due[0].id, ids(&app).await, now);
    told.await.unwrap();

    assert!(!is_valid(&app, &body["public_keys"][1]).await);
    let answer = sign(&app, &body["token"], &STANDARD.encode([7; 32])).await;
    assert_eq!(answer.errcode(), "M_UNRECOGNIZED");
    assert!(app.mails().await.is_empty());
    assert_eq!((newest(&app).await.state, sealed(&app)), ("dropped", 0));
    assert_eq!(entries(&app).await[0].state, "used");
}

#[tokio::test]
async fn whoever_has_a_user_id_is_named_and_not_invited() {
    let app = with_limits(limits::Settings {
        per_address: Rate::new(1, Duration::from_hours(1)),
        ..limits::Settings::OFF
    });
    associate(&app, "alice@example.org", "@alice:example.org").await;

    for _ in 0..3 {
        let answer = invite(&app, &alice_by_bob()).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.errcode(), "M_THREEPID_IN_USE");
        assert_eq!(answer.json()["mxid"], "@alice:example.org");
    }

    assert!(app.mails().await.is_empty() && entries(&app).await.is_empty());
}

#[tokio::test]
async fn the_policy_holds_for_invitations() {
    let nothing: [&str; 0] = [];
    let policy = policy::Settings {
        general: Lists::new(&nothing, &["example.org"]).unwrap(),
        ..policy::Settings::default()
    };
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).policy(policy);
        with_identity(builder, |_| {})
    });

    let answer = invite(&app, &alice_by_bob()).await;

    assert_eq!(answer.status, 403);
    assert_eq!(answer.errcode(), "M_THREEPID_DENIED");
    assert!(app.mails().await.is_empty());
    invited(&app, &of("alice@example.com")).await;
}

#[tokio::test]
async fn an_account_invites_so_many() {
    let app = with_limits(limits::Settings {
        invites_per_account: Rate::new(2, Duration::from_hours(1)),
        ..limits::Settings::OFF
    });
    for number in 0..2 {
        invited(&app, &of(&format!("u{number}@example.org"))).await;
    }

    let answer = invite(&app, &of("u2@example.org")).await;

    assert_eq!(answer.status, 429);
    assert_eq!(answer.errcode(), "M_LIMIT_EXCEEDED");
    let wait = answer.json()["retry_after_ms"].as_u64().unwrap();
    assert_eq!(app.mails().await.len(), 2);
    app.wait(Duration::from_millis(wait));
    invited(&app, &of("u2@example.org")).await;
}

#[tokio::test]
async fn a_source_asks_for_so_many() {
    let app = with_limits(limits::Settings {
        per_source: Rate::new(1, Duration::from_hours(1)),
        ..limits::Settings::OFF
    });
    invited(&app, &alice_by_bob()).await;

    assert_eq!(invite(&app, &alice_by_bob()).await.status, 429);

    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn a_source_has_so_much_signed() {
    let app = with_limits(limits::Settings {
        per_source_submit: Rate::new(2, Duration::from_hours(1)),
        ..limits::Settings::OFF
    });
    let key = STANDARD_NO_PAD.encode([7; 32]);
    for _ in 0..2 {
        assert_eq!(sign(&app, &json!("unknown"), &key).await.status, 404);
    }

    assert_eq!(sign(&app, &json!("unknown"), &key).await.status, 429);
}

#[tokio::test]
async fn a_mailbox_gets_so_many_messages_whoever_asks_for_them() {
    let app = with_limits(limits::Settings {
        per_address: Rate::new(2, Duration::from_hours(1)),
        ..limits::Settings::OFF
    });
    invited(&app, &alice_by_bob()).await;
    assert_eq!(app.post(REGISTER, &alice(1)).await.status, 200);

    let answer = invite(&app, &of("alice+tag@example.org")).await;

    assert_eq!(answer.status, 429);
    assert!(answer.json()["retry_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(app.mails().await.len(), 2);
    assert_eq!(entries(&app).await.len(), 1);
    invited(&app, &of("carol@example.org")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_invitations_an_address_keeps_as_many_as_it_may() {
    let app = TestApp::identity(|settings| settings.invites_per_address = 5);
    let app = Arc::new(app);
    let asked: Vec<_> = (0..20)
        .map(|number| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { invite_by(&app, number).await })
        })
        .collect();
    let (mut taken, mut refused) = (Vec::new(), 0);
    for answer in asked {
        let answer = answer.await.unwrap();
        if answer.status == 200 {
            taken.push(answer.json()["token"].clone());
        } else {
            assert_eq!(
                (answer.status.as_u16(), &*answer.errcode()),
                (400, "M_TOO_LARGE")
            );
            refused += 1;
        }
    }

    assert_eq!((taken.len(), refused), (5, 15));
    let mut mailed: Vec<_> = app.mails().await;
    mailed.retain(|mail| taken.contains(&json!(below(mail, "Token:"))));
    assert_eq!(mailed.len(), 5, "each mail is one of those that were taken");
    let id = ids(&app).await[0];
    assert!(
        app.store
            .withdraw_invite(id, app.clock.now())
            .await
            .unwrap()
    );
    invited(&app, &alice_by_bob()).await;
}

#[tokio::test]
async fn one_sender_s_newest_invitations_of_an_address_stay_and_leave_room_for_others() {
    let app = TestApp::identity(|settings| settings.invites_per_address = 7);
    assert_eq!(invite_by(&app, 1).await.status, 200);
    let mut bobs = Vec::new();
    for _ in 0..8 {
        app.wait(Duration::from_secs(1));
        bobs.push(invited(&app, &alice_by_bob()).await);
    }

    let another = invite_by(&app, 2).await;

    assert_eq!(another.status, 200, "{}", another.text);
    for (number, body) in bobs.iter().enumerate() {
        let is_one_of_the_newest = number >= 3;
        let valid = is_valid(&app, &body["public_keys"][1]).await;
        assert_eq!(valid, is_one_of_the_newest, "number {number}");
    }
    assert_eq!(app.mails().await.len(), 7, "what was withdrawn is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_sender_s_parallel_invitations_of_an_address_a_few_stay() {
    let app = Arc::new(TestApp::identity(|_| {}));
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { invite(&app, &alice_by_bob()).await })
        })
        .collect();

    for answer in asked {
        assert_eq!(answer.await.unwrap().status, 200);
    }

    let entries = entries(&app).await.into_iter();
    assert_eq!(entries.filter(|entry| entry.state == "open").count(), 5);
}

#[tokio::test]
async fn an_invitation_that_is_refused_wastes_no_chance_to_see_whether_the_relay_is_back() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    associate(&app, "known@example.org", "@known:example.org").await;
    invited(&app, &alice_by_bob()).await;
    app.threepid.deliver_due().await.unwrap();
    app.wait(Duration::from_mins(6));

    let refused = invite(&app, &of("known@example.org")).await;

    assert_eq!(refused.errcode(), "M_THREEPID_IN_USE");
    assert_eq!(invite(&app, &of("carol@example.org")).await.status, 200);
    let waiting = invite(&app, &of("dora@example.org")).await;
    assert_eq!(waiting.errcode(), "M_EMAIL_SEND_ERROR");
}

#[tokio::test]
async fn while_no_mail_can_be_sent_nobody_is_invited() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    invited(&app, &alice_by_bob()).await;
    app.threepid.deliver_due().await.unwrap();
    app.wait(Duration::from_mins(5));

    let answer = invite(&app, &alice_by_bob()).await;

    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(answer.errcode(), "M_EMAIL_SEND_ERROR");
    assert_eq!(entries(&app).await.len(), 1);
}

#[tokio::test]
async fn a_mail_that_is_put_off_goes_later_as_the_same() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    invited(&app, &alice_by_bob()).await;
    app.threepid.deliver_due().await.unwrap();
    let waiting = newest(&app).await;
    assert_eq!((waiting.state, sealed(&app)), ("queued", 1));

    relay.mood.store(TAKES, Ordering::SeqCst);
    app.wait(Duration::from_secs(10));
    app.threepid.deliver_due().await.unwrap();

    assert_eq!((newest(&app).await.state, sealed(&app)), ("sent", 0));
    let tried = relay.taken.messages();
    assert_eq!(tried.len(), 2);
    assert_eq!(
        (&tried[0].id, &tried[0].text),
        (&tried[1].id, &tried[1].text)
    );
}

#[tokio::test]
async fn of_a_mail_that_failed_nothing_is_kept_to_try_again() {
    let relay = Relay::new(REFUSES);
    let app = with_relay(&relay);
    let body = invited(&app, &alice_by_bob()).await;

    app.threepid.deliver_due().await.unwrap();

    let failed = newest(&app).await;
    assert_eq!((failed.state, sealed(&app)), ("failed", 0));
    assert!(!app.store.retry(failed.id, app.clock.now()).await.unwrap());
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(relay.taken.messages().len(), 1);
    assert!(is_valid(&app, &body["public_keys"][1]).await, "it is open");
}

#[tokio::test]
async fn an_operator_sees_the_mail_masked_retries_it_and_drops_it() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    invited(&app, &alice_by_bob()).await;
    let entry = newest(&app).await;
    assert_eq!(
        (entry.kind.as_str(), entry.to.as_str(), entry.state),
        ("invite", "a…@e….org", "queued")
    );
    app.threepid.deliver_due().await.unwrap();
    assert!(app.store.retry(entry.id, app.clock.now()).await.unwrap());
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(relay.taken.messages().len(), 2);

    assert!(
        app.store
            .drop_message(entry.id, app.clock.now())
            .await
            .unwrap()
    );

    assert_eq!((newest(&app).await.state, sealed(&app)), ("dropped", 0));
}

#[tokio::test]
async fn an_operator_sees_invitations_masked_newest_first() {
    let app = TestApp::identity(|_| {});
    invited(&app, &alice_by_bob()).await;
    app.wait(Duration::from_secs(1));
    invited(&app, &of("carol@example.org")).await;

    let entries = entries(&app).await;

    assert_eq!(
        entries.iter().map(|entry| &*entry.to).collect::<Vec<_>>(),
        ["c…@e….org", "a…@e….org"]
    );
    let entry = &entries[1];
    assert_eq!(
        (entry.room_id.as_str(), entry.sender.as_str(), entry.state),
        ("!room:example.net", BOB, "open")
    );
    assert_eq!(entry.id.len(), 32);
}

#[tokio::test]
async fn the_database_shows_neither_token_nor_key_nor_names() {
    let app = TestApp::identity(|_| {});
    let body = invited(&app, &alice_by_bob()).await;
    let files = |app: &TestApp| {
        let files = fs::read_dir(app.dir()).unwrap();
        let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.unwrap().path()).unwrap();
        files.map(read).collect::<Vec<_>>().concat()
    };
    let before = files(&app);

    let mail = app.mail().await;

    let after = files(&app);
    let key = private_key(&mail);
    let seed = STANDARD_NO_PAD.decode(&key).unwrap();
    let token = body["token"].as_str().unwrap();
    let raw = URL_SAFE_NO_PAD.decode(token).unwrap();
    for stored in [&before, &after] {
        let has = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
        assert!(has(b"!room:example.net"), "the invitation is there");
        for part in [token.as_bytes(), &raw, key.as_bytes(), &seed, b"Emporium"] {
            assert!(!has(part));
        }
    }
}

/// An identity server whose invitations live longer than the clock of this machine may be wrong.
pub(crate) fn long_lived(builder: Builder) -> Builder {
    let builder = builder.limits(limits::Settings::OFF);
    with_identity(builder, |settings| {
        settings.invite_lifetime = Duration::from_hours(24 * 36_500);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_and_withdraws() {
    let app = TestApp::with(long_lived);
    let database = format!("sqlite:{}", app.dir().join("threepid.db").display());
    let dir = crate::cli::empty();
    let run = |arguments: &[&str]| {
        let mut command = crate::cli::threepid(&dir, arguments);
        command.env("THREEPID__STORAGE__URL", &database);
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    assert_eq!(
        run(&["invites", "list"]),
        (Some(0), "No invitations.\n".to_owned())
    );
    let body = invited(&app, &alice_by_bob()).await;
    let (_, listed) = run(&["invites", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(listed[0]["to"], "a…@e….org");

    let (status, text) = run(&["invites", "withdraw", id]);

    assert_eq!(status, Some(0), "{text}");
    assert!(!is_valid(&app, &body["public_keys"][1]).await);
    let (_, table) = run(&["invites", "list"]);
    assert!(
        table.contains("withdrawn") && table.contains(BOB),
        "{table}"
    );
    let (_, messages) = run(&["outbox", "list"]);
    assert!(
        messages.contains("invite") && messages.contains("dropped"),
        "{messages}"
    );
    for unknown in [id, "00", "zz", &"é".repeat(16)] {
        let (status, text) = run(&["invites", "withdraw", unknown]);
        assert_eq!(status, Some(1));
        assert!(text.contains("threepid invites list"), "{text}");
    }
}
