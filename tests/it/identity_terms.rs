//! The identity server's terms: shown, accepted, and asked for.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use threepid::{
    identity::{Policy, Settings},
    secret::AccessToken,
};

use crate::support::{app::*, identity::policy};

/// All endpoints that need a token, but the two that one may use before the terms are accepted.
const WITH_TOKEN: [(&str, &str); 5] = [
    ("GET", "account"),
    ("POST", "validate/email/requestToken"),
    ("POST", "validate/email/submitToken"),
    ("POST", "validate/msisdn/requestToken"),
    ("POST", "validate/msisdn/submitToken"),
];

/// Two policies, the first in two languages.
fn terms(version: &str) -> BTreeMap<String, Policy> {
    let (en, fr) = (
        format!("https://example.org/terms-{version}-en.html"),
        format!("https://example.org/terms-{version}-fr.html"),
    );
    let service = policy(
        version,
        &[("en", "Terms of Service", &en), ("fr", "Conditions", &fr)],
    );
    let privacy = "https://example.org/privacy-1-en.html";
    let privacy = policy("1", &[("en", "Privacy Policy", privacy)]);
    [
        ("terms_of_service".to_owned(), service),
        ("privacy_policy".to_owned(), privacy),
    ]
    .into()
}

const EN: &str = "https://example.org/terms-2.0-en.html";
const FR: &str = "https://example.org/terms-2.0-fr.html";
const PRIVACY: &str = "https://example.org/privacy-1-en.html";

fn with_terms(settings: &mut Settings) {
    settings.terms = terms("2.0");
}

async fn accept(app: &TestApp, token: &AccessToken, urls: &[&str]) -> (u16, Value) {
    let answer = app
        .post_as(token, "terms", &json!({ "user_accepts": urls }))
        .await;
    (answer.status.as_u16(), answer.json())
}

/// Whether the user of a token is served.
async fn is_served(app: &TestApp, token: &AccessToken) -> bool {
    let answer = app.get_as(token, "account").await;
    if answer.status != 200 {
        assert_eq!(answer.refusal(), refusal(403, "M_TERMS_NOT_SIGNED"));
    }
    answer.status == 200
}

#[tokio::test]
async fn terms_are_shown_to_everybody_in_all_languages() {
    let app = TestApp::identity(with_terms);

    let shown = app.get(&format!("{IDENTITY}/terms"), &[]).await;

    assert_eq!(shown.status, 200);
    let wanted = json!({ "policies": {
        "terms_of_service": {
            "version": "2.0",
            "en": { "name": "Terms of Service", "url": EN },
            "fr": { "name": "Conditions", "url": FR },
        },
        "privacy_policy": { "version": "1", "en": { "name": "Privacy Policy", "url": PRIVACY } },
    }});
    assert_eq!(shown.json(), wanted);
    assert_eq!(shown.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn without_terms_there_is_nothing_to_accept() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token("@alice:example.org").await;

    let shown = app.get(&format!("{IDENTITY}/terms"), &[]).await;

    assert_eq!(shown.json(), json!({ "policies": {} }));
    assert!(is_served(&app, &token).await);
    assert_eq!(accept(&app, &token, &[EN]).await, (200, json!({})));
}

#[tokio::test]
async fn every_endpoint_with_a_token_asks_for_one_that_is_known() {
    let app = TestApp::identity(|_| {});
    let others = [("POST", "terms"), ("POST", "account/logout")];
    for (method, path) in WITH_TOKEN.into_iter().chain(others) {
        let path = format!("{IDENTITY}/{path}");

        let without = app.bare(method, &path, &[]).await;
        let garbage = app
            .bare(method, &path, &[("authorization", "Bearer garbage")])
            .await;

        assert_eq!(
            without.refusal(),
            refusal(401, "M_UNAUTHORIZED"),
            "{method} {path}"
        );
        assert_eq!(garbage.status, 401, "{method} {path}");
        let is_logout = path.ends_with("logout");
        let wanted = if is_logout {
            "M_UNKNOWN_TOKEN"
        } else {
            "M_UNAUTHORIZED"
        };
        assert_eq!(garbage.errcode(), wanted, "{method} {path}");
        assert_eq!(garbage.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn every_endpoint_with_a_token_asks_for_the_terms() {
    let app = TestApp::identity(with_terms);
    let token = app.identity_token("@alice:example.org").await;
    let bearer = format!("Bearer {}", token.reveal());
    for (method, path) in WITH_TOKEN {
        let path = format!("{IDENTITY}/{path}");

        let answer = app.bare(method, &path, &[("authorization", &bearer)]).await;

        assert_eq!(
            answer.refusal(),
            refusal(403, "M_TERMS_NOT_SIGNED"),
            "{method} {path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn whoever_has_accepted_all_policies_is_served() {
    let app = TestApp::identity(with_terms);
    let token = app.identity_token("@alice:example.org").await;
    assert!(!is_served(&app, &token).await);

    assert_eq!(accept(&app, &token, &[EN]).await, (200, json!({})));
    assert!(!is_served(&app, &token).await, "one of two");
    assert_eq!(accept(&app, &token, &[PRIVACY]).await, (200, json!({})));

    assert!(
        is_served(&app, &token).await,
        "what was accepted before counts"
    );
    let other = app.identity_token("@alice:example.org").await;
    assert!(
        is_served(&app, &other).await,
        "the user has accepted, not the token"
    );
    let bob = app.identity_token("@bob:example.org").await;
    assert!(!is_served(&app, &bob).await);
}

#[tokio::test]
async fn one_language_counts_for_the_whole_policy() {
    for urls in [&[FR, PRIVACY][..], &[PRIVACY, EN], &[EN, FR, PRIVACY, EN]] {
        let app = TestApp::identity(with_terms);
        let token = app.identity_token("@alice:example.org").await;
        accept(&app, &token, urls).await;
        assert!(is_served(&app, &token).await, "{urls:?}");
    }
}

#[tokio::test]
async fn urls_of_nothing_are_ignored() {
    let app = TestApp::identity(with_terms);
    let token = app.identity_token("@alice:example.org").await;
    let older = "https://example.org/terms-1.0-en.html";
    let urls = [
        "",
        "nonsense",
        older,
        "https://example.org/terms-2.0-EN.html",
        "terms_of_service",
    ];

    assert_eq!(accept(&app, &token, &urls).await, (200, json!({})));
    assert_eq!(accept(&app, &token, &[]).await, (200, json!({})));

    assert!(!is_served(&app, &token).await);
    accept(&app, &token, &[older, EN, PRIVACY]).await;
    assert!(is_served(&app, &token).await);
}

#[tokio::test]
async fn a_new_version_must_be_accepted_and_the_other_policies_need_not() {
    let app = TestApp::identity(with_terms);
    let token = app.identity_token("@alice:example.org").await;
    accept(&app, &token, &[EN, PRIVACY]).await;

    let newer = |settings: &mut Settings| settings.terms = terms("3.0");
    let app = app.restarted(|builder| with_identity(builder, newer));

    assert!(!is_served(&app, &token).await);
    accept(&app, &token, &[EN]).await;
    assert!(!is_served(&app, &token).await, "the older version's URL");
    accept(&app, &token, &["https://example.org/terms-3.0-fr.html"]).await;
    assert!(is_served(&app, &token).await);
}

#[tokio::test]
async fn what_is_no_list_of_urls_is_refused() {
    let app = TestApp::identity(with_terms);
    let token = app.identity_token("@alice:example.org").await;
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAMS"),
        (json!([EN]), "M_BAD_JSON"),
        (json!({ "user_accepts": null }), "M_BAD_JSON"),
        (json!({ "user_accepts": EN }), "M_BAD_JSON"),
        (json!({ "user_accepts": { "0": EN } }), "M_BAD_JSON"),
        (json!({ "user_accepts": [EN, PRIVACY, 1] }), "M_BAD_JSON"),
        (json!({ "user_accepts": [[EN]] }), "M_BAD_JSON"),
    ] {
        let answer = app.post_as(&token, "terms", &body).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{body}");
    }
    let many = json!({ "user_accepts": vec![EN; 2000] });
    let many = app.post_as(&token, "terms", &many).await;

    assert_eq!(many.refusal(), refusal(413, "M_TOO_LARGE"));
    assert!(!is_served(&app, &token).await, "nothing was accepted");
}

#[tokio::test]
async fn whoever_does_not_accept_can_log_out() {
    let app = TestApp::identity(with_terms);
    let token = app.identity_token("@alice:example.org").await;

    let left = app.post_as(&token, "account/logout", &json!({})).await;

    assert_eq!((left.status.as_u16(), left.json()), (200, json!({})));
    let gone = app.get_as(&token, "account").await;
    assert_eq!(gone.errcode(), "M_UNAUTHORIZED");
}
