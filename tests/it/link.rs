//! The mailed link and its page.

use serde_json::{Value, json};
use threepid::next_link::NextLinkPolicy;

use crate::support::app::*;

const NEXT: &str = "https://app.example.org/#/register?client_secret=abc&hs_url=x";

fn with_next(next_link: &str) -> Value {
    let mut body = alice(1);
    body["next_link"] = json!(next_link);
    body
}

fn listed() -> TestApp {
    let policy = NextLinkPolicy::new(["app.example.org", "io.example.app:"]).expect("a list");
    TestApp::with(|builder| builder.next_links(policy))
}

async fn is_validated(app: &TestApp, link: &str) -> bool {
    !app.get(link, &[]).await.text.contains("<form")
}

#[tokio::test]
async fn a_link_s_page_changes_nothing_until_its_button_is_pressed() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let link = link_path(&app.mail().await);

    for _ in 0..3 {
        let page = app.get(&link, &[]).await;
        assert_eq!(page.status, 200);
        assert!(
            page.text.contains("<form") && page.text.contains("alice@example.org"),
            "{}",
            page.text
        );
        assert_eq!(app.bare("HEAD", &link, &[]).await.status, 200);
    }
    assert!(!is_validated(&app, &link).await);

    let done = app
        .bare(
            "POST",
            &link,
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        )
        .await;

    assert_eq!(done.status, 200);
    assert!(is_validated(&app, &link).await);
    assert_eq!(
        app.bare("POST", &link, &[]).await.status,
        200,
        "right again is right"
    );
}

#[tokio::test]
async fn pages_are_private_and_load_nothing() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let link = link_path(&app.mail().await);
    for page in [
        app.get(&link, &[]).await,
        app.get("/_threepid/link/nonsense", &[]).await,
        app.bare("POST", &link, &[]).await,
    ] {
        assert!(page.header("content-type").starts_with("text/html"));
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.header("x-frame-options"), "DENY");
        assert!(
            page.header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        assert_eq!(
            page.header("access-control-allow-origin"),
            "",
            "no CORS on pages of links"
        );
        assert!(!page.text.contains("<script") && !page.text.contains("src="));
    }
}

#[tokio::test]
async fn a_form_from_elsewhere_is_refused() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let link = link_path(&app.mail().await);
    for header in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example.net"),
        ("origin", "https://matrix.example.org.evil.example.net"),
    ] {
        assert_eq!(
            app.bare("POST", &link, &[header]).await.status,
            403,
            "{header:?}"
        );
        assert!(!is_validated(&app, &link).await);
    }
    assert_eq!(
        app.bare(
            "POST",
            &link,
            &[("origin", PUBLIC_URL), ("sec-fetch-site", "same-origin")]
        )
        .await
        .status,
        200
    );
}

#[tokio::test]
async fn a_link_that_is_none_is_a_page_with_404() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let genuine = link_path(&app.mail().await);
    let altered = format!(
        "{}{}",
        &genuine[..genuine.len() - 1],
        if genuine.ends_with('A') { "B" } else { "A" }
    );
    for path in [
        altered.as_str(),
        "/_threepid/link/x",
        "/_threepid/link/%00",
        "/_threepid/link/%FF",
        "/_threepid/link/../../etc",
    ] {
        for method in ["GET", "POST"] {
            let page = app.bare(method, path, &[]).await;
            assert_eq!(page.status, 404, "{method} {path}");
            if !path.contains("..") {
                assert!(page.header("content-type").starts_with("text/html"));
            }
        }
    }
    let wrong_method = app.bare("DELETE", &genuine, &[]).await;
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.header("content-type").starts_with("text/html"));
}

#[tokio::test]
async fn an_unlisted_next_link_is_named_and_not_gone_to() {
    let app = TestApp::new();
    let sid = app.post(REGISTER, &with_next(NEXT)).await.sid();
    let mail = app.mail().await;
    assert!(
        !mail.text.contains("app.example.org") && !mail.html.contains("app.example.org"),
        "never in the link"
    );

    let done = app.bare("POST", &link_path(&mail), &[]).await;

    assert_eq!(done.status, 200);
    assert!(done.text.contains("app.example.org"));
    let href = format!("{NEXT}&sid={sid}").replace('&', "&#38;");
    assert!(done.text.contains(&href), "{}", done.text);
}

#[tokio::test]
async fn a_listed_next_link_is_redirected_to_with_the_sid_after_the_fragment() {
    let app = listed();
    let sid = app.post(REGISTER, &with_next(NEXT)).await.sid();
    let link = link_path(&app.mail().await);
    let policy = app
        .get(&link, &[])
        .await
        .header("content-security-policy")
        .to_owned();

    let answer = app.bare("POST", &link, &[]).await;

    assert!(
        policy.contains("form-action 'self' https://app.example.org;"),
        "{policy}"
    );
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), format!("{NEXT}&sid={sid}"));
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
}

#[tokio::test]
async fn the_api_s_get_redirects_too() {
    let app = listed();
    let sid = app
        .post(REGISTER, &with_next("io.example.app:/done"))
        .await
        .sid();
    let code = code(&app.mail().await);
    let path = format!("{SUBMIT}?sid={sid}&client_secret=monkeys_are_GREAT&token={code}");

    let answer = app.get(&path, &[]).await;

    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, format!("io.example.app:/done?sid={sid}").as_str())
    );
}

#[tokio::test]
async fn a_next_link_that_is_not_allowed_is_refused_when_it_is_asked_for() {
    let (open, listed) = (TestApp::new(), listed());
    for next in [
        "javascript:alert(1)",
        "data:text/html,x",
        "https://u:p@app.example.org/",
        "https://app.example.org/\r\nX: y",
        "/x",
        "",
    ] {
        for app in [&open, &listed] {
            let answer = app.post(REGISTER, &with_next(next)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.errcode().as_str()),
                (400, "M_INVALID_PARAM"),
                "{next:?}"
            );
        }
    }
    assert_eq!(
        listed
            .post(REGISTER, &with_next("https://other.example.net/"))
            .await
            .errcode(),
        "M_INVALID_PARAM"
    );
    assert!(open.mails().await.is_empty() && listed.mails().await.is_empty());
}

#[tokio::test]
async fn a_stolen_database_holds_no_next_link_secret_code_or_link() {
    let app = TestApp::new();
    app.post(REGISTER, &with_next("https://app.example.org/#sesame"))
        .await;
    let mail = app.mail().await;
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(app.dir()).unwrap() {
        stored.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let holds = |text: &str| {
        stored
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(holds("alice@example.org"), "it is the right file");
    for secret in [
        "sesame",
        "monkeys_are_GREAT",
        &code(&mail),
        &link_value(&mail),
    ] {
        assert!(!holds(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_reset_s_page_warns_before_it_hands_over() {
    let app = TestApp::new();
    app.own("@owner:example.org", "alice@example.org").await;
    app.post(PASSWORD, &with_next(NEXT)).await;
    let link = link_path(&app.mail().await);

    let page = app.get(&link, &[]).await;

    assert!(
        page.text.contains("@owner:example.org")
            && page.text.contains("I asked for this in an app"),
        "{}",
        page.text
    );
    assert!(
        !page.text.contains("app.example.org"),
        "the next link is offered only afterwards"
    );
    assert!(
        app.bare("POST", &link, &[])
            .await
            .text
            .contains("app.example.org")
    );
}
