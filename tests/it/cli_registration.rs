//! `threepid check`, of how people sign up: what it says of a homeserver, and of the ways round threepid.

use std::{net::Ipv4Addr, sync::Arc};

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Json},
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    cli::{run, serve},
    cli_homeserver::{stopped, with},
    support::upstream::{Answer, Upstream},
};

const SECRET: &str = "correct-horse-battery-staple";
const EMAIL: &str = "m.login.email.identity";
const DUMMY: &str = "m.login.dummy";
const TOKEN: &str = "m.login.registration_token";
const V3: &str = "/_matrix/client/v3/register";
/// What clients sign up at.
const PATHS: [&str; 4] = [
    V3,
    "/_matrix/client/r0/register",
    "/_matrix/client/unstable/register",
    "/_matrix/client/api/v1/register",
];

/// A small HTTP server on loopback; dropped, it is gone.
struct StandIn {
    url: String,
    task: JoinHandle<()>,
}

type Reply = (u16, Value);

impl StandIn {
    /// Answers by method, and path with query, as they come.
    async fn start(answer: impl Fn(&Method, &str) -> Reply + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let handler = move |method: Method, uri: Uri| {
            let (status, body) = answer(&method, &uri.to_string());
            let status = StatusCode::from_u16(status).expect("a status");
            async move { (status, Json(body)).into_response() }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let server = axum::serve(listener, Router::new().fallback(handler));
        let task = tokio::spawn(async { server.await.expect("it serves") });
        Self {
            url: format!("http://{address}"),
            task,
        }
    }

    /// A homeserver that answers so to a request for an account, and so of its token.
    async fn homeserver(register: Reply, validity: Reply) -> Self {
        Self::start(move |method, path| match path {
            V3 if method == Method::POST => register.clone(),
            "/_matrix/client/versions" => (200, json!({ "versions": ["v1.18"] })),
            path if path.contains("/threepid/") => error(404, "M_NOT_FOUND"),
            path if path.ends_with(&format!("/validity?token={SECRET}")) => validity.clone(),
            _ => error(404, "M_UNRECOGNIZED"),
        })
        .await
    }

    /// What clients reach: threepid at the paths that are its own, and somebody's way to sign up without an address
    /// where there `is_hole`.
    async fn front(is_hole: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::start(move |_, path| {
            if is_hole(path) {
                ways(&[&[DUMMY]])
            } else if PATHS.contains(&path.trim_end_matches("?kind=user")) {
                ways(&[&["m.login.terms", EMAIL]])
            } else {
                error(404, "M_UNRECOGNIZED")
            }
        })
        .await
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn error(status: u16, errcode: &str) -> Reply {
    (status, json!({ "errcode": errcode, "error": "No." }))
}

fn ways(ways: &[&[&str]]) -> Reply {
    let flows: Vec<_> = ways.iter().map(|way| json!({ "stages": way })).collect();
    (401, json!({ "session": "s", "flows": flows, "params": {} }))
}

/// What `check` says of signing up: what is well, what is not, and what should be known.
#[derive(Debug)]
struct Told {
    fine: Vec<String>,
    failed: Vec<String>,
    warned: Vec<String>,
}

impl Told {
    /// The one thing that is wrong.
    fn failure(&self) -> &str {
        assert_eq!(self.failed.len(), 1, "{self:?}");
        &self.failed[0]
    }

    /// The one thing that should be known, of a check that went well.
    fn warning(&self) -> &str {
        assert_eq!((self.failed.len(), self.warned.len()), (0, 1), "{self:?}");
        &self.warned[0]
    }

    fn is_all_well(&self) -> bool {
        self.failed.is_empty() && self.warned.is_empty()
    }
}

fn check(file: &str) -> Told {
    let output = run(&with(file), &["check", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains(SECRET), "{text}");
    let report: Value = serde_json::from_str(&text).expect("it answers in JSON");
    let findings = report["findings"].as_array().expect("findings");
    let of = |ok: bool| {
        let found = findings.iter().filter(move |finding| finding["ok"] == ok);
        let found = found.filter(|finding| !ok || finding["part"] == "registration");
        found.map(|finding| finding["detail"].to_string()).collect()
    };
    let warnings = report["warnings"].as_array().expect("warnings");
    Told {
        fine: of(true),
        failed: of(false),
        warned: warnings.iter().map(ToString::to_string).collect(),
    }
}

/// Beside a homeserver that answers so to a request for an account.
async fn beside(register: Reply, keys: &str) -> Told {
    let homeserver = StandIn::homeserver(register, (200, json!({ "valid": true }))).await;
    check(&synapse(&homeserver, keys))
}

fn synapse(homeserver: &StandIn, keys: &str) -> String {
    let url = &homeserver.url;
    format!("[homeserver]\nkind = 'synapse'\nurl = '{url}'\nadmin_token = 'tok'\n{keys}\n")
}

fn with_token(keys: &str) -> String {
    format!("registration_token = '{SECRET}'\n{keys}")
}

/// Behind `front`, which people reach at its URL.
async fn behind(front: &StandIn, keys: &str) -> Told {
    let register = ways(&[&[TOKEN]]);
    let homeserver = StandIn::homeserver(register, (200, json!({ "valid": true }))).await;
    let file = synapse(&homeserver, keys);
    check(&format!("{file}[server]\npublic_url = '{}'\n", front.url))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_asks_all_for_a_token_is_as_it_should_be() {
    let register = ways(&[&["m.login.recaptcha", TOKEN, DUMMY]]);

    let told = beside(register, &with_token("")).await;

    assert!(told.is_all_well(), "{told:?}");
    let asks = "the homeserver asks for m.login.recaptcha and m.login.registration_token and";
    assert!(told.fine[0].contains(asks), "{told:?}");
    assert!(
        told.fine[1].contains("knows the registration token"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_proves_addresses_itself_leaves_no_way() {
    let register = ways(&[&[EMAIL], &["m.login.msisdn", "m.login.terms"]]);

    let told = beside(register, "").await;

    let hint = "take registrations_require_3pid and email: out of homeserver.yaml";
    assert!(told.failure().contains(hint), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_is_asked_for_keeps_nobody_out() {
    let told = beside(ways(&[&[DUMMY], &[EMAIL]]), &with_token("")).await;

    let hint = "set registration_requires_token: true in homeserver.yaml";
    assert!(told.failure().contains(hint), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_open_to_whoever_reaches_it_is_warned_of() {
    let told = beside(ways(&[&["m.login.terms", DUMMY], &[TOKEN]]), "").await;

    let warning = told.warning();
    let said =
        "directly signs up without an address: it asks for m.login.terms and m.login.dummy alone";
    assert!(warning.contains(said), "{warning}");
    assert!(
        warning.contains("homeserver.registration_token_file"),
        "{warning}"
    );
    let nothing = "[accounts]\nregistration_requires = 'nothing'";
    let told = beside(ways(&[&[DUMMY]]), nothing).await;
    assert!(told.is_all_well(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_homeserver_is_closed_to_us_too() {
    let closed = || error(403, "M_FORBIDDEN");
    let hint = "set enable_registration: true and registration_requires_token: true";
    for keys in [
        "registration = 'overlay'",
        &with_token("registration = 'token'"),
    ] {
        let told = beside(closed(), keys).await;
        assert!(told.failure().contains(hint), "{told:?}");
    }
    let unset = beside(closed(), "[server]\npublic_url = 'http://127.0.0.1:9'").await;
    assert!(
        unset.is_all_well() && unset.fine[0].contains(hint),
        "{unset:?}"
    );

    let told = beside(
        closed(),
        &format!("registration = 'shared-secret'\nregistration_shared_secret = '{SECRET}'"),
    )
    .await;

    assert!(told.is_all_well(), "{told:?}");
    assert!(
        told.fine[0].contains("closed to all but its shared secret"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_open_beside_its_shared_secret_is_warned_of() {
    let keys = format!("registration = 'shared-secret'\nregistration_shared_secret = '{SECRET}'");

    let told = beside(ways(&[&[DUMMY]]), &keys).await;

    let hint = "set enable_registration: false in homeserver.yaml";
    assert!(told.warning().contains(hint), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_homeserver_does_not_know_is_told_and_not_shown() {
    let asked = || ways(&[&[TOKEN]]);
    let unknown = StandIn::homeserver(asked(), (200, json!({ "valid": false }))).await;
    let limited = StandIn::homeserver(asked(), error(429, "M_LIMIT_EXCEEDED")).await;

    let unknown = check(&synapse(&unknown, &with_token("registration = 'token'")));
    let limited = check(&synapse(&limited, &with_token("")));

    let told = "does not take the registration token";
    assert!(unknown.failure().contains(told), "{unknown:?}");
    let told = "does not say whether it takes the registration token (429)";
    assert!(limited.warning().contains(told), "{limited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_homeserver_says_now_is_not_taken_for_what_it_says_always() {
    let now = beside(error(503, "M_UNKNOWN"), "").await;
    let always = beside(error(404, "M_UNRECOGNIZED"), "").await;
    let made = beside((200, json!({ "user_id": "@a:b" })), "").await;

    assert!(now.warning().contains("answers 503 M_UNKNOWN"), "{now:?}");
    assert!(
        always.failure().contains("answers 404 M_UNRECOGNIZED"),
        "{always:?}"
    );
    assert!(
        made.failure().contains("without asking for anything"),
        "{made:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_that_is_off_is_not_looked_at() {
    let front = StandIn::front(|_| true).await;

    let told = behind(&front, "registration = 'off'").await;

    assert!(told.is_all_well(), "{told:?}");
    assert_eq!(told.fine, ["\"off: nobody signs up through threepid\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_leaves_no_way_round_is_as_it_should_be() {
    let front = StandIn::front(|_| false).await;

    let told = behind(&front, "").await;

    assert!(told.is_all_well(), "{told:?}");
    let last = told.fine.last().expect("a finding");
    assert!(last.contains("POST /register is threepid's, and"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_ours_leaves_no_way_round_by_itself() {
    let register = ways(&[&["m.login.terms", TOKEN, DUMMY]]);
    let homeserver = StandIn::homeserver(register, (200, json!({ "valid": true }))).await;
    let file = synapse(&homeserver, &with_token(""));
    let dir = with(&file);
    let (child, text) = serve(&dir);
    let line = text.lines().next().expect("it says where it listens");
    let (_, address) = line.rsplit_once(' ').expect("it says where it listens");
    let address = address.trim_end_matches('.');

    let told = check(&format!("{file}[server]\npublic_url = 'http://{address}'"));

    stopped(child);
    assert!(told.is_all_well(), "{told:?}");
    let last = told.fine.last().expect("a finding");
    assert!(last.contains("POST /register is threepid's, and"), "{last}");
}

/// A form that `check` tries, and which ones a homeserver understands.
type Hole = (&'static str, fn(&str) -> bool);

/// What a homeserver behind a careless proxy understands as a request for an account, by the form that `check` finds.
const HOLES: &[Hole] = &[
    ("/_matrix/client/v3/%72egister", |path| {
        path.contains('%') && percent_decode_str(path).decode_utf8_lossy() == V3
    }),
    ("/_matrix/client/v3//register", |path| {
        path != V3 && path.replace("//", "/") == V3
    }),
    ("//_matrix/client/v3/register", |path| {
        path.starts_with("//")
    }),
    ("/_matrix/client/v3/register/", |path| {
        path.len() > V3.len() && path.trim_end_matches('/') == V3
    }),
    ("/_matrix/client/v3/register/.", |path| path.ends_with("/.")),
    ("/_matrix/client/v3/register?kind=user", |path| {
        path.starts_with(V3) && path.contains('?')
    }),
    ("/_matrix/client/v3/login/../register", |path| {
        path.contains("/../")
    }),
    ("/_matrix/client/v3/login/%2e%2e/register", |path| {
        path.contains("/%2e%2e/")
    }),
    ("/_matrix/client/v3/register;x", |path| path.contains(';')),
    ("/_matrix/client/r0/%72egister", |path| {
        path == "/_matrix/client/r0/%72egister"
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_way_round_threepid_is_found_and_named() {
    for (form, is_hole) in HOLES {
        let front = StandIn::front(is_hole).await;

        let told = behind(&front, "").await;

        let start = format!(
            "\"POST {}{form} leads past threepid: it asks for m.login.dummy, and for no address; let the reverse proxy \
             send it to threepid, or answer 404; see deploy/\"",
            front.url
        );
        assert!(told.failed.contains(&start), "{form}: {told:?}");
        let led = |failed: &&String| !failed.contains("leads past threepid");
        assert_eq!(told.failed.iter().find(led), None, "{form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_round_that_wants_our_token_is_no_way() {
    let front = StandIn::start(|_, path| {
        if PATHS.contains(&path) {
            ways(&[&[EMAIL]])
        } else {
            ways(&[&[TOKEN, DUMMY], &[EMAIL, TOKEN]])
        }
    });
    let front = front.await;

    let kept = behind(&front, &with_token("")).await;
    let without = behind(&front, "").await;

    assert!(kept.is_all_well(), "{kept:?}");
    assert!(without.failed.len() > 40, "{without:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_the_proxy_sends_elsewhere_is_named() {
    let front = StandIn::front(|path| path == PATHS[1]).await;
    let elsewhere = StandIn::front(|_| true).await;
    let nowhere = StandIn::start(|_, _| error(404, "M_UNRECOGNIZED")).await;

    let one = behind(&front, "").await;
    let all = behind(&elsewhere, "").await;
    let none = behind(&nowhere, "").await;

    let told = format!(
        "POST {}{} is not threepid's: it asks for m.login.dummy",
        front.url, PATHS[1]
    );
    assert!(one.failure().contains(&told), "{one:?}");
    assert_eq!(all.failed.len(), PATHS.len(), "{all:?}");
    assert_eq!(none.failed.len(), PATHS.len(), "{none:?}");
    let told = "the answer is 404 M_UNRECOGNIZED, and so nobody signs up there; let the reverse proxy send it";
    assert!(none.failed[0].contains(told), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flow_has_what_is_required() {
    let front = StandIn::front(|_| false).await;
    let mixed = StandIn::start(|_, _| ways(&[&[EMAIL], &[DUMMY]])).await;

    let both = behind(&front, "[accounts]\nregistration_requires = 'both'").await;
    let nothing = behind(&mixed, "[accounts]\nregistration_requires = 'nothing'").await;
    let any = behind(&mixed, "").await;

    let told = "m.login.email.identity, and not for both an email address and a phone number; let";
    assert!(both.failed[0].contains(told), "{both:?}");
    let told = "it asks for m.login.dummy, and for no address; let";
    assert!(any.failed[0].contains(told), "{any:?}");
    assert!(nothing.is_all_well(), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_sign_up_nobody_does_so_past_us() {
    let closed = |is_hole: fn(&str) -> bool| {
        StandIn::start(move |_, path| match path {
            path if is_hole(path) => ways(&[&[DUMMY]]),
            _ => error(403, "M_FORBIDDEN"),
        })
    };
    let (tight, leaking) = (
        closed(|_| false).await,
        closed(|path| path.contains("%72")).await,
    );
    let keys = "[accounts]\nregistration = false";

    let [tight, leaking] = [behind(&tight, keys).await, behind(&leaking, keys).await];

    assert!(tight.is_all_well(), "{tight:?}");
    assert!(
        leaking.failed[0].contains("%72egister leads past threepid"),
        "{leaking:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_run_yet_is_no_fault() {
    let down = StandIn::start(|_, _| error(502, "M_UNKNOWN")).await;
    let gone = StandIn::front(|_| false).await;
    gone.task.abort();

    let down = behind(&down, "").await;
    let gone = behind(&gone, "").await;

    let told = "whether people sign up through threepid alone was not looked at";
    assert!(down.warning().contains(told), "{down:?}");
    assert!(gone.warning().contains(told), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_registered_by_the_check() {
    let (asked, told) = std::sync::mpsc::channel();
    let asked = std::sync::Mutex::new(asked);
    let front = StandIn::start(move |method, path| {
        let asked = asked.lock().expect("no test panicked in it");
        asked
            .send((method.clone(), path.to_owned()))
            .expect("the test listens");
        ways(&[&[EMAIL]])
    });

    behind(&front.await, "").await;

    let asked: Vec<_> = told.try_iter().collect();
    assert!(asked.len() > 40, "{asked:?}");
    let harms =
        |(method, path): &&(Method, String)| *method != Method::POST || path.contains("guest");
    assert_eq!(asked.iter().find(harms), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_those_that_other_calls_trust() {
    let front = Upstream::start().await;
    let body = ways(&[&[EMAIL]]).1;
    front.answer("/register", Answer::json(401, body));
    let homeserver = StandIn::homeserver(ways(&[&[TOKEN]]), error(404, "M_UNRECOGNIZED")).await;
    let (name, ca_file) = (front.name(), front.ca_file());
    let file = synapse(
        &homeserver,
        &format!("[server]\npublic_url = 'https://{name}'"),
    );

    let distrusted = check(&file);
    let trusted = check(&format!("{file}[outbound]\nca_files = [{ca_file:?}]"));

    assert!(distrusted.warning().contains("TLS: "), "{distrusted:?}");
    assert!(trusted.is_all_well(), "{trusted:?}");
    let bodies = front.requests().into_iter().map(|request| request.json());
    assert!(bodies.into_iter().all(|body| body == json!({})));
}
