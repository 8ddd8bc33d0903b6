//! Homeservers over federation: whose a token is, which keys they sign with, and that they are told of associations.

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use futures_util::future::join_all;
use serde_json::{Value, json};
use threepid::{
    Error,
    clock::{Clock, ManualClock, Timestamp},
    federation::{Federation, Told},
    outbound::{Outbound, Resolve, Settings},
    secret::AccessToken,
    server_name::ServerName,
};

use crate::support::{
    certificates::Certified,
    federation::{Destination, FederationServer, KEYS, Key, POST_ONBIND, PUT_ONBIND, USERINFO},
    upstream::{Answer, Upstream},
};

const START: Timestamp = Timestamp(1_795_341_600_000);
const MINUTE: Duration = Duration::from_mins(1);
/// The limit of a call where a time-out is the subject of the test.
const SHORT: Duration = Duration::from_millis(300);

fn federation(outbound: Outbound) -> (Federation, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START));
    let same: Arc<dyn Clock> = Arc::clone(&clock) as _;
    (Federation::new(outbound, same), clock)
}

/// A homeserver, and who asks it.
async fn started() -> (FederationServer, Federation, Arc<ManualClock>) {
    let homeserver = FederationServer::start().await;
    let (federation, clock) = federation(homeserver.outbound());
    (homeserver, federation, clock)
}

/// Changes what a homeserver publishes of its keys.
type Change<'a> = &'a dyn Fn(&FederationServer, &mut Value);

fn token() -> AccessToken {
    AccessToken::parse("t0ken-of-alice").expect("it is a token")
}

fn server(name: &str) -> ServerName {
    name.parse().expect("it is a server's name")
}

fn cause<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::FederationFailed(cause)) => cause,
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_stands_for_a_user_of_its_homeserver() {
    let by_name = FederationServer::start().await;
    let by_address = FederationServer::start_by_address().await;
    let local = (Ipv6Addr::LOCALHOST, 0).into();
    let upstream = Upstream::start_at(local, Certified::Localhost).await;
    let name = format!("[::1]:{}", upstream.port());
    let by_ipv6 = FederationServer::around(upstream, name);
    for homeserver in [by_name, by_address, by_ipv6] {
        homeserver.knows("t0ken-of-alice", &homeserver.user("alice"));
        let (federation, _) = federation(homeserver.outbound());

        let user = federation
            .userinfo(&homeserver.server_name(), &token())
            .await;

        assert_eq!(user, Ok(homeserver.user("alice")));
        let [request] = &homeserver.requests(USERINFO)[..] else {
            panic!("one request")
        };
        assert_eq!(request.header("host"), Some(homeserver.name()));
        assert_eq!(request.header("authorization"), None);
        assert_eq!(homeserver.upstream().requests().len(), 1);
    }
}

#[tokio::test]
async fn a_token_is_escaped() {
    let (homeserver, federation, _) = started().await;
    let odd = AccessToken::parse("a+b&c=d/e%20#f?g~-._\"").unwrap();

    let user = federation.userinfo(&homeserver.server_name(), &odd).await;

    assert_eq!(user, Err(Error::OpenIdRefused));
    let query = &homeserver.requests(USERINFO)[0].query;
    assert_eq!(query, "access_token=a%2Bb%26c%3Dd%2Fe%2520%23f%3Fg~-._%22");
}

#[tokio::test]
async fn the_user_of_another_homeserver_is_nobody() {
    let (homeserver, federation, _) = started().await;
    for sub in [
        "@alice:localhost".to_owned(),
        format!("@alice:{}", homeserver.port()),
        format!("@alice:evil:{}", homeserver.name()),
        format!("@alice:evil.{}", homeserver.name()),
        format!("@alice:{}0", homeserver.name()),
        format!("@alice:{}", homeserver.name().to_uppercase()),
        format!("alice:{}", homeserver.name()),
        homeserver.name().to_owned(),
        String::new(),
    ] {
        homeserver.knows("t0ken-of-alice", &sub);

        let user = federation
            .userinfo(&homeserver.server_name(), &token())
            .await;

        assert_eq!(user, Err(Error::OpenIdRefused), "{sub}");
    }
}

#[tokio::test]
async fn what_a_homeserver_answers_wrongly_is_told_without_the_token() {
    let (homeserver, federation, _) = started().await;
    let good = json!({ "sub": homeserver.user("alice") });
    let elsewhere = format!("https://{}/elsewhere", homeserver.name());
    for answer in [
        Answer::new(200, "text/html", "<p>t0ken-of-alice</p>"),
        Answer::json(200, json!({ "errcode": "M_UNKNOWN_TOKEN" })),
        Answer::json(200, json!([])),
        Answer::json(404, good.clone()),
        Answer::json(500, good.clone()),
        Answer::json(302, good.clone()).header("Location", &elsewhere),
        Answer::json(200, good.clone()).header("Content-Length", "104857600"),
        Answer::new(200, "application/json", vec![b' '; 65537]),
        Answer::new(200, "application/json", vec![b' '; 4096]).endless(),
        Answer::closing(),
    ] {
        homeserver.answer(USERINFO, answer);

        let user = federation
            .userinfo(&homeserver.server_name(), &token())
            .await;

        let told = cause(user);
        assert!(told.starts_with(homeserver.name()), "{told}");
        assert!(!told.contains("t0ken"), "{told}");
    }
    // What it calls its JSON is no matter.
    homeserver.answer(USERINFO, Answer::new(200, "text/plain", good.to_string()));
    let user = federation
        .userinfo(&homeserver.server_name(), &token())
        .await;
    assert_eq!(user, Ok(homeserver.user("alice")));
}

#[tokio::test]
async fn a_slow_homeserver_does_not_hold_a_call() {
    let homeserver = FederationServer::start().await;
    let outbound = Outbound::new(Settings {
        timeout: SHORT,
        ..homeserver.settings()
    });
    let (federation, _) = federation(outbound.unwrap());
    for slow in [
        Answer::json(200, json!({})).after(MINUTE),
        Answer::json(200, json!({})).dripping(MINUTE),
    ] {
        homeserver.answer(USERINFO, slow.clone());
        homeserver.answer(POST_ONBIND, slow);

        let user = federation
            .userinfo(&homeserver.server_name(), &token())
            .await;
        let told = federation
            .onbind(&homeserver.server_name(), b"{}".to_vec())
            .await;

        assert!(matches!(user, Err(Error::FederationTimeout(_))), "{user:?}");
        assert!(matches!(told, Told::NotNow(_)), "{told:?}");
    }
}

#[tokio::test]
async fn homeservers_that_hang_keep_a_bounded_number_of_calls() {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let (federation, _) = federation(Outbound::default().with_resolver(never));
    let (server, token) = (server("hs.example:8448"), token());
    let others: Vec<_> = (0..56)
        .map(|number| format!("hs{number}.example:8448").parse().unwrap())
        .collect();
    let mut hanging: Vec<_> = std::iter::repeat_n(&server, 8)
        .chain(&others)
        .map(|name| Box::pin(federation.userinfo(name, &token)))
        .collect();
    for call in &mut hanging {
        assert!(futures_util::poll!(call).is_pending());
    }

    let user = federation.userinfo(&server, &token).await;
    let mut fetching = Box::pin(federation.public_key(&server, "ed25519:1"));
    let fetches_meanwhile = futures_util::poll!(&mut fetching).is_pending();
    let mut telling = Box::pin(federation.onbind(&server, b"{}".to_vec()));
    let tells_meanwhile = futures_util::poll!(&mut telling).is_pending();
    hanging.clear();
    let mut after = Box::pin(federation.userinfo(&server, &token));

    assert!(matches!(user, Err(Error::Unavailable(_))), "{user:?}");
    assert!(fetches_meanwhile, "keys are asked for by others");
    assert!(tells_meanwhile, "what strangers keep busy is not missed");
    assert!(futures_util::poll!(&mut after).is_pending());
}

#[tokio::test]
async fn a_homeserver_that_hangs_does_not_keep_others_from_being_asked() {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let (federation, _) = federation(Outbound::default().with_resolver(never));
    let (slow, other, token) = (
        server("slow.example:8448"),
        server("b.example:8448"),
        token(),
    );
    let mut hanging: Vec<_> = (0..8)
        .map(|_| Box::pin(federation.userinfo(&slow, &token)))
        .collect();
    for call in &mut hanging {
        assert!(futures_util::poll!(call).is_pending());
    }

    let beyond = federation.userinfo(&slow, &token).await;
    let mut of_another = Box::pin(federation.userinfo(&other, &token));

    assert!(matches!(beyond, Err(Error::Unavailable(_))), "{beyond:?}");
    assert!(futures_util::poll!(&mut of_another).is_pending());
}

#[tokio::test]
async fn a_key_is_fetched_once_and_kept() {
    let (homeserver, federation, clock) = started().await;
    let name = homeserver.server_name();

    let callers = (0..20).map(|_| federation.public_key(&name, "ed25519:1"));
    let keys = join_all(callers).await;
    clock.advance(MINUTE * (7 * 24 * 60 - 1));
    let later = federation.public_key(&name, "ed25519:1").await;
    let fetched_by_then = homeserver.count(KEYS);
    clock.advance(MINUTE);
    let after_a_week = federation.public_key(&name, "ed25519:1").await;

    let expected = Ok(homeserver.key().public().try_into().ok());
    assert!(
        keys.iter()
            .chain([&later, &after_a_week])
            .all(|key| *key == expected)
    );
    assert_eq!((fetched_by_then, homeserver.count(KEYS)), (1, 2));
}

#[tokio::test]
async fn a_key_is_not_used_beyond_its_time() {
    let (homeserver, federation, clock) = started().await;
    let name = homeserver.server_name();
    let mut keys = homeserver.keys();
    keys["valid_until_ts"] = json!(START.0 + 3_600_000);
    homeserver.publish(keys);

    let in_time = federation.public_key(&name, "ed25519:1").await;
    clock.advance(MINUTE * 60);
    let late = federation.public_key(&name, "ed25519:1").await;
    let again = federation.public_key(&name, "ed25519:1").await;

    assert!(in_time.unwrap().is_some());
    assert_eq!((late, again), (Ok(None), Ok(None)));
    assert_eq!(homeserver.count(KEYS), 2);
}

#[tokio::test]
async fn only_a_key_that_signed_what_it_stands_in_is_one() {
    let (other, another) = (Key::new("ed25519:1"), Key::new("ed25519:2"));
    let changes: [(&str, Change<'_>); 8] = [
        ("no signature", &|_, keys| {
            keys["signatures"] = json!({});
        }),
        ("a broken signature", &|hs, keys| {
            keys["signatures"][hs.name()]["ed25519:1"] = json!(STANDARD_NO_PAD.encode([7; 64]));
        }),
        ("another key's signature under this name", &|hs, keys| {
            other.sign(hs.name(), keys);
        }),
        ("signed by another key alone", &|hs, keys| {
            keys["signatures"] = json!({});
            another.sign(hs.name(), keys);
        }),
        ("signed in another's name", &|hs, keys| {
            keys["signatures"] = json!({});
            hs.key().sign("evil.example", keys);
        }),
        ("changed after it was signed", &|_, keys| {
            keys["valid_until_ts"] = json!(START.0 + 1000);
        }),
        ("another key put in", &|_, keys| {
            keys["verify_keys"]["ed25519:1"]["key"] = json!(other.public_base64());
        }),
        ("an old key", &|hs, keys| {
            keys["old_verify_keys"] = keys["verify_keys"].take();
            keys["verify_keys"] = json!({ "ed25519:2": { "key": another.public_base64() } });
            hs.key().sign(hs.name(), keys);
            another.sign(hs.name(), keys);
        }),
    ];
    for (what, change) in changes {
        let (homeserver, federation, _) = started().await;
        let mut keys = homeserver.keys();
        homeserver.key().sign(homeserver.name(), &mut keys);
        change(&homeserver, &mut keys);
        homeserver.answer(KEYS, Answer::json(200, keys));

        let key = federation
            .public_key(&homeserver.server_name(), "ed25519:1")
            .await;

        assert_eq!(key, Ok(None), "{what}");
    }
}

#[tokio::test]
async fn keys_of_other_kinds_are_not_asked_for() {
    let (homeserver, federation, _) = started().await;
    for id in ["", "1", "ed25519", "rsa:1", "ED25519:1"] {
        let key = federation.public_key(&homeserver.server_name(), id).await;
        assert_eq!(key, Ok(None));
    }
    assert_eq!(homeserver.upstream().connections(), 0);
}

#[tokio::test]
async fn an_answer_that_holds_no_keys_is_a_failure() {
    let (homeserver, federation, clock) = started().await;
    let with = |field: &str, value: Value| {
        let mut keys = homeserver.keys();
        keys[field] = value;
        homeserver.key().sign(homeserver.name(), &mut keys);
        Answer::json(200, keys)
    };
    let many = (0..17).map(|number| (format!("ed25519:{number}"), json!({ "key": "" })));
    for answer in [
        with("server_name", json!("evil.example")),
        with("server_name", json!(homeserver.name().to_uppercase())),
        with("server_name", json!(null)),
        with("valid_until_ts", json!("4000000000000")),
        with("valid_until_ts", json!(null)),
        with("verify_keys", json!([])),
        with("verify_keys", Value::Object(many.collect())),
        Answer::json(200, json!({ "errcode": "M_UNKNOWN" })),
        Answer::json(200, json!([])),
        Answer::new(200, "text/html", "<html>"),
        Answer::new(200, "application/json", vec![b' '; 65537]),
        Answer::error(404, "M_NOT_FOUND"),
        Answer::json(500, homeserver.keys()),
        Answer::closing(),
    ] {
        clock.advance(MINUTE);
        homeserver.answer(KEYS, answer.clone());

        let key = federation
            .public_key(&homeserver.server_name(), "ed25519:1")
            .await;

        let told = cause(key);
        assert!(told.starts_with(homeserver.name()), "{told} {answer:?}");
    }
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while() {
    let (homeserver, federation, clock) = started().await;
    homeserver.answer(KEYS, Answer::error(500, "M_UNKNOWN"));
    let name = homeserver.server_name();

    let callers = (0..10).map(|_| federation.public_key(&name, "ed25519:1"));
    let failed = join_all(callers).await;
    let asked = homeserver.count(KEYS);
    homeserver.publish(homeserver.keys());
    clock.advance(Duration::from_secs(30));
    let recovered = federation.public_key(&name, "ed25519:1").await;

    assert!(
        failed
            .iter()
            .all(|key| matches!(key, Err(Error::FederationFailed(_))))
    );
    assert_eq!(asked, 1);
    assert!(recovered.unwrap().is_some());
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_a_minute() {
    let (homeserver, federation, clock) = started().await;
    let name = homeserver.server_name();
    let new = Key::new("ed25519:new");
    assert!(
        federation
            .public_key(&name, "ed25519:1")
            .await
            .unwrap()
            .is_some()
    );

    let mut early = Vec::new();
    for number in 0..10 {
        let forged = format!("ed25519:forged{number}");
        early.push(federation.public_key(&name, &forged).await);
    }
    let mut keys = homeserver.keys();
    keys["verify_keys"]["ed25519:new"] = json!({ "key": new.public_base64() });
    new.sign(homeserver.name(), &mut keys);
    homeserver.publish(keys);
    early.push(federation.public_key(&name, "ed25519:new").await);
    let asked = homeserver.count(KEYS);
    clock.advance(MINUTE);
    let found = federation.public_key(&name, "ed25519:new").await;

    assert!(early.iter().all(|key| *key == Ok(None)));
    assert_eq!(asked, 2);
    assert_eq!(found, Ok(new.public().try_into().ok()));
}

#[tokio::test]
async fn a_key_that_a_homeserver_has_just_changed_to_is_found_at_once() {
    let (homeserver, federation, _) = started().await;
    let name = homeserver.server_name();
    for number in 1..=3 {
        let new = Key::new(&format!("ed25519:new{number}"));
        let mut keys = homeserver.keys();
        keys["verify_keys"][&new.id] = json!({ "key": new.public_base64() });
        new.sign(homeserver.name(), &mut keys);
        homeserver.publish(keys);

        let found = federation.public_key(&name, &new.id).await;

        assert_eq!(found, Ok(new.public().try_into().ok()));
        assert_eq!(homeserver.count(KEYS), number);
    }
}

#[tokio::test]
async fn a_forged_key_id_does_away_with_no_key() {
    let (homeserver, federation, clock) = started().await;
    let name = homeserver.server_name();
    assert!(
        federation
            .public_key(&name, "ed25519:1")
            .await
            .unwrap()
            .is_some()
    );
    homeserver.answer(KEYS, Answer::error(503, "M_UNKNOWN"));
    clock.advance(MINUTE);

    let forged = federation.public_key(&name, "ed25519:forged").await;
    let again = federation.public_key(&name, "ed25519:forged").await;
    let genuine = federation.public_key(&name, "ed25519:1").await;

    assert!(forged.is_err());
    assert_eq!(again, Ok(None));
    assert!(genuine.unwrap().is_some());
    assert_eq!(homeserver.count(KEYS), 2);
}

#[tokio::test]
async fn a_request_of_the_homeserver_s_is_signed_with_the_key_that_it_publishes() {
    let (homeserver, federation, _) = started().await;
    let content = json!({ "mxid": homeserver.user("alice") });
    let key = federation
        .public_key(&homeserver.server_name(), "ed25519:1")
        .await;
    let key = UnparsedPublicKey::new(&ED25519, key.unwrap().unwrap());
    for (field, to) in [
        ("destination", Destination::Destination("id.example")),
        ("destination_is", Destination::DestinationIs("id.example")),
    ] {
        let header = homeserver.authorization(("POST", "/x?y"), &content, to);

        let signed = json!({
            "content": content, field: "id.example", "method": "POST",
            "origin": homeserver.name(), "uri": "/x?y",
        });
        let signature = header.split("sig=\"").nth(1).unwrap().trim_end_matches('"');
        let signature = STANDARD_NO_PAD.decode(signature).unwrap();
        assert!(
            key.verify(signed.to_string().as_bytes(), &signature)
                .is_ok()
        );
    }
}

#[tokio::test]
async fn a_homeserver_is_told_of_an_association() {
    let (homeserver, federation, _) = started().await;
    let body = br#"{"medium":"email"}"#.to_vec();

    let told = federation
        .onbind(&homeserver.server_name(), body.clone())
        .await;

    assert_eq!(told, Told::Yes);
    let [request] = &homeserver.requests(POST_ONBIND)[..] else {
        panic!("one request")
    };
    assert_eq!(request.body, body);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(homeserver.count(PUT_ONBIND), 0);
}

#[tokio::test]
async fn a_homeserver_that_takes_no_post_is_told_by_put() {
    let (homeserver, federation, _) = started().await;
    homeserver.answer(PUT_ONBIND, Answer::json(200, json!({})));
    for refused in [
        Answer::error(404, "M_UNRECOGNIZED"),
        Answer::new(404, "text/html", "<html>"),
        Answer::new(405, "text/html", ""),
        Answer::error(400, "M_UNRECOGNIZED"),
    ] {
        homeserver.answer(POST_ONBIND, refused);

        let told = federation
            .onbind(&homeserver.server_name(), b"{}".to_vec())
            .await;

        assert_eq!(told, Told::Yes);
    }
    assert_eq!(homeserver.requests(PUT_ONBIND)[3].body, b"{}");
}

#[tokio::test]
async fn what_a_homeserver_answers_says_whether_to_try_again() {
    let (homeserver, federation, _) = started().await;
    for (status, tries_again) in [
        (302, true),
        (408, true),
        (429, true),
        (500, true),
        (502, true),
        (503, true),
        (400, false),
        (401, false),
        (403, false),
        (410, false),
        (404, false),
        (405, false),
    ] {
        homeserver.answer(POST_ONBIND, Answer::error(status, "M_UNKNOWN"));

        let told = federation
            .onbind(&homeserver.server_name(), b"{}".to_vec())
            .await;

        match told {
            Told::NotNow(_) => assert!(tries_again, "{status}"),
            Told::Refused(_) => assert!(!tries_again, "{status}"),
            Told::Yes => panic!("{status} is no success"),
        }
    }
    homeserver.answer(POST_ONBIND, Answer::new(204, "text/plain", ""));
    let told = federation
        .onbind(&homeserver.server_name(), b"{}".to_vec())
        .await;
    assert_eq!(told, Told::Yes);
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_is_told_later() {
    let (homeserver, federation, _) = started().await;
    homeserver.answer(POST_ONBIND, Answer::closing());

    let broken = federation
        .onbind(&homeserver.server_name(), b"{}".to_vec())
        .await;
    let forbidden = federation.onbind(&server("10.0.0.5"), b"{}".to_vec()).await;

    assert!(matches!(broken, Told::NotNow(_)));
    let Told::NotNow(cause) = forbidden else {
        panic!("it was told")
    };
    assert!(cause.contains("not a public address"), "{cause}");
}

#[tokio::test]
async fn a_key_with_too_long_a_name_is_none() {
    let (hs, federation, _) = started().await;
    let longest = Key::new(&format!("ed25519:{}", "a".repeat(247)));
    let longer = Key::new(&format!("ed25519:{}", "a".repeat(248)));
    let mut keys = hs.keys();
    for key in [&longest, &longer] {
        keys["verify_keys"][&key.id] = json!({ "key": key.public_base64() });
    }
    for key in [&longest, &longer] {
        key.sign(hs.name(), &mut keys);
    }
    hs.publish(keys);

    let of_longer = federation.public_key(&hs.server_name(), &longer.id).await;
    let asked = hs.count(KEYS);
    let of_longest = federation.public_key(&hs.server_name(), &longest.id).await;

    assert_eq!((of_longer, asked), (Ok(None), 0));
    assert!(matches!(of_longest, Ok(Some(_))), "{of_longest:?}");
}
