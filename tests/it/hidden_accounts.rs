//! Who has an account is not told.

use serde_json::{Value, json};
use threepid::{
    limits, secret::ClientSecret, session::Purpose, source::Source, threepid::Threepid,
    validation::TokenRequest,
};

use crate::support::app::*;

fn body(email: &str, send_attempt: u32) -> Value {
    json!({ "client_secret": "s", "email": email, "send_attempt": send_attempt })
}

fn wrong(sid: &str) -> Value {
    json!({ "sid": sid, "client_secret": "s", "token": "00000000" })
}

/// Asks and fails with an address, and returns all that was answered, sids blotted out.
async fn life(app: &TestApp, path: &str, email: &str) -> Vec<(u16, String)> {
    let first = app.post(path, &body(email, 1)).await;
    let sid = first.sid();
    let mut answers = vec![
        first,
        app.post(path, &body(email, 1)).await,
        app.post(path, &body(email, 2)).await,
    ];
    for answer in &answers {
        assert_eq!(answer.sid(), sid, "the same sid on repetition");
    }
    for _ in 0..7 {
        answers.push(app.post(SUBMIT, &wrong(&sid)).await);
    }
    answers.push(app.post(path, &body(email, 3)).await);
    answers
        .into_iter()
        .map(|answer| (answer.status.as_u16(), blot(&answer.json())))
        .collect()
}

fn blot(body: &Value) -> String {
    let mut body = body.clone();
    if body.get("sid").is_some() {
        body["sid"] = json!("…");
    }
    body.to_string()
}

#[tokio::test]
async fn a_hidden_address_lives_like_any_other() {
    let app = TestApp::with(|builder| {
        builder.limits(limits::Settings {
            per_address: "4/1h".parse().unwrap(),
            ..limits::Settings::OFF
        })
    });
    app.own("@o:example.org", "taken@example.org").await;
    app.own("@p:example.org", "known@example.org").await;
    for (path, hidden, ordinary) in [
        (REGISTER, "taken@example.org", "free-1@example.org"),
        (PASSWORD, "unknown@example.org", "known@example.org"),
    ] {
        assert_eq!(
            life(&app, path, hidden).await,
            life(&app, path, ordinary).await,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_owner_is_told_what_the_asker_is_not() {
    let app = TestApp::new();
    app.own("@o:example.org", "taken@example.org").await;
    for (path, email, subject) in [
        (REGISTER, "taken@example.org", "already"),
        (ADD, "taken@example.org", "already"),
        (PASSWORD, "unknown@example.org", "no account"),
    ] {
        app.post(path, &body(email, 1)).await;
        let mail = app.mail().await;
        assert_eq!(mail.to, email);
        let words = format!("{} {}", mail.subject, mail.text).to_lowercase();
        assert!(words.contains(subject), "{words}");
        assert!(
            !mail.text.contains("/_threepid/link/"),
            "a notice holds no link"
        );
    }
}

#[tokio::test]
async fn real_or_decoy_is_decided_anew_at_each_attempt() {
    let app = TestApp::new();
    let sid = app
        .post(REGISTER, &body("alice@example.org", 1))
        .await
        .sid();
    let mail = app.mail().await;
    app.own("@a:example.org", "alice@example.org").await;

    assert_eq!(
        app.post(REGISTER, &body("alice@example.org", 2))
            .await
            .sid(),
        sid
    );

    assert!(!app.mail().await.text.contains("/_threepid/link/"));
    assert_eq!(
        app.bare("POST", &link_path(&mail), &[]).await.status,
        410,
        "the old link proves nothing any more"
    );
    let submitted = json!({ "sid": sid, "client_secret": "s", "token": code(&mail) });
    assert_eq!(
        app.post(SUBMIT, &submitted).await.errcode(),
        "M_TOKEN_INCORRECT"
    );
}

#[tokio::test]
async fn an_operator_may_choose_to_tell() {
    let app = TestApp::with(|builder| builder.reveal(true));
    app.own("@o:example.org", "taken@example.org").await;
    for (path, email, errcode) in [
        (REGISTER, "taken@example.org", "M_THREEPID_IN_USE"),
        (ADD, "taken@example.org", "M_THREEPID_IN_USE"),
        (PASSWORD, "unknown@example.org", "M_THREEPID_NOT_FOUND"),
    ] {
        let answer = app.post(path, &body(email, 1)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (400, errcode)
        );
    }
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn a_reset_s_mail_names_the_account() {
    let app = TestApp::new();
    app.own("@owner:example.org", "taken@example.org").await;
    app.post(PASSWORD, &body("taken@example.org", 1)).await;
    assert!(app.mail().await.text.contains("@owner:example.org"));
}

#[tokio::test]
async fn an_add_session_tied_to_an_account_is_refused_to_others_alike() {
    let app = TestApp::new();
    app.own("@o:example.org", "taken@example.org").await;
    let mut answers = Vec::new();
    for email in ["taken@example.org", "free@example.org"] {
        let secret = ClientSecret::parse("s").unwrap();
        let request = TokenRequest {
            purpose: Purpose::Add,
            threepid: Threepid::email(email).unwrap(),
            client_secret: secret.clone(),
            send_attempt: 1,
            next_link: None,
            id_server: None,
            id_access_token: None,
            source: Source::Unknown,
            user_id: Some("@asker:example.org".to_owned()),
        };
        let validation = app.threepid.validation();
        let sid = validation.request_token(request).await.unwrap().sid;
        for user in [None, Some("@asker:example.org"), Some("@other:example.org")] {
            answers.push(validation.proof(&sid, &secret, Purpose::Add, user).await);
        }
    }
    assert_eq!(answers[..3], answers[3..]);
    let mails = app.mails().await;
    let notice = mails
        .iter()
        .find(|mail| mail.to == "taken@example.org")
        .unwrap();
    assert!(
        !notice.text.contains("@asker:example.org"),
        "the owner is not told who asked"
    );
}
