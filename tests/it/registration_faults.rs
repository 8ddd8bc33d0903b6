//! Registrations that something interrupts: an answer is lost, a process dies, an address can not be bound yet, and the
//! homeserver forgets.

use std::time::Duration;

use serde_json::json;
use threepid::homeserver::synapse::Registration as Mode;

use crate::{
    contacts::prove,
    registration::*,
    support::{
        app::*,
        homeserver::{Fault, Homeserver},
        until,
    },
};

const USERS: &str = "/_synapse/admin/v2/users/";
/// When somebody else looks after what a request did not end.
const LATER: Duration = Duration::from_secs(31);

/// Looks after what is not finished; how many there were.
async fn look_after(app: &TestApp) -> usize {
    let finished = app.threepid.finish_registrations().await;
    finished.expect("the store answers")
}

/// The same server again, after its process died.
fn again(app: TestApp, homeserver: &Homeserver) -> TestApp {
    app.restarted(before(homeserver, Mode::default()))
}

#[tokio::test]
async fn an_answer_that_is_lost_is_given_to_the_same_request_again() {
    for fault in [
        Fault::DropAfter,
        Fault::StatusAfter(502),
        Fault::SaysAfter(200, ""),
    ] {
        let (homeserver, app) = front().await;
        let body = nearly(&app).await;
        homeserver.fail_once("POST", SIGN_UP, fault);

        let lost = app.post(SIGN_UP, &body).await;
        let done = app.post(SIGN_UP, &body).await;

        assert_eq!(told(&lost), refusal(504, "M_UNKNOWN"), "{fault:?}");
        assert_eq!(done.status, 200, "{}", done.text);
        assert_alice_s(&homeserver);
        assert_eq!(look_after(&app).await, 0);
    }
}

#[tokio::test]
async fn a_lost_answer_binds_the_registration_to_its_name() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
    app.post(SIGN_UP, &body).await;

    let other = app
        .post(SIGN_UP, &with(&named("alice2"), body["auth"].clone()))
        .await;

    assert_eq!(told(&other), refusal(403, "M_FORBIDDEN"));
    assert_eq!(made(&homeserver), [ALICE]);
}

#[tokio::test]
async fn an_account_whose_client_never_came_back_gets_its_address() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
    app.post(SIGN_UP, &body).await;
    app.wait(LATER);

    assert_eq!(look_after(&app).await, 1);

    assert_alice_s(&homeserver);
    assert!(
        homeserver.devices(ALICE).len() <= 1,
        "asking opens no device"
    );
    assert_eq!(look_after(&app).await, 0);
}

#[tokio::test]
async fn a_process_that_died_before_it_heard_leaves_no_account_without_its_address() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
    app.post(SIGN_UP, &body).await;
    let app = again(app, &homeserver);

    assert_eq!(look_after(&app).await, 0, "it may be under way yet");
    app.wait(Duration::from_secs(10));
    assert_eq!(look_after(&app).await, 1);
    let repeated = app.post(SIGN_UP, &body).await;

    assert_alice_s(&homeserver);
    assert_eq!(repeated.status, 200, "{}", repeated.text);
    assert!(repeated.json()["access_token"].is_string());
}

#[tokio::test]
async fn an_account_that_was_found_logs_its_client_in_by_the_session_alone() {
    for device in [None, Some("ALICES")] {
        let (homeserver, app) = front().await;
        let mut wanted = json!({ "username": "alice", "password": "correct horse" });
        if let Some(device_id) = device {
            wanted["device_id"] = json!(device_id);
        }
        let session = begin(&app, &wanted).await;
        let sid = prove(&app, REGISTER, &alice(1)).await;
        let body = with(&wanted, email(&session, &sid));
        homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
        app.post(SIGN_UP, &body).await;
        app.wait(LATER);
        assert_eq!(look_after(&app).await, 1);

        let alone = json!({ "auth": { "session": session } });
        let done = app.post(SIGN_UP, &alone).await;

        assert!(done.json()["access_token"].is_string(), "{}", done.text);
        let is_hers = device.is_none_or(|device_id| done.json()["device_id"] == device_id);
        assert!(is_hers, "{}", done.text);
    }
}

#[tokio::test]
async fn background_work_takes_over_what_an_earlier_process_left() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
    app.post(SIGN_UP, &body).await;
    let app = again(app, &homeserver);
    look_after(&app).await;
    app.wait(Duration::from_secs(10));

    let background = app.threepid.start();
    assert!(background.stop(Duration::from_mins(1)).await);

    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_request_that_never_arrived_costs_nothing() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::Drop);
    let lost = app.post(SIGN_UP, &body).await;
    let app = again(app, &homeserver);
    look_after(&app).await;
    app.wait(Duration::from_secs(10));
    look_after(&app).await;
    assert_eq!((lost.status.as_u16(), made(&homeserver).len()), (504, 0));

    let session = begin(&app, &named("bob")).await;
    let mut other = with(&named("bob"), body["auth"].clone());
    other["auth"]["session"] = json!(session);
    let done = app.post(SIGN_UP, &other).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(made(&homeserver), ["@bob:example.org"]);
}

#[tokio::test]
async fn who_ends_it_while_somebody_asks_may_still_repeat_it() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
    app.post(SIGN_UP, &body).await;
    app.wait(LATER);
    homeserver.fail_once("POST", SIGN_UP, Fault::Slow(500));

    let before = asked(&homeserver);
    let ends_it = async {
        until("the homeserver is asked", async || {
            asked(&homeserver) > before
        })
        .await;
        app.post(SIGN_UP, &body).await
    };
    let (found, done) = tokio::join!(look_after(&app), ends_it);
    let repeated = app.post(SIGN_UP, &body).await;

    assert_eq!((done.status.as_u16(), found), (200, 1), "{}", done.text);
    assert_eq!(repeated.status, 200, "{}", repeated.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_homeserver_that_can_not_tell_yet_is_asked_again() {
    for fault in [
        Fault::Limited(1000),
        Fault::Status(500),
        Fault::Html,
        Fault::Drop,
    ] {
        let (homeserver, app) = front().await;
        let body = nearly(&app).await;
        homeserver.fail_once("POST", SIGN_UP, Fault::DropAfter);
        app.post(SIGN_UP, &body).await;
        app.wait(LATER);
        homeserver.fail_once("POST", SIGN_UP, fault);

        assert_eq!(look_after(&app).await, 1);
        assert!(homeserver.threepids(ALICE).is_empty());
        app.wait(LATER);
        assert_eq!(look_after(&app).await, 1);

        assert_alice_s(&homeserver);
    }
}

#[tokio::test]
async fn an_address_that_can_not_be_bound_yet_is_bound_later() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail("PUT", USERS, Fault::Status(500));

    let done = app.post(SIGN_UP, &body).await;
    assert_eq!(done.status, 200, "{}", done.text);
    for _ in 0..3 {
        app.wait(LATER);
        assert_eq!(look_after(&app).await, 1);
    }
    assert!(homeserver.threepids(ALICE).is_empty());
    homeserver.heal();
    app.wait(LATER);

    assert_eq!(look_after(&app).await, 1);
    assert_alice_s(&homeserver);
    assert_eq!(look_after(&app).await, 0);
}

#[tokio::test]
async fn a_process_that_died_before_it_bound_leaves_that_to_the_next() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("PUT", USERS, Fault::Drop);
    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);
    let app = again(app, &homeserver);
    app.wait(LATER);

    assert_eq!(look_after(&app).await, 1);

    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn an_address_that_waits_for_its_account_is_nobody_else_s() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail("PUT", USERS, Fault::Status(500));
    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);
    let mut second = alice(2);
    second["client_secret"] = json!("another_secret");
    let sid = app.post(REGISTER, &second).await.sid();
    let code = code(&app.mail().await);
    let shown = json!({ "sid": sid, "client_secret": "another_secret", "token": code });
    assert_eq!(app.post(SUBMIT, &shown).await.status, 200);
    let session = begin(&app, &named("bob")).await;
    let mut other = with(&named("bob"), email(&session, &sid));
    other["auth"]["threepid_creds"]["client_secret"] = json!("another_secret");

    let refused = app.post(SIGN_UP, &other).await;

    assert_eq!(told(&refused), refusal(400, "M_THREEPID_IN_USE"));
    assert_eq!(made(&homeserver), [ALICE]);
}

#[tokio::test]
async fn a_homeserver_that_is_gone_at_the_end_costs_no_proof() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.down().await;

    let failed = app.post(SIGN_UP, &body).await;
    homeserver.up();
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&failed), refusal(502, "M_UNKNOWN"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_homeserver_that_forgot_its_sessions_begins_a_fresh_one() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.forget_registrations();

    let fresh = app.post(SIGN_UP, &body).await;
    let mut body = body;
    body["auth"]["session"] = json!(session_of(&fresh));
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&fresh), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(fresh.json()["completed"], json!([EMAIL]));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_stage_in_a_session_that_is_forgotten_is_done_anew() {
    let (homeserver, app) = front().await;
    homeserver
        .registration(|registration| registration.flows = vec![vec![CAPTCHA, "m.login.dummy"]]);
    let body = nearly(&app).await;
    let session = body["auth"]["session"].as_str().unwrap();
    app.post(SIGN_UP, &with(&wanted(), stage(session, CAPTCHA)))
        .await;
    homeserver.forget_registrations();

    let fresh = app.post(SIGN_UP, &body).await;
    let session = session_of(&fresh);
    let captcha = json!({ "auth": stage(&session, CAPTCHA) });
    let done = app.post(SIGN_UP, &captcha).await;

    assert_eq!(fresh.json()["completed"], json!([EMAIL]));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_finished_session_that_is_forgotten_makes_no_second_account() {
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    assert_eq!(app.post(SIGN_UP, &body).await.status, 200);
    homeserver.forget_registrations();

    let taken = app.post(SIGN_UP, &body).await;
    let alone = json!({ "auth": { "session": body["auth"]["session"] } });
    let fresh = app.post(SIGN_UP, &alone).await;

    assert_eq!(told(&taken), refusal(400, "M_USER_IN_USE"));
    assert_eq!(fresh.status, 401);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_registration_that_took_too_long_begins_anew() {
    let (homeserver, app) = front().await;
    let session = begin(&app, &wanted()).await;
    app.wait(Duration::from_hours(2));
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let fresh = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;
    let done = app
        .post(SIGN_UP, &with(&wanted(), email(&session_of(&fresh), &sid)))
        .await;

    assert_eq!(fresh.status, 401);
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}
