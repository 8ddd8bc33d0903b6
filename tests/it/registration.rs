//! Registration in front of a Synapse: its own `/register`, with our stage in its flows.

use std::{fs, sync::Arc, time::Duration};

use axum::http::Request;
use futures_util::future::join_all;
use serde_json::{Value, json};
use threepid::{
    Builder,
    homeserver::{
        registration::Requires,
        synapse::{Registration as Mode, Synapse, SynapseSettings},
    },
    limits,
    rate::Rate,
    secret::AccessToken,
};

use crate::{
    contacts::prove,
    support::{
        app::*,
        homeserver::{ADMIN_TOKEN, Fault, Homeserver},
    },
};

/// Where accounts are made.
pub(crate) const SIGN_UP: &str = "/_matrix/client/v3/register";
/// Alice's account, once it is made.
pub(crate) const ALICE: &str = "@alice:example.org";
/// A captcha and the terms before whatever ends it.
pub(crate) const CAPTCHA: &str = "m.login.recaptcha";
pub(crate) const TERMS: &str = "m.login.terms";
pub(crate) const TOKEN: &str = "m.login.registration_token";
pub(crate) const EMAIL: &str = "m.login.email.identity";
const DUMMY: &str = "m.login.dummy";

/// A Synapse, and us in front of it.
pub(crate) async fn front() -> (Homeserver, TestApp) {
    in_mode(Mode::default()).await
}

/// The same with another way to make accounts.
pub(crate) async fn in_mode(mode: Mode) -> (Homeserver, TestApp) {
    let homeserver = Homeserver::start().await;
    homeserver.user("@admin:example.org", "the admin's", ADMIN_TOKEN);
    let app = TestApp::with(before(&homeserver, mode));
    (homeserver, app)
}

/// The settings of a server in front of a homeserver.
pub(crate) fn before(
    homeserver: &Homeserver,
    registration: Mode,
) -> impl FnOnce(Builder) -> Builder + use<> {
    let settings = SynapseSettings {
        url: homeserver.url(),
        admin_token: AccessToken::parse(ADMIN_TOKEN).ok(),
        timeout: Duration::from_secs(5),
        ca_files: Vec::new(),
        registration,
    };
    let synapse = Synapse::new(settings).expect("settings that can be used");
    move |builder| {
        builder
            .limits(limits::Settings::OFF)
            .directory(Arc::<Synapse>::clone(&synapse))
            .accounts(Arc::<Synapse>::clone(&synapse))
            .registrar(synapse)
    }
}

/// What Alice asks for.
pub(crate) fn wanted() -> Value {
    named("alice")
}

/// What somebody asks for.
pub(crate) fn named(username: &str) -> Value {
    json!({ "username": username, "password": "correct horse", "initial_device_display_name": "Laptop" })
}

/// A body with the key `auth`.
pub(crate) fn with(body: &Value, auth: Value) -> Value {
    let mut body = body.clone();
    body["auth"] = auth;
    body
}

/// Our stage.
pub(crate) fn email(session: &str, sid: &str) -> Value {
    json!({
        "session": session, "type": EMAIL,
        "threepid_creds": { "sid": sid, "client_secret": "monkeys_are_GREAT" },
    })
}

/// A stage of the homeserver's.
pub(crate) fn stage(session: &str, name: &str) -> Value {
    json!({ "session": session, "type": name, "response": "good", "token": "token_to_register" })
}

/// Begins a registration; the name of its session.
pub(crate) async fn begin(app: &TestApp, body: &Value) -> String {
    let asked = app.post(SIGN_UP, body).await;
    assert_eq!(asked.status, 401, "{}", asked.text);
    session_of(&asked)
}

pub(crate) fn session_of(answer: &Answer) -> String {
    let body = answer.json();
    body["session"].as_str().expect("a session").to_owned()
}

/// Registers Alice up to the last request; the body of that.
pub(crate) async fn nearly(app: &TestApp) -> Value {
    let session = begin(app, &wanted()).await;
    let sid = prove(app, REGISTER, &alice(1)).await;
    with(&wanted(), email(&session, &sid))
}

/// Status and `errcode`.
pub(crate) fn told(answer: &Answer) -> (u16, String) {
    let errcode = answer.json()["errcode"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status.as_u16(), errcode)
}

/// The flows that are offered.
pub(crate) fn flows(answer: &Answer) -> Vec<Vec<String>> {
    let body = answer.json();
    let flows = body["flows"].as_array().expect("flows").clone();
    let stages = |flow: Value| serde_json::from_value(flow["stages"].clone()).expect("stages");
    flows.into_iter().map(stages).collect()
}

/// The accounts that were made.
pub(crate) fn made(homeserver: &Homeserver) -> Vec<String> {
    let mut users = homeserver.users();
    users.retain(|user| user != "@admin:example.org");
    users
}

/// That Alice's account is the only one, and has her address.
pub(crate) fn assert_alice_s(homeserver: &Homeserver) {
    assert_eq!(made(homeserver), [ALICE]);
    let hers = [("email".to_owned(), "alice@example.org".to_owned())];
    assert_eq!(homeserver.threepids(ALICE), hers);
}

/// How often the homeserver was asked at `/register`.
pub(crate) fn asked(homeserver: &Homeserver) -> usize {
    homeserver.count("POST", SIGN_UP)
}

#[tokio::test]
async fn an_account_is_made_for_whoever_proves_an_address() {
    let (homeserver, app) = front().await;
    let first = app.post(SIGN_UP, &wanted()).await;
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let body = with(&wanted(), email(&session_of(&first), &sid));
    let polled = app.post(SIGN_UP, &body).await;

    let link = link_path(&app.mail().await);
    assert_eq!(app.submit_form(&link, &[]).await.status, 200);
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(flows(&first), [[EMAIL], ["m.login.msisdn"]]);
    assert_eq!(first.json()["params"], json!({}));
    assert_eq!(told(&polled), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(session_of(&polled), session_of(&first));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.header("cache-control"), "no-store");
    assert_alice_s(&homeserver);
    let device = done.json()["device_id"].as_str().unwrap().to_owned();
    assert_eq!(homeserver.devices(ALICE), [device]);
    assert_eq!(homeserver.password(ALICE), "correct horse");
}

#[tokio::test]
async fn the_homeserver_s_answer_is_told_as_it_is() {
    const BODY: &str = r#"{ "user_id":"@alice:example.org",  "x": 1.50, "access_token": "é" }"#;
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::SaysAfter(200, BODY));

    let done = app.post(SIGN_UP, &body).await;

    assert_eq!((done.status.as_u16(), done.text.as_str()), (200, BODY));
}

#[tokio::test]
async fn what_a_client_wants_of_its_device_reaches_the_homeserver() {
    let (homeserver, app) = front().await;
    let mut wanted = wanted();
    wanted["device_id"] = json!("ALICES");
    wanted["refresh_token"] = json!(true);
    let session = begin(&app, &wanted).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let done = app
        .post(SIGN_UP, &with(&wanted, email(&session, &sid)))
        .await;

    assert_eq!(done.json()["device_id"], "ALICES");
    assert!(done.json()["refresh_token"].is_string(), "{}", done.text);
    homeserver.change(ALICE, |user| {
        assert_eq!(user.device_names["ALICES"], "Laptop");
    });
}

#[tokio::test]
async fn who_asks_for_no_login_gets_none() {
    let (homeserver, app) = front().await;
    let mut wanted = wanted();
    wanted["inhibit_login"] = json!(true);
    let session = begin(&app, &wanted).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let done = app
        .post(SIGN_UP, &with(&wanted, email(&session, &sid)))
        .await;

    assert_eq!(
        done.json(),
        json!({ "user_id": ALICE, "home_server": "example.org" })
    );
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn polls_do_not_reach_the_homeserver() {
    let (homeserver, app) = front().await;
    let session = begin(&app, &wanted()).await;
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let before = asked(&homeserver);

    for _ in 0..5 {
        let polled = app
            .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
            .await;
        assert_eq!(told(&polled), refusal(401, "M_UNAUTHORIZED"));
    }

    assert_eq!((before, asked(&homeserver)), (1, 1));
}

#[tokio::test]
async fn a_proof_makes_one_account() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);
    let session = begin(&app, &named("mallory")).await;
    let mut second = with(&named("mallory"), body["auth"].clone());
    second["auth"]["session"] = json!(session);

    let refused = app.post(SIGN_UP, &second).await;

    assert_eq!(told(&refused), refusal(401, "M_UNAUTHORIZED"));
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_second_tab_that_knows_the_session_alone_ends_it() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    let session = &body["auth"]["session"];

    let asked = app
        .post(SIGN_UP, &json!({ "auth": { "session": session } }))
        .await;
    let done = app.post(SIGN_UP, &json!({ "auth": body["auth"] })).await;

    assert_eq!(asked.status, 401);
    assert_eq!(asked.json()["completed"], json!([]));
    assert_eq!(asked.json()["errcode"], Value::Null);
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
    assert_eq!(homeserver.password(ALICE), "correct horse");
}

/// Which of these texts stand in the files of the database.
fn readable<'a>(app: &TestApp, texts: &[&'a str]) -> Vec<&'a str> {
    let files = fs::read_dir(app.dir()).expect("the folder");
    let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.expect("a file").path());
    let bytes: Vec<u8> = files
        .flat_map(|file| read(file).expect("its bytes"))
        .collect();
    let stands = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    texts.iter().copied().filter(|text| stands(text)).collect()
}

#[tokio::test]
async fn what_is_kept_of_a_registration_can_not_be_read() {
    let (homeserver, app) = front().await;
    let wanted = json!({ "username": "alice_the_unusual", "password": "a most unusual password" });
    let session = begin(&app, &wanted).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;
    let body = with(&wanted, email(&session, &sid));
    let secrets = ["a most unusual password", &session, "monkeys_are_GREAT"];
    assert_eq!(
        readable(&app, &["alice@example.org"]).len(),
        1,
        "it is looked for where it is"
    );

    homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
    assert_eq!(app.post(SIGN_UP, &body).await.status, 504);
    assert!(readable(&app, &["alice_the_unusual"]).is_empty());
    assert!(readable(&app, &secrets).is_empty());

    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);
    assert!(readable(&app, &secrets).is_empty());
}

/// A homeserver that wants a captcha, terms and a token.
async fn strict() -> (Homeserver, TestApp) {
    let (homeserver, app) = front().await;
    homeserver.registration(|registration| {
        registration.flows = vec![
            vec![TOKEN, CAPTCHA, TERMS, DUMMY],
            vec![TOKEN, CAPTCHA, TERMS, EMAIL],
            vec![TOKEN, CAPTCHA, TERMS, "m.login.msisdn"],
        ];
        registration.params = json!({ CAPTCHA: { "public_key": "k" }, TERMS: { "policies": {} } });
    });
    (homeserver, app)
}

#[tokio::test]
async fn the_homeserver_s_own_stages_are_passed_on_in_any_order() {
    for order in [
        [CAPTCHA, TERMS, TOKEN, EMAIL],
        [EMAIL, TOKEN, TERMS, CAPTCHA],
        [TERMS, EMAIL, CAPTCHA, TOKEN],
    ] {
        let (homeserver, app) = strict().await;
        let session = begin(&app, &wanted()).await;
        let sid = prove(&app, REGISTER, &alice(1)).await;
        let auth = |name| match name {
            EMAIL => email(&session, &sid),
            other => stage(&session, other),
        };
        for (done, name) in order.iter().enumerate().take(3) {
            let asked = app.post(SIGN_UP, &with(&wanted(), auth(*name))).await;
            assert_eq!(asked.status, 401, "{}", asked.text);
            assert_eq!(
                asked.json()["completed"].as_array().unwrap().len(),
                done + 1
            );
            assert_eq!(asked.json()["errcode"], Value::Null, "{}", asked.text);
            assert!(made(&homeserver).is_empty());
        }

        let done = app.post(SIGN_UP, &with(&wanted(), auth(order[3]))).await;

        assert_eq!(done.status, 200, "{order:?}: {}", done.text);
        assert_alice_s(&homeserver);
    }
}

#[tokio::test]
async fn flows_and_params_are_the_homeserver_s_with_our_stage() {
    let (_homeserver, app) = strict().await;

    let asked = app.post(SIGN_UP, &wanted()).await;

    let ours = |last: &str| vec![TOKEN.into(), CAPTCHA.into(), TERMS.into(), last.to_owned()];
    assert_eq!(flows(&asked), [ours(EMAIL), ours("m.login.msisdn")]);
    assert_eq!(
        asked.json()["params"],
        json!({ CAPTCHA: { "public_key": "k" }, TERMS: { "policies": {} } })
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_stage_the_homeserver_says() {
    let (_homeserver, app) = strict().await;
    let session = begin(&app, &wanted()).await;
    let mut wrong = stage(&session, CAPTCHA);
    wrong["response"] = json!("bad");

    let refused = app.post(SIGN_UP, &with(&wanted(), wrong)).await;

    assert_eq!(told(&refused), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(refused.json()["error"], "Captcha authentication failed");
    assert_eq!(flows(&refused).len(), 2);
    assert_eq!(refused.json()["completed"], json!([]));
}

#[tokio::test]
async fn a_homeserver_s_stage_tells_it_no_password() {
    let (homeserver, app) = strict().await;
    let session = begin(&app, &wanted()).await;

    app.post(SIGN_UP, &with(&wanted(), stage(&session, CAPTCHA)))
        .await;

    let (_, _, last) = homeserver.log().pop().unwrap();
    assert_eq!(last["auth"]["type"], CAPTCHA);
    assert_eq!(
        (&last["password"], &last["username"]),
        (&Value::Null, &json!("alice"))
    );
}

/// A homeserver that has no dummy in its flows.
async fn without_dummy() -> (Homeserver, TestApp) {
    let (homeserver, app) = front().await;
    homeserver.registration(|registration| registration.flows = vec![vec![TOKEN]]);
    (homeserver, app)
}

#[tokio::test]
async fn without_a_dummy_to_withhold_our_stage_comes_first() {
    let (homeserver, app) = without_dummy().await;
    let first = app.post(SIGN_UP, &wanted()).await;
    let session = session_of(&first);
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let early = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, TOKEN)))
        .await;
    let made_early = made(&homeserver);
    let ours = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;
    let done = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, TOKEN)))
        .await;

    assert_eq!(flows(&first)[0], [EMAIL, TOKEN]);
    assert_eq!(told(&early), refusal(401, "M_UNAUTHORIZED"));
    assert!(made_early.is_empty());
    assert_eq!(ours.json()["completed"], json!([EMAIL]));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_wrong_last_stage_costs_no_proof() {
    let (homeserver, app) = without_dummy().await;
    let session = begin(&app, &wanted()).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;
    app.post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;
    let mut wrong = stage(&session, TOKEN);
    wrong["token"] = json!("wrong");

    let refused = app.post(SIGN_UP, &with(&wanted(), wrong)).await;
    let done = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, TOKEN)))
        .await;

    assert_eq!(told(&refused), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(refused.json()["completed"], json!([EMAIL]));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn the_first_request_may_show_a_proof_without_a_session() {
    let (homeserver, app) = front().await;
    let sid = prove(&app, REGISTER, &alice(1)).await;
    let mut body = with(&wanted(), email("", &sid));
    body["auth"].as_object_mut().unwrap().remove("session");

    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn flows_may_be_asked_for_before_anything_is_wanted() {
    let (homeserver, app) = front().await;
    let session = begin(&app, &json!({})).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let named = with(&wanted(), json!({ "session": session }));
    let asked = app.post(SIGN_UP, &named).await;
    let done = app
        .post(SIGN_UP, &json!({ "auth": email(&session, &sid) }))
        .await;

    assert_eq!((asked.status.as_u16(), session_of(&asked)), (401, session));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
    assert_eq!(homeserver.password(ALICE), "correct horse");
}

fn msisdn(session: &str, sid: &str) -> Value {
    let mut auth = email(session, sid);
    auth["type"] = json!("m.login.msisdn");
    auth
}

#[tokio::test]
async fn a_phone_number_does_as_well() {
    let (homeserver, app) = front().await;
    let session = begin(&app, &wanted()).await;
    let sid = prove(&app, REGISTER_PHONE, &alices_phone(1)).await;

    let done = app
        .post(SIGN_UP, &with(&wanted(), msisdn(&session, &sid)))
        .await;

    assert_eq!(done.status, 200, "{}", done.text);
    let hers = [("msisdn".to_owned(), "447700900001".to_owned())];
    assert_eq!(homeserver.threepids(ALICE), hers);
}

#[tokio::test]
async fn what_must_be_proved_is_what_is_offered() {
    const MSISDN: &str = "m.login.msisdn";
    for (requires, expected) in [
        (Requires::Any, vec![vec![EMAIL], vec![MSISDN]]),
        (Requires::Email, vec![vec![EMAIL]]),
        (Requires::Msisdn, vec![vec![MSISDN]]),
        (Requires::Both, vec![vec![EMAIL, MSISDN]]),
        (
            Requires::Nothing,
            vec![vec![DUMMY], vec![EMAIL], vec![MSISDN]],
        ),
    ] {
        let (homeserver, app) = front().await;
        let set = before(&homeserver, Mode::default());
        let app = app.restarted(|builder| set(builder).registration_requires(requires));

        let asked = app.post(SIGN_UP, &wanted()).await;

        assert_eq!(flows(&asked), expected, "{requires:?}");
    }
}

#[tokio::test]
async fn who_must_prove_both_gets_both() {
    let (homeserver, app) = front().await;
    let set = before(&homeserver, Mode::default());
    let app = app.restarted(|builder| set(builder).registration_requires(Requires::Both));
    let session = begin(&app, &wanted()).await;
    let (first, second) = (
        prove(&app, REGISTER, &alice(1)).await,
        prove(&app, REGISTER_PHONE, &alices_phone(1)).await,
    );

    let half = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &first)))
        .await;
    let done = app
        .post(SIGN_UP, &with(&wanted(), msisdn(&session, &second)))
        .await;

    assert_eq!(half.json()["completed"], json!([EMAIL]));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(homeserver.threepids(ALICE).len(), 2);
}

#[tokio::test]
async fn where_nothing_must_be_proved_a_dummy_ends_it_or_an_address() {
    let (homeserver, app) = front().await;
    let set = before(&homeserver, Mode::default());
    let app = app.restarted(|builder| set(builder).registration_requires(Requires::Nothing));
    let body = nearly(&app).await;
    let session = begin(&app, &named("bob")).await;

    let with_address = app.post(SIGN_UP, &body).await;
    let without = app
        .post(SIGN_UP, &with(&named("bob"), stage(&session, DUMMY)))
        .await;

    assert_eq!(
        (with_address.status.as_u16(), without.status.as_u16()),
        (200, 200)
    );
    assert_eq!(homeserver.threepids(ALICE).len(), 1);
    assert!(homeserver.threepids("@bob:example.org").is_empty());
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_at_once() {
    let (homeserver, app) = front().await;
    homeserver.user(ALICE, "hers", "her_token");

    let refused = app.post(SIGN_UP, &wanted()).await;

    assert_eq!(told(&refused), refusal(400, "M_USER_IN_USE"));
    assert_eq!(refused.json()["error"], "User ID already taken.");
}

#[tokio::test]
async fn a_name_that_is_taken_meanwhile_costs_no_proof() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.user(ALICE, "hers", "her_token");

    let refused = app.post(SIGN_UP, &body).await;
    let other = with(&named("alice2"), body["auth"].clone());
    let done = app.post(SIGN_UP, &other).await;

    assert_eq!(told(&refused), refusal(400, "M_USER_IN_USE"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(homeserver.threepids(ALICE).is_empty());
    assert_eq!(homeserver.threepids("@alice2:example.org").len(), 1);
}

#[tokio::test]
async fn a_password_need_not_be_said_again_with_another_name() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.user(ALICE, "hers", "her_token");
    app.post(SIGN_UP, &body).await;

    let other = json!({ "username": "alice2", "auth": body["auth"] });
    let done = app.post(SIGN_UP, &other).await;
    let repeated = with(&named("alice2"), body["auth"].clone());
    let repeated = app.post(SIGN_UP, &repeated).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(homeserver.password("@alice2:example.org"), "correct horse");
    assert_eq!(repeated.status, 200, "{}", repeated.text);
}

#[tokio::test]
async fn a_weak_password_is_told_and_another_may_be_tried() {
    let (homeserver, app) = front().await;
    let weak = json!({ "username": "alice", "password": "short" });
    let session = begin(&app, &json!({})).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let first = app.post(SIGN_UP, &weak).await;
    let refused = app.post(SIGN_UP, &with(&weak, email(&session, &sid))).await;
    let done = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;

    assert_eq!(told(&first), refusal(400, "M_WEAK_PASSWORD"));
    assert_eq!(told(&refused), refusal(400, "M_WEAK_PASSWORD"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_homeserver_that_is_asked_too_often_says_so_itself() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    let fault = Fault::Limited(2500);
    homeserver.fail_once("POST", SIGN_UP, fault);

    let limited = app.post(SIGN_UP, &body).await;
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&limited), refusal(429, "M_LIMIT_EXCEEDED"));
    assert_eq!(limited.json()["retry_after_ms"], 2500);
    assert_eq!(limited.header("retry-after"), "3");
    assert_eq!(done.status, 200, "{}", done.text);
}

#[tokio::test]
async fn a_homeserver_that_is_closed_says_so_itself() {
    let (homeserver, app) = front().await;
    homeserver.registration(|registration| registration.is_closed = true);

    let refused = app.post(SIGN_UP, &wanted()).await;

    assert_eq!(told(&refused), refusal(403, "M_FORBIDDEN"));
    assert_eq!(refused.json()["error"], "Registration has been disabled");
}

#[tokio::test]
async fn nobody_registers_without_a_password() {
    let (homeserver, app) = front().await;
    let unnamed = json!({ "username": "alice" });
    let session = begin(&app, &unnamed).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let refused = app
        .post(SIGN_UP, &with(&unnamed, email(&session, &sid)))
        .await;

    assert_eq!(told(&refused), refusal(400, "M_MISSING_PARAM"));
    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn a_session_whose_stages_the_homeserver_has_seen_makes_no_account_without_an_address() {
    for auth in ["session", EMAIL, CAPTCHA] {
        let (homeserver, app) = front().await;
        homeserver.registration(|registration| registration.flows = vec![vec![CAPTCHA, DUMMY]]);
        let nameless = json!({ "username": "alice" });
        let session = begin(&app, &nameless).await;
        let sid = prove(&app, REGISTER, &alice(1)).await;
        app.post(SIGN_UP, &with(&nameless, stage(&session, CAPTCHA)))
            .await;
        let refused = app
            .post(SIGN_UP, &with(&nameless, email(&session, &sid)))
            .await;
        assert_eq!(told(&refused), refusal(400, "M_MISSING_PARAM"));

        let auth = match auth {
            "session" => json!({ "session": session }),
            EMAIL => email(&session, &sid),
            _ => stage(&session, CAPTCHA),
        };
        let done = app.post(SIGN_UP, &with(&wanted(), auth)).await;

        assert_eq!(done.status, 200, "{}", done.text);
        assert_alice_s(&homeserver);
    }
}

#[tokio::test]
async fn who_is_denied_at_the_end_stays_denied_whatever_is_shown() {
    let (homeserver, app) = front().await;
    homeserver.registration(|registration| {
        registration.flows = vec![vec![CAPTCHA, DUMMY]];
        registration.is_denied = true;
    });
    let session = begin(&app, &wanted()).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;
    app.post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;

    let denied = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, CAPTCHA)))
        .await;
    homeserver.registration(|registration| registration.is_denied = false);
    let done = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, CAPTCHA)))
        .await;

    assert_eq!(told(&denied), refusal(403, "M_FORBIDDEN"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_repeated_request_is_answered_anew_for_the_same_account() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    let first = app.post(SIGN_UP, &body).await;

    let again = app.post(SIGN_UP, &body).await;
    let session = json!({ "auth": { "session": body["auth"]["session"] } });
    let alone = app.post(SIGN_UP, &session).await;

    for answer in [&again, &alone] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["user_id"], ALICE);
        assert!(answer.json()["access_token"].is_string(), "{}", answer.text);
    }
    assert_ne!(first.json()["access_token"], again.json()["access_token"]);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_repetition_under_another_name_or_password_is_refused() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);

    for (key, value) in [("username", "mallory"), ("password", "another one")] {
        let mut other = body.clone();
        other[key] = json!(value);
        let refused = app.post(SIGN_UP, &other).await;
        assert_eq!(told(&refused), refusal(403, "M_FORBIDDEN"), "{key}");
    }

    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_registration_keeps_the_name_and_the_password_that_it_began_with() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;

    for (key, value) in [("username", "mallory"), ("password", "another one")] {
        let mut other = body.clone();
        other[key] = json!(value);
        let refused = app.post(SIGN_UP, &other).await;
        assert_eq!(told(&refused), refusal(403, "M_FORBIDDEN"), "{key}");
    }

    assert!(made(&homeserver).is_empty());
    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);
}

#[tokio::test]
async fn of_parallel_registrations_with_one_proof_one_makes_an_account() {
    let (homeserver, app) = front().await;
    let sid = prove(&app, REGISTER, &alice(1)).await;
    let mut bodies = Vec::new();
    for number in 0..8 {
        let wanted = named(&format!("alice{number}"));
        let session = begin(&app, &wanted).await;
        bodies.push(with(&wanted, email(&session, &sid)));
    }

    let answers = join_all(bodies.iter().map(|body| app.post(SIGN_UP, body))).await;

    let done: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    assert_eq!(done.len(), 1);
    assert!(answers.iter().all(|answer| answer.status.as_u16() < 500));
    let made = made(&homeserver);
    assert_eq!(made, [done[0].json()["user_id"].as_str().unwrap()]);
    assert_eq!(homeserver.threepids(&made[0]).len(), 1);
}

#[tokio::test]
async fn of_two_proofs_of_one_address_one_makes_an_account() {
    let (homeserver, app) = front().await;
    let mut bodies = Vec::new();
    for number in 0..2 {
        let wanted = named(&format!("alice{number}"));
        let session = begin(&app, &wanted).await;
        let secret = format!("secret{number}");
        let sid = prove_with(&app, &secret).await;
        let mut body = with(&wanted, email(&session, &sid));
        body["auth"]["threepid_creds"]["client_secret"] = json!(secret);
        bodies.push(body);
    }

    let answers = join_all(bodies.iter().map(|body| app.post(SIGN_UP, body))).await;

    let done = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((done, made(&homeserver).len()), (1, 1));
}

/// Proves Alice's address in a session of another secret.
async fn prove_with(app: &TestApp, secret: &str) -> String {
    let mut request = alice(1);
    request["client_secret"] = json!(secret);
    let sid = app.post(REGISTER, &request).await.sid();
    let code = code(&app.mail().await);
    let shown = json!({ "sid": sid, "client_secret": secret, "token": code });
    assert_eq!(app.post(SUBMIT, &shown).await.status, 200);
    sid
}

#[tokio::test]
async fn a_proof_that_lost_to_one_that_was_refused_is_still_good() {
    let (homeserver, app) = front().await;
    let first = nearly(&app).await;
    let session = begin(&app, &named("bob")).await;
    let sid = prove_with(&app, "another_secret").await;
    let mut second = with(&named("bob"), email(&session, &sid));
    second["auth"]["threepid_creds"]["client_secret"] = json!("another_secret");
    homeserver.user(ALICE, "hers", "her_token");

    let refused = app.post(SIGN_UP, &first).await;
    let done = app.post(SIGN_UP, &second).await;

    assert_eq!(told(&refused), refusal(400, "M_USER_IN_USE"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(homeserver.threepids("@bob:example.org").len(), 1);
}

#[tokio::test]
async fn an_address_that_gets_an_owner_meanwhile_registers_nobody() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.user("@bob:example.org", "his", "his_token");
    homeserver.give("@bob:example.org", "email", "alice@example.org");

    let refused = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&refused), refusal(400, "M_THREEPID_IN_USE"));
    assert!(!homeserver.has(ALICE));
}

#[tokio::test]
async fn the_homeserver_hears_where_a_request_came_from() {
    let (homeserver, app) = front().await;
    let request = Request::post(SIGN_UP).header("User-Agent", "Element");
    let request = request.body(wanted().to_string().into()).unwrap();

    app.send_from("192.0.2.7:4711", request).await;

    let seen = homeserver.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-for"), "192.0.2.7");
    assert_eq!(seen.header("user-agent"), "Element");
}

#[tokio::test]
async fn where_registration_is_off_guests_still_pass() {
    let (homeserver, app) = front().await;
    let set = before(&homeserver, Mode::default());
    let app = app.restarted(|builder| set(builder).registration(false));

    let refused = app.post(SIGN_UP, &wanted()).await;
    let free = app
        .get("/_matrix/client/v3/register/available?username=alice", &[])
        .await;
    let guest = app.post(&format!("{SIGN_UP}?kind=guest"), &json!({})).await;

    assert_eq!(told(&refused), refusal(403, "M_FORBIDDEN"));
    assert_eq!(told(&free), refusal(403, "M_FORBIDDEN"));
    assert_eq!(guest.status, 200, "{}", guest.text);
    assert_eq!(asked(&homeserver), 1);
}

#[tokio::test]
async fn registrations_are_limited_by_source_and_polls_are_not() {
    let (homeserver, app) = front().await;
    let set = before(&homeserver, Mode::default());
    let limits = limits::Settings {
        per_source_register: Rate::new(2, Duration::from_hours(1)),
        ..limits::Settings::OFF
    };
    let app = app.restarted(|builder| set(builder).limits(limits));
    let session = begin(&app, &wanted()).await;
    begin(&app, &wanted()).await;

    let limited = app.post(SIGN_UP, &wanted()).await;
    let polled = app
        .post(SIGN_UP, &json!({ "auth": { "session": session } }))
        .await;
    app.wait(Duration::from_hours(1));
    let later = app.post(SIGN_UP, &wanted()).await;

    assert_eq!(told(&limited), refusal(429, "M_LIMIT_EXCEEDED"));
    assert!(!limited.header("retry-after").is_empty());
    assert_eq!((polled.status.as_u16(), later.status.as_u16()), (401, 401));
}

#[tokio::test]
async fn whether_a_name_is_free_the_homeserver_says() {
    let (homeserver, app) = front().await;
    homeserver.user(ALICE, "hers", "her_token");
    let ask = async |name: &str| app.get(&format!("{SIGN_UP}/available{name}"), &[]).await;

    assert_eq!(
        ask("?username=bob").await.json(),
        json!({ "available": true })
    );
    assert_eq!(
        told(&ask("?username=alice").await),
        refusal(400, "M_USER_IN_USE")
    );
    assert_eq!(
        told(&ask("?username=%26kind%3Dx").await),
        refusal(400, "M_INVALID_USERNAME")
    );
    assert_eq!(told(&ask("").await), refusal(400, "M_MISSING_PARAM"));
}
