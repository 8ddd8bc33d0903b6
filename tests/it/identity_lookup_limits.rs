//! How much is looked up, and how many unknown access tokens are shown.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures_util::stream;
use serde_json::{Value, json};
use threepid::{limits, rate::Rate, secret::AccessToken};
use tokio::sync::mpsc;

use crate::support::app::*;

const DAY: Duration = Duration::from_hours(24);
const ALICE: &str = "@alice:example.org";

fn with(limits: limits::Settings, homeservers: &[&str]) -> TestApp {
    let named = homeservers.iter().map(|name| name.parse().expect("a name"));
    TestApp::with(|builder| {
        with_identity(builder.limits(limits), |settings| {
            settings.lookup_addresses = 20;
            settings.homeservers = named.collect();
        })
    })
}

/// Ten addresses for an account, fifteen for all of a homeserver, or of a source.
fn with_few(homeservers: &[&str]) -> TestApp {
    let limits = limits::Settings {
        lookups_per_account: Rate::new(10, DAY),
        lookups_per_homeserver: Rate::new(15, DAY),
        ..limits::Settings::OFF
    };
    with(limits, homeservers)
}

async fn pepper(app: &TestApp) -> Value {
    let token = app.identity_token("@pepper:example.org").await;
    app.get_as(&token, "hash_details").await.json()["lookup_pepper"].take()
}

fn request(token: &AccessToken, method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("{IDENTITY}/{path}"))
        .header("authorization", format!("Bearer {}", token.reveal()))
        .body(body.into())
        .expect("a request")
}

/// A lookup of so many addresses, from the source of this number.
async fn look_up(app: &TestApp, user_id: &str, from: u8, count: usize) -> Answer {
    let addresses = vec!["A".repeat(43); count];
    let body =
        json!({ "algorithm": "sha256", "pepper": pepper(app).await, "addresses": addresses });
    let token = app.identity_token(user_id).await;
    let request = request(&token, "POST", "lookup", body.to_string());
    app.send_from(&format!("192.0.2.{from}:4711"), request)
        .await
}

fn told(answer: &Answer) -> (u16, String) {
    let status = answer.status.as_u16();
    let errcode = if status == 200 {
        String::new()
    } else {
        answer.errcode()
    };
    (status, errcode)
}

fn assert_limited(answer: &Answer) {
    assert_eq!(told(answer), (429, "M_LIMIT_EXCEEDED".to_owned()));
    assert!(answer.json()["retry_after_ms"].is_u64());
}

#[tokio::test]
async fn ports_and_capitals_make_no_other_homeserver() {
    let app = with_few(&[]);
    assert_eq!(look_up(&app, "@a:example.com", 1, 10).await.status, 200);

    for (from, user_id) in ["@b:example.com:8448", "@c:EXAMPLE.com", "@d:example.com:1"]
        .into_iter()
        .enumerate()
    {
        let from = u8::try_from(from).unwrap() + 2;
        assert_limited(&look_up(&app, user_id, from, 6).await);
    }

    assert_eq!(look_up(&app, "@e:example.com:8448", 9, 5).await.status, 200);
}

#[tokio::test]
async fn a_homeserver_that_the_operator_names_shares_no_limit_of_lookups() {
    let app = with_few(&["example.com", "example.net", "example.org"]);

    for (number, from) in [1, 2, 3, 4].into_iter().enumerate() {
        let user_id = format!("@user{number}:example.com");
        assert_eq!(look_up(&app, &user_id, from, 10).await.status, 200);
    }

    assert_limited(&look_up(&app, "@user0:example.com", 5, 1).await);
    assert_eq!(look_up(&app, "@one:example.net", 6, 10).await.status, 200);
    assert_limited(&look_up(&app, "@two:example.net", 6, 10).await);
}

#[tokio::test]
async fn whoever_is_refused_for_another_s_sake_is_charged_nothing() {
    let app = with_few(&[]);
    assert_eq!(look_up(&app, "@a:example.com", 1, 10).await.status, 200);

    for _ in 0..3 {
        assert_limited(&look_up(&app, "@b:example.net", 1, 10).await);
        assert_limited(&look_up(&app, "@b:example.com", 2, 10).await);
        assert_limited(&look_up(&app, "@a:example.com", 2, 1).await);
    }

    assert_eq!(look_up(&app, "@b:example.net", 2, 10).await.status, 200);
    assert_eq!(look_up(&app, "@c:example.com", 3, 5).await.status, 200);
    assert_eq!(look_up(&app, "@d:example.net", 1, 5).await.status, 200);
}

#[tokio::test]
async fn a_lookup_costs_one_address_at_least_whatever_becomes_of_it() {
    let refusals = [
        ("M_INVALID_PEPPER", "pepper", json!("stale")),
        ("M_INVALID_PARAM", "algorithm", json!("md5")),
        ("M_TOO_LARGE", "addresses", json!(vec!["x"; 21])),
        ("", "addresses", json!([])),
    ];
    for (errcode, key, value) in refusals {
        let app = with_few(&[]);
        let token = app.identity_token(ALICE).await;
        let addresses = vec!["A".repeat(43); 8];
        let mut body = json!({
            "algorithm": "sha256", "pepper": pepper(&app).await, "addresses": addresses,
        });
        body[key] = value;

        for _ in 0..3 {
            let answer = app.post_as(&token, "lookup", &body).await;
            assert_eq!(told(&answer).1, errcode, "{}", answer.text);
        }

        assert_limited(&look_up(&app, ALICE, 1, 8).await);
        assert_eq!(look_up(&app, ALICE, 1, 7).await.status, 200, "{errcode}");
        assert_limited(&app.post_as(&token, "lookup", &body).await);
    }
}

/// A body that comes when it is told to; then its beginning was asked for.
fn slow_body(asked: mpsc::UnboundedSender<()>) -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (send, receive) = mpsc::unbounded_channel::<Bytes>();
    let parts = stream::unfold((receive, Some(asked)), |(mut receive, asked)| async move {
        if let Some(asked) = asked {
            asked.send(()).expect("somebody waits for it");
        }
        let part = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(part), (receive, None)))
    });
    (send, Body::from_stream(parts))
}

#[tokio::test]
async fn an_account_whose_bodies_do_not_come_has_a_few_read_at_a_time() {
    let limits = limits::Settings {
        lookups_per_account: Rate::new(100, DAY),
        ..limits::Settings::OFF
    };
    let app = with(limits, &[]);
    let token = app.identity_token(ALICE).await;
    let (asked, mut asking) = mpsc::unbounded_channel();
    let (mut bodies, mut held) = (Vec::new(), tokio::task::JoinSet::new());
    let app = std::sync::Arc::new(app);
    for _ in 0..4 {
        let (send, body) = slow_body(asked.clone());
        bodies.push(send);
        let (app, request) = (
            std::sync::Arc::clone(&app),
            request(&token, "POST", "lookup", body),
        );
        held.spawn(async move { app.send(request).await });
        asking.recv().await.expect("it is read");
    }

    let refused = look_up(&app, ALICE, 1, 1).await;
    let other = look_up(&app, "@other:example.org", 1, 1).await;
    drop(bodies.pop());
    let ended = held.join_next().await.expect("one ends").unwrap();
    let next = look_up(&app, ALICE, 1, 1).await;

    assert_limited(&refused);
    assert_eq!(other.status, 200, "{}", other.text);
    assert_eq!(told(&ended), (400, "M_NOT_JSON".to_owned()));
    assert_eq!(next.status, 200, "{}", next.text);
}

/// Three unknown tokens from one source in an hour.
fn with_few_tokens() -> TestApp {
    let limits = limits::Settings {
        per_source_submit: Rate::new(3, Duration::from_hours(1)),
        ..limits::Settings::OFF
    };
    with(limits, &[])
}

async fn show(
    app: &TestApp,
    from: u8,
    token: &AccessToken,
    (method, path): (&str, &str),
) -> Answer {
    let request = request(token, method, path, "{}");
    app.send_from(&format!("192.0.2.{from}:4711"), request)
        .await
}

const ENDPOINTS: [(&str, &str); 5] = [
    ("GET", "account"),
    ("POST", "account/logout"),
    ("POST", "terms"),
    ("GET", "hash_details"),
    ("POST", "lookup"),
];

#[tokio::test]
async fn a_source_shows_so_many_unknown_tokens_wherever() {
    for endpoint in ENDPOINTS {
        let app = with_few_tokens();
        let known = app.identity_token(ALICE).await;
        let guess = |number: u8| AccessToken::parse(&format!("guess{number}")).unwrap();

        for number in 0..3 {
            let answer = show(&app, 1, &guess(number), endpoint).await;
            assert_eq!(answer.status, 401, "{endpoint:?}");
        }

        for endpoint in ENDPOINTS {
            assert_limited(&show(&app, 1, &guess(3), endpoint).await);
        }
        let neighbour = show(&app, 1, &known, ("GET", "account")).await;
        assert_eq!(neighbour.status, 200, "{}", neighbour.text);
        assert_eq!(show(&app, 2, &guess(3), endpoint).await.status, 401);
        app.wait(Duration::from_hours(1));
        assert_eq!(show(&app, 1, &guess(3), endpoint).await.status, 401);
    }
}

#[tokio::test]
async fn a_client_whose_token_has_run_out_notices_nothing_but_that() {
    let app = with_few_tokens();
    let old = app.identity_token(ALICE).await;
    app.wait(30 * DAY);
    let known = app.identity_token(ALICE).await;

    for _ in 0..9 {
        for endpoint in [("GET", "account"), ("GET", "hash_details")] {
            assert_eq!(show(&app, 1, &known, endpoint).await.status, 200);
        }
    }
    let expired = show(&app, 1, &old, ("GET", "account")).await;
    let missing = app.get(&format!("{IDENTITY}/account"), &[]).await;

    assert_eq!(told(&expired), (401, "M_UNAUTHORIZED".to_owned()));
    assert_eq!(told(&missing), (401, "M_UNAUTHORIZED".to_owned()));
    assert_eq!(show(&app, 1, &known, ("GET", "account")).await.status, 200);
}

#[tokio::test]
async fn unknown_tokens_cost_a_source_none_of_its_codes_and_codes_none_of_its_tokens() {
    let app = with_few_tokens();
    let known = app.identity_token(ALICE).await;
    let sign = json!({ "mxid": ALICE, "token": "t", "private_key": "A".repeat(43) });
    let sign = sign.to_string();
    let signs = async |from: &str| {
        let request = request(&known, "POST", "sign-ed25519", sign.clone());
        app.send_from(from, request).await.status.as_u16()
    };
    let guess = AccessToken::parse("guess").unwrap();
    for _ in 0..2 {
        show(&app, 1, &guess, ("GET", "account")).await;
    }

    let signed = [(); 3].map(|()| signs("192.0.2.1:4711"));
    let signed = futures_util::future::join_all(signed).await;

    assert_eq!(signed, [404, 404, 404]);
    assert_eq!(show(&app, 1, &guess, ("GET", "account")).await.status, 401);
}
