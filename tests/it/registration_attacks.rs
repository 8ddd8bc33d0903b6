//! Registrations of somebody who would like an account without an address, or several with one.

use serde_json::{Value, json};

use crate::{
    contacts::prove,
    registration::*,
    support::{
        app::{REGISTER, refusal},
        homeserver::{Fault, Homeserver},
    },
};

const LATE: &str = r#"{"errcode":"M_TOO_LARGE","error":"The device name is too long"}"#;

/// The bodies that the homeserver was shown at `/register`.
fn shown(homeserver: &Homeserver) -> Vec<Value> {
    let all = homeserver.log().into_iter();
    let at_register = all.filter(|(_, path, _)| path.starts_with(SIGN_UP));
    at_register.map(|(_, _, body)| body).collect()
}

#[tokio::test]
async fn a_refusal_that_comes_after_the_account_was_made_gives_no_proof_back() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::SaysAfter(400, LATE));

    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.json()["access_token"].is_string());
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_refusal_that_nobody_can_explain_keeps_the_proof_for_its_own_registration() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once(
        "POST",
        SIGN_UP,
        Fault::SaysAfter(403, r#"{"errcode":"M_FORBIDDEN","error":"Wait"}"#),
    );
    homeserver.fail_nth(2, "POST", SIGN_UP, Fault::Status(500));

    let refused = app.post(SIGN_UP, &body).await;
    let mut other = with(&named("bob"), body["auth"].clone());
    other["auth"]["session"] = json!(begin(&app, &named("bob")).await);
    let stolen = app.post(SIGN_UP, &other).await;
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&refused), refusal(403, "M_FORBIDDEN"));
    assert_eq!(stolen.status, 409, "{}", stolen.text);
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn the_homeserver_is_shown_what_the_specification_names_and_nothing_else() {
    let (homeserver, app) = front().await;
    let mut body = wanted();
    body["Auth"] = json!({ "type": "m.login.dummy" });
    body["u\u{17f}ername"] = json!("mallory");
    body["type"] = json!("m.login.application_service");
    body["admin"] = json!(true);

    begin(&app, &body).await;

    assert_eq!(shown(&homeserver), [wanted()]);
}

#[tokio::test]
async fn a_service_without_a_token_is_a_user_and_one_with_odd_keys_too() {
    let odd = json!({ "type": "m.login.application_service", "username": "a", "Auth": { "type": "m.login.dummy" } });
    for path in [SIGN_UP.to_owned(), format!("{SIGN_UP}?access_token=x")] {
        let (homeserver, app) = front().await;

        let asked = app.post(&path, &odd).await;

        assert_eq!(asked.status, 401, "{path} {}", asked.text);
        assert_eq!(shown(&homeserver), [json!({ "username": "a" })], "{path}");
    }
}

#[tokio::test]
async fn keys_of_a_stage_that_others_read_otherwise_are_refused() {
    let (homeserver, app) = front().await;
    homeserver.registration(|all| all.flows = vec![vec![CAPTCHA, "m.login.dummy"]]);
    let session = begin(&app, &wanted()).await;
    for key in ["Session", "\u{17f}ession", "TYPE"] {
        let mut auth = stage(&session, CAPTCHA);
        auth[key] = json!("other");

        let refused = app.post(SIGN_UP, &json!({ "auth": auth })).await;

        assert_eq!(told(&refused), refusal(400, "M_BAD_JSON"), "{key}");
    }
    assert_eq!(asked(&homeserver), 1);
}

#[tokio::test]
async fn what_no_homeserver_takes_is_refused_before_it_makes_the_account() {
    let long = "x".repeat(101);
    for (key, value) in [
        ("initial_device_display_name", json!(long)),
        ("initial_device_display_name", json!(5)),
        ("initial_device_display_name", json!("a\u{0}b")),
        ("device_id", json!("x".repeat(256))),
        ("inhibit_login", json!("yes")),
        ("password", json!("x".repeat(513))),
    ] {
        let (homeserver, app) = front().await;
        let mut body = wanted();
        body[key] = value;

        let refused = app.post(SIGN_UP, &body).await;

        assert_eq!(refused.status, 400, "{key} {}", refused.text);
        assert_eq!(asked(&homeserver), 0, "{key}");
    }
}

#[tokio::test]
async fn after_a_refused_name_nobody_ends_it_without_saying_another() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.user(ALICE, "somebody else's", "token");
    assert_eq!(app.post(SIGN_UP, &body).await.status, 400);

    let alone = json!({ "auth": { "session": body["auth"]["session"] } });
    let waiting = app.post(SIGN_UP, &alone).await;
    let other = with(&named("alice2"), alone["auth"].clone());
    let done = app.post(SIGN_UP, &other).await;

    assert_eq!(told(&waiting), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(homeserver.threepids("@alice2:example.org").len(), 1);
}

#[tokio::test]
async fn a_stage_that_was_done_on_the_homeserver_s_own_page_counts() {
    let (homeserver, app) = front().await;
    homeserver.registration(|all| all.flows = vec![vec![CAPTCHA, "m.login.dummy"]]);
    let body = nearly(&app).await;
    assert_eq!(app.post(SIGN_UP, &body).await.status, 401);
    let session = body["auth"]["session"].as_str().unwrap_or_default();
    homeserver.registration(|all| all.complete(session, CAPTCHA));

    let done = app
        .post(SIGN_UP, &json!({ "auth": { "session": session } }))
        .await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_stage_without_credentials_is_no_stage() {
    let (_homeserver, app) = front().await;
    let session = begin(&app, &wanted()).await;
    for auth in [
        json!({ "session": session, "type": EMAIL }),
        json!({ "session": session, "type": EMAIL, "threepid_creds": null }),
    ] {
        let refused = app.post(SIGN_UP, &json!({ "auth": auth })).await;

        assert_eq!(told(&refused), refusal(400, "M_MISSING_PARAM"), "{auth}");
    }
}

#[tokio::test]
async fn a_homeserver_that_names_a_session_again_mixes_no_registrations_up() {
    let (homeserver, app) = front().await;
    homeserver.registration(|all| all.only_session = Some("s"));
    homeserver.fail("PUT", "/users/", Fault::Status(500));
    let first = nearly(&app).await;
    let done = app.post(SIGN_UP, &first).await;
    assert_eq!(done.status, 200, "{}", done.text);
    homeserver.forget_registrations();

    let body = json!({ "client_secret": "monkeys_are_GREAT", "email": "bob@example.org", "send_attempt": 1 });
    let sid = prove(&app, REGISTER, &body).await;
    let auth = email(&begin(&app, &named("bob")).await, &sid);
    let done = app.post(SIGN_UP, &with(&named("bob"), auth)).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(made(&homeserver), [ALICE, "@bob:example.org"]);
}
