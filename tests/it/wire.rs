//! What holds for every answer: CORS, unknown paths, odd bodies, monitoring, the mailbox's guard.

use axum::{
    body::Body,
    http::{Request, Version},
};
use serde_json::json;

use crate::support::app::*;

#[tokio::test]
async fn every_answer_under_matrix_has_cors_headers() {
    let app = TestApp::new();
    for (method, path, status) in [
        ("POST", REGISTER, 400),
        ("GET", REGISTER, 405),
        ("GET", "/_matrix/client/v3/nothing", 404),
        ("POST", "/_matrix", 404),
        ("POST", SUBMIT, 400),
        ("DELETE", SUBMIT, 405),
        ("OPTIONS", REGISTER, 200),
        ("OPTIONS", SUBMIT, 200),
        ("OPTIONS", "/_matrix/client/v3/nothing", 200),
    ] {
        let answer = app
            .bare(method, path, &[("origin", "https://app.example.org")])
            .await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "*",
            "{method} {path}"
        );
        assert_eq!(
            answer.header("access-control-allow-methods"),
            "GET, POST, PUT, DELETE, OPTIONS"
        );
        assert!(
            answer
                .header("access-control-allow-headers")
                .contains("Authorization")
        );
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_unrecognized() {
    let app = TestApp::new();
    for (method, path, status) in [
        ("GET", "/_matrix/client/v3/unknown", 404),
        (
            "POST",
            "/_matrix/client/v9/register/email/requestToken",
            404,
        ),
        (
            "POST",
            "/_matrix/client/v3/register/email/requestToken/",
            404,
        ),
        (
            "POST",
            "/_matrix/client/v3//register/email/requestToken",
            404,
        ),
        ("GET", REGISTER, 405),
        ("PUT", ADD, 405),
        ("GET", "/", 404),
        ("GET", "/_threepid/nothing", 404),
        ("POST", "/_threepid/phone/submitToken", 404),
        ("POST", "/_threepid/health/live", 405),
    ] {
        let answer = app.bare(method, path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (status, "M_UNRECOGNIZED"),
            "{method} {path}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }
    assert_eq!(app.bare("GET", REGISTER, &[]).await.header("allow"), "POST");
    let wrong = app.bare("DELETE", SUBMIT, &[]).await;
    assert_eq!(wrong.header("allow"), "POST,GET,HEAD");
}

#[tokio::test]
async fn the_content_type_of_a_request_does_not_matter() {
    let app = TestApp::new();
    let request = Request::post(REGISTER)
        .header("content-type", "text/plain")
        .body(Body::from(alice(1).to_string()));
    assert_eq!(app.send(request.unwrap()).await.status, 200);
}

/// Alice's body with one key set.
fn with(key: &str, value: serde_json::Value) -> String {
    let mut body = alice(1);
    body[key] = value;
    body.to_string()
}

/// Alice's body without one key.
fn without(key: &str) -> String {
    let mut body = alice(1);
    body.as_object_mut().expect("an object").remove(key);
    body.to_string()
}

async fn refuses(app: &TestApp, body: String, status: u16, errcode: &str) {
    for path in [REGISTER, PASSWORD, ADD] {
        let answer = app.post_text(path, body.clone()).await;
        let met = (answer.status.as_u16(), answer.errcode());
        assert_eq!(met, (status, errcode.to_owned()), "{body:.80}");
    }
    assert!(app.mails().await.is_empty());
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let app = TestApp::new();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_inside = format!(r#"{{"email":"a@b.org","x":{deep}}}"#);
    let twice = r#"{"client_secret":"s","email":"a@b.org","email":"c@d.org","send_attempt":1}"#;
    for (body, status, errcode) in [
        ("", 400, "M_NOT_JSON"),
        (
            "client_secret=s&email=a%40b.org&send_attempt=1",
            400,
            "M_NOT_JSON",
        ),
        ("{\"email\":", 400, "M_NOT_JSON"),
        (&deep, 400, "M_NOT_JSON"),
        (&deep_inside, 400, "M_NOT_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        ("null", 400, "M_BAD_JSON"),
        (twice, 400, "M_BAD_JSON"),
        (
            &with("filler", json!("x".repeat(70_000))),
            413,
            "M_TOO_LARGE",
        ),
        (&"x".repeat(10_000_000), 413, "M_TOO_LARGE"),
    ] {
        refuses(&app, body.to_owned(), status, errcode).await;
    }
}

#[tokio::test]
async fn values_that_break_their_type_or_grammar_are_refused() {
    let app = TestApp::new();
    for key in ["email", "client_secret", "send_attempt"] {
        refuses(&app, without(key), 400, "M_MISSING_PARAM").await;
        refuses(&app, with(key, json!(null)), 400, "M_BAD_JSON").await;
        refuses(&app, with(key, json!(["x"])), 400, "M_BAD_JSON").await;
        refuses(&app, with(key, json!({})), 400, "M_BAD_JSON").await;
    }
    for (key, value) in [
        ("client_secret", json!(5)),
        ("send_attempt", json!("1")),
        ("send_attempt", json!(1.5)),
        ("next_link", json!(5)),
    ] {
        refuses(&app, with(key, value), 400, "M_BAD_JSON").await;
    }
    for secret in ["", "é", "a b", "a:b", &"a".repeat(256)] {
        refuses(
            &app,
            with("client_secret", json!(secret)),
            400,
            "M_INVALID_PARAM",
        )
        .await;
    }
    for email in [
        "a\u{0}@b.org",
        "a@b.org\r\nBcc: x@y.org",
        "Alice <a@b.org>",
        "a@b@c.org",
        "a@straße.example",
        "not an address",
    ] {
        refuses(&app, with("email", json!(email)), 400, "M_INVALID_PARAM").await;
    }
}

#[tokio::test]
async fn send_attempts_lie_within_what_matrix_knows() {
    let app = TestApp::new();
    for attempt in [json!(-1), json!(9_007_199_254_740_992_u64), json!(1e300)] {
        refuses(&app, with("send_attempt", attempt), 400, "M_INVALID_PARAM").await;
    }
    for attempt in [json!(0), json!(9_007_199_254_740_991_u64)] {
        let answer = app.post_text(REGISTER, with("send_attempt", attempt)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(app.mails().await.len(), 1);
    }
}

#[tokio::test]
async fn monitoring_tells_that_the_server_works() {
    let app = TestApp::new();
    assert_eq!(
        app.get("/_threepid/health/live", &[]).await.json(),
        json!({ "status": "ok" })
    );
    app.post(REGISTER, &alice(1)).await;
    let request = Request::get("/_threepid/health/ready").body(Body::empty());
    let internal = app.threepid.internal_router();
    let ready = send(&internal, "127.0.0.1:1", request.unwrap()).await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["outbox"]["waiting"]),
        (200, &json!(1))
    );
    assert_eq!(ready.json()["relay"], json!({ "failing_since": null }));
}

#[tokio::test]
async fn the_public_learns_from_monitoring_only_that_the_server_works() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let ready = app.get("/_threepid/health/ready", &[]).await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()),
        (200, json!({ "status": "ok" }))
    );
}

#[tokio::test]
async fn the_mailbox_is_for_this_machine_alone() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    app.threepid.deliver_due().await.unwrap();
    let internal = app.threepid.internal_router();
    let ask =
        |from: &'static str, host: &'static str, extra: Option<(&'static str, &'static str)>| {
            let mut request = Request::get("/_threepid/mailbox/messages").header("host", host);
            if let Some((name, value)) = extra {
                request = request.header(name, value);
            }
            let (internal, request) = (internal.clone(), request.body(Body::empty()).unwrap());
            async move { send(&internal, from, request).await }
        };
    let shown = ask("127.0.0.1:1", "localhost:8091", None).await;
    let keys = ["id", "medium", "to", "subject", "text", "html", "at"];
    assert_eq!(shown.status, 200);
    assert!(
        keys.iter().all(|key| shown.json()[0].get(key).is_some()),
        "{}",
        shown.text
    );
    assert_eq!(ask("[::1]:1", "[::1]:8091", None).await.status, 200);
    assert_eq!(ask("127.0.0.1:1", "127.0.0.2", None).await.status, 200);
    for (from, host) in [
        ("192.0.2.1:1", "localhost"),
        ("127.0.0.1:1", "rebound.example.net"),
        ("127.0.0.1:1", "localhost.example.net"),
    ] {
        assert_eq!(ask(from, host, None).await.status, 404, "{from} {host}");
    }
    for of_proxies in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
        ("x-real-ip", "192.0.2.1"),
        ("true-client-ip", "::1"),
        ("cf-connecting-ip", "::1"),
        ("x-client-ip", "::1"),
        ("x-cluster-client-ip", "::1"),
    ] {
        let answer = ask("127.0.0.1:1", "localhost", Some(of_proxies)).await;
        assert_eq!(answer.status, 404, "{of_proxies:?}");
    }
    let public = app
        .bare("GET", "/_threepid/mailbox", &[("host", "localhost")])
        .await;
    assert_eq!(public.status, 404, "the public URL is not this machine's");
}

#[tokio::test]
async fn the_mailbox_is_not_for_a_proxy_that_shows_itself_by_an_old_version_alone() {
    let app = TestApp::new();
    let internal = app.threepid.internal_router();
    for (version, status) in [
        (Version::HTTP_09, 404),
        (Version::HTTP_10, 404),
        (Version::HTTP_11, 200),
    ] {
        let request = Request::get("/_threepid/mailbox/messages")
            .header("host", "127.0.0.1:8090")
            .version(version)
            .body(Body::empty());
        let answer = send(&internal, "127.0.0.1:1", request.unwrap()).await;
        assert_eq!(answer.status, status, "{version:?}");
    }
}

#[tokio::test]
async fn the_mailbox_page_shows_what_was_sent_and_can_be_emptied() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    app.threepid.deliver_due().await.unwrap();
    let internal = app.threepid.internal_router();
    let request = |method: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap()
    };
    let page = send(
        &internal,
        "127.0.0.1:1",
        request("GET", "/_threepid/mailbox"),
    )
    .await;
    assert!(page.text.contains("alice@example.org") && page.text.contains("/_threepid/link/"));
    assert_eq!(page.header("access-control-allow-origin"), "");
    let cleared = send(
        &internal,
        "127.0.0.1:1",
        request("DELETE", "/_threepid/mailbox/messages"),
    )
    .await;
    assert!(cleared.status.is_success());
    assert_eq!(
        send(
            &internal,
            "127.0.0.1:1",
            request("GET", "/_threepid/mailbox/messages")
        )
        .await
        .json(),
        json!([])
    );
}

#[tokio::test]
async fn a_host_may_mount_any_groups_in_one_router() {
    let app = TestApp::new();
    let threepid = &app.threepid;
    let groups = [
        (threepid.email_router(), REGISTER),
        (threepid.msisdn_router(), REGISTER_PHONE),
        (
            threepid.contacts_router(),
            "/_matrix/client/v3/account/3pid/add",
        ),
        (
            threepid.password_router(),
            "/_matrix/client/v3/account/password",
        ),
    ];
    for chosen in 0..1_usize << groups.len() {
        let is_chosen = |number: usize| chosen >> number & 1 == 1;
        let mut host = axum::Router::new();
        for (number, (group, _)) in groups.iter().enumerate() {
            if is_chosen(number) {
                // Panics on a path that two groups have.
                host = host.merge(group.clone());
            }
        }
        for (number, (_, path)) in groups.iter().enumerate() {
            let request = Request::post(*path).body("{}".into()).unwrap();
            let answer = send(&host, "127.0.0.1:4711", request).await;
            assert_eq!(
                answer.status != 404,
                is_chosen(number),
                "{path}: {}",
                answer.text
            );
        }
    }
}
