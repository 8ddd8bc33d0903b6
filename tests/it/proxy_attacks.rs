//! What an identity server, or whoever holds a session there, may not get out of us.

use std::time::Duration;

use serde_json::json;
use threepid::{
    Error, limits,
    rate::Rate,
    secret::AccessToken,
    session::Purpose,
    validation::{Claim, IdentityServers, Validate},
};

use crate::{
    proxy::*,
    support::{app::*, upstream},
};

#[tokio::test]
async fn a_proof_that_was_used_is_not_made_new_by_asking_again() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(REGISTER, &named(alice(1), &upstream.name())).await;
    validated(&upstream, "email", "alice@example.org");
    let (sid, secret) = pair("1234");
    let claimed = app.threepid.validation().claim(&sid, &secret, claim("a"));
    assert!(matches!(claimed.await, Ok(Claim::Yours(_))));
    assert_eq!(app.threepid.validation().take("a").await, Ok(true));

    let again = app.post(REGISTER, &named(alice(2), &upstream.name())).await;
    let for_another = app.post(ADD, &named(alice(1), &upstream.name())).await;

    assert_eq!(again.sid(), "1234");
    assert_eq!(
        proof(&app, "1234", Purpose::Register).await,
        Err(Error::ProofSpent)
    );
    assert_eq!(for_another.errcode(), "M_INVALID_PARAM");
    app.wait(Duration::from_hours(25));
    app.post(REGISTER, &named(alice(3), &upstream.name())).await;
    assert!(proof(&app, "1234", Purpose::Register).await.is_err());
}

#[tokio::test]
async fn a_password_is_not_reset_with_what_was_proved_before_it_was_asked_for() {
    let upstream = willing().await;
    let servers = IdentityServers {
        trusted: vec![upstream.id_server()],
        allow_password_reset: true,
        ..IdentityServers::default()
    };
    let app = TestApp::with(with_servers(&upstream, servers, Validate::ClientChoice));
    app.own("@alice:example.org", "alice@example.org").await;
    validated(&upstream, "email", "alice@example.org");

    let refused = app.post(PASSWORD, &named(alice(1), &upstream.name())).await;
    not_validated(&upstream);
    let accepted = app.post(PASSWORD, &named(alice(1), &upstream.name())).await;
    validated(&upstream, "email", "alice@example.org");

    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (400, "M_INVALID_PARAM")
    );
    assert_eq!(accepted.sid(), "1234");
    let proved = proof(&app, "1234", Purpose::Password).await;
    assert_eq!(proved.as_deref(), Ok("alice@example.org"));
}

#[tokio::test]
async fn a_server_that_takes_the_name_of_another_s_session_is_not_told_its_code() {
    let (honest, greedy) = (willing().await, willing().await);
    let servers = IdentityServers {
        trusted: vec![honest.id_server(), greedy.id_server()],
        ..IdentityServers::default()
    };
    let app = TestApp::with(with_servers(&honest, servers, Validate::ClientChoice));
    for server in [&honest, &greedy] {
        let body = named(alices_phone(1), &server.name());
        assert_eq!(app.post(ADD_PHONE, &body).await.sid(), "5678");
    }

    let submitted = app.post(SUBMIT_PHONE, &shown("5678", "424242")).await;

    assert_eq!(submitted.errcode(), "M_NO_VALID_SESSION");
    for server in [&honest, &greedy] {
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_fails_costs_no_try() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    upstream.answer(
        SUBMIT_THERE,
        upstream::Answer::new(502, "text/html", "<html>"),
    );
    for _ in 0..6 {
        let failed = app.post(SUBMIT_PHONE, &shown("5678", "424242")).await;
        assert_eq!(
            (failed.status.as_u16(), failed.errcode().as_str()),
            (502, "M_UNKNOWN")
        );
    }
    upstream.answer(SUBMIT_THERE, answered(json!({ "success": true })));
    let submitted = app.post(SUBMIT_PHONE, &shown("5678", "424242")).await;
    assert_eq!(submitted.status, 200);
}

#[tokio::test]
async fn the_same_attempt_brings_no_new_tries_but_a_new_message_does() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    upstream.answer(SUBMIT_THERE, answered(json!({ "success": false })));
    for _ in 0..5 {
        app.post(SUBMIT_PHONE, &shown("5678", "000000")).await;
    }

    app.post(ADD_PHONE, &named(alices_phone(1), &upstream.name()))
        .await;
    let same = app.post(SUBMIT_PHONE, &shown("5678", "000000")).await;
    app.post(ADD_PHONE, &named(alices_phone(2), &upstream.name()))
        .await;
    let new = app.post(SUBMIT_PHONE, &shown("5678", "000000")).await;

    assert_eq!(same.errcode(), "M_SESSION_EXPIRED");
    assert_eq!(new.errcode(), "M_TOKEN_INCORRECT");
}

#[tokio::test]
async fn a_person_goes_on_with_the_name_that_the_client_knows() {
    let upstream = willing().await;
    let app = TestApp::with(client_choice(&upstream));
    let mut body = named(alices_phone(1), &upstream.name());
    body["next_link"] = json!("https://app.example.org/done");
    app.post(ADD_PHONE, &body).await;

    let page = format!("{SUBMIT_PHONE}?sid=5678&client_secret=monkeys_are_GREAT&token=424242");
    let page = app.get(&page, &[]).await;

    assert_eq!(page.status, 200);
    assert!(
        page.text.contains("https://app.example.org/done?sid=5678"),
        "{}",
        page.text
    );
}

#[tokio::test]
async fn what_an_identity_server_sends_is_counted_on_the_ceilings_too() {
    let upstream = willing().await;
    let servers = IdentityServers {
        trusted: vec![upstream.id_server()],
        default_server: Some((
            upstream.id_server(),
            AccessToken::parse("our_token").unwrap(),
        )),
        ..IdentityServers::default()
    };
    let limits = limits::Settings {
        sms: limits::Ceilings {
            total: vec![Rate::new(1, Duration::from_hours(24))],
            ..limits::Ceilings::OFF
        },
        ..limits::Settings::OFF
    };
    let settings = with_servers(&upstream, servers, Validate::IdentityServer);
    let app = TestApp::with(|builder| settings(builder).limits(limits));

    let ours = app.post(ADD_PHONE, &alices_phone(1)).await;
    let too_much = app.post(ADD_PHONE, &alices_phone(2)).await;
    let body = named(phone("07700900002", "s", 1), &upstream.name());
    let theirs = app.post(ADD_PHONE, &body).await;

    let statuses = [ours, too_much, theirs].map(|answer| answer.status.as_u16());
    assert_eq!(statuses, [200, 429, 429]);
    assert_eq!(upstream.requests().len(), 1);
}
