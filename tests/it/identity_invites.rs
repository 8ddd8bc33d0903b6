//! Invitations of people who have no user id yet.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use ruma_common::CanonicalJsonValue;
use rusqlite::Connection;
use serde_json::{Value, json};
use threepid::{
    clock::Clock,
    courier::capture::Captured,
    limits,
    policy::{self, Lists},
    rate::Rate,
    store::{InviteEntry, Invites, Outbox, OutboxEntry},
    threepid::Threepid,
};

use crate::support::{
    app::*,
    federation::FederationServer,
    identity::{asking, policy},
};

pub(crate) const BOB: &str = "@bob:example.net";
const STORE: &str = "store-invite";
const SIGN: &str = "sign-ed25519";

/// Bob's invitation of alice, with what a room may tell.
pub(crate) fn alice_by_bob() -> Value {
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
pub(crate) fn of(address: &str) -> Value {
    let mut body = alice_by_bob();
    body["address"] = json!(address);
    body
}

pub(crate) async fn invite(app: &TestApp, body: &Value) -> Answer {
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
pub(crate) async fn invited(app: &TestApp, body: &Value) -> Value {
    let answer = invite(app, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// What follows a line of a mail's text.
pub(crate) fn below(mail: &Captured, heading: &str) -> String {
    let mut lines = mail.text.lines();
    lines.find(|line| *line == heading).expect("the heading");
    lines.next().expect("a line below it").to_owned()
}

pub(crate) fn private_key(mail: &Captured) -> String {
    below(mail, "Private key:")
}

async fn sign(app: &TestApp, token: &Value, private_key: &str) -> Answer {
    let body = json!({ "mxid": "@alice:example.org", "token": token, "private_key": private_key });
    let account = app.identity_token("@alice:example.org").await;
    app.post_as(&account, SIGN, &body).await
}

/// Whether a key of an invitation is valid, as a homeserver asks: at the URL that the answer told.
pub(crate) async fn is_valid(app: &TestApp, key: &Value) -> bool {
    let url = key["key_validity_url"].as_str().expect("a URL");
    let path = url.strip_prefix(PUBLIC_URL).expect("below the public URL");
    let public_key = key["public_key"].as_str().expect("a key");
    let asked = format!("{path}?public_key={public_key}");
    let answer = app.get(&asked, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["valid"].as_bool().expect("a truth value")
}

pub(crate) async fn entries(app: &TestApp) -> Vec<InviteEntry> {
    let entries = app.store.list_invites(100, app.clock.now()).await;
    entries.expect("the store answers")
}

/// The names of invitations, newest first.
async fn ids(app: &TestApp) -> Vec<[u8; 16]> {
    let byte = |text: &str, at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16);
    let id = |entry: InviteEntry| std::array::from_fn(|at| byte(&entry.id, at).expect("a byte"));
    entries(app).await.into_iter().map(id).collect()
}

pub(crate) async fn newest(app: &TestApp) -> OutboxEntry {
    let messages = app.store.list(1).await.expect("the store answers");
    messages.into_iter().next().expect("a message")
}

/// How many mails of invitations can still be read with the server key.
pub(crate) fn sealed(app: &TestApp) -> u32 {
    let connection = Connection::open(app.dir().join("threepid.db")).expect("the database");
    let count = "SELECT count(*) FROM outbox WHERE sealed IS NOT NULL";
    connection
        .query_row(count, [], |row| row.get(0))
        .expect("a count")
}

pub(crate) async fn associate(app: &TestApp, address: &str, user_id: &str) {
    let address = Threepid::email(address).expect("an address");
    let associated = app.threepid.associate(user_id, &address).await;
    associated.expect("the store answers");
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
        settings.terms.insert("terms".to_owned(), policy("1", &[]));
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
    let homeserver = FederationServer::start().await;
    let app = asking(homeserver.outbound(), limits::Settings::OFF, |_| {});
    let body = invited(&app, &alice_by_bob()).await;
    associate(&app, "alice@example.org", &homeserver.user("alice")).await;
    assert!(
        is_valid(&app, &body["public_keys"][1]).await,
        "not told yet"
    );

    assert_eq!(app.threepid.tell_homeservers_due().await, Ok(1));

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
            assert_eq!(answer.refusal(), refusal(400, "M_TOO_LARGE"));
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
