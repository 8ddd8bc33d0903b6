//! Re-authentication before an address is added, and what may go wrong around it.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    contacts::{ADD_TO, THREEPID, prove, session, with_password},
    support::{app::*, host::*, until},
};

/// A request with the right password, in a session.
fn in_session(mut body: Value, name: &str) -> Value {
    body["auth"] = json!({ "type": "m.login.password", "password": PASSPHRASE, "session": name });
    body
}

#[tokio::test]
async fn the_homeserver_s_challenge_is_passed_on_word_by_word() {
    let host = Host::new();
    let app = host.app();
    let body = session(&prove(&app, ADD, &alice(1)).await);

    let asked = post_as(&app, HERS, ADD_TO, &body).await;
    let mut wrong = in_session(body.clone(), "session0");
    wrong["auth"]["password"] = json!("wrong");
    let wrong = post_as(&app, HERS, ADD_TO, &wrong).await;
    let added = post_as(&app, HERS, ADD_TO, &in_session(body, "session0")).await;

    let mut refused = challenge("session0");
    refused.insert("errcode".to_owned(), json!("M_FORBIDDEN"));
    refused.insert("error".to_owned(), json!("Invalid password"));
    assert_eq!(
        (asked.status.as_u16(), asked.json()),
        (401, challenge("session0").into())
    );
    assert_eq!((wrong.status.as_u16(), wrong.json()), (401, refused.into()));
    assert_eq!((added.status.as_u16(), added.json()), (200, json!({})));
}

#[tokio::test]
async fn a_request_without_auth_is_asked_for_it_whatever_else_is_wrong() {
    let app = Host::new().app();
    for auth in [json!({}), json!({ "auth": null })] {
        let mut body = session("1234");
        body.as_object_mut()
            .unwrap()
            .extend(auth.as_object().unwrap().clone());
        assert_eq!(post_as(&app, HERS, ADD_TO, &body).await.status, 401);
    }
}

#[tokio::test]
async fn a_session_that_was_begun_for_another_operation_is_not_shown_to_the_homeserver() {
    let host = Host::new();
    let app = host.app();
    let body = session(&prove(&app, ADD, &alice(1)).await);
    post_as(&app, HERS, ADD_TO, &session("1234")).await;
    post_as(&app, HERS, THREEPID, &json!({ "three_pid_creds": body })).await;
    post_as(&app, HIS, ADD_TO, &body).await;

    for name in ["session0", "session1", "session2", "made_up"] {
        let asked = post_as(&app, HERS, ADD_TO, &in_session(body.clone(), name)).await;
        assert_eq!(asked.status, 401, "{name}");
        assert_ne!(asked.json()["session"], json!(name));
    }

    assert!(host.shown().is_empty());
    assert!(host.addresses(ALICE).is_empty());
}

#[tokio::test]
async fn a_challenge_outlives_a_restart_and_ends_after_an_hour() {
    let host = Host::new();
    let app = host.app();
    let body = session(&prove(&app, ADD, &alice(1)).await);
    post_as(&app, HERS, ADD_TO, &body).await;
    let app = app.restarted(host.set());
    let late = session(&prove(&app, ADD_PHONE, &alices_phone(1)).await);
    let begun = post_as(&app, HERS, ADD_TO, &late).await.json()["session"].clone();

    let added = post_as(&app, HERS, ADD_TO, &in_session(body, "session0")).await;
    app.wait(Duration::from_hours(1));
    let asked = post_as(
        &app,
        HERS,
        ADD_TO,
        &in_session(late, begun.as_str().unwrap()),
    )
    .await;

    assert_eq!(added.status, 200);
    assert_eq!(asked.status, 401);
}

#[tokio::test]
async fn a_first_request_may_bring_its_auth_along() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));

    let added = post_as(&app, HERS, ADD_TO, &body).await;

    assert_eq!(added.status, 200);
    assert_eq!(host.shown(), [body["auth"].clone()]);
}

#[tokio::test]
async fn whom_the_homeserver_does_not_ask_again_adds_at_once_what_is_proved() {
    let host = Host::new();
    host.grace();
    let app = host.app();
    let sid = prove(&app, ADD, &alice(1)).await;

    let unproved = post_as(&app, HERS, ADD_TO, &session("1234")).await;
    let added = post_as(&app, HERS, ADD_TO, &session(&sid)).await;

    assert_eq!(unproved.errcode(), "M_THREEPID_AUTH_FAILED");
    assert_eq!((added.status.as_u16(), added.json()), (200, json!({})));
}

#[tokio::test]
async fn a_homeserver_that_can_not_ask_spends_no_proof() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));
    host.refuse_reauth(true);

    let failed = post_as(&app, HERS, ADD_TO, &body).await;
    host.refuse_reauth(false);
    let bob = post_as(&app, HIS, ADD_TO, &body).await;

    assert_eq!(
        (failed.status.as_u16(), failed.errcode().as_str()),
        (502, "M_UNKNOWN")
    );
    assert_eq!(bob.status, 200, "the session was tied to nobody");
}

#[tokio::test]
async fn what_the_homeserver_has_refused_may_be_tried_again_by_anybody() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));
    host.fail(Fault::Failed);

    let failed = post_as(&app, HERS, ADD_TO, &body).await;
    let bob = post_as(&app, HIS, ADD_TO, &body).await;

    assert_eq!(
        (failed.status.as_u16(), failed.errcode().as_str()),
        (502, "M_UNKNOWN")
    );
    assert_eq!(bob.status, 200);
    assert_eq!(host.addresses(BOB), ["alice@example.org"]);
}

#[tokio::test]
async fn what_the_homeserver_may_have_done_is_continued_by_the_same_request_alone() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));
    host.fail(Fault::DoneUnheard);

    let unheard = post_as(&app, HERS, ADD_TO, &body).await;
    let bob = post_as(&app, HIS, ADD_TO, &body).await;
    let again = post_as(&app, HERS, ADD_TO, &body).await;

    assert_eq!(
        (unheard.status.as_u16(), unheard.errcode().as_str()),
        (504, "M_UNKNOWN")
    );
    assert_eq!(bob.status, 409);
    assert_eq!(again.status, 200);
    assert_eq!(host.addresses(ALICE), ["alice@example.org"]);
}

#[tokio::test]
async fn what_a_process_left_that_died_is_continued_after_the_restart() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));
    host.fail(Fault::Died);
    let died = post_as(&app, HERS, ADD_TO, &body).await;
    let app = app.restarted(host.set());
    let held = post_as(&app, HERS, ADD_TO, &body).await;

    let background = app.threepid.start();
    let mut again = held.status;
    until("it is held no longer", async || {
        again = post_as(&app, HERS, ADD_TO, &body).await.status;
        again != 409
    })
    .await;

    assert_eq!((died.status.as_u16(), held.status.as_u16()), (500, 409));
    assert_eq!(again, 200);
    background.stop(Duration::from_mins(1)).await;
    assert_eq!(host.addresses(ALICE), ["alice@example.org"]);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_what_it_began() {
    let host = Host::new();
    let app = Arc::new(host.app());
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));
    host.close();
    let request = tokio::spawn({
        let (app, body) = (Arc::clone(&app), body.clone());
        async move { post_as(&app, HERS, ADD_TO, &body).await }
    });
    until("the address is being bound", async || host.binds() > 0).await;

    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    host.open();
    until("it is bound", async || !host.addresses(ALICE).is_empty()).await;

    let again = post_as(&app, HERS, ADD_TO, &body).await;
    assert_eq!(again.status, 200);
    assert_eq!(host.binds(), 1, "it ended by itself");
}
