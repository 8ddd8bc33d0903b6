//! Showing a token at `submit_url`.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use threepid::{
    error::Error,
    limits,
    secret::{ClientSecret, Sid},
    session::Purpose,
};

use crate::support::app::*;

async fn asked(app: &TestApp) -> (String, threepid::courier::capture::Captured) {
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    (sid, app.mail().await)
}

async fn is_proved(app: &TestApp, sid: &str) -> bool {
    let secret = ClientSecret::parse("monkeys_are_GREAT").expect("a secret");
    let proof = app
        .threepid
        .validation()
        .proof(
            &Sid::parse(sid).expect("a sid"),
            &secret,
            Purpose::Register,
            None,
        )
        .await;
    match proof {
        Ok(proof) => proof.threepid.address() == "alice@example.org",
        Err(Error::SessionNotValidated) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_code_proves_the_address_and_does_so_again() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    assert!(!is_proved(&app, &sid).await);

    for _ in 0..2 {
        let answer = app.post(SUBMIT, &shown(&sid, &code(&mail))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (200, json!({ "success": true }))
        );
        assert!(is_proved(&app, &sid).await);
    }
}

#[tokio::test]
async fn a_code_may_be_typed_with_blanks() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    let code = code(&mail);
    let typed = format!(" {} {}\n", &code[..4], &code[4..]);
    assert_eq!(app.post(SUBMIT, &shown(&sid, &typed)).await.status, 200);
}

#[tokio::test]
async fn the_link_s_value_is_a_token_too_and_no_try() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    let forged = format!("A{}", &link_value(&mail)[1..]);
    for _ in 0..10 {
        assert_eq!(
            app.post(SUBMIT, &shown(&sid, &forged)).await.errcode(),
            "M_TOKEN_INCORRECT"
        );
    }
    assert_eq!(
        app.post(SUBMIT, &shown(&sid, &link_value(&mail)))
            .await
            .status,
        200
    );
    assert!(is_proved(&app, &sid).await);
}

#[tokio::test]
async fn another_session_s_link_is_wrong_here() {
    let app = TestApp::new();
    let (sid, _) = asked(&app).await;
    app.post(
        REGISTER,
        &json!({ "client_secret": "x", "email": "b@example.org", "send_attempt": 1 }),
    )
    .await;
    let other = app.mail().await;
    assert_eq!(
        app.post(SUBMIT, &shown(&sid, &link_value(&other)))
            .await
            .errcode(),
        "M_TOKEN_INCORRECT"
    );
}

#[tokio::test]
async fn five_wrong_codes_kill_the_code_and_not_the_link() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    for _ in 0..5 {
        let answer = app.post(SUBMIT, &shown(&sid, "00000000")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (400, "M_TOKEN_INCORRECT")
        );
    }

    let right = app.post(SUBMIT, &shown(&sid, &code(&mail))).await;

    assert_eq!(
        (right.status.as_u16(), right.errcode().as_str()),
        (400, "M_SESSION_EXPIRED")
    );
    assert_ne!(
        app.post(REGISTER, &alice(1)).await.sid(),
        sid,
        "for requestToken the session has ended"
    );
    assert_eq!(app.bare("POST", &link_path(&mail), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_guesses_can_not_share_a_try() {
    let app = Arc::new(TestApp::new());
    let (sid, mail) = asked(&app).await;
    let right = code(&mail);
    let guesses: Vec<_> = (0..40)
        .map(|number| {
            let (app, sid) = (Arc::clone(&app), sid.clone());
            let guess = if number == 39 {
                right.clone()
            } else {
                format!("{number:08}")
            };
            tokio::spawn(async move {
                let answer = app.post(SUBMIT, &shown(&sid, &guess)).await;
                if answer.status == 200 {
                    "right".to_owned()
                } else {
                    answer.errcode()
                }
            })
        })
        .collect();

    let mut compared = 0;
    for guess in guesses {
        compared += u32::from(guess.await.unwrap() != "M_SESSION_EXPIRED");
    }

    assert!(compared <= 5, "{compared} guesses were compared");
}

#[tokio::test]
async fn a_late_token_is_refused() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    app.wait(Duration::from_mins(15));
    assert_eq!(
        app.post(SUBMIT, &shown(&sid, &code(&mail))).await.errcode(),
        "M_SESSION_EXPIRED"
    );
    app.wait(Duration::from_mins(45));
    assert_eq!(
        app.post(SUBMIT, &shown(&sid, &link_value(&mail)))
            .await
            .errcode(),
        "M_SESSION_EXPIRED"
    );
    assert_eq!(app.get(&link_path(&mail), &[]).await.status, 410);
}

#[tokio::test]
async fn an_unknown_sid_and_a_wrong_secret_look_alike() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    let with = |sid: &str, secret: &str| json!({ "sid": sid, "client_secret": secret, "token": code(&mail) });
    let mut unknown = sid.clone();
    unknown.replace_range(20.., "AAAAAAAA");

    let answers = [
        app.post(SUBMIT, &with(&sid, "wrong")).await,
        app.post(SUBMIT, &with(&unknown, "monkeys_are_GREAT")).await,
        app.post(SUBMIT, &with("1234", "monkeys_are_GREAT")).await,
    ];

    for answer in &answers {
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (404, "M_NO_VALID_SESSION")
        );
        assert_eq!(answer.text, answers[0].text);
    }
}

#[tokio::test]
async fn malformed_submissions_get_the_identity_service_s_words() {
    let app = TestApp::new();
    let (sid, _) = asked(&app).await;
    let long = "x".repeat(256);
    for (body, status, errcode) in [
        (
            json!({ "sid": sid, "client_secret": "s" }),
            400,
            "M_MISSING_PARAMS",
        ),
        (json!({ "sid": sid, "token": "1" }), 400, "M_MISSING_PARAMS"),
        (
            json!({ "client_secret": "s", "token": "1" }),
            400,
            "M_MISSING_PARAMS",
        ),
        (
            json!({ "sid": 1234, "client_secret": "s", "token": "1" }),
            400,
            "M_BAD_JSON",
        ),
        (
            json!({ "sid": sid, "client_secret": "s", "token": null }),
            400,
            "M_BAD_JSON",
        ),
        (
            json!({ "sid": "a b", "client_secret": "s", "token": "1" }),
            400,
            "M_INVALID_PARAM",
        ),
        (
            json!({ "sid": sid, "client_secret": "é", "token": "1" }),
            400,
            "M_INVALID_PARAM",
        ),
        (
            json!({ "sid": sid, "client_secret": "s", "token": "" }),
            400,
            "M_INVALID_PARAM",
        ),
        (
            json!({ "sid": sid, "client_secret": "s", "token": long }),
            400,
            "M_INVALID_PARAM",
        ),
        (json!([sid]), 400, "M_BAD_JSON"),
    ] {
        let answer = app.post(SUBMIT, &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (status, errcode),
            "{body}"
        );
    }
    assert_eq!(
        app.post_text(SUBMIT, "sid=1&token=2").await.errcode(),
        "M_NOT_JSON"
    );
    assert!(!is_proved(&app, &sid).await);
}

#[tokio::test]
async fn a_get_is_for_people_and_has_the_specified_effect() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    let path = format!(
        "{SUBMIT}?sid={sid}&client_secret=monkeys_are_GREAT&token={}",
        code(&mail)
    );

    let page = app.get(&path, &[]).await;

    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(page.header("access-control-allow-origin"), "*");
    assert!(is_proved(&app, &sid).await);
    let wrong = app
        .get(
            &format!("{SUBMIT}?sid={sid}&client_secret=wrong&token=1"),
            &[],
        )
        .await;
    assert_eq!(wrong.status, 404);
    assert!(wrong.header("content-type").starts_with("text/html"));
    assert_eq!(app.get(SUBMIT, &[]).await.status, 400);
}

#[tokio::test]
async fn head_and_prefetches_change_nothing() {
    let app = TestApp::new();
    let (sid, mail) = asked(&app).await;
    let path = format!(
        "{SUBMIT}?sid={sid}&client_secret=monkeys_are_GREAT&token={}",
        code(&mail)
    );

    assert_eq!(app.bare("HEAD", &path, &[]).await.status, 200);
    for header in [
        ("sec-purpose", "prefetch;prerender"),
        ("purpose", "prefetch"),
    ] {
        assert_eq!(app.get(&path, &[header]).await.status, 200);
    }

    assert!(!is_proved(&app, &sid).await);
    app.get(&path, &[]).await;
    assert!(is_proved(&app, &sid).await);
}

#[tokio::test]
async fn codes_of_one_address_are_limited_over_all_its_sessions_and_links_are_not() {
    let settings = limits::Settings {
        code_tries_per_address: "6/1h".parse().unwrap(),
        ..limits::Settings::OFF
    };
    let app = TestApp::with(|builder| builder.limits(settings));
    let mut mails = Vec::new();
    for secret in ["s1", "s2"] {
        let body =
            json!({ "client_secret": secret, "email": "alice@example.org", "send_attempt": 1 });
        let sid = app.post(REGISTER, &body).await.sid();
        mails.push((sid, secret, app.mail().await));
    }
    let guess = |sid: &str, secret: &str| json!({ "sid": sid, "client_secret": secret, "token": "00000000" });
    for _ in 0..5 {
        assert_eq!(
            app.post(SUBMIT, &guess(&mails[0].0, "s1")).await.errcode(),
            "M_TOKEN_INCORRECT"
        );
    }
    assert_eq!(
        app.post(SUBMIT, &guess(&mails[1].0, "s2")).await.errcode(),
        "M_TOKEN_INCORRECT"
    );

    let limited = app.post(SUBMIT, &guess(&mails[1].0, "s2")).await;

    assert_eq!(
        (limited.status.as_u16(), limited.errcode().as_str()),
        (429, "M_LIMIT_EXCEEDED")
    );
    assert_eq!(limited.header("retry-after"), "600");
    assert_eq!(
        app.bare("POST", &link_path(&mails[1].2), &[]).await.status,
        200
    );
}
