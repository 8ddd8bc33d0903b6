//! The end of an association at the identity server: `3pid/unbind`.

use std::time::Duration;

use axum::http::{Request, header};
use serde_json::{Value, json};
use threepid::{
    limits,
    outbound::{Outbound, Settings},
    rate::Rate,
    threepid::Threepid,
};

use crate::support::{
    app::{Answer, IDENTITY_NAME, TestApp, refusal, with_identity},
    closed_port,
    federation::{
        Destination::{self, DestinationIs},
        FederationServer, KEYS, Key,
    },
    identity::{SECRET, asked, asking, bound, found, policy, proved},
    upstream::{self, Upstream},
};

const UNBIND: &str = "/_matrix/identity/v2/3pid/unbind";
const ADDRESS: &str = "alice@example.org";

/// A homeserver, and an identity server at which its user alice has bound her address.
struct Bound {
    homeserver: FederationServer,
    app: TestApp,
    alice: String,
}

impl Bound {
    async fn new() -> Self {
        Self::by(FederationServer::start().await).await
    }

    async fn by(homeserver: FederationServer) -> Self {
        let outbound = homeserver.outbound();
        Self::over(homeserver, outbound).await
    }

    /// The identity server asks the homeserver over `outbound`.
    async fn over(homeserver: FederationServer, outbound: Outbound) -> Self {
        let app = asking(outbound, limits::Settings::OFF, |settings| {
            settings.aliases = vec!["old.example.org:8448".parse().expect("a name")];
        });
        let alice = homeserver.user("alice");
        bound(&app, &alice, ADDRESS).await;
        Self {
            homeserver,
            app,
            alice,
        }
    }

    fn body(&self) -> Value {
        json!({ "mxid": self.alice, "threepid": { "medium": "email", "address": ADDRESS } })
    }

    /// The header over that body.
    fn signed(&self, destination: Destination<'_>) -> String {
        let place = ("POST", UNBIND);
        self.homeserver
            .authorization(place, &self.body(), destination)
    }

    /// The header that a homeserver sends.
    fn header(&self) -> String {
        self.signed(DestinationIs(IDENTITY_NAME))
    }

    async fn unbind(&self, headers: &[&str], body: &Value) -> Answer {
        unbind(&self.app, UNBIND, headers, body).await
    }

    async fn is_bound(&self) -> bool {
        found(&self.app, "email", ADDRESS).await.as_deref() == Some(&*self.alice)
    }

    /// How often the homeserver's keys were asked for.
    fn asked_for_keys(&self) -> usize {
        self.homeserver.count(KEYS)
    }
}

async fn unbind(app: &TestApp, uri: &str, headers: &[&str], body: &Value) -> Answer {
    let mut request = Request::post(uri);
    for value in headers {
        request = request.header(header::AUTHORIZATION, *value);
    }
    let body = body.to_string().into();
    app.send(request.body(body).expect("a request")).await
}

fn assert_done(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), &*answer.text), (200, "{}"));
}

fn assert_forbidden(answer: &Answer) {
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert_eq!(answer.errcode(), "M_FORBIDDEN");
}

#[tokio::test]
async fn a_homeserver_unbinds_by_its_signature_however_it_names_us() {
    for destination in [
        DestinationIs(IDENTITY_NAME),
        Destination::Destination(IDENTITY_NAME),
        DestinationIs("matrix.example.org:443"),
        DestinationIs("Matrix.Example.org"),
        DestinationIs("old.example.org:8448"),
    ] {
        let bound = Bound::new().await;

        let answer = bound
            .unbind(&[&bound.signed(destination)], &bound.body())
            .await;

        assert_done(&answer);
        assert!(!bound.is_bound().await, "{destination:?}");
    }
}

#[tokio::test]
async fn a_signature_is_read_with_and_without_quotation_marks_and_without_a_destination() {
    for change in [
        (|header: String| header.replace('"', "")) as fn(String) -> String,
        |header| header.replace("X-Matrix", "x-matrix"),
        |header| header.replace(&format!("destination=\"{IDENTITY_NAME}\","), ""),
    ] {
        let bound = Bound::new().await;
        let header = change(bound.header());

        let answer = bound.unbind(&[&header], &bound.body()).await;

        assert_done(&answer);
        assert!(!bound.is_bound().await, "{header}");
    }
}

#[tokio::test]
async fn of_several_signatures_one_suffices() {
    let bound = Bound::new().await;
    let header = bound.header();
    let mallory = FederationServer::start().await;
    let of_another = mallory.authorization(
        ("POST", UNBIND),
        &bound.body(),
        DestinationIs(IDENTITY_NAME),
    );
    let other_key = header.replace("ed25519:1", "ed25519:0");
    let for_another = bound.signed(DestinationIs("id.example.net"));

    let headers = [
        "Bearer x",
        "X-Matrix",
        &of_another,
        &other_key,
        &for_another,
        &header,
    ];
    let answer = bound.unbind(&headers, &bound.body()).await;

    assert_done(&answer);
    assert!(!bound.is_bound().await);
    assert_eq!(mallory.count(KEYS), 0);
}

#[tokio::test]
async fn a_repeated_request_changes_nothing_more() {
    let bound = Bound::new().await;
    let header = bound.header();
    assert_done(&bound.unbind(&[&header], &bound.body()).await);

    let again = bound.unbind(&[&header], &bound.body()).await;

    assert_done(&again);
}

#[tokio::test]
async fn what_is_bound_to_another_user_stays_bound() {
    let bound = Bound::new().await;
    let mut body = bound.body();
    body["mxid"] = json!(bound.homeserver.user("bob"));
    let place = ("POST", UNBIND);
    let header = bound
        .homeserver
        .authorization(place, &body, DestinationIs(IDENTITY_NAME));

    let answer = bound.unbind(&[&header], &body).await;

    assert_done(&answer);
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn an_address_is_unbound_however_it_is_written() {
    let bound = Bound::new().await;
    let phone = "447700900001";
    bind_phone(&bound).await;
    let destination = DestinationIs(IDENTITY_NAME);
    for (medium, address) in [("email", "ALICE@Example.ORG"), ("msisdn", "+447700900001")] {
        let threepid = json!({ "medium": medium, "address": address });
        let body = json!({ "mxid": bound.alice, "threepid": threepid });
        let place = ("POST", UNBIND);
        let header = bound.homeserver.authorization(place, &body, destination);

        assert_done(&bound.unbind(&[&header], &body).await);
    }

    assert!(!bound.is_bound().await);
    assert_eq!(found(&bound.app, "msisdn", phone).await, None);
}

async fn bind_phone(with: &Bound) {
    bound(&with.app, &with.alice, "07700900001").await;
    assert!(found(&with.app, "msisdn", "447700900001").await.is_some());
}

#[tokio::test]
async fn a_path_with_a_query_is_signed_with_it() {
    let bound = Bound::new().await;
    let uri = format!("{UNBIND}?a=b");
    let destination = DestinationIs(IDENTITY_NAME);
    let place = ("POST", uri.as_str());
    let with_query = bound
        .homeserver
        .authorization(place, &bound.body(), destination);

    let other = unbind(&bound.app, &uri, &[&bound.header()], &bound.body()).await;
    let same = unbind(&bound.app, &uri, &[&with_query], &bound.body()).await;

    assert_forbidden(&other);
    assert_done(&same);
}

#[tokio::test]
async fn a_signature_that_does_not_hold_is_refused() {
    let bound = Bound::new().await;
    let (header, body) = (bound.header(), bound.body());
    let forged = Key::new("ed25519:1").signature(&body);
    let wrong_key = {
        let (before, after) = header.split_once("sig=\"").unwrap();
        let (_, after) = after.split_once('"').unwrap();
        format!("{before}sig=\"{forged}\"{after}")
    };
    let mut more = body.clone();
    more["more"] = json!(1);
    let mut other = body.clone();
    other["threepid"]["address"] = json!("bob@example.org");
    for (header, body) in [
        (wrong_key, &body),
        (header.replace("ed25519:1", "ed25519:2"), &body),
        (header.clone(), &more),
        (header.clone(), &other),
        // Signed for another server, while the header says that it is for this one.
        (
            bound
                .signed(DestinationIs("id.example.net"))
                .replace("id.example.net", IDENTITY_NAME),
            &body,
        ),
    ] {
        let answer = bound.unbind(&[&header], body).await;
        assert_forbidden(&answer);
    }
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn a_key_that_is_not_valid_any_more_signs_nothing() {
    let homeserver = FederationServer::start().await;
    let mut keys = homeserver.keys();
    keys["valid_until_ts"] = json!(1_000);
    homeserver.publish(keys);
    let bound = Bound::by(homeserver).await;

    let answer = bound.unbind(&[&bound.header()], &bound.body()).await;

    assert_forbidden(&answer);
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn a_request_for_another_server_is_not_ours() {
    let bound = Bound::new().await;
    for destination in ["id.example.net", "example.org", "x.matrix.example.org", ""] {
        let header = bound.signed(DestinationIs(destination));

        let answer = bound.unbind(&[&header], &bound.body()).await;

        assert_eq!(answer.status, 401, "{destination}");
        assert_eq!(answer.errcode(), "M_UNAUTHORIZED");
    }
    assert!(bound.is_bound().await);
    assert_eq!(bound.asked_for_keys(), 0);
}

#[tokio::test]
async fn another_homeserver_unbinds_nobody_of_ours() {
    let bound = Bound::new().await;
    let mallory = FederationServer::start().await;
    let name = bound.homeserver.name();
    let mut origins = vec![
        mallory.name().to_owned(),
        format!("x.{name}"),
        name.to_uppercase(),
    ];
    // What the user's server ends in, and what it begins with.
    origins.extend([&name[1..], &name[..name.len() - 1], "localhost"].map(str::to_owned));
    for origin in origins {
        let destination = DestinationIs(IDENTITY_NAME);
        let signed = mallory.authorization(("POST", UNBIND), &bound.body(), destination);
        let header = signed.replace(mallory.name(), &origin);

        let answer = bound.unbind(&[&header], &bound.body()).await;

        assert_forbidden(&answer);
    }
    assert!(bound.is_bound().await);
    assert_eq!((mallory.count(KEYS), bound.asked_for_keys()), (0, 0));
}

#[tokio::test]
async fn a_user_id_with_two_servers_is_nobodys() {
    let bound = Bound::new().await;
    let mut body = bound.body();
    body["mxid"] = json!(format!("@alice:evil.example:{}", bound.homeserver.name()));
    let destination = DestinationIs(IDENTITY_NAME);
    let place = ("POST", UNBIND);
    let header = bound.homeserver.authorization(place, &body, destination);

    let answer = bound.unbind(&[&header], &body).await;

    assert_eq!(answer.status, 400);
    assert_eq!(answer.errcode(), "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_homeserver_that_tells_no_keys_can_not_unbind_for_now() {
    let bound = Bound::new().await;
    let broken = upstream::Answer::error(500, "M_UNKNOWN");
    bound.homeserver.answer(KEYS, broken);

    let answer = bound.unbind(&[&bound.header()], &bound.body()).await;

    // 400, 404 and 501 would tell it that unbinding is not supported.
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert_eq!(answer.errcode(), "M_UNKNOWN");
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn a_homeserver_that_is_gone_can_not_unbind_for_now() {
    let (_nobody, closed) = closed_port();
    let upstream = Upstream::start().await;
    let name = format!("localhost:{}", closed.port());
    let bound = Bound::by(FederationServer::around(upstream, name)).await;

    let answer = bound.unbind(&[&bound.header()], &bound.body()).await;

    assert_eq!(answer.refusal(), refusal(502, "M_UNKNOWN"));
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn a_homeserver_that_takes_too_long_can_not_unbind_for_now() {
    let homeserver = FederationServer::start().await;
    let outbound = Outbound::new(Settings {
        timeout: Duration::from_secs(1),
        ..homeserver.settings()
    });
    let bound = Bound::over(homeserver, outbound.unwrap()).await;
    let slow = upstream::Answer::json(200, bound.homeserver.keys());
    bound
        .homeserver
        .answer(KEYS, slow.after(Duration::from_hours(1)));

    let answer = bound.unbind(&[&bound.header()], &bound.body()).await;

    assert_eq!(answer.refusal(), refusal(504, "M_UNKNOWN"));
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn homeservers_at_private_addresses_are_not_asked_for_keys() {
    let homeserver = FederationServer::start_by_address().await;
    let guarded = Outbound::new(Settings {
        ca_files: homeserver.settings().ca_files,
        ..Settings::default()
    });
    let bound = Bound::over(homeserver, guarded.unwrap()).await;

    let answer = bound.unbind(&[&bound.header()], &bound.body()).await;

    assert_eq!(answer.refusal(), refusal(502, "M_UNKNOWN"));
    assert_eq!(bound.homeserver.upstream().connections(), 0);
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn whoever_proves_the_address_unbinds_it_without_a_token() {
    let bound = Bound::new().await;
    let bob = bound.app.identity_token("@bob:example.org").await;
    let pair = proved(&bound.app, &bob, ADDRESS).await;
    let mut body = bound.body();
    body["sid"] = pair["sid"].clone();
    body["client_secret"] = pair["client_secret"].clone();

    let answer = bound.unbind(&[], &body).await;

    assert_done(&answer);
    assert!(!bound.is_bound().await);
    assert_eq!(bound.asked_for_keys(), 0);
}

#[tokio::test]
async fn a_session_unbinds_where_the_signature_does_not_hold() {
    let bound = Bound::new().await;
    let token = bound.app.identity_token(&bound.alice).await;
    let pair = proved(&bound.app, &token, ADDRESS).await;
    let mut body = bound.body();
    body["sid"] = pair["sid"].clone();
    body["client_secret"] = pair["client_secret"].clone();

    let answer = bound.unbind(&[&bound.header()], &body).await;

    assert_done(&answer);
    assert!(!bound.is_bound().await);
}

#[tokio::test]
async fn a_signature_unbinds_where_the_session_proves_nothing() {
    let bound = Bound::new().await;
    let mut body = bound.body();
    body["sid"] = json!("1");
    body["client_secret"] = json!(SECRET);
    let destination = DestinationIs(IDENTITY_NAME);
    let place = ("POST", UNBIND);
    let header = bound.homeserver.authorization(place, &body, destination);

    let answer = bound.unbind(&[&header], &body).await;

    assert_done(&answer);
    assert!(!bound.is_bound().await);
}

#[tokio::test]
async fn a_session_that_does_not_prove_the_address_unbinds_nothing() {
    let bound = Bound::new().await;
    let token = bound.app.identity_token("@bob:example.org").await;
    let of_another = proved(&bound.app, &token, "bob@example.org").await;
    let own = proved(&bound.app, &token, ADDRESS).await;
    let mut sessions = vec![of_another];
    for key in ["sid", "client_secret"] {
        let mut wrong = own.clone();
        wrong[key] = json!("another");
        sessions.push(wrong);
    }

    for session in sessions {
        let mut body = bound.body();
        body["sid"] = session["sid"].clone();
        body["client_secret"] = session["client_secret"].clone();
        let answer = bound.unbind(&[], &body).await;
        assert_forbidden(&answer);
    }
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn a_session_that_is_not_validated_or_has_run_out_says_so() {
    let bound = Bound::new().await;
    let token = bound.app.identity_token("@bob:example.org").await;
    let pair = asked(&bound.app, &token, ADDRESS).await;
    let mut body = bound.body();
    body["sid"] = pair["sid"].clone();
    body["client_secret"] = pair["client_secret"].clone();

    let early = bound.unbind(&[], &body).await;
    bound.app.wait(Duration::from_hours(24));
    let late = bound.unbind(&[], &body).await;

    assert_eq!(early.refusal(), refusal(400, "M_SESSION_NOT_VALIDATED"));
    assert_eq!(late.refusal(), refusal(400, "M_SESSION_EXPIRED"));
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn nobody_unbinds_without_a_proof() {
    let bound = Bound::new().await;
    let token = bound.app.identity_token(&bound.alice).await;
    let bearer = format!("Bearer {}", token.reveal());

    for headers in [
        vec![],
        vec![&*bearer],
        vec!["X-Matrix"],
        vec!["X-Matrix origin=x"],
    ] {
        let answer = bound.unbind(&headers, &bound.body()).await;
        assert_forbidden(&answer);
    }
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn a_request_that_lacks_something_is_refused() {
    let bound = Bound::new().await;
    let change = |path: &str, value: Value| {
        let mut body = bound.body();
        let place = body.pointer_mut(path).expect("it is there");
        *place = value;
        body
    };
    let with = |key: &str| {
        let mut body = bound.body();
        body[key] = json!("x");
        body
    };
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAMS"),
        (json!({ "mxid": bound.alice }), "M_MISSING_PARAMS"),
        (change("/threepid", json!({})), "M_MISSING_PARAMS"),
        (
            change("/threepid", json!({ "medium": "email" })),
            "M_MISSING_PARAMS",
        ),
        (with("sid"), "M_MISSING_PARAMS"),
        (with("client_secret"), "M_MISSING_PARAMS"),
        (
            change("/threepid", json!("alice@example.org")),
            "M_BAD_JSON",
        ),
        (change("/threepid/address", json!(1)), "M_BAD_JSON"),
        (change("/mxid", json!("alice")), "M_INVALID_PARAM"),
        (
            change("/threepid/medium", json!("pigeon")),
            "M_INVALID_PARAM",
        ),
        (
            change("/threepid/medium", json!("msisdn")),
            "M_INVALID_PARAM",
        ),
        (
            change("/threepid/address", json!("alice")),
            "M_INVALID_PARAM",
        ),
    ] {
        let answer = bound.unbind(&[&bound.header()], &body).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{body}");
    }
    assert!(bound.is_bound().await);
}

#[tokio::test]
async fn terms_that_wait_hold_no_homeserver_up() {
    let bound = Bound::new().await;
    let header = bound.header();
    let policy = policy("1", &[("en", "Terms", "https://example.org/terms/1/en")]);
    let body = bound.body();
    let outbound = bound.homeserver.outbound();
    let app = bound.app.restarted(|builder| {
        with_identity(builder.outbound(outbound), |settings| {
            settings.terms.insert("terms".to_owned(), policy);
        })
    });

    let answer = unbind(&app, UNBIND, &[&header], &body).await;

    assert_done(&answer);
    let app = app.restarted(|builder| with_identity(builder, |_| {}));
    assert_eq!(found(&app, "email", ADDRESS).await, None);
}

#[tokio::test]
async fn one_source_unbinds_only_so_often() {
    let homeserver = FederationServer::start().await;
    let limits = limits::Settings {
        per_source_submit: Rate::new(2, Duration::from_mins(1)),
        ..limits::Settings::OFF
    };
    let app = asking(homeserver.outbound(), limits, |_| {});
    let threepid = json!({ "medium": "email", "address": ADDRESS });
    let body = json!({ "mxid": homeserver.user("alice"), "threepid": threepid });
    for _ in 0..2 {
        assert_forbidden(&unbind(&app, UNBIND, &[], &body).await);
    }
    let destination = DestinationIs(IDENTITY_NAME);
    let header = homeserver.authorization(("POST", UNBIND), &body, destination);

    let answer = unbind(&app, UNBIND, &[&header], &body).await;

    assert_eq!(answer.status, 429);
    assert_eq!(answer.errcode(), "M_LIMIT_EXCEEDED");
    assert_eq!(homeserver.count(KEYS), 0);
}

#[tokio::test]
async fn a_homeserver_whose_keys_are_known_unbinds_as_often_as_it_likes() {
    let homeserver = FederationServer::start().await;
    let limits = limits::Settings {
        per_source_submit: Rate::new(2, Duration::from_mins(1)),
        ..limits::Settings::OFF
    };
    let app = asking(homeserver.outbound(), limits, |_| {});
    let alice = homeserver.user("alice");
    let address = Threepid::email(ADDRESS).expect("an address");
    let threepid = json!({ "medium": "email", "address": ADDRESS });
    let body = json!({ "mxid": alice, "threepid": threepid });
    let destination = DestinationIs(IDENTITY_NAME);
    let good = homeserver.authorization(("POST", UNBIND), &body, destination);
    let wrong = homeserver.authorization(("POST", "/elsewhere"), &body, destination);

    for _ in 0..5 {
        let binding = app.threepid.associate(&alice, &address);
        binding.await.expect("the store answers");
        assert_done(&unbind(&app, UNBIND, &[&good], &body).await);
    }
    assert_forbidden(&unbind(&app, UNBIND, &[&wrong], &body).await);
    let beyond = unbind(&app, UNBIND, &[&wrong], &body).await;

    assert_eq!(beyond.status, 429, "{}", beyond.text);
    assert_eq!(homeserver.count(KEYS), 2, "the second after the wrong one");
}

#[tokio::test]
async fn what_a_homeserver_ended_takes_a_new_proof_to_be_bound_again() {
    let homeserver = FederationServer::start().await;
    let app = asking(homeserver.outbound(), limits::Settings::OFF, |_| {});
    let (alice, bob) = (homeserver.user("alice"), homeserver.user("bob"));
    let bobs = app.identity_token(&bob).await;
    let bobs_pair = proved(&app, &bobs, ADDRESS).await;
    app.wait(Duration::from_hours(1));
    let token = app.identity_token(&alice).await;
    let pair = proved(&app, &token, ADDRESS).await;
    let bind = async |token, pair: &Value, mxid: &str| {
        let mut body = pair.clone();
        body["mxid"] = json!(mxid);
        let answer = app.post_as(token, "3pid/bind", &body).await;
        (answer.status.as_u16(), answer.json()["errcode"].clone())
    };
    assert_eq!(bind(&token, &pair, &alice).await.0, 200);
    let body = json!({ "mxid": alice, "threepid": { "medium": "email", "address": ADDRESS } });
    let header = homeserver.authorization(("POST", UNBIND), &body, DestinationIs(IDENTITY_NAME));
    assert_done(&unbind(&app, UNBIND, &[&header], &body).await);

    let again = bind(&token, &pair, &alice).await;
    let older = bind(&bobs, &bobs_pair, &bob).await;

    assert_eq!(again, (400, json!("M_SESSION_EXPIRED")));
    assert_eq!(older, (400, json!("M_SESSION_EXPIRED")));
    assert_eq!(found(&app, "email", ADDRESS).await, None);
    bound(&app, &alice, ADDRESS).await;
    assert_eq!(found(&app, "email", ADDRESS).await, Some(alice));
}
