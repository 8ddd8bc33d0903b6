//! Dendrite behind us, as its source says that it answers; it was not run.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use threepid::{
    error::{Error, Result},
    homeserver::{
        Accounts, Origin, Reauth, Requester,
        dendrite::{Dendrite, DendriteSettings},
        registration::{NewAccount, Registering, Registrar},
    },
    http::delegate::{Prefix, Settings},
    limits,
    password::NewPassword,
    secret::AccessToken,
    threepid::Threepid,
};

use crate::{
    contacts::{ADD_TO, DELETE, THREEPID, prove, session, with_password},
    support::{
        app::*,
        host::{ALICE, BOB, HERS, as_user, post_as},
        recorded::Recorded,
    },
};

/// The session of all registrations here.
pub(crate) const SESSION: &str = "yb9c0Jf3dtBhfZl5CsVPrAkQ";
const PREFIX: &str = "hs/7f0c5a1e9b2d4836a5c4e1f0d2b3a4958677";

fn token(text: &str) -> AccessToken {
    AccessToken::parse(text).expect("a token")
}

fn settings(recorded: &Recorded) -> DendriteSettings {
    DendriteSettings {
        url: recorded.url(),
        admin_token: Some(token("token_of_the_admin")),
        id_server_name: Some("id.example.org".to_owned()),
        timeout: Duration::from_secs(20),
        ca_files: Vec::new(),
    }
}

async fn dendrite(files: &[&str]) -> (Recorded, Arc<Dendrite>) {
    let recorded = Recorded::start("dendrite", files).await;
    let dendrite = Dendrite::new(settings(&recorded)).expect("settings that can be used");
    (recorded, dendrite)
}

fn alice_asks() -> Requester {
    Requester {
        user_id: ALICE.to_owned(),
        device_id: None,
        access_token: token(HERS),
    }
}

fn by_password(user_id: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": user_id },
    })
}

async fn reauth(dendrite: &Dendrite, auth: Option<&Value>) -> Result<Reauth> {
    dendrite
        .reauth(&alice_asks(), auth, &Origin::default())
        .await
}

#[tokio::test]
async fn a_token_names_its_account() {
    let (_recorded, dendrite) = dendrite(&["whoami"]).await;

    let alice = dendrite.whoami(&token(HERS), &Origin::default()).await;
    let nobody = dendrite
        .whoami(&token("token_of_nobody"), &Origin::default())
        .await;

    let alice = alice.unwrap();
    assert_eq!(
        (alice.user_id.as_str(), alice.device_id.as_deref()),
        (ALICE, Some("u0XjSZzK"))
    );
    let unknown = Error::UnknownToken { soft_logout: false };
    assert_eq!(nobody.unwrap_err(), unknown);
}

#[tokio::test]
async fn a_password_is_asked_for_before_a_device_that_is_not_there() {
    let (_recorded, dendrite) = dendrite(&["reauth"]).await;
    let Ok(Reauth::Challenge(asked)) = reauth(&dendrite, None).await else {
        panic!("a challenge");
    };
    let mut auth = by_password(ALICE, "wrong");
    auth["session"] = asked["session"].clone();

    let Ok(Reauth::Challenge(wrong)) = reauth(&dendrite, Some(&auth)).await else {
        panic!("another challenge");
    };
    auth["password"] = json!("correct horse");
    let right = reauth(&dendrite, Some(&auth)).await;

    assert_eq!(asked["flows"], json!([{ "stages": ["m.login.password"] }]));
    assert_eq!(wrong["errcode"], "M_FORBIDDEN");
    assert_eq!(right, Ok(Reauth::Done));
}

#[tokio::test]
async fn nobody_proves_to_be_alice_by_bob_s_password() {
    let (_recorded, dendrite) = dendrite(&["reauth_as_another"]).await;

    let refused = reauth(&dendrite, Some(&by_password(BOB, "battery staple"))).await;

    let why = "Cannot delete another user's device";
    assert_eq!(refused, Err(Error::Forbidden(why.into())));
}

async fn reset(dendrite: &Dendrite, password: &str) -> Result<()> {
    let new = NewPassword::parse(password).expect("a password");
    dendrite.reset_password(ALICE, &new, true).await
}

#[tokio::test]
async fn a_password_is_set_by_the_admin_or_it_is_said_why_not() {
    let (_recorded, dendrite) = dendrite(&["reset"]).await;

    assert_eq!(reset(&dendrite, "battery staple").await, Ok(()));

    let gone = reset(&dendrite, "battery staple").await;
    assert_eq!(gone, Err(Error::AccountGone));
    let weak = reset(&dendrite, "battery staple").await;
    let why = "password too weak: min 8 characters";
    assert_eq!(weak, Err(Error::WeakPassword(why.into())));
    let half_done = reset(&dendrite, "battery staple").await;
    assert!(
        matches!(half_done, Err(Error::HomeserverTimeout(_))),
        "{half_done:?}"
    );
    let no_admin = reset(&dendrite, "battery staple").await;
    assert!(
        matches!(&no_admin, Err(Error::HomeserverFailed(cause)) if cause.contains("admin_token_file")),
        "{no_admin:?}"
    );
    let elsewhere = reset(&dendrite, "battery staple").await;
    assert!(
        matches!(elsewhere, Err(Error::HomeserverFailed(_))),
        "no account is gone because a path is: {elsewhere:?}"
    );
}

#[tokio::test]
async fn dendrite_s_rule_for_passwords_is_told_though_it_tells_none() {
    let (_recorded, dendrite) = dendrite(&[]).await;

    let policy = dendrite.password_policy().await.unwrap();
    let long = reset(&dendrite, &"ü".repeat(257)).await;

    assert_eq!(policy.demands(), "at least 8 characters");
    assert!(matches!(long, Err(Error::WeakPassword(_))), "{long:?}");
    assert!(!dendrite.is_suspended(ALICE).await.unwrap());
}

#[tokio::test]
async fn without_an_admin_token_no_password_is_set() {
    let recorded = Recorded::start("dendrite", &[]).await;
    let mut settings = settings(&recorded);
    settings.admin_token = None;
    let dendrite = Dendrite::new(settings).unwrap();

    assert!(!dendrite.sets_passwords());
    let refused = reset(&dendrite, "battery staple").await;
    assert!(matches!(refused, Err(Error::HomeserverFailed(_))));
}

#[tokio::test]
async fn a_name_that_dendrite_could_not_call_is_refused_at_start() {
    let recorded = Recorded::start("dendrite", &[]).await;
    for name in ["https://id.example.org", "id.example.org/x", "", "a b"] {
        let mut settings = settings(&recorded);
        settings.id_server_name = Some(name.to_owned());
        let why = Dendrite::new(settings).unwrap_err();
        assert!(why.contains("homeserver.id_server_name"), "{name}: {why}");
    }
}

fn wanted() -> Map<String, Value> {
    object(json!({
        "username": "alice", "password": "correct horse", "initial_device_display_name": "Element",
    }))
}

/// An object of JSON.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("an object: {other}"),
    }
}

/// A registration in [`SESSION`].
pub(crate) fn account(params: &Map<String, Value>) -> NewAccount<'_> {
    NewAccount {
        session: SESSION,
        op_id: "register 1",
        params,
        threepids: &[],
        last: None,
    }
}

async fn start(dendrite: &Dendrite, params: &Map<String, Value>) -> Value {
    let begun = dendrite.start(params, &Origin::default()).await;
    told(begun.expect("an answer"))
}

async fn finish(dendrite: &Dendrite, params: &Map<String, Value>) -> Value {
    let ended = dendrite.finish(account(params), &Origin::default()).await;
    told(ended.expect("an answer"))
}

/// What an answer comes to.
pub(crate) fn told(answer: Registering) -> Value {
    match answer {
        Registering::Stages(stages) => {
            json!({ "session": stages.session, "flows": stages.flows, "completed": stages.completed })
        }
        Registering::Registered(registered) => json!(registered.user_id),
        Registering::Refused(refused) => {
            let body: Value = serde_json::from_slice(&refused.body).expect("JSON");
            json!([refused.status.as_u16(), body["errcode"]])
        }
        Registering::Lost => json!("lost"),
    }
}

#[tokio::test]
async fn an_account_is_made_once_and_told_again() {
    let (_recorded, dendrite) =
        dendrite(&["register_start", "register_finish", "register_repeat"]).await;
    let nothing = Map::new();

    let begun = start(&dendrite, &wanted()).await;
    let made = finish(&dendrite, &wanted()).await;
    let again = dendrite.repeat(account(&nothing), &Origin::default()).await;

    let flows = json!([["m.login.dummy"]]);
    assert_eq!(
        begun,
        json!({ "session": SESSION, "flows": flows, "completed": [] })
    );
    assert_eq!(made, ALICE);
    assert_eq!(told(again.unwrap()), ALICE);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_at_the_beginning() {
    let (_recorded, dendrite) = dendrite(&["register_taken_at_once"]).await;

    let refused = start(&dendrite, &wanted()).await;

    assert_eq!(refused, json!([400, "M_USER_IN_USE"]));
}

#[tokio::test]
async fn after_a_name_was_lost_at_the_end_only_another_end_makes_an_account() {
    let (_recorded, dendrite) =
        dendrite(&["register_taken_at_the_end", "register_under_another_name"]).await;
    let other = object(json!({ "username": "alice2", "password": "correct horse" }));

    let refused = finish(&dendrite, &wanted()).await;
    let begun = start(&dendrite, &other).await;
    let made = finish(&dendrite, &other).await;

    assert_eq!(refused, json!([400, "M_USER_IN_USE"]));
    assert!(begun["session"].is_string(), "a session of its own");
    assert_eq!(made, "@alice2:example.org");
}

#[tokio::test]
async fn an_account_that_was_half_made_is_not_said_to_be_somebody_else_s() {
    let (_recorded, dendrite) = dendrite(&["register_half_made"]).await;
    let params = wanted();
    for _ in 0..2 {
        let ended = dendrite.finish(account(&params), &Origin::default()).await;
        assert!(
            matches!(ended, Err(Error::HomeserverTimeout(_))),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_session_that_is_forgotten_makes_no_second_account() {
    let (_recorded, dendrite) = dendrite(&["register_repeat_forgotten"]).await;
    let params = wanted();
    for _ in 0..3 {
        let again = dendrite.repeat(account(&params), &Origin::default()).await;
        assert_eq!(told(again.unwrap()), "lost");
    }
}

#[tokio::test]
async fn a_wrong_captcha_is_told_in_dendrite_s_words() {
    let (_recorded, dendrite) = dendrite(&["register_captcha"]).await;
    let params = wanted();
    let captcha = object(json!({
        "type": "m.login.recaptcha", "session": SESSION, "response": "wrong",
    }));
    let account = NewAccount {
        last: Some(&captcha),
        ..account(&params)
    };

    let refused = dendrite.finish(account, &Origin::default()).await;

    assert_eq!(told(refused.unwrap()), json!([401, "M_BAD_JSON"]));
}

#[tokio::test]
async fn nobody_is_told_an_account_that_may_be_somebody_else_s() {
    let params = object(json!({ "username": "alice" }));
    for (file, told) in [
        ("made_and_remembered", "made"),
        ("made_forgotten_and_free", "none"),
        ("made_registration_closed", "none"),
        ("made_and_another_name", "unknown"),
        ("made_forgotten_and_taken", "unknown"),
        ("made_in_use", "unknown"),
        ("made_without_password", "unknown"),
        ("made_limited", "later"),
    ] {
        let (_recorded, dendrite) = dendrite(&[file]).await;
        let made = dendrite.made(account(&params)).await;
        let is_it = match (&made, told) {
            (Ok(Some(user_id)), "made") => user_id == ALICE,
            (Ok(None), "none")
            | (Err(Error::HomeserverTimeout(_)), "unknown")
            | (Err(Error::HomeserverFailed(_)), "later") => true,
            _ => false,
        };
        assert!(is_it, "{file}: {made:?}");
    }
}

/// An app with Dendrite's accounts, and addresses in its own table, that is Dendrite's identity server.
async fn app() -> (Recorded, Arc<TestApp>) {
    let (recorded, dendrite) = dendrite(&[]).await;
    let delegate = Settings {
        prefixes: vec![Prefix::parse(PREFIX).expect("long enough")],
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        public: false,
    };
    let app = TestApp::with(|builder| {
        builder
            .limits(limits::Settings::OFF)
            .accounts(dendrite)
            .delegate(delegate)
    });
    (recorded, Arc::new(app))
}

/// What Dendrite is told when it asks for a proof.
async fn validated(app: &TestApp, sid: &str) -> Answer {
    let path = format!(
        "/{PREFIX}/_matrix/identity/api/v1/3pid/getValidated3pid?sid={sid}&client_secret=monkeys_are_GREAT"
    );
    let request = http::Request::get(path).body(axum::body::Body::empty());
    let router = app.threepid.internal_router();
    send(&router, "127.0.0.1:4711", request.expect("a request")).await
}

async fn add(app: &TestApp, sid: &str) -> Answer {
    post_as(app, HERS, ADD_TO, &with_password(session(sid))).await
}

/// What precedes all copies.
fn expect_addition(recorded: &Recorded) {
    recorded.expect("dendrite", "whoami_alice", &[]);
    recorded.expect("dendrite", "reauth_at_once", &[]);
}

async fn owner(app: &TestApp) -> Option<String> {
    let address = Threepid::email("alice@example.org").expect("an address");
    let directory = app.threepid.directory();
    directory.owner(&address).await.expect("the store answers")
}

#[tokio::test]
async fn dendrite_copies_an_address_while_it_is_added() {
    let (recorded, app) = app().await;
    let sid = prove(&app, ADD, &alice(1)).await;
    expect_addition(&recorded);
    recorded.expect("dendrite", "copy", &[("sid", &sid)]);
    let (asked, same) = (Arc::clone(&app), sid.clone());
    let dendrite_asks = async move {
        let proof = validated(&asked, &same).await;
        assert_eq!(proof.json()["address"], "alice@example.org");
    };
    recorded.meanwhile(
        "/_matrix/client/r0/account/3pid",
        Box::new(|| Box::pin(dendrite_asks)),
    );

    let added = add(&app, &sid).await;

    assert_eq!((added.status.as_u16(), added.json()), (200, json!({})));
    assert_eq!(owner(&app).await.as_deref(), Some(ALICE));
    let later = validated(&app, &sid).await;
    assert_eq!(
        later.errcode(),
        "M_THREEPID_IN_USE",
        "nobody else copies it"
    );
}

#[tokio::test]
async fn an_address_is_added_whatever_becomes_of_the_copy() {
    for copy in ["copy_untrusted", "copy_failed"] {
        let (recorded, app) = app().await;
        let sid = prove(&app, ADD, &alice(1)).await;
        expect_addition(&recorded);
        recorded.expect("dendrite", copy, &[("sid", &sid)]);

        let added = add(&app, &sid).await;

        assert_eq!(added.status, 200, "{copy}: {}", added.text);
        assert_eq!(owner(&app).await.as_deref(), Some(ALICE));
    }
}

#[tokio::test]
async fn a_copy_is_taken_back_if_another_account_was_faster() {
    let (recorded, app) = app().await;
    let sid = prove(&app, ADD, &alice(1)).await;
    expect_addition(&recorded);
    recorded.expect("dendrite", "copy", &[("sid", &sid)]);
    recorded.expect("dendrite", "forget", &[]);
    let faster = Arc::clone(&app);
    let bob_binds = async move { faster.own(BOB, "alice@example.org").await };
    recorded.meanwhile(
        "/_matrix/client/r0/account/3pid",
        Box::new(|| Box::pin(bob_binds)),
    );

    let refused = add(&app, &sid).await;

    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (400, "M_THREEPID_IN_USE")
    );
    assert_eq!(owner(&app).await.as_deref(), Some(BOB));
}

#[tokio::test]
async fn the_copy_of_another_account_s_address_stays() {
    let (recorded, app) = app().await;
    let sid = prove(&app, ADD, &alice(1)).await;
    app.own(BOB, "alice@example.org").await;
    expect_addition(&recorded);
    recorded.expect("dendrite", "copy_failed", &[("sid", &sid)]);

    let told = validated(&app, &sid).await;
    let refused = add(&app, &sid).await;

    assert_eq!(told.errcode(), "M_THREEPID_IN_USE", "which makes it fail");
    assert_eq!(refused.errcode(), "M_THREEPID_IN_USE");
}

#[tokio::test]
async fn an_address_that_is_deleted_leaves_dendrite_too() {
    let (recorded, app) = app().await;
    app.own(ALICE, "alice@example.org").await;
    app.own(BOB, "bob@example.org").await;
    let email = |address: &str| json!({ "medium": "email", "address": address });
    for file in ["whoami_alice", "forget", "whoami_alice"] {
        recorded.expect("dendrite", file, &[]);
    }

    let deleted = post_as(&app, HERS, DELETE, &email("alice@example.org")).await;
    let not_hers = post_as(&app, HERS, DELETE, &email("bob@example.org")).await;

    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert_eq!(not_hers.status, 200, "{}", not_hers.text);
    assert_eq!(owner(&app).await, None);
}

#[tokio::test]
async fn without_a_name_for_us_dendrite_is_left_alone() {
    let recorded = Recorded::start(
        "dendrite",
        &["whoami_alice", "reauth_at_once", "whoami_alice"],
    )
    .await;
    let mut settings = settings(&recorded);
    settings.id_server_name = None;
    let dendrite = Dendrite::new(settings).unwrap();
    let app = TestApp::with(|builder| builder.limits(limits::Settings::OFF).accounts(dendrite));
    let sid = prove(&app, ADD, &alice(1)).await;

    let added = add(&app, &sid).await;
    let listed = app.send(as_user("GET", HERS, THREEPID, &Value::Null)).await;

    assert_eq!(added.status, 200);
    assert_eq!(
        listed.json()["threepids"][0]["address"],
        "alice@example.org"
    );
}
