//! The ways to all that the Identity Service API is described to answer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};
use threepid::{
    courier::{Courier, DeliveryError, Message},
    identity::Settings as Identity,
    limits,
    next_link::NextLinkPolicy,
    outbound::{Outbound, Resolve, Settings},
    policy::{self, Lists},
    rate::Rate,
    secret::AccessToken,
    threepid::Threepid,
};

use crate::{
    identity_contract::{ALICE, Caller, Seen},
    support::{
        app::{IDENTITY_NAME, PUBLIC_URL, TestApp, code, with_identity},
        federation::{Destination::DestinationIs, FederationServer, KEYS, USERINFO},
        identity::{asked, asking, lookup_hash, policy, proved, query},
        upstream::{Answer, Upstream},
    },
};

const OFF: limits::Settings = limits::Settings::OFF;
const REGISTER: &str = "account/register";
const ASK_EMAIL: &str = "validate/email/requestToken";
const ASK_PHONE: &str = "validate/msisdn/requestToken";
const SHOW_EMAIL: &str = "validate/email/submitToken";
const SHOW_PHONE: &str = "validate/msisdn/submitToken";
const UNBIND: &str = "/_matrix/identity/v2/3pid/unbind";
const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
/// A pair of no session.
const NOBODYS: &str = "sid=AbCd&client_secret=s";

fn plain() -> TestApp {
    TestApp::identity(|_| {})
}

fn with(mut body: Value, key: &str, value: impl Into<Value>) -> Value {
    body[key] = value.into();
    body
}

fn email(address: &str) -> Value {
    json!({ "client_secret": "s", "email": address, "send_attempt": 1 })
}

fn phone(number: &str) -> Value {
    json!({ "client_secret": "s", "country": "GB", "phone_number": number, "send_attempt": 1 })
}

fn openid(server: &str) -> Value {
    json!({ "access_token": "0penid", "matrix_server_name": server })
}

fn invite(address: &str) -> Value {
    json!({ "medium": "email", "address": address, "room_id": "!r:b.org", "sender": ALICE })
}

fn bind() -> Value {
    json!({ "sid": "AbCd", "client_secret": "s", "mxid": ALICE })
}

fn unbind(mxid: &str) -> Value {
    json!({ "mxid": mxid, "threepid": { "medium": "email", "address": "a@b.org" } })
}

fn sign() -> Value {
    json!({ "mxid": ALICE, "token": "t", "private_key": SEED })
}

fn lookup(algorithm: &str, pepper: &str, addresses: &[&str]) -> Value {
    json!({ "algorithm": algorithm, "pepper": pepper, "addresses": addresses })
}

/// Bodies that are as they should be, for every endpoint that takes one with a token.
fn bodies() -> Vec<(&'static str, Value)> {
    let shown = json!({ "sid": "AbCd", "client_secret": "s", "token": "1" });
    vec![
        ("terms", json!({ "user_accepts": [] })),
        ("lookup", lookup("sha256", "p", &[])),
        (ASK_EMAIL, email("a@b.org")),
        (ASK_PHONE, phone("07700900001")),
        (SHOW_EMAIL, shown.clone()),
        (SHOW_PHONE, shown),
        ("3pid/bind", bind()),
        ("store-invite", invite("a@b.org")),
        ("sign-ed25519", sign()),
    ]
}

/// A body that is not what it should be, and parameters that are not.
pub(crate) async fn what_is_wrong(seen: &mut Seen) {
    let mut caller = Caller::new(plain(), seen).await;
    for (path, body) in bodies() {
        caller.break_body(path, &body).await;
    }
    caller.break_body(REGISTER, &openid("example.org")).await;
    caller.break_body("3pid/unbind", &unbind(ALICE)).await;

    let secret = |body| with(body, "client_secret", "a b");
    let shown = json!({ "sid": "AbCd", "client_secret": "a b", "token": "1" });
    for (path, body, outcome) in [
        (REGISTER, openid("a b"), "400 M_INVALID_PARAM"),
        (ASK_EMAIL, secret(email("a@b.org")), "400 M_INVALID_PARAM"),
        (ASK_EMAIL, email("a"), "400 M_INVALID_EMAIL"),
        (
            ASK_PHONE,
            secret(phone("07700900001")),
            "400 M_INVALID_PARAM",
        ),
        (ASK_PHONE, phone("0"), "400 M_INVALID_ADDRESS"),
        (SHOW_EMAIL, shown.clone(), "400 M_INVALID_PARAM"),
        (SHOW_PHONE, shown, "400 M_INVALID_PARAM"),
        (
            "3pid/bind",
            with(bind(), "mxid", "alice"),
            "400 M_INVALID_PARAM",
        ),
        ("3pid/unbind", unbind("alice"), "400 M_INVALID_PARAM"),
        ("3pid/unbind", unbind(ALICE), "403 M_FORBIDDEN"),
        (
            "store-invite",
            with(invite("a@b.org"), "room_id", ""),
            "400 M_INVALID_PARAM",
        ),
        (
            "sign-ed25519",
            with(sign(), "private_key", "short"),
            "400 M_INVALID_PARAM",
        ),
    ] {
        caller.post(path, &body, outcome).await;
    }
    assert!(caller.app.mails().await.is_empty());

    let validated = "3pid/getValidated3pid";
    caller.get(validated, "400 M_MISSING_PARAMS").await;
    let twice = format!("{validated}?{NOBODYS}&sid=AbCd");
    caller.get(&twice, "400 M_INVALID_PARAM").await;
    for path in ["pubkey/isvalid", "pubkey/ephemeral/isvalid"] {
        caller.get(path, "400 M_MISSING_PARAMS").await;
        let twice = format!("{path}?public_key=a&public_key=b");
        caller.get(&twice, "400 M_INVALID_PARAM").await;
    }
    caller.get("pubkey/ed25519:9", "404 M_NOT_FOUND").await;
}

pub(crate) async fn without_a_token_or_with_terms_outstanding(seen: &mut Seen) {
    let url = "https://example.org/privacy-1";
    let app = TestApp::identity(|settings| {
        let privacy = policy("1", &[("en", "Privacy", url)]);
        settings.terms = [("privacy".to_owned(), privacy)].into();
    });
    let mut caller = Caller::new(app, seen).await;
    let alice = caller.token.take();
    let pair = format!("3pid/getValidated3pid?{NOBODYS}");
    let mut calls = vec![
        ("GET", "account", None),
        ("GET", "hash_details", None),
        ("GET", &*pair, None),
    ];
    calls.extend(
        bodies()
            .into_iter()
            .map(|(path, body)| ("POST", path, Some(body))),
    );
    let stranger = AccessToken::parse("stranger").expect("a token");
    for (method, path, body) in &calls {
        for (token, outcome) in [
            (None, "401 M_UNAUTHORIZED"),
            (Some(stranger.clone()), "401 M_UNAUTHORIZED"),
            (alice.clone(), "403 M_TERMS_NOT_SIGNED"),
        ] {
            caller.token = token;
            let (told, _) = caller.send(method, path, body.as_ref()).await;
            let is_served = *path == "terms" && outcome.ends_with("NOT_SIGNED");
            assert_eq!(told, if is_served { "200" } else { outcome }, "{path}");
        }
    }

    caller.get("/_matrix/identity/versions", "200").await;
    caller.get(crate::support::app::IDENTITY, "200").await;
    caller.get("terms", "200").await;
    let accepts = json!({ "user_accepts": [url] });
    caller.post("terms", &accepts, "200").await;
    let account = caller.get("account", "200").await;
    assert_eq!(account, json!({ "user_id": ALICE }));
    let logout = "account/logout";
    caller.post(logout, &json!({}), "200").await;
    caller.post(logout, &json!({}), "401 M_UNKNOWN_TOKEN").await;
    caller.token = None;
    caller.post(logout, &json!({}), "401 M_UNAUTHORIZED").await;
}

/// Has an address proved, with wrong turns; the session's pair.
async fn prove(caller: &mut Caller<'_>, medium: &str, request: &Value) -> Value {
    let path = |end: &str| format!("validate/{medium}/{end}");
    let sid = caller.post(&path("requestToken"), request, "200").await["sid"].take();
    let secret = &request["client_secret"];
    let pair = json!({ "sid": sid, "client_secret": secret });
    let validated = format!("3pid/getValidated3pid?{}", query(&pair));
    let bind = with(pair.clone(), "mxid", ALICE);
    caller.get(&validated, "400 M_SESSION_NOT_VALIDATED").await;
    caller
        .post("3pid/bind", &bind, "400 M_SESSION_NOT_VALIDATED")
        .await;
    let right = code(&caller.app.mail().await);
    let submit = path("submitToken");
    let page = |pair: &str, token: &str| format!("{submit}?{pair}&token={token}");
    let wrong = with(pair.clone(), "token", "0");
    caller.get(&page(&query(&pair), "0"), "400").await;
    caller.post(&submit, &wrong, "400 M_TOKEN_INCORRECT").await;
    caller.get(&page(NOBODYS, &right), "404").await;
    let nobodys = with(wrong.clone(), "sid", "AbCd");
    caller
        .post(&submit, &nobodys, "404 M_NO_VALID_SESSION")
        .await;

    caller
        .post(&submit, &with(wrong, "token", right.clone()), "200")
        .await;
    let goes_on = request.get("next_link").is_some();
    let outcome = if goes_on { "303" } else { "200" };
    caller.get(&page(&query(&pair), &right), outcome).await;
    caller.get(&validated, "200").await;
    pair
}

/// Addresses are proved, bound and ended.
pub(crate) async fn addresses(seen: &mut Seen) {
    let app = TestApp::with(|builder| {
        let next_links = NextLinkPolicy::new(["app.example.org"]).expect("a list");
        with_identity(builder.limits(OFF).next_links(next_links), |_| {})
    });
    let mut caller = Caller::new(app, seen).await;
    let next = "https://app.example.org/";
    let goes_on = |request| with(with(request, "next_link", next), "client_secret", "t");
    prove(&mut caller, "email", &goes_on(email("alice@example.com"))).await;
    prove(&mut caller, "msisdn", &goes_on(phone("07700900001"))).await;
    prove(&mut caller, "msisdn", &phone("07700900001")).await;
    let pair = prove(&mut caller, "email", &email("alice@example.com")).await;

    let nobodys = format!("3pid/getValidated3pid?{NOBODYS}");
    caller.get(&nobodys, "404 M_NO_VALID_SESSION").await;
    caller
        .post("3pid/bind", &bind(), "404 M_NO_VALID_SESSION")
        .await;
    let foreign = with(pair.clone(), "mxid", "@mallory:example.org");
    caller
        .post("3pid/bind", &foreign, "403 M_UNAUTHORIZED")
        .await;
    let bind = with(pair, "mxid", ALICE);
    caller.post("3pid/bind", &bind, "200").await;
    let taken = invite("alice@example.com");
    let taken = caller
        .post("store-invite", &taken, "400 M_THREEPID_IN_USE")
        .await;
    assert_eq!(taken["mxid"], ALICE);
    let threepid = json!({ "medium": "email", "address": "alice@example.com" });
    caller
        .post("3pid/unbind", &with(bind, "threepid", threepid), "200")
        .await;
}

pub(crate) async fn lookups(seen: &mut Seen) {
    let app = TestApp::identity(|settings| settings.lookup_addresses = 3);
    let address = Threepid::email("alice@example.com").expect("an address");
    let associated = app.threepid.associate(ALICE, &address).await;
    associated.expect("the store answers");
    let mut caller = Caller::new(app, seen).await;
    let details = caller.get("hash_details", "200").await;
    let pepper = details["lookup_pepper"].as_str().expect("a pepper");
    let hash = lookup_hash("alice@example.com", "email", pepper);

    let found = lookup("sha256", pepper, &[&hash]);
    let found = caller.post("lookup", &found, "200").await;
    assert_eq!(found, json!({ "mappings": { &hash: ALICE } }));
    for (body, outcome) in [
        (lookup("sha256", "other", &[&hash]), "400 M_INVALID_PEPPER"),
        (lookup("md5", pepper, &[&hash]), "400 M_INVALID_PARAM"),
        (lookup("none", pepper, &[&hash]), "400 M_INVALID_PARAM"),
        (
            lookup("sha256", pepper, &["1", "2", "3", "4"]),
            "400 M_TOO_LARGE",
        ),
        (
            with(lookup("sha256", pepper, &[]), "addresses", vec![1]),
            "400 M_BAD_JSON",
        ),
    ] {
        caller.post("lookup", &body, outcome).await;
    }
}

pub(crate) async fn invitations(seen: &mut Seen) {
    let app = TestApp::identity(|settings| settings.invites_per_address = 1);
    let mut caller = Caller::new(app, seen).await;
    let good = invite("foo@bar.com");
    let stored = caller.post("store-invite", &good, "200").await;
    for (key, value, outcome) in [
        ("medium", "msisdn", "400 M_UNRECOGNIZED"),
        ("address", "foo", "400 M_INVALID_EMAIL"),
        ("sender", "@mallory:example.org", "403 M_UNAUTHORIZED"),
    ] {
        let body = with(good.clone(), key, value);
        caller.post("store-invite", &body, outcome).await;
    }
    let alice = caller.token.take();
    let bob = "@bob:example.org";
    caller.token = Some(caller.app.identity_token(bob).await);
    let another = with(good, "sender", bob);
    caller
        .post("store-invite", &another, "400 M_TOO_LARGE")
        .await;
    caller.token = alice;

    for key in stored["public_keys"].as_array().expect("keys") {
        let url = key["key_validity_url"].as_str().expect("a URL");
        let path = url.strip_prefix(PUBLIC_URL).expect("it is ours");
        let public_key = key["public_key"].as_str().expect("a key");
        let asked = format!("{path}?public_key={}", public_key.replace('+', "%2B"));
        assert_eq!(caller.get(&asked, "200").await, json!({ "valid": true }));
    }
    caller.get("pubkey/ed25519:0", "200").await;
    let signed = with(sign(), "token", stored["token"].clone());
    let signed = caller.post("sign-ed25519", &signed, "200").await;
    assert_eq!(
        (&signed["sender"], &signed["token"]),
        (&json!(ALICE), &stored["token"])
    );
    caller
        .post("sign-ed25519", &sign(), "404 M_UNRECOGNIZED")
        .await;
}

pub(crate) async fn sessions_that_have_run_out(seen: &mut Seen) {
    let mut caller = Caller::new(plain(), seen).await;
    let token = caller.token.clone().expect("Alice's");
    let done = proved(&caller.app, &token, "a@b.org").await;
    let waiting = asked(&caller.app, &token, "b@b.org").await;
    let waiting_phone = asked(&caller.app, &token, "07700900001").await;
    let threepid = json!({ "medium": "email", "address": "b@b.org" });
    let unbind = with(with(waiting.clone(), "mxid", ALICE), "threepid", threepid);
    caller
        .post("3pid/unbind", &unbind, "400 M_SESSION_NOT_VALIDATED")
        .await;

    caller.app.wait(Duration::from_hours(24));

    for (path, pair) in [(SHOW_EMAIL, waiting), (SHOW_PHONE, waiting_phone)] {
        let page = format!("{path}?{}&token=1", query(&pair));
        caller.get(&page, "410").await;
        let shown = with(pair, "token", "1");
        caller.post(path, &shown, "400 M_SESSION_EXPIRED").await;
    }
    let validated = format!("3pid/getValidated3pid?{}", query(&done));
    caller.get(&validated, "400 M_SESSION_EXPIRED").await;
    let bind = with(done, "mxid", ALICE);
    caller
        .post("3pid/bind", &bind, "400 M_SESSION_EXPIRED")
        .await;
    caller
        .post("3pid/unbind", &unbind, "400 M_SESSION_EXPIRED")
        .await;
}

pub(crate) async fn what_the_operator_does_not_admit(seen: &mut Seen) {
    let policy = policy::Settings {
        general: Lists::new(&["example.org"], &["+4477009*"]).expect("patterns"),
        ..policy::Settings::default()
    };
    let app = TestApp::with(|builder| with_identity(builder.limits(OFF).policy(policy), |_| {}));
    let mut caller = Caller::new(app, seen).await;

    caller
        .post(ASK_EMAIL, &email("a@b.org"), "403 M_THREEPID_DENIED")
        .await;
    let number = phone("07700900001");
    caller
        .post(ASK_PHONE, &number, "400 M_DESTINATION_REJECTED")
        .await;
    let invite = invite("a@b.org");
    caller
        .post("store-invite", &invite, "403 M_THREEPID_DENIED")
        .await;
}

/// Where no message goes.
#[derive(Debug)]
struct Down;

#[async_trait]
impl Courier for Down {
    async fn deliver(&self, _: &Threepid, _: &Message) -> Result<String, DeliveryError> {
        Err(DeliveryError::transient("down"))
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        (Vec::new(), Ok(()))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

pub(crate) async fn messages_that_do_not_go(seen: &mut Seen) {
    let app = TestApp::with(|builder| {
        let builder = builder.email(Arc::new(Down)).sms(Arc::new(Down));
        with_identity(builder.limits(OFF), |_| {})
    });
    let mut caller = Caller::new(app, seen).await;
    caller.post(ASK_EMAIL, &email("a@b.org"), "200").await;
    caller.post(ASK_PHONE, &phone("07700900001"), "200").await;
    let tried = caller.app.threepid.deliver_due().await;
    assert_eq!(tried.expect("the store answers"), 2);

    caller.app.wait(Duration::from_mins(5));

    let other = email("b@b.org");
    caller
        .post(ASK_EMAIL, &other, "400 M_EMAIL_SEND_ERROR")
        .await;
    let other = phone("07700900002");
    caller.post(ASK_PHONE, &other, "400 M_SEND_ERROR").await;
    let other = invite("c@b.org");
    caller
        .post("store-invite", &other, "400 M_EMAIL_SEND_ERROR")
        .await;
}

/// The header of a homeserver that unbinds its user's address.
fn signed(homeserver: &FederationServer, for_whom: &str) -> (Value, String) {
    let body = unbind(&homeserver.user("alice"));
    let for_whom = DestinationIs(for_whom);
    let header = homeserver.authorization(("POST", UNBIND), &body, for_whom);
    (body, header)
}

pub(crate) async fn homeservers(seen: &mut Seen) {
    let homeserver = FederationServer::start().await;
    let outbound = homeserver.outbound();
    let mut caller = Caller::new(asking(outbound, OFF, |_| {}), seen).await;
    let openid = openid(homeserver.name());
    caller.post(REGISTER, &openid, "401 M_UNAUTHORIZED").await;
    homeserver.knows("0penid", &homeserver.user("alice"));
    caller.post(REGISTER, &openid, "200").await;
    homeserver.answer(KEYS, Answer::error(500, "M_UNKNOWN"));
    let (body, for_another) = signed(&homeserver, "id.example.net");
    caller.authorization = Some(for_another);
    caller.post(UNBIND, &body, "401 M_UNAUTHORIZED").await;
    let (_, for_us) = signed(&homeserver, IDENTITY_NAME);
    caller.authorization = Some(for_us);
    caller.post(UNBIND, &body, "502 M_UNKNOWN").await;

    let strict = |settings: &mut Identity| {
        settings.homeservers = vec!["example.net".parse().expect("a name")];
    };
    let broken = FederationServer::start().await;
    broken.answer(USERINFO, Answer::error(500, "M_UNKNOWN"));
    let mut caller = Caller::new(asking(broken.outbound(), OFF, |_| {}), seen).await;
    let openid = self::openid(broken.name());
    caller.post(REGISTER, &openid, "502 M_UNKNOWN").await;
    let mut caller = Caller::new(asking(broken.outbound(), OFF, strict), seen).await;
    caller.post(REGISTER, &openid, "403 M_FORBIDDEN").await;
}

/// What never finds a homeserver, and soon gives up.
fn nowhere() -> Outbound {
    let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
    let settings = Settings {
        timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let outbound = Outbound::new(settings).expect("settings that fit together");
    outbound.with_resolver(never)
}

pub(crate) async fn homeservers_that_hang(seen: &mut Seen) {
    let mut caller = Caller::new(asking(nowhere(), OFF, |_| {}), seen).await;
    let name = "hs.example:8448";
    let silent = FederationServer::around(Upstream::start().await, name.to_owned());

    caller.post(REGISTER, &openid(name), "504 M_UNKNOWN").await;
    let (body, header) = signed(&silent, IDENTITY_NAME);
    caller.authorization = Some(header);
    caller.post(UNBIND, &body, "504 M_UNKNOWN").await;
}

pub(crate) async fn limits(seen: &mut Seen) {
    let once = Rate::new(1, Duration::from_hours(1));
    let limits = limits::Settings {
        per_source: once,
        per_source_submit: once,
        per_source_register: once,
        per_account: once,
        lookups_per_account: Rate::new(2, Duration::from_hours(1)),
        ..OFF
    };
    let mut caller = Caller::new(asking(nowhere(), limits, |_| {}), seen).await;
    let details = caller.get("hash_details", "200").await;
    let pepper = details["lookup_pepper"].as_str().expect("a pepper");
    let page = |path| format!("{path}?{NOBODYS}&token=1");
    let validated = format!("3pid/getValidated3pid?{NOBODYS}");
    let accepted = json!({ "user_accepts": [] });
    let mut calls: Vec<_> = bodies()
        .into_iter()
        .filter(|(path, _)| !matches!(*path, "terms" | "lookup"))
        .map(|(path, body)| ("POST", path.to_owned(), Some(body)))
        .collect();
    calls.extend([
        ("POST", REGISTER.to_owned(), Some(openid("hs.example:8448"))),
        ("POST", "3pid/unbind".to_owned(), Some(unbind(ALICE))),
        (
            "POST",
            "lookup".to_owned(),
            Some(lookup("sha256", pepper, &["1", "2"])),
        ),
        ("GET", page(SHOW_EMAIL), None),
        ("GET", page(SHOW_PHONE), None),
    ]);

    for (method, path, body) in calls {
        caller.send(method, &path, body.as_ref()).await;
        let (again, _) = caller.send(method, &path, body.as_ref()).await;
        let is_refused = matches!(&*again, "429" | "429 M_LIMIT_EXCEEDED");
        assert!(is_refused, "{method} {path}: {again}");
    }

    caller.authorization = Some("Bearer guess".to_owned());
    caller.get("account", "401 M_UNAUTHORIZED").await;
    let limited = "429 M_LIMIT_EXCEEDED";
    for path in ["account", "hash_details", &validated] {
        caller.get(path, limited).await;
    }
    caller.post("terms", &accepted, limited).await;
    caller.post("account/logout", &json!({}), limited).await;
}
