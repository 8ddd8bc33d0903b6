//! The identity server's accounts: whose token it is, how long, and what stands around it.

use std::time::Duration;

use axum::http::Request;
use serde_json::json;
use threepid::{limits, secret::AccessToken};

use crate::support::app::*;

const DAY: Duration = Duration::from_hours(24);

fn plain() -> TestApp {
    TestApp::identity(|_| {})
}

async fn whose(app: &TestApp, token: &AccessToken) -> (u16, String) {
    let answer = app.get_as(token, "account").await;
    let told = answer.json();
    let told = told["user_id"].as_str().or(told["errcode"].as_str());
    (answer.status.as_u16(), told.unwrap_or_default().to_owned())
}

fn alice_s() -> (u16, String) {
    (200, "@alice:example.org".to_owned())
}

fn nobody_s() -> (u16, String) {
    (401, "M_UNAUTHORIZED".to_owned())
}

#[tokio::test]
async fn the_versions_and_the_status_are_told_to_everybody() {
    let app = plain();

    let versions = app.get("/_matrix/identity/versions", &[]).await;
    let status = app.get(IDENTITY, &[]).await;

    let told = versions.json();
    let told = told["versions"].as_array().expect("an array").clone();
    for version in ["r0.3.0", "v1.1", "v1.2", "v1.10", "v1.19"] {
        assert!(told.contains(&json!(version)), "{version}");
    }
    assert_eq!((status.status.as_u16(), status.json()), (200, json!({})));
    for answer in [versions, status] {
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn what_is_not_there_is_unrecognized_and_web_clients_can_read_it() {
    let app = plain();
    for (method, path, status, allow) in [
        ("GET", "/_matrix/identity", 404, ""),
        ("GET", "/_matrix/identity/api/v1", 404, ""),
        (
            "POST",
            "/_matrix/identity/api/v1/validate/email/requestToken",
            404,
            "",
        ),
        (
            "GET",
            "/_matrix/identity/api/v1/lookup?medium=email&address=a%40b.org",
            404,
            "",
        ),
        ("GET", "/_matrix/identity/v2/", 404, ""),
        ("GET", "/_matrix/identity/v2/nothing", 404, ""),
        (
            "POST",
            "/_matrix/identity/v2/validate/phone/requestToken",
            404,
            "",
        ),
        ("GET", "/_matrix/identity/v2/pubkey", 404, ""),
        ("POST", "/_matrix/identity/versions", 405, "GET,HEAD"),
        ("POST", "/_matrix/identity/v2", 405, "GET,HEAD"),
        ("POST", "/_matrix/identity/v2/account", 405, "GET,HEAD"),
        ("GET", "/_matrix/identity/v2/account/register", 405, "POST"),
        ("GET", "/_matrix/identity/v2/account/logout", 405, "POST"),
        ("PUT", "/_matrix/identity/v2/terms", 405, "GET,HEAD,POST"),
        (
            "POST",
            "/_matrix/identity/v2/pubkey/isvalid",
            405,
            "GET,HEAD",
        ),
        (
            "DELETE",
            "/_matrix/identity/v2/pubkey/ed25519:0",
            405,
            "GET,HEAD",
        ),
        (
            "GET",
            "/_matrix/identity/v2/validate/email/requestToken",
            405,
            "POST",
        ),
        (
            "PUT",
            "/_matrix/identity/v2/validate/email/submitToken",
            405,
            "POST,GET,HEAD",
        ),
        (
            "PUT",
            "/_matrix/identity/v2/validate/msisdn/submitToken",
            405,
            "POST,GET,HEAD",
        ),
    ] {
        let answer = app.bare(method, path, &[]).await;
        assert_eq!(
            answer.refusal(),
            refusal(status, "M_UNRECOGNIZED"),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn an_options_request_is_answered_without_a_token_and_does_nothing() {
    let app = plain();
    let token = app.identity_token("@alice:example.org").await;
    let bearer = format!("Bearer {}", token.reveal());
    for path in [
        "account",
        "account/logout",
        "terms",
        "pubkey/isvalid",
        "validate/email/submitToken",
    ] {
        let path = format!("{IDENTITY}/{path}");
        let answer = app
            .bare("OPTIONS", &path, &[("authorization", &bearer)])
            .await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(
            answer
                .header("access-control-allow-headers")
                .contains("Authorization")
        );
    }

    assert_eq!(whose(&app, &token).await, alice_s());
}

#[tokio::test]
async fn nothing_of_it_is_there_unless_it_is_turned_on() {
    let app = TestApp::new();
    for path in [
        "/_matrix/identity/versions",
        IDENTITY,
        "/_matrix/identity/v2/terms",
    ] {
        let answer = app.get(path, &[]).await;
        assert_eq!(answer.refusal(), refusal(404, "M_UNRECOGNIZED"));
    }
}

#[tokio::test]
async fn a_token_tells_whose_it_is() {
    let app = plain();
    let alice = app.identity_token("@alice:example.org").await;
    let bob = app.identity_token("@bob:elsewhere.example").await;

    assert_eq!(whose(&app, &alice).await, alice_s());
    let whose_bob = (200, "@bob:elsewhere.example".to_owned());
    assert_eq!(whose(&app, &bob).await, whose_bob);
}

#[tokio::test]
async fn a_token_stands_in_the_header_alone() {
    let app = plain();
    let token = app.identity_token("@alice:example.org").await;
    let token = token.reveal();
    let path = format!("{IDENTITY}/account");
    for (path, header) in [
        (format!("{path}?access_token={token}"), String::new()),
        (path.clone(), String::new()),
        (path.clone(), token.to_owned()),
        (path.clone(), format!("Basic {token}")),
        (path.clone(), format!("Bearer {token}x")),
        (path.clone(), format!("Bearer {}", token.to_lowercase())),
        (path.clone(), "Bearer ".to_owned()),
        (path.clone(), "Bearer %00".to_owned()),
    ] {
        let answer = app.get(&path, &[("authorization", &header)]).await;
        assert_eq!(answer.refusal(), nobody_s(), "{header:?}");
    }
}

#[tokio::test]
async fn the_query_s_token_is_taken_where_the_operator_says_so() {
    let app = TestApp::identity(|settings| settings.legacy = true);
    let token = app.identity_token("@alice:example.org").await;
    let path = |token: &str| format!("{IDENTITY}/account?x=1&access_token={token}");

    let right = app.get(&path(token.reveal()), &[]).await;
    let wrong = app.get(&path("nonsense"), &[]).await;
    let header_first = [("authorization", "Bearer nonsense")];
    let header_first = app.get(&path(token.reveal()), &header_first).await;

    assert_eq!(right.json(), json!({ "user_id": "@alice:example.org" }));
    assert_eq!(wrong.errcode(), "M_UNAUTHORIZED");
    assert_eq!(header_first.errcode(), "M_UNAUTHORIZED");
    assert_eq!(whose(&app, &token).await, alice_s());
}

#[tokio::test]
async fn a_token_that_is_not_used_runs_out() {
    let app = plain();
    let token = app.identity_token("@alice:example.org").await;
    app.wait(Duration::from_secs(30 * 24 * 60 * 60 - 1));
    let last_moment = app.identity_token("@bob:example.org").await;
    app.wait(Duration::from_secs(1));

    assert_eq!(whose(&app, &token).await, nobody_s());
    assert_eq!(whose(&app, &last_moment).await.0, 200);
    let left = app.post_as(&token, "account/logout", &json!({})).await;
    assert_eq!(left.refusal(), refusal(401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn a_token_that_is_used_lives_on() {
    let app = plain();
    let token = app.identity_token("@alice:example.org").await;
    for _ in 0..4 {
        app.wait(DAY * 29);
        assert_eq!(whose(&app, &token).await, alice_s());
    }

    app.wait(DAY * 30);

    assert_eq!(whose(&app, &token).await, nobody_s());
}

#[tokio::test]
async fn a_token_of_a_short_life_lives_on_too() {
    let hour = Duration::from_hours(1);
    let app = TestApp::identity(|settings| settings.token_lifetime = hour * 4);
    let token = app.identity_token("@alice:example.org").await;
    for _ in 0..4 {
        app.wait(hour * 3);
        assert_eq!(whose(&app, &token).await, alice_s());
    }

    app.wait(hour * 4);

    assert_eq!(whose(&app, &token).await, nobody_s());
}

#[tokio::test]
async fn the_operator_says_how_long_a_token_lives() {
    let app = TestApp::identity(|settings| settings.token_lifetime = DAY * 3);
    let token = app.identity_token("@alice:example.org").await;
    app.wait(DAY * 2);
    assert_eq!(whose(&app, &token).await, alice_s());

    app.wait(DAY * 3);

    assert_eq!(whose(&app, &token).await, nobody_s());
}

#[tokio::test]
async fn the_fifty_first_token_of_a_user_pushes_out_the_oldest() {
    let app = plain();
    let bob = app.identity_token("@bob:example.org").await;
    let mut tokens = Vec::new();
    for _ in 0..50 {
        tokens.push(app.identity_token("@alice:example.org").await);
        app.wait(Duration::from_secs(1));
    }
    assert_eq!(whose(&app, &tokens[0]).await, alice_s());

    tokens.push(app.identity_token("@alice:example.org").await);

    assert_eq!(whose(&app, &tokens[0]).await, nobody_s());
    for token in &tokens[1..] {
        assert_eq!(whose(&app, token).await, alice_s());
    }
    assert_eq!(whose(&app, &bob).await.0, 200, "another user's stay");
}

#[tokio::test]
async fn logging_out_ends_one_token_and_leaves_the_others() {
    let app = plain();
    let (phone, laptop) = (
        app.identity_token("@alice:example.org").await,
        app.identity_token("@alice:example.org").await,
    );

    let left = app.post_as(&phone, "account/logout", &json!({})).await;

    assert_eq!((left.status.as_u16(), left.json()), (200, json!({})));
    assert_eq!(whose(&app, &phone).await, nobody_s());
    assert_eq!(whose(&app, &laptop).await, alice_s());
}

#[tokio::test]
async fn logging_out_needs_no_body_and_minds_none() {
    let app = plain();
    for body in ["", "{}", "[]", "{", "null", "access_token=x", "\0"] {
        let token = app.identity_token("@alice:example.org").await;
        let request = Request::post(format!("{IDENTITY}/account/logout"))
            .header("authorization", format!("Bearer {}", token.reveal()))
            .body(body.into());

        let left = app.send(request.expect("a request")).await;

        assert_eq!(
            (left.status.as_u16(), left.json()),
            (200, json!({})),
            "{body:?}"
        );
        assert_eq!(whose(&app, &token).await, nobody_s());
    }
}

#[tokio::test]
async fn logging_out_with_an_unknown_token_writes_nothing() {
    let limit = Duration::from_secs(2);
    let app = TestApp::with(|builder| {
        with_identity(builder.limits(limits::Settings::OFF), |_| {}).request_timeout(limit)
    });
    let known = app.identity_token("@alice:example.org").await;
    let unknown = AccessToken::parse("nonsense").unwrap();
    let other = rusqlite::Connection::open(app.dir().join("threepid.db")).unwrap();

    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let of_stranger = app.post_as(&unknown, "account/logout", &json!({})).await;
    let of_alice = app.post_as(&known, "account/logout", &json!({})).await;
    other.execute_batch("ROLLBACK").unwrap();

    assert_eq!(of_stranger.status, 401, "{}", of_stranger.text);
    assert_eq!(of_stranger.errcode(), "M_UNKNOWN_TOKEN");
    assert_eq!(of_alice.status, 503, "waits for its turn to write");
}

#[tokio::test]
async fn logging_out_without_a_token_and_with_an_unknown_one_are_told_apart() {
    let app = plain();
    let path = format!("{IDENTITY}/account/logout");
    let token = app.identity_token("@alice:example.org").await;
    app.post_as(&token, "account/logout", &json!({})).await;

    let without = app.post(&path, &json!({})).await;
    let again = app.post_as(&token, "account/logout", &json!({})).await;
    let nonsense = app
        .bare("POST", &path, &[("authorization", "Bearer nonsense")])
        .await;

    assert_eq!(without.refusal(), refusal(401, "M_UNAUTHORIZED"));
    for answer in [again, nonsense] {
        assert_eq!(answer.refusal(), refusal(401, "M_UNKNOWN_TOKEN"));
        assert_eq!(answer.json()["soft_logout"], json!(null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_logouts_at_once_one_is_told_that_the_token_was_there() {
    let app = plain();
    let token = app.identity_token("@alice:example.org").await;
    let body = json!({});

    let (one, other) = tokio::join!(
        app.post_as(&token, "account/logout", &body),
        app.post_as(&token, "account/logout", &body)
    );

    let mut told = [one.status.as_u16(), other.status.as_u16()];
    told.sort_unstable();
    assert_eq!(told, [200, 401]);
}

#[tokio::test]
async fn tokens_outlive_a_restart() {
    let app = plain();
    let token = app.identity_token("@alice:example.org").await;

    let app = app.restarted(|builder| with_identity(builder, |_| {}));

    assert_eq!(whose(&app, &token).await, alice_s());
}
