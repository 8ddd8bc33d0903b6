//! The stages of `account/password` on a page of ours, for clients that do not know them.

use std::time::Duration;

use serde_json::{Value, json};
use threepid::{
    threepid::Medium,
    validation::{Validate, Validates},
};

use crate::support::{app::*, resets::*};

const DONE: &str = "<h1>Your address is confirmed</h1>";

/// A client's session, and the path of the page for a stage of it.
async fn page(resets: &Resets, stage: &str) -> (Value, String) {
    let challenge = resets.app.post(RESET, &json!({})).await.json();
    let session = challenge["session"].clone();
    let name = session.as_str().expect("a session");
    let path = format!("/_matrix/client/v3/auth/{stage}/fallback/web?session={name}");
    (session, path)
}

async fn ask(resets: &Resets, page: &str, email: &str) -> Answer {
    let fields = [("step", "address"), ("email", email)];
    resets.app.submit_form(page, &fields).await
}

async fn type_code(resets: &Resets, page: &str, code: &str) -> Answer {
    let fields = [("step", "code"), ("code", code)];
    resets.app.submit_form(page, &fields).await
}

/// What the client sends once the page has told it.
fn closing(session: &Value) -> Value {
    json!({ "new_password": "new", "auth": { "session": session } })
}

#[tokio::test]
async fn the_page_does_the_stage_for_the_client() {
    let resets = Resets::new().await;
    let (session, page) = page(&resets, "m.login.email.identity").await;
    assert!(
        resets
            .app
            .get(&page, &[])
            .await
            .text
            .contains("name=\"email\"")
    );

    let asked = ask(&resets, &page, "Alice@example.org").await;
    let code = code(&resets.app.mail().await);
    let waiting = resets.app.get(&page, &[]).await;
    let early = resets.app.post(RESET, &closing(&session)).await;
    let typed = type_code(&resets, &page, &code).await;
    let done = resets.app.get(&page, &[]).await;
    let set = resets.app.post(RESET, &closing(&session)).await;

    assert_eq!((asked.status.as_u16(), typed.status.as_u16()), (303, 303));
    let name = session.as_str().unwrap();
    assert_eq!(asked.header("location"), format!("web?session={name}"));
    assert!(waiting.text.contains("alice@example.org") && waiting.text.contains("one-time-code"));
    assert_eq!(
        (early.status.as_u16(), &*early.errcode()),
        (401, "M_UNAUTHORIZED")
    );
    assert!(done.text.contains(DONE) && done.text.contains("authDone"));
    assert!(
        done.header("content-security-policy")
            .contains("script-src 'sha256-")
    );
    assert_eq!(set.status, 200, "{}", set.text);
    assert_eq!(resets.password(), "new");
    assert_eq!(resets.app.post(RESET, &closing(&session)).await.status, 200);
}

#[tokio::test]
async fn a_link_that_was_opened_does_it_too() {
    let resets = Resets::new().await;
    let (session, page) = page(&resets, "m.login.email.identity").await;
    ask(&resets, &page, "alice@example.org").await;
    let link = link_path(&resets.app.mail().await);

    let early = resets.app.submit_form(&page, &[("step", "opened")]).await;
    resets.app.submit_form(&link, &[("continue", "app")]).await;
    let late = resets.app.submit_form(&page, &[("step", "opened")]).await;
    let mut typed = closing(&session);
    typed["auth"]["type"] = json!("m.login.email.identity");
    let set = resets.app.post(RESET, &typed).await;

    assert_eq!(early.status, 400);
    assert!(early.text.contains("not confirmed yet"), "{}", early.text);
    assert_eq!((late.status.as_u16(), set.status.as_u16()), (303, 200));
}

#[tokio::test]
async fn who_has_an_account_is_not_told_there_either() {
    let resets = Resets::new().await;
    let mut pages = Vec::new();
    for email in ["alice@example.org", "nobody@example.org"] {
        let (_, page) = page(&resets, "m.login.email.identity").await;
        ask(&resets, &page, email).await;
        let wrong = type_code(&resets, &page, "00000000").await;
        let shown = resets.app.get(&page, &[]).await;
        let name = page.rsplit('=').next().unwrap();
        for answer in [wrong, shown] {
            let text = answer.text.replace(email, "…").replace(name, "…");
            pages.push((answer.status, text));
        }
    }
    assert_eq!(pages[0].0, 400);
    assert_eq!(pages[..2], pages[2..]);
}

#[tokio::test]
async fn another_session_or_stage_knows_nothing_of_it() {
    let resets = Resets::new().await;
    let (_, mine) = page(&resets, "m.login.email.identity").await;
    ask(&resets, &mine, "alice@example.org").await;
    let code = code(&resets.app.mail().await);
    type_code(&resets, &mine, &code).await;

    let (other, theirs) = page(&resets, "m.login.email.identity").await;

    assert!(
        resets
            .app
            .get(&theirs, &[])
            .await
            .text
            .contains("name=\"email\"")
    );
    let set = resets.app.post(RESET, &closing(&other)).await;
    assert_eq!(set.status, 401);
    assert!(set.json()["errcode"].is_null(), "nothing was shown");
    assert_eq!(type_code(&resets, &theirs, &code).await.status, 410);
}

#[tokio::test]
async fn a_session_that_is_none_is_a_page_that_says_what_to_do() {
    let resets = Resets::new().await;
    let (_, late) = page(&resets, "m.login.email.identity").await;
    resets.app.wait(Duration::from_hours(1));
    let bare = "/_matrix/client/v3/auth/m.login.email.identity/fallback/web";
    for (path, status) in [
        (bare, 400),
        (&format!("{bare}?session=x"), 410),
        (&format!("{bare}?session=%FF"), 410),
        (&late, 410),
    ] {
        for method in ["GET", "POST"] {
            let page = resets.app.bare(method, path, &[]).await;
            assert_eq!(page.status, status, "{method} {path}");
            assert!(page.text.contains("What to do:"), "{}", page.text);
        }
    }
}

#[tokio::test]
async fn a_second_message_goes_to_the_same_session() {
    let resets = Resets::new().await;
    let (session, page) = page(&resets, "m.login.email.identity").await;
    ask(&resets, &page, "alice@example.org").await;
    resets.app.mail().await;
    let again = resets.app.get(&format!("{page}&again=1"), &[]).await;
    assert!(again.text.contains("name=\"email\""));

    ask(&resets, &page, "alice@example.org").await;
    let code = code(&resets.app.mail().await);

    assert_eq!(type_code(&resets, &page, &code).await.status, 303);
    assert_eq!(resets.app.post(RESET, &closing(&session)).await.status, 200);
}

#[tokio::test]
async fn what_was_typed_wrongly_is_said_on_the_page() {
    let resets = Resets::new().await;
    let (_, page) = page(&resets, "m.login.email.identity").await;
    let wrong = ask(&resets, &page, "no address").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("role=\"alert\"") && wrong.text.contains("name=\"email\""));
    let strange = resets.app.submit_form(&page, &[("step", "x")]).await;
    assert_eq!(strange.status, 400);
    let elsewhere = [("origin", "https://evil.example.net")];
    assert_eq!(resets.app.bare("POST", &page, &elsewhere).await.status, 403);
}

#[tokio::test]
async fn numbers_have_a_page_where_they_open_a_reset() {
    let off = Resets::new().await;
    let (_, path) = page(&off, "m.login.msisdn").await;
    assert_eq!(off.app.get(&path, &[]).await.status, 400);
    let resets =
        Resets::with(|builder| builder.validates(Medium::Msisdn, Validates::all(Validate::Here)))
            .await;
    resets.app.own(OWNER, "07700900001").await;
    for (country, number) in [("", "+44 7700 900001"), ("gb", "07700 900001")] {
        let (session, path) = page(&resets, "m.login.msisdn").await;
        let fields = [
            ("step", "address"),
            ("country", country),
            ("phone_number", number),
        ];
        assert_eq!(resets.app.submit_form(&path, &fields).await.status, 303);
        let code = code(&resets.app.mail().await);
        assert!(
            resets
                .app
                .get(&path, &[])
                .await
                .text
                .contains("+44 7700 900001")
        );
        assert_eq!(type_code(&resets, &path, &code).await.status, 303);
        assert_eq!(resets.app.post(RESET, &closing(&session)).await.status, 200);
        resets.app.mails().await;
    }
}

#[tokio::test]
async fn a_stolen_database_does_not_hold_the_page_s_session() {
    let resets = Resets::new().await;
    let (session, page) = page(&resets, "m.login.email.identity").await;
    ask(&resets, &page, "nobody-else@example.org").await;
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(resets.app.dir()).unwrap() {
        stored.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let session = session.as_str().unwrap().as_bytes();
    assert!(
        !stored
            .windows(session.len())
            .any(|window| window == session)
    );
}

/// A form of the page, from another network than the app's.
async fn from_elsewhere(resets: &Resets, page: &str, form: &'static str) -> Answer {
    let request = http::Request::post(page)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.into())
        .expect("a request");
    resets.app.send_from("192.0.2.7:1", request).await
}

/// Whoever wants an account could send its owner the page, and be shown the code.
#[tokio::test]
async fn codes_are_taken_only_where_the_app_is() {
    let resets = Resets::new().await;
    let (session, page) = page(&resets, "m.login.email.identity").await;
    let form = "step=address&email=alice%40example.org";
    assert_eq!(from_elsewhere(&resets, &page, form).await.status, 303);
    resets.app.mail().await;

    let typed = from_elsewhere(&resets, &page, "step=code&code=12345678").await;
    let set = resets.app.post(RESET, &closing(&session)).await;

    assert_eq!(typed.status, 403);
    assert!(!typed.text.contains("name=\"code\""), "{}", typed.text);
    assert!(typed.text.contains("I have opened the link"));
    assert_eq!(set.status, 401);
}
