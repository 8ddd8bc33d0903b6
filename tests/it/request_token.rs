//! Asking for a token.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use threepid::{limits, policy, rate::Rate, validation::Contents};

use crate::support::app::*;

#[tokio::test]
async fn a_request_is_answered_with_a_session_and_a_mail() {
    let app = TestApp::new();

    let answer = app.post(REGISTER, &alice(1)).await;

    let sid = answer.sid();
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({ "sid": sid, "submit_url": format!("{PUBLIC_URL}{SUBMIT}") })
    );
    let mail = app.mail().await;
    assert_eq!(
        (mail.to.as_str(), mail.medium.as_str()),
        ("alice@example.org", "email")
    );
    assert_eq!(code(&mail).len(), 8);
    assert!(!mail.text.contains("monkeys_are_GREAT") && !mail.html.contains("monkeys_are_GREAT"));
}

#[tokio::test]
async fn every_purpose_is_served_under_every_prefix() {
    let app = TestApp::new();
    app.own("@alice:example.org", "owner@example.org").await;
    for prefix in ["v3", "r0", "unstable", "api/v1"] {
        for (purpose, email) in [
            ("register", "new@example.org"),
            ("account/password", "owner@example.org"),
            ("account/3pid", "new@example.org"),
        ] {
            let path = format!("/_matrix/client/{prefix}/{purpose}/email/requestToken");
            let secret = format!("secret.{}", prefix.replace('/', "-"));
            let answer = app
                .post(
                    &path,
                    &json!({ "client_secret": secret, "email": email, "send_attempt": 1 }),
                )
                .await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            assert_eq!(app.mail().await.to, email);
        }
    }
}

#[tokio::test]
async fn mails_hold_what_is_configured_and_the_answer_says_so() {
    for (contents, has_link, has_code) in [
        (Contents::Link, true, false),
        (Contents::Code, false, true),
        (Contents::Both, true, true),
    ] {
        let app = TestApp::with(|builder| builder.contents(contents));
        app.own("@owner:example.org", "taken@example.org").await;
        let taken =
            json!({ "client_secret": "s", "email": "taken@example.org", "send_attempt": 1 });
        let (new, hidden) = (
            app.post(REGISTER, &alice(1)).await,
            app.post(REGISTER, &taken).await,
        );
        assert_eq!(new.json().get("submit_url").is_some(), has_code);
        assert_eq!(
            hidden.json().get("submit_url").is_some(),
            has_code,
            "whichever message goes out"
        );
        let mails = app.mails().await;
        let text = &mails
            .iter()
            .find(|mail| mail.to == "alice@example.org")
            .unwrap()
            .text;
        assert_eq!(text.contains("/_threepid/link/"), has_link);
        assert_eq!(
            text.split_whitespace()
                .any(|word| word.len() == 8 && word.parse::<u32>().is_ok()),
            has_code,
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_repeated_send_attempt_sends_one_mail() {
    let app = TestApp::new();

    let (first, again) = (
        app.post(REGISTER, &alice(0)).await,
        app.post(REGISTER, &alice(0)).await,
    );

    assert_eq!(first.sid(), again.sid());
    assert_eq!(
        app.mails().await.len(),
        1,
        "the first attempt counts even if its number is 0"
    );
    assert_eq!(app.post(REGISTER, &alice(1)).await.sid(), first.sid());
    assert_eq!(app.mails().await.len(), 1);
    assert_eq!(app.post(REGISTER, &alice(0)).await.sid(), first.sid());
    assert_eq!(app.mails().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_identical_requests_send_one_mail() {
    let app = Arc::new(TestApp::with(|builder| {
        builder.limits(limits::Settings::default())
    }));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { app.post(REGISTER, &alice(1)).await.sid() })
        })
        .collect();

    let mut sids = Vec::new();
    for task in tasks {
        sids.push(task.await.unwrap());
    }

    sids.dedup();
    assert_eq!(sids.len(), 1);
    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn two_spellings_of_an_address_are_one_and_the_mail_goes_to_the_canonical_one() {
    let app = TestApp::new();
    let spelled = |email: &str| json!({ "client_secret": "s", "email": email, "send_attempt": 1 });

    let (one, other) = (
        app.post(REGISTER, &spelled("Strauß@Example.ORG"))
            .await
            .sid(),
        app.post(REGISTER, &spelled("STRAUSS@example.org"))
            .await
            .sid(),
    );

    assert_eq!(one, other);
    assert_eq!(app.mail().await.to, "strauss@example.org");
}

#[tokio::test]
async fn another_secret_address_or_purpose_is_another_session() {
    let app = TestApp::new();
    let body = |secret: &str, email: &str| json!({ "client_secret": secret, "email": email, "send_attempt": 1 });
    let mut sids = vec![
        app.post(REGISTER, &body("one", "a@example.org"))
            .await
            .sid(),
        app.post(REGISTER, &body("two", "a@example.org"))
            .await
            .sid(),
        app.post(REGISTER, &body("one", "b@example.org"))
            .await
            .sid(),
        app.post(ADD, &body("one", "a@example.org")).await.sid(),
    ];
    sids.sort();
    sids.dedup();
    assert_eq!(sids.len(), 4);
}

#[tokio::test]
async fn an_identity_server_in_the_request_is_ignored() {
    let app = TestApp::new();
    let mut body = alice(1);
    body["id_server"] = json!("https://evil.example.net/path");
    body["id_access_token"] = json!("t");
    body["unknown"] = json!({ "deep": [1, 2, 3] });
    assert_eq!(app.post(REGISTER, &body).await.status, 200);
    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn a_validated_or_expired_session_gives_way_to_a_fresh_one() {
    let app = TestApp::new();
    let first = app.post(REGISTER, &alice(1)).await.sid();
    let mail = app.mail().await;
    assert_eq!(
        app.post(SUBMIT, &shown(&first, &code(&mail))).await.status,
        200
    );

    let second = app.post(REGISTER, &alice(1)).await.sid();
    assert_ne!(second, first);
    assert_eq!(app.mails().await.len(), 1);
    app.wait(Duration::from_hours(24));
    let third = app.post(REGISTER, &alice(1)).await.sid();

    assert_ne!(third, second);
    assert_eq!(
        app.post(SUBMIT, &shown(&first, &code(&mail))).await.status,
        400,
        "it lived 24 h from its validation"
    );
}

#[tokio::test]
async fn an_accepted_attempt_renews_the_code_and_never_the_session() {
    let app = TestApp::new();
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let old = code(&app.mail().await);
    app.wait(Duration::from_mins(14));
    app.post(REGISTER, &alice(2)).await;
    let new = code(&app.mail().await);
    app.wait(Duration::from_mins(14));

    assert_eq!(
        app.post(SUBMIT, &shown(&sid, &old)).await.errcode(),
        "M_TOKEN_INCORRECT",
        "only the newest counts"
    );
    assert_eq!(app.post(SUBMIT, &shown(&sid, &new)).await.status, 200);
}

#[tokio::test]
async fn the_operator_s_policy_is_applied_for_each_purpose() {
    let lists = |allowed: &[&str], denied: &[&str]| policy::Lists::new(allowed, denied).unwrap();
    let app = TestApp::with(|builder| {
        builder.policy(policy::Settings {
            general: lists(&["example.org"], &["evil@example.org"]),
            add: Some(lists(&[], &[])),
            ..policy::Settings::default()
        })
    });
    for (path, email, status) in [
        (REGISTER, "good@example.org", 200),
        (REGISTER, "Evil@example.org", 403),
        (REGISTER, "good@other.org", 403),
        (PASSWORD, "good@other.org", 403),
        (ADD, "good@other.org", 200),
    ] {
        let answer = app
            .post(
                path,
                &json!({ "client_secret": "s", "email": email, "send_attempt": 1 }),
            )
            .await;
        assert_eq!(answer.status, status, "{path} {email}");
        if status == 403 {
            assert_eq!(answer.errcode(), "M_THREEPID_DENIED");
        }
    }
    assert_eq!(app.mails().await.len(), 2);
}

#[tokio::test]
async fn an_address_s_limit_survives_other_secrets_sources_and_purposes() {
    let rate = Rate::new(3, Duration::from_hours(1));
    let app = TestApp::with(|builder| {
        builder.limits(limits::Settings {
            per_address: rate,
            ..limits::Settings::OFF
        })
    });
    for (number, email) in [
        "alice@example.org",
        "Alice@example.org",
        "alice+tag@example.org",
    ]
    .iter()
    .enumerate()
    {
        let body =
            json!({ "client_secret": format!("s{number}"), "email": email, "send_attempt": 1 });
        assert_eq!(
            app.post(if number == 1 { ADD } else { REGISTER }, &body)
                .await
                .status,
            200
        );
    }

    let refused = app.post(REGISTER, &alice(1)).await;

    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (429, "M_LIMIT_EXCEEDED")
    );
    assert_eq!(refused.header("retry-after"), "1200");
    assert_eq!(refused.json()["retry_after_ms"], 1_200_000);
    assert_eq!(app.mails().await.len(), 3);
    let repeated =
        json!({ "client_secret": "s0", "email": "alice@example.org", "send_attempt": 1 });
    assert_eq!(
        app.post(REGISTER, &repeated).await.status,
        200,
        "what was accepted is charged nothing"
    );
    app.wait(Duration::from_mins(20));
    assert_eq!(app.post(REGISTER, &alice(1)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_s_limit_holds_for_parallel_requests() {
    let rate = Rate::new(5, Duration::from_hours(1));
    let limits = limits::Settings {
        per_address: rate,
        ..limits::Settings::OFF
    };
    let app = Arc::new(TestApp::with(|builder| builder.limits(limits)));
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let app = Arc::clone(&app);
            let body = json!({ "client_secret": format!("s{number}"), "email": "a@example.org", "send_attempt": 1 });
            tokio::spawn(async move { app.post(REGISTER, &body).await.status.as_u16() })
        })
        .collect();

    let mut accepted = 0;
    for task in tasks {
        accepted += u32::from(task.await.unwrap() == 200);
    }

    assert_eq!(accepted, 5);
    assert_eq!(app.mails().await.len(), 5);
}

#[tokio::test]
async fn one_session_s_limit_and_one_source_s_limit() {
    let app = TestApp::with(|builder| {
        builder.limits(limits::Settings {
            per_session: Rate::new(2, Duration::from_mins(10)),
            per_source: Rate::new(4, Duration::from_mins(1)),
            ..limits::Settings::OFF
        })
    });
    for (attempt, status) in [(1, 200), (2, 200), (3, 429), (2, 200), (3, 429)] {
        assert_eq!(
            app.post(REGISTER, &alice(attempt)).await.status,
            status,
            "attempt {attempt}"
        );
    }
    assert_eq!(
        app.mails().await.len(),
        1,
        "the first message gave way to the newer one"
    );
    app.wait(Duration::from_mins(5));
    assert_eq!(app.post(REGISTER, &alice(3)).await.status, 200);
}

#[tokio::test]
async fn with_no_courier_the_medium_is_not_supported() {
    let app = TestApp::new();
    let store = Arc::clone(&app.store);
    let without = threepid::Threepid::builder(
        PUBLIC_URL.parse().unwrap(),
        store,
        threepid::Keyring::generate().unwrap(),
    );
    let router = without.build().unwrap().router();
    let request = http::Request::post(REGISTER)
        .body(alice(1).to_string().into())
        .unwrap();

    let answer = send(&router, "127.0.0.1:1", request).await;

    assert_eq!(
        (answer.status.as_u16(), answer.errcode().as_str()),
        (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
    );
}
