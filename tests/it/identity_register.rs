//! Registering at the identity server with the word of one's homeserver.

use std::{sync::Arc, time::Duration};

use axum::http::Request;
use serde_json::{Value, json};
use threepid::{
    limits,
    outbound::{Outbound, Resolve},
    rate::Rate,
    secret::AccessToken,
};

use crate::support::{
    app::*,
    closed_port,
    federation::{FederationServer, USERINFO},
    identity::asking,
    upstream::Answer as Said,
};

const REGISTER_HERE: &str = "/_matrix/identity/v2/account/register";
const OPENID: &str = "0penid-of-alice";
const OFF: limits::Settings = limits::Settings::OFF;

/// An identity server, and a homeserver that knows Alice's token.
async fn started() -> (TestApp, FederationServer) {
    let homeserver = FederationServer::start().await;
    homeserver.knows(OPENID, &homeserver.user("alice"));
    (asking(homeserver.outbound(), OFF, |_| {}), homeserver)
}

/// The OpenID object of a homeserver.
fn openid(name: &str) -> Value {
    json!({ "access_token": OPENID, "token_type": "Bearer", "matrix_server_name": name, "expires_in": 3600 })
}

async fn register(app: &TestApp, body: &Value) -> Answer {
    app.post(REGISTER_HERE, body).await
}

/// The token of an answer, which works.
async fn user_of(app: &TestApp, answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let token = AccessToken::parse(body["token"].as_str().expect("a string"));
    let account = app.get_as(&token.expect("a token"), "account").await.json();
    account["user_id"].as_str().expect("a user").to_owned()
}

#[tokio::test]
async fn whoever_their_homeserver_knows_gets_a_token() {
    let (app, homeserver) = started().await;

    let answer = register(&app, &openid(homeserver.name())).await;

    assert_eq!(user_of(&app, &answer).await, homeserver.user("alice"));
    let body = answer.json();
    assert_eq!(body["token"], body["access_token"]);
    assert_eq!(body.as_object().expect("an object").len(), 2);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(homeserver.count(USERINFO), 1);
    let token = body["token"].as_str().expect("a string");
    let is_opaque = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(token.len() >= 43 && token.bytes().all(is_opaque), "{token}");
}

#[tokio::test]
async fn only_what_is_needed_is_asked_for() {
    let (app, homeserver) = started().await;
    let name = homeserver.name();
    for body in [
        json!({ "access_token": OPENID, "matrix_server_name": name }),
        json!({ "access_token": OPENID, "matrix_server_name": name, "expires_in": "soon", "token_type": 1 }),
        json!({ "access_token": OPENID, "matrix_server_name": name, "token_type": "bearer", "x": [] }),
    ] {
        let answer = register(&app, &body).await;
        assert_eq!(
            user_of(&app, &answer).await,
            homeserver.user("alice"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn each_registration_gives_a_token_of_its_own() {
    let (app, homeserver) = started().await;

    let first = register(&app, &openid(homeserver.name())).await;
    let second = register(&app, &openid(homeserver.name())).await;

    assert_ne!(first.json()["token"], second.json()["token"]);
    assert_eq!(user_of(&app, &first).await, user_of(&app, &second).await);
}

#[tokio::test]
async fn a_homeserver_speaks_for_its_own_users_alone() {
    let (app, homeserver) = started().await;
    let name = homeserver.name().to_owned();
    for sub in [
        "@alice:example.org".to_owned(),
        format!("@alice:{name}.example.org"),
        format!("@alice:evil.example:{name}"),
        format!("@alice:evil.{name}"),
        format!("@alice:example.org@{name}"),
        format!("@alice:{}", name.to_uppercase()),
        "@alice:localhost".to_owned(),
        format!("alice:{name}"),
        format!("@alice {name}"),
        format!("@:{name}\n"),
        format!("@é:{name}"),
        format!("@your\u{2800}bank\u{2800}calls:{name}"),
        format!("@ali\u{200b}ce:{name}"),
        format!("@ali\u{61c}ce:{name}"),
        String::new(),
    ] {
        homeserver.knows(OPENID, &sub);
        let answer = register(&app, &openid(&name)).await;
        assert_eq!(answer.refusal(), refusal(401, "M_UNAUTHORIZED"), "{sub:?}");
    }
}

#[tokio::test]
async fn a_token_that_the_homeserver_does_not_know_is_refused() {
    let (app, homeserver) = started().await;
    let body = json!({ "access_token": "another", "matrix_server_name": homeserver.name() });

    let answer = register(&app, &body).await;

    assert_eq!(answer.refusal(), refusal(401, "M_UNAUTHORIZED"));
    assert!(!answer.text.contains("The server's words"));
}

#[tokio::test]
async fn a_homeserver_that_answers_nonsense_is_told_and_none_of_its_words() {
    let (app, homeserver) = started().await;
    let place = format!("{USERINFO}?access_token={OPENID}");
    for (said, number) in [
        Said::json(200, json!({})),
        Said::json(200, json!({ "sub": 1 })),
        Said::json(200, json!([])),
        Said::new(200, "text/html", "<h1>It works</h1>"),
        Said::error(500, "M_UNKNOWN"),
        Said::new(302, "text/plain", "").header("Location", "https://example.org/"),
        Said::new(200, "application/json", vec![b' '; 4096]).endless(),
        Said::closing(),
    ]
    .into_iter()
    .zip(1..)
    {
        homeserver.answer(&place, said);
        let answer = register(&app, &openid(homeserver.name())).await;
        assert_eq!(
            answer.refusal(),
            refusal(502, "M_UNKNOWN"),
            "answer {number}"
        );
        assert!(!answer.text.contains("words") && !answer.text.contains("works"));
    }
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_is_told() {
    let (app, _homeserver) = started().await;
    let (_nobody, closed) = closed_port();
    let name = format!("localhost:{}", closed.port());

    let answer = register(&app, &openid(&name)).await;

    assert_eq!(answer.refusal(), refusal(502, "M_UNKNOWN"));
    assert!(!answer.text.contains(&name) && !answer.text.contains(OPENID));
}

#[tokio::test]
async fn a_homeserver_that_takes_too_long_is_told() {
    let homeserver = FederationServer::start().await;
    let mut settings = homeserver.settings();
    settings.timeout = Duration::from_millis(300);
    let outbound = Outbound::new(settings).expect("settings that fit together");
    let app = asking(outbound, OFF, |_| {});
    let slow = Said::json(200, json!({ "sub": homeserver.user("alice") }));
    homeserver.answer(USERINFO, slow.after(Duration::from_mins(1)));

    let answer = register(&app, &openid(homeserver.name())).await;

    assert_eq!(answer.refusal(), refusal(504, "M_UNKNOWN"));
}

#[tokio::test]
async fn no_server_in_the_private_network_is_asked() {
    let homeserver = FederationServer::start().await;
    homeserver.knows(OPENID, &homeserver.user("alice"));
    let mut settings = homeserver.settings();
    settings.allow.clear();
    let outbound = Outbound::new(settings).expect("settings that fit together");
    let app = asking(outbound, OFF, |_| {});
    let by_address = format!("127.0.0.1:{}", homeserver.upstream().port());
    for name in [
        homeserver.name(),
        &by_address,
        "[::1]:8448",
        "10.0.0.1",
        "169.254.169.254:80",
    ] {
        let answer = register(&app, &openid(name)).await;
        assert_eq!(answer.refusal(), refusal(502, "M_UNKNOWN"), "{name}");
    }
    assert_eq!(homeserver.upstream().requests().len(), 0);
}

#[tokio::test]
async fn only_users_of_admitted_homeservers_register_and_no_other_is_asked() {
    let (homeserver, other) = (
        FederationServer::start().await,
        FederationServer::start().await,
    );
    for known in [&homeserver, &other] {
        known.knows(OPENID, &known.user("alice"));
    }
    let admitted = homeserver.server_name();
    let app = asking(homeserver.outbound(), OFF, |settings| {
        settings.homeservers = vec![admitted];
    });

    let hers = register(&app, &openid(homeserver.name())).await;
    let others = register(&app, &openid(other.name())).await;
    let in_capitals = register(&app, &openid(&homeserver.name().to_uppercase())).await;

    assert_eq!(user_of(&app, &hers).await, homeserver.user("alice"));
    assert_eq!(others.refusal(), refusal(403, "M_FORBIDDEN"));
    assert_eq!(in_capitals.refusal(), refusal(403, "M_FORBIDDEN"));
    assert_eq!(other.upstream().requests().len(), 0);
    assert_eq!(homeserver.count(USERINFO), 1);
}

#[tokio::test]
async fn the_case_of_a_name_is_kept() {
    let (app, homeserver) = started().await;
    let name = homeserver.name().replace("localhost", "LocalHost");
    let small = register(&app, &openid(&name)).await;
    homeserver.knows(OPENID, &format!("@alice:{name}"));

    let answer = register(&app, &openid(&name)).await;

    assert_eq!(
        small.refusal(),
        refusal(401, "M_UNAUTHORIZED"),
        "another server's user"
    );
    assert_eq!(user_of(&app, &answer).await, format!("@alice:{name}"));
}

#[tokio::test]
async fn bad_requests_get_the_identity_service_s_words_and_nobody_is_asked() {
    let (app, homeserver) = started().await;
    let name = homeserver.name();
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAMS"),
        (json!([]), "M_BAD_JSON"),
        (json!({ "access_token": OPENID }), "M_MISSING_PARAMS"),
        (json!({ "matrix_server_name": name }), "M_MISSING_PARAMS"),
        (
            json!({ "access_token": 1, "matrix_server_name": name }),
            "M_BAD_JSON",
        ),
        (
            json!({ "access_token": OPENID, "matrix_server_name": null }),
            "M_BAD_JSON",
        ),
        (
            json!({ "access_token": "", "matrix_server_name": name }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "access_token": "a b", "matrix_server_name": name }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "access_token": "a\r\nX: y", "matrix_server_name": name }),
            "M_INVALID_PARAM",
        ),
        (openid(""), "M_INVALID_PARAM"),
        (openid("https://example.org"), "M_INVALID_PARAM"),
        (openid(&format!("{name}/")), "M_INVALID_PARAM"),
        (openid(&format!("{name}#")), "M_INVALID_PARAM"),
        (openid(&format!("me@{name}")), "M_INVALID_PARAM"),
        (openid(&format!("{name}:1")), "M_INVALID_PARAM"),
        (openid(&format!(" {name}")), "M_INVALID_PARAM"),
        (openid("127.1"), "M_INVALID_PARAM"),
    ] {
        let answer = register(&app, &body).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{body}");
    }
    let form = app
        .post_text(REGISTER_HERE, format!("access_token={OPENID}"))
        .await;

    assert_eq!(form.refusal(), refusal(400, "M_NOT_JSON"));
    assert_eq!(homeserver.upstream().requests().len(), 0);
}

#[tokio::test]
async fn registrations_are_limited_before_a_homeserver_is_asked() {
    let homeserver = FederationServer::start().await;
    homeserver.knows(OPENID, &homeserver.user("alice"));
    let limits = limits::Settings {
        per_source_register: Rate::new(2, Duration::from_hours(1)),
        ..OFF
    };
    let app = asking(homeserver.outbound(), limits, |_| {});
    for _ in 0..2 {
        assert_eq!(register(&app, &openid(homeserver.name())).await.status, 200);
    }

    let third = register(&app, &openid(homeserver.name())).await;

    assert_eq!(third.refusal(), refusal(429, "M_LIMIT_EXCEEDED"));
    assert!(!third.header("retry-after").is_empty());
    assert_eq!(homeserver.count(USERINFO), 2);
}

#[tokio::test]
async fn one_source_waits_for_few_homeservers_at_a_time() {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let outbound = Outbound::default().with_resolver(never);
    let app = asking(outbound, limits::Settings::default(), |_| {});
    let post = |from: &'static str, name: &str| {
        let body = openid(name).to_string().into();
        let request = Request::post(REGISTER_HERE).body(body).expect("a request");
        Box::pin(app.send_from(from, request))
    };
    let names = [
        "a.example:8448",
        "b.example:8448",
        "c.example:8448",
        "d.example:8448",
    ];
    let mut hanging: Vec<_> = names
        .iter()
        .map(|name| post("192.0.2.1:4711", name))
        .collect();
    for registering in &mut hanging {
        assert!(futures_util::poll!(registering).is_pending());
    }

    let fifth = post("192.0.2.1:4711", "e.example:8448").await;
    let mut others = post("192.0.2.2:4711", "e.example:8448");
    let waits = futures_util::poll!(&mut others).is_pending();
    hanging.pop();
    let mut after_one_ended = post("192.0.2.1:4711", "e.example:8448");

    assert_eq!(fifth.refusal(), refusal(429, "M_LIMIT_EXCEEDED"));
    assert!(waits, "another source is not held up");
    assert!(futures_util::poll!(&mut after_one_ended).is_pending());
}

#[tokio::test]
async fn a_homeserver_s_token_is_none_here() {
    let (app, homeserver) = started().await;
    register(&app, &openid(homeserver.name())).await;

    let token = AccessToken::parse(OPENID).expect("a token");
    let answer = app.get_as(&token, "account").await;

    assert_eq!(answer.refusal(), refusal(401, "M_UNAUTHORIZED"));
}

#[tokio::test]
async fn users_of_a_homeserver_that_is_not_admitted_any_more_are_nobody() {
    let (app, homeserver) = started().await;
    let answer = register(&app, &openid(homeserver.name())).await;
    assert_eq!(user_of(&app, &answer).await, homeserver.user("alice"));
    let token = AccessToken::parse(answer.json()["token"].as_str().expect("a string"));
    let token = token.expect("a token");

    let app = app.restarted(|builder| {
        with_identity(builder, |settings| {
            settings.homeservers = vec!["example.org".parse().expect("a name")];
        })
    });

    for path in ["account", "hash_details"] {
        let refused = app.get_as(&token, path).await;
        assert_eq!(refused.refusal(), refusal(401, "M_UNAUTHORIZED"), "{path}");
    }
    let admitted = app.identity_token("@bob:example.org").await;
    assert_eq!(app.get_as(&admitted, "account").await.status, 200);
    let left = app.post_as(&token, "account/logout", &json!({})).await;
    assert_eq!(left.status, 200, "whoever has a token may end it");
}
