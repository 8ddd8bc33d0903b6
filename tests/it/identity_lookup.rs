//! Who is found by which address: `hash_details` and `lookup`.

use std::time::Duration;

use axum::http::Request;
use serde_json::{Value, json};
use threepid::{
    Error, clock::Timestamp, limits, rate::Rate, secret::AccessToken, store::Associations,
    threepid::Threepid,
};

use crate::support::{app::*, identity::lookup_hash};

const DAY: Duration = Duration::from_hours(24);

/// An identity server, and somebody who asks it.
struct Asking {
    app: TestApp,
    token: AccessToken,
}

impl Asking {
    async fn new() -> Self {
        Self::of(TestApp::identity(|_| {})).await
    }

    async fn plain() -> Self {
        Self::of(TestApp::identity(|settings| settings.plain_lookups = true)).await
    }

    async fn of(app: TestApp) -> Self {
        let token = app.identity_token("@asks:example.org").await;
        Self { app, token }
    }

    async fn associate(&self, address: &str, user_id: &str) {
        let address = threepid(address);
        let done = self.app.threepid.associate(user_id, &address);
        done.await.expect("the store answers");
    }

    async fn details(&self) -> Value {
        let answer = self.app.get_as(&self.token, "hash_details").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    async fn pepper(&self) -> String {
        let pepper = &self.details().await["lookup_pepper"];
        pepper.as_str().expect("a pepper").to_owned()
    }

    async fn look_up(&self, body: &Value) -> Answer {
        self.app.post_as(&self.token, "lookup", body).await
    }

    /// Looks addresses up by their hashes; whose they are, in the same order.
    async fn owners(&self, addresses: &[&str]) -> Vec<Value> {
        let pepper = self.pepper().await;
        let hashes: Vec<_> = addresses.iter().map(|one| hash(one, &pepper)).collect();
        let answer = self.look_up(&hashed(&pepper, &hashes)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let mappings = answer.json()["mappings"].take();
        let count = mappings.as_object().expect("a map").len();
        let owners: Vec<_> = hashes.iter().map(|hash| mappings[hash].clone()).collect();
        assert_eq!(count, owners.iter().filter(|one| !one.is_null()).count());
        owners
    }
}

fn threepid(address: &str) -> Threepid {
    if address.contains('@') {
        Threepid::email(address).expect("an address")
    } else {
        Threepid::msisdn("GB", address).expect("a number")
    }
}

fn hash(address: &str, pepper: &str) -> String {
    let medium = if address.contains('@') {
        "email"
    } else {
        "msisdn"
    };
    lookup_hash(address, medium, pepper)
}

fn hashed(pepper: &str, hashes: &[String]) -> Value {
    json!({ "algorithm": "sha256", "pepper": pepper, "addresses": hashes })
}

#[tokio::test]
async fn hash_details_are_the_same_for_all_and_need_a_token() {
    let asking = Asking::new().await;
    let other = asking.app.identity_token("@other:example.org").await;

    let details = asking.details().await;
    let others = asking.app.get_as(&other, "hash_details").await;
    let nobodys = asking
        .app
        .get(&format!("{IDENTITY}/hash_details"), &[])
        .await;

    assert_eq!(details["algorithms"], json!(["sha256"]));
    let pepper = details["lookup_pepper"].as_str().unwrap();
    assert!(!pepper.is_empty() && pepper.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(others.json(), details);
    assert_eq!(nobodys.refusal(), refusal(401, "M_UNAUTHORIZED"));
}

#[tokio::test]
async fn addresses_are_found_by_their_hashes() {
    let asking = Asking::new().await;
    asking
        .associate("Alice@Example.ORG", "@alice:example.org")
        .await;
    asking.associate("07700900001", "@bob:example.org").await;

    let owners = asking
        .owners(&["alice@example.org", "447700900001", "carol@example.org"])
        .await;

    assert_eq!(
        owners,
        [
            json!("@alice:example.org"),
            json!("@bob:example.org"),
            Value::Null
        ]
    );
}

#[tokio::test]
async fn an_address_that_moves_or_ends_is_found_so() {
    let asking = Asking::new().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    asking
        .associate("alice@example.org", "@new:example.org")
        .await;
    let alice = ["alice@example.org"];
    assert_eq!(asking.owners(&alice).await, [json!("@new:example.org")]);

    let address = threepid("alice@example.org");
    let dissociate = |user_id| asking.app.threepid.dissociate(user_id, &address);
    assert!(!dissociate("@alice:example.org").await.unwrap());
    assert_eq!(asking.owners(&alice).await, [json!("@new:example.org")]);
    assert!(dissociate("@new:example.org").await.unwrap());

    assert_eq!(asking.owners(&alice).await, [Value::Null]);
}

#[tokio::test]
async fn addresses_are_compared_as_given_and_what_is_no_hash_is_nobodys() {
    let asking = Asking::new().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let pepper = asking.pepper().await;
    let good = hash("alice@example.org", &pepper);
    let asked = [
        good.clone(),
        good.clone(),
        format!("{good}="),
        good.to_lowercase(),
        hash("Alice@example.org", &pepper),
        "alice@example.org email".to_owned(),
        String::new(),
        "\0 💩".to_owned(),
    ];

    let answer = asking.look_up(&hashed(&pepper, &asked)).await;

    assert_eq!(
        answer.json(),
        json!({ "mappings": { good: "@alice:example.org" } })
    );
}

#[tokio::test]
async fn nothing_asked_is_nothing_found() {
    let asking = Asking::new().await;
    let pepper = asking.pepper().await;

    let answer = asking.look_up(&hashed(&pepper, &[])).await;

    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({ "mappings": {} }))
    );
}

#[tokio::test]
async fn addresses_in_clear_are_looked_up_only_where_that_is_configured() {
    let asked = json!([
        "alice@example.org email",
        "447700900001 msisdn",
        "alice@example.org"
    ]);
    let (hashing, plain) = (Asking::new().await, Asking::plain().await);
    for asking in [&hashing, &plain] {
        asking
            .associate("alice@example.org", "@alice:example.org")
            .await;
        asking.associate("07700900001", "@bob:example.org").await;
    }

    let body = |pepper| json!({ "algorithm": "none", "pepper": pepper, "addresses": asked });
    let refused = hashing.look_up(&body(hashing.pepper().await)).await;
    let answer = plain.look_up(&body(plain.pepper().await)).await;

    assert_eq!(refused.refusal(), refusal(400, "M_INVALID_PARAM"));
    assert_eq!(
        plain.details().await["algorithms"],
        json!(["sha256", "none"])
    );
    let mappings = json!({
        "alice@example.org email": "@alice:example.org",
        "447700900001 msisdn": "@bob:example.org",
    });
    assert_eq!(answer.json(), json!({ "mappings": mappings }));
}

#[tokio::test]
async fn odd_addresses_in_clear_are_nobodys() {
    let asking = Asking::plain().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let asked = json!([
        "alice@example.org  email",
        "Alice@example.org email",
        "alice@example.org EMAIL",
        "alice@example.org email ",
        "email",
        " email",
        "",
        "alice@example.org\u{0} email",
        "alice@example.org m.email",
        "alice@example.org msisdn",
    ]);

    let pepper = asking.pepper().await;
    let body = json!({ "algorithm": "none", "pepper": pepper, "addresses": asked });
    let answer = asking.look_up(&body).await;

    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({ "mappings": {} }))
    );
}

#[tokio::test]
async fn another_pepper_is_answered_with_the_current_one() {
    let asking = Asking::plain().await;
    let pepper = asking.pepper().await;
    for algorithm in ["sha256", "none"] {
        for wrong in ["", "matrixrocks", "ä"] {
            let body = json!({ "algorithm": algorithm, "pepper": wrong, "addresses": [] });

            let answer = asking.look_up(&body).await;

            assert_eq!(answer.refusal(), refusal(400, "M_INVALID_PEPPER"));
            assert_eq!(answer.json()["algorithm"], algorithm);
            assert_eq!(answer.json()["lookup_pepper"], pepper.as_str());
        }
    }
}

#[tokio::test]
async fn an_unknown_algorithm_is_refused_without_telling_the_pepper() {
    let asking = Asking::new().await;
    for algorithm in ["sha512", "SHA256", ""] {
        let body = json!({ "algorithm": algorithm, "pepper": "x", "addresses": [] });

        let answer = asking.look_up(&body).await;

        assert_eq!(answer.refusal(), refusal(400, "M_INVALID_PARAM"));
        assert_eq!(answer.json()["lookup_pepper"], Value::Null);
    }
}

#[tokio::test]
async fn a_lookup_of_another_shape_is_refused() {
    let asking = Asking::new().await;
    let pepper = asking.pepper().await;
    let good = hashed(&pepper, &[]);
    for key in ["algorithm", "pepper", "addresses"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(key);
        let answer = asking.look_up(&body).await;
        assert_eq!(answer.refusal(), refusal(400, "M_MISSING_PARAMS"));
        for wrong in [
            json!(null),
            json!(1),
            json!({}),
            json!([1]),
            json!(["a", null]),
        ] {
            body[key] = wrong;
            let answer = asking.look_up(&body).await;
            assert_eq!(answer.refusal(), refusal(400, "M_BAD_JSON"), "{body}");
        }
    }
}

#[tokio::test]
async fn too_many_addresses_are_refused_and_the_most_are_answered() {
    let asking = Asking::new().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let pepper = asking.pepper().await;
    let mut asked: Vec<_> = (1..10_000)
        .map(|n| hash(&format!("{n}@example.org"), &pepper))
        .collect();
    asked.push(hash("alice@example.org", &pepper));

    let most = asking.look_up(&hashed(&pepper, &asked)).await;
    asked.push(hash("bob@example.org", &pepper));
    let more = asking.look_up(&hashed(&pepper, &asked)).await;

    assert_eq!(
        most.json()["mappings"]
            .as_object()
            .map(serde_json::Map::len),
        Some(1),
        "{}",
        most.text
    );
    assert_eq!(more.refusal(), refusal(400, "M_TOO_LARGE"));
}

#[tokio::test]
async fn whoever_is_refused_a_large_lookup_is_told_why() {
    let asking = Asking::new().await;
    let body = json!({ "padding": "x".repeat(900_000) }).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{IDENTITY}/lookup", listener.local_addr().unwrap());
    let router = asking.app.threepid.router();
    let served = tokio::spawn(async move { axum::serve(listener, router).await });

    for _ in 0..20 {
        // A connection of its own each time.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(&url).bearer_auth("nobody").body(body.clone());
        let answer = answer.send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
    }
    served.abort();
}

#[tokio::test]
async fn a_lookup_may_be_larger_than_other_requests_but_not_without_a_token() {
    let asking = Asking::new().await;
    let body = |bytes: usize| json!({ "padding": "x".repeat(bytes) });
    let stranger = AccessToken::parse("nobody").unwrap();

    let missing = asking.look_up(&body(1_000_000)).await;
    let large = asking.look_up(&body(1_100_000)).await;
    let other = asking
        .app
        .post_as(&stranger, "lookup", &body(1_100_000))
        .await;
    let elsewhere = asking.app.post(REGISTER, &body(70_000)).await;

    assert_eq!(missing.refusal(), refusal(400, "M_MISSING_PARAMS"));
    assert_eq!(large.refusal(), refusal(413, "M_TOO_LARGE"));
    assert!(large.text.contains("1024 KiB"), "{}", large.text);
    assert_eq!(other.status, 401);
    assert_eq!(elsewhere.status, 413);
    assert!(elsewhere.text.contains("64 KiB"), "{}", elsewhere.text);
}

#[tokio::test]
async fn an_account_looks_up_so_many_addresses_and_others_are_not_held_up() {
    let limits = limits::Settings {
        lookups_per_account: Rate::new(10, DAY),
        ..limits::Settings::OFF
    };
    let app = TestApp::with(|builder| with_identity(builder.limits(limits), |_| {}));
    let asking = Asking::of(app).await;
    let pepper = asking.pepper().await;
    let of = |count| hashed(&pepper, &vec!["A".repeat(43); count]);

    let stale = asking
        .look_up(&hashed("stale", &vec![String::new(); 9]))
        .await;
    let first = asking.look_up(&of(8)).await;
    let second = asking.look_up(&of(3)).await;
    let other = asking.app.identity_token("@other:example.org").await;
    let others = asking.app.post_as(&other, "lookup", &of(3)).await;

    assert_eq!(stale.errcode(), "M_INVALID_PEPPER", "and costs one");
    assert_eq!(first.status, 200);
    assert_eq!(second.refusal(), refusal(429, "M_LIMIT_EXCEEDED"));
    assert!(second.json()["retry_after_ms"].is_u64());
    assert_eq!(others.status, 200);
    asking.app.wait(DAY);
    assert_eq!(asking.look_up(&of(3)).await.status, 200);
}

#[tokio::test]
async fn accounts_of_one_homeserver_look_up_only_so_much_together() {
    let limits = limits::Settings {
        lookups_per_account: Rate::new(10, DAY),
        lookups_per_homeserver: Rate::new(15, DAY),
        ..limits::Settings::OFF
    };
    let app = TestApp::with(|builder| with_identity(builder.limits(limits), |_| {}));
    let asking = Asking::of(app).await;
    let pepper = asking.pepper().await;
    let eight = hashed(&pepper, &vec!["A".repeat(43); 8]);
    let ask = async |user_id: &str, address: &str| {
        let token = asking.app.identity_token(user_id).await;
        let request = Request::post(format!("{IDENTITY}/lookup"))
            .header("authorization", format!("Bearer {}", token.reveal()))
            .body(eight.to_string().into());
        asking
            .app
            .send_from(address, request.expect("a request"))
            .await
    };

    let first = ask("@one:example.com", "192.0.2.1:4711").await;
    let second = ask("@two:example.com", "192.0.2.2:4711").await;
    let elsewhere = ask("@one:example.net", "192.0.2.3:4711").await;
    let same_source = ask("@one:example.org", "192.0.2.3:4711").await;

    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(elsewhere.status, 200, "{}", elsewhere.text);
    for refused in [second, same_source] {
        assert_eq!(refused.refusal(), refusal(429, "M_LIMIT_EXCEEDED"));
    }
    asking.app.wait(DAY);
    assert_eq!(ask("@two:example.com", "192.0.2.2:4711").await.status, 200);
}

#[tokio::test]
async fn a_rotated_pepper_leaves_everybody_found_and_old_hashes_useless() {
    let asking = Asking::new().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let old = asking.pepper().await;
    let stale = hashed(&old, &[hash("alice@example.org", &old)]);

    asking.app.threepid.rotate_pepper().await.unwrap();

    let answer = asking.look_up(&stale).await;
    assert_eq!(answer.errcode(), "M_INVALID_PEPPER");
    assert_ne!(answer.json()["lookup_pepper"], old.as_str());
    assert_eq!(
        asking.owners(&["alice@example.org"]).await,
        [json!("@alice:example.org")]
    );
    let pepper = asking.pepper().await;
    let relabelled = hashed(&pepper, &[hash("alice@example.org", &old)]);
    assert_eq!(
        asking.look_up(&relabelled).await.json(),
        json!({ "mappings": {} })
    );
}

#[tokio::test]
async fn a_restart_keeps_pepper_and_associations() {
    let asking = Asking::new().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let pepper = asking.pepper().await;
    let Asking { app, token } = asking;

    let app = app.restarted(|builder| with_identity(builder.limits(limits::Settings::OFF), |_| {}));
    let asking = Asking { app, token };

    assert_eq!(asking.pepper().await, pepper);
    assert_eq!(
        asking.owners(&["alice@example.org"]).await,
        [json!("@alice:example.org")]
    );
}

#[tokio::test]
async fn the_pepper_is_rotated_by_itself_when_it_has_been_used_long_enough() {
    let asking = Asking::new().await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let first = asking.pepper().await;
    // Whoever is stopped at once has looked once, or done one step.
    let look = async || {
        let background = asking.app.threepid.start();
        assert!(background.stop(Duration::from_mins(1)).await);
    };

    asking.app.wait(Duration::from_secs(24 * 60 * 60 - 1));
    for _ in 0..9 {
        look().await;
    }
    assert_eq!(asking.pepper().await, first);
    asking.app.wait(Duration::from_secs(1));
    for _ in 0..9 {
        look().await;
    }

    assert_ne!(asking.pepper().await, first);
    assert_eq!(
        asking.owners(&["alice@example.org"]).await,
        [json!("@alice:example.org")]
    );
}

#[tokio::test]
async fn a_pepper_without_an_end_is_not_rotated_but_what_was_begun_is_finished() {
    let asking = Asking::of(TestApp::identity(|settings| {
        settings.pepper_lifetime = None;
    }))
    .await;
    asking
        .associate("alice@example.org", "@alice:example.org")
        .await;
    let first = asking.pepper().await;
    let look = async || {
        let background = asking.app.threepid.start();
        assert!(background.stop(Duration::from_mins(1)).await);
    };

    asking.app.wait(20 * DAY);
    for _ in 0..9 {
        look().await;
    }
    assert_eq!(asking.pepper().await, first);
    let begun = asking
        .app
        .store
        .begin_rotation("second", Timestamp(0))
        .await;
    assert!(begun.unwrap());
    for _ in 0..9 {
        look().await;
    }

    assert_eq!(asking.pepper().await, "second");
}

#[tokio::test]
async fn without_an_identity_server_there_is_nothing_to_look_up_or_rotate() {
    let app = TestApp::new();
    let token = AccessToken::parse("any").unwrap();
    let alice = threepid("alice@example.org");

    let details = app.get_as(&token, "hash_details").await;
    let lookup = app.post_as(&token, "lookup", &json!({})).await;

    assert_eq!(
        (details.status.as_u16(), lookup.status.as_u16()),
        (404, 404)
    );
    let refused = Err(Error::Unrecognized);
    assert_eq!(app.threepid.rotate_pepper().await, refused);
    assert_eq!(app.threepid.associate("@a:b", &alice).await, refused);
    assert!(app.threepid.dissociate("@a:b", &alice).await.is_err());
}

#[tokio::test]
async fn a_host_associates_and_admits_user_ids_alone() {
    let app = TestApp::identity(|_| {});
    let alice = threepid("alice@example.org");
    for user_id in ["alice", "@a:evil:b.org", "@a b:b.org", "@é:b.org"] {
        let associated = app.threepid.associate(user_id, &alice).await;
        let token = app.threepid.identity_token(user_id).await.map(drop);

        assert!(
            matches!(associated, Err(Error::InvalidParam(_))),
            "{user_id}"
        );
        assert!(matches!(token, Err(Error::InvalidParam(_))), "{user_id}");
    }
}
