//! The keys with which `3pid/unbind` is signed: how often homeservers are asked for them, and at what cost.

use std::{sync::Arc, time::Duration};

use axum::http::{Request, header};
use serde_json::{Value, json};
use threepid::{
    limits,
    outbound::{Outbound, Resolve},
    rate::Rate,
    threepid::Threepid,
};

use crate::support::{
    app::{Answer, IDENTITY_NAME, TestApp, with_identity},
    federation::{Destination::DestinationIs, FederationServer, KEYS, Key},
    identity::{bound, found},
};

const UNBIND: &str = "/_matrix/identity/v2/3pid/unbind";
const REGISTER_HERE: &str = "/_matrix/identity/v2/account/register";
const ADDRESS: &str = "alice@example.org";
const MINUTE: Duration = Duration::from_mins(1);

/// An identity server, and a homeserver whose user alice is found by her address there.
struct World {
    homeserver: FederationServer,
    app: TestApp,
    alice: String,
}

impl World {
    async fn new() -> Self {
        Self::limited(limits::Settings::OFF).await
    }

    async fn limited(limits: limits::Settings) -> Self {
        let homeserver = FederationServer::start().await;
        let outbound = homeserver.outbound();
        let app = TestApp::with(|builder| {
            with_identity(builder.limits(limits).outbound(outbound), |_| {})
        });
        let alice = homeserver.user("alice");
        let world = Self {
            homeserver,
            app,
            alice,
        };
        world.bind().await;
        world
    }

    async fn bind(&self) {
        let address = Threepid::email(ADDRESS).expect("an address");
        let binding = self.app.threepid.associate(&self.alice, &address);
        binding.await.expect("the store answers");
    }

    async fn is_bound(&self) -> bool {
        found(&self.app, "email", ADDRESS).await.as_deref() == Some(&*self.alice)
    }

    fn body(&self) -> Value {
        json!({ "mxid": self.alice, "threepid": { "medium": "email", "address": ADDRESS } })
    }

    /// Unbinds with a signature of the homeserver's own key.
    async fn unbind(&self, body: &Value) -> Answer {
        let destination = DestinationIs(IDENTITY_NAME);
        let signed = self
            .homeserver
            .authorization(("POST", UNBIND), body, destination);
        self.send(&signed, body).await
    }

    /// Unbinds with a signature of another key in the homeserver's name.
    async fn unbind_by(&self, key: &Key) -> Answer {
        let (body, name) = (self.body(), self.homeserver.name());
        let signed = json!({
            "method": "POST", "uri": UNBIND, "origin": name, "destination_is": IDENTITY_NAME, "content": body,
        });
        let (id, signature) = (&key.id, key.signature(&signed));
        let header = format!(r#"X-Matrix origin="{name}",key="{id}",sig="{signature}""#);
        self.send(&header, &body).await
    }

    async fn send(&self, authorization: &str, body: &Value) -> Answer {
        let request = Request::post(UNBIND).header(header::AUTHORIZATION, authorization);
        let request = request.body(body.to_string().into());
        self.app.send(request.expect("a request")).await
    }

    /// Publishes this key, signed by itself, besides the homeserver's own or in its place.
    fn publish(&self, key: &Key) {
        let mut keys = self.homeserver.keys();
        keys["verify_keys"][&key.id] = json!({ "key": key.public_base64() });
        self.homeserver
            .key()
            .sign(self.homeserver.name(), &mut keys);
        key.sign(self.homeserver.name(), &mut keys);
        let answer = crate::support::upstream::Answer::json(200, keys);
        self.homeserver.answer(KEYS, answer);
    }

    /// How often the homeserver's keys were asked for.
    fn asked_for_keys(&self) -> usize {
        self.homeserver.count(KEYS)
    }
}

fn told(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.errcode())
}

fn error(status: u16, errcode: &str) -> (u16, String) {
    (status, errcode.to_owned())
}

#[tokio::test]
async fn a_homeserver_that_has_just_changed_its_key_unbinds_at_once() {
    let world = World::new().await;
    assert_eq!(world.unbind(&world.body()).await.status, 200);
    world.bind().await;
    let new = Key::new("ed25519:2");
    world.publish(&new);

    let answer = world.unbind_by(&new).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(!world.is_bound().await);
    assert_eq!(world.asked_for_keys(), 2);
}

#[tokio::test]
async fn a_homeserver_that_was_set_up_anew_unbinds_with_another_key_of_the_same_name() {
    let world = World::new().await;
    assert_eq!(world.unbind(&world.body()).await.status, 200);
    world.bind().await;
    let new = Key::new("ed25519:1");
    world.publish(&new);

    let answer = world.unbind_by(&new).await;
    world.bind().await;
    let former = world.unbind(&world.body()).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(told(&former), error(403, "M_FORBIDDEN"));
    assert!(world.is_bound().await, "the former key is none any more");
}

#[tokio::test]
async fn forged_signatures_have_a_homeserver_asked_once_a_minute() {
    let world = World::new().await;
    assert_eq!(world.unbind(&world.body()).await.status, 200);
    world.bind().await;
    let mut asked = Vec::new();

    for _ in 0..2 {
        for _ in 0..5 {
            let answer = world.unbind_by(&Key::new("ed25519:1")).await;
            assert_eq!(told(&answer), error(403, "M_FORBIDDEN"));
        }
        asked.push(world.asked_for_keys());
        world.app.wait(MINUTE);
    }

    assert_eq!(asked, [2, 3]);
    assert!(world.is_bound().await);
    assert_eq!(world.unbind(&world.body()).await.status, 200);
    assert_eq!(world.asked_for_keys(), 3, "the genuine key stays known");
}

#[tokio::test]
async fn what_was_not_bound_is_counted_also_for_a_homeserver_whose_keys_are_known() {
    let limits = limits::Settings {
        per_source_submit: Rate::new(3, MINUTE),
        ..limits::Settings::OFF
    };
    let world = World::limited(limits).await;
    assert_eq!(world.unbind(&world.body()).await.status, 200);
    for _ in 0..2 {
        assert_eq!(world.unbind(&world.body()).await.status, 200, "not bound");
    }

    let beyond = world.unbind(&world.body()).await;

    assert_eq!(told(&beyond), error(429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn a_signed_request_is_small() {
    let world = World::new().await;
    let of_bytes = |length: usize| {
        let mut body = world.body();
        body["more"] = json!("");
        let filler = "x".repeat(length - body.to_string().len());
        body["more"] = json!(filler);
        body
    };

    let large = world.unbind(&of_bytes(8 * 1024 + 1)).await;
    let larger = world.unbind(&of_bytes(100 * 1024)).await;
    let was_bound = world.is_bound().await;
    let largest = world.unbind(&of_bytes(8 * 1024)).await;

    assert_eq!(told(&large), error(413, "M_TOO_LARGE"));
    assert_eq!(large.text, larger.text, "it says how much is taken");
    assert!(was_bound);
    assert_eq!(largest.status, 200, "{}", largest.text);
    assert!(!world.is_bound().await);
}

/// An identity server whose calls to homeservers never end.
fn hanging() -> TestApp {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let outbound = Outbound::default().with_resolver(never);
    let limits = limits::Settings::default();
    TestApp::with(|builder| with_identity(builder.limits(limits).outbound(outbound), |_| {}))
}

/// A stranger's request, which is said to be signed by a homeserver.
fn said_to_be_signed_by(name: &str) -> Request<axum::body::Body> {
    let threepid = json!({ "medium": "email", "address": ADDRESS });
    let body = json!({ "mxid": format!("@alice:{name}"), "threepid": threepid });
    let header = format!(r#"X-Matrix origin="{name}",key="ed25519:1",sig="AAAA""#);
    let request = Request::post(UNBIND).header(header::AUTHORIZATION, header);
    request.body(body.to_string().into()).expect("a request")
}

#[tokio::test]
async fn one_source_has_few_homeservers_asked_for_keys_at_a_time() {
    let app = hanging();
    let unbind = |from: &'static str, number: usize| {
        let name = format!("s{number}.evil.example:8448");
        Box::pin(app.send_from(from, said_to_be_signed_by(&name)))
    };
    let source = "192.0.2.1:4711";
    let mut held: Vec<_> = (0..4).map(|number| unbind(source, number)).collect();
    // Whoever waits for what somebody is about to bring asks nobody.
    held.push(unbind(source, 0));
    for unbinding in &mut held {
        assert!(futures_util::poll!(unbinding).is_pending());
    }

    let fifth = unbind(source, 4).await;
    let mut of_another = unbind("192.0.2.2:4711", 4);
    let waits = futures_util::poll!(&mut of_another).is_pending();
    drop(held);
    let mut after = unbind(source, 5);

    assert_eq!(told(&fifth), error(429, "M_LIMIT_EXCEEDED"));
    assert_eq!(fifth.header("retry-after"), "1");
    assert!(waits, "another source is not held up");
    assert!(futures_util::poll!(&mut after).is_pending());
}

#[tokio::test]
async fn strangers_who_have_keys_asked_for_keep_nobody_from_registering() {
    let app = hanging();
    let sources: Vec<_> = (1..=16)
        .map(|number| format!("192.0.2.{number}:4711"))
        .collect();
    let unbind = |from: usize, number: usize| {
        let name = format!("s{number}.evil.example:8448");
        Box::pin(app.send_from(&sources[from], said_to_be_signed_by(&name)))
    };
    let mut held: Vec<_> = (0..64).map(|number| unbind(number / 4, number)).collect();
    for unbinding in &mut held {
        assert!(futures_util::poll!(unbinding).is_pending());
    }
    let openid = json!({
        "access_token": "t0ken", "token_type": "Bearer", "matrix_server_name": "hs.example:8448", "expires_in": 3600,
    });
    let request = Request::post(REGISTER_HERE).body(openid.to_string().into());

    let mut registering = Box::pin(app.send_from(&sources[0], request.expect("a request")));
    let is_asking = futures_util::poll!(&mut registering).is_pending();
    let beyond = said_to_be_signed_by("more.evil.example:8448");
    let beyond = app.send_from("192.0.2.99:4711", beyond).await;

    assert!(is_asking, "the homeserver is asked whose the token is");
    assert_eq!(beyond.status, 503, "{}", beyond.text);
}

#[tokio::test]
async fn a_proof_ends_an_association_while_no_more_homeservers_can_be_asked() {
    let app = hanging();
    let mut held: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("s{number}.evil.example:8448");
            Box::pin(app.send(said_to_be_signed_by(&name)))
        })
        .collect();
    for unbinding in &mut held {
        assert!(futures_util::poll!(unbinding).is_pending());
    }
    let alice = "@alice:example.org";
    let told = bound(&app, alice, ADDRESS).await;
    assert_eq!(told["mxid"], alice);
    let token = app.identity_token(alice).await;
    let mut body = crate::support::identity::proved(&app, &token, ADDRESS).await;
    body["mxid"] = json!(alice);
    body["threepid"] = json!({ "medium": "email", "address": ADDRESS });

    let request = Request::post(UNBIND)
        .header(
            header::AUTHORIZATION,
            r#"X-Matrix origin="example.org",key="ed25519:1",sig="AAAA""#,
        )
        .body(body.to_string().into());
    let answer = app.send(request.expect("a request")).await;

    assert_eq!((answer.status.as_u16(), &*answer.text), (200, "{}"));
    assert_eq!(found(&app, "email", ADDRESS).await, None);
}
