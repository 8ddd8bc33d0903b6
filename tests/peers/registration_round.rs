//! Those who would sign up without an address, past us.

use serde_json::{Value, json};

use crate::support::{
    client_api::ClientApi,
    homeserver::Homeserver,
    newcomer::{Newcomer, PASSWORD, SIGN_UP},
    plan::Plan,
    synapse::{BRIDGE_TOKEN, Options},
};

/// Ways to write `/register` that a homeserver might understand.
const PATHS: [&str; 22] = [
    "/_matrix/client/v3/register",
    "/_matrix/client/r0/register",
    "/_matrix/client/api/v1/register",
    "/_matrix/client/unstable/register",
    "/_matrix/client/v1/register",
    "/_matrix/client/v3/%72egister",
    "/_matrix/client/v3/registe%72",
    "/_matrix/client/v3%2fregister",
    "/_matrix/client/v3%2Fregister",
    "/_matrix/%63lient/v3/register",
    "/%5fmatrix/client/v3/register",
    "/_matrix/client/v3/register/",
    "/_matrix/client/v3/register//",
    "/_matrix/client/v3/register%2f",
    "/_matrix/client/v3//register",
    "/_matrix/client//v3/register",
    "//_matrix/client/v3/register",
    "/_matrix//client/v3/register",
    "/_matrix/client/v3/register;a",
    "/_matrix/client/v3/register%00",
    "/_matrix/client/v3/REGISTER",
    "/_matrix/client/v3/sync/../register",
];

/// Queries that say twice of what kind an account is to be.
const QUERIES: [&str; 9] = [
    "?kind=guest&kind=user",
    "?kind=user&kind=guest",
    "?kind=guest;kind=user",
    "?kind=user;kind=guest",
    "?kin%64=user&kind=guest",
    "?kind=guest&kin%64=user",
    "?kind=gues%74",
    "?kind=",
    "?kind=guest%26kind=user",
];

/// Bodies that try to need no address.
fn bodies(session: &str) -> Vec<Value> {
    let with = |auth: Value, more: Value| {
        let mut body = json!({ "username": "mallory", "password": PASSWORD, "auth": auth });
        let more = more.as_object().expect("a table").clone();
        body.as_object_mut().expect("a table").extend(more);
        body
    };
    let dummy = json!({ "type": "m.login.dummy", "session": session });
    let bridge = json!({ "type": "m.login.application_service" });
    vec![
        with(dummy.clone(), json!({})),
        with(json!({ "type": "m.login.dummy" }), json!({})),
        with(json!({ "session": session }), json!({})),
        with(dummy.clone(), bridge),
        with(dummy.clone(), json!({ "kind": "guest" })),
        with(dummy, json!({ "type": null })),
    ]
}

/// Tries all bodies at a path, with sessions that it gives, if it gives any.
async fn attack(api: &ClientApi, path: &str, token: &str) {
    let wanted = json!({ "username": "mallory", "password": PASSWORD });
    let (_, begun) = api.post(path, token, &wanted).await;
    let session = begun["session"].as_str().unwrap_or("x").to_owned();
    for body in bodies(&session) {
        let (status, answer) = api.post(path, token, &body).await;
        let is_guest = answer["user_id"].as_str().is_some_and(|id| {
            id.starts_with('@') && id[1..].starts_with(|letter: char| letter.is_ascii_digit())
        });
        assert!(status != 200 || is_guest, "{path} {body}: {answer}");
        assert!(status < 500, "{path} {body}: {answer}");
    }
}

async fn nobody_is_there(homeserver: &Homeserver) {
    let accounts = homeserver.synapse.accounts().await;
    assert_eq!(accounts, Vec::<String>::new());
}

#[tokio::test]
async fn no_path_and_no_query_leads_past_us_to_an_account() {
    let homeserver = Plan::open(Options::default()).start().await;

    for path in PATHS {
        attack(&homeserver.front, path, "").await;
    }
    for query in QUERIES {
        attack(&homeserver.front, &format!("{SIGN_UP}{query}"), "").await;
    }

    nobody_is_there(&homeserver).await;
}

#[tokio::test]
async fn a_body_that_says_everything_twice_makes_no_account() {
    let homeserver = Plan::open(Options::default()).start().await;
    let session = Newcomer::at(&homeserver, "mallory").session().await;
    let dummy = format!(r#""auth":{{"type":"m.login.dummy","session":"{session}"}}"#);
    let bridge = r#""type":"m.login.application_service""#;
    let wanted = format!(r#""username":"mallory","password":"{PASSWORD}""#);
    for body in [
        format!(r#"{{{wanted},"auth":{{}},{dummy}}}"#),
        format!(r#"{{{wanted},{dummy},"auth":{{}}}}"#),
        format!(r#"{{{wanted},{dummy},{bridge},"type":"x"}}"#),
        format!(r#"{{{wanted},{dummy},"type":"x",{bridge}}}"#),
        format!(r#"{{{wanted},{dummy},"\u0061uth":{{}}}}"#),
        format!("\u{feff}{{{wanted},{dummy}}}"),
    ] {
        let url = format!("{}{SIGN_UP}", homeserver.front.base);
        let sent = homeserver.front.client.post(url).body(body.clone()).send();
        let status = sent.await.expect("nginx answers").status().as_u16();
        assert!((400..500).contains(&status), "{status}: {body}");
    }

    nobody_is_there(&homeserver).await;
}

#[tokio::test]
async fn a_token_that_only_we_know_keeps_synapse_s_own_listener_closed() {
    let plan = Plan::open(Options::default().with_bridge());
    let homeserver = plan.private_token().start().await;
    let synapse = &homeserver.synapse.api;
    let wanted = json!({ "username": "mallory", "password": PASSWORD });

    attack(synapse, SIGN_UP, "").await;
    let (_, begun) = synapse.post(SIGN_UP, "", &wanted).await;
    let through_us = Newcomer::at(&homeserver, "mallory").session().await;
    for session in [begun["session"].as_str().expect("a session"), &through_us] {
        for guess in ["", "x", "come_in", "0123456789abcdefghijklmnopqrstu"] {
            for stage in ["m.login.registration_token", "m.login.dummy"] {
                let mut request = wanted.clone();
                request["auth"] = json!({ "type": stage, "token": guess, "session": session });
                let (status, answer) = synapse.post(SIGN_UP, "", &request).await;
                assert!([400, 401].contains(&status), "{request}: {answer}");
            }
        }
    }

    nobody_is_there(&homeserver).await;
}

#[tokio::test]
async fn nobody_but_the_bridge_itself_signs_up_as_one_of_its_users() {
    let homeserver = Plan::open(Options::default().with_bridge()).start().await;
    let bob = homeserver.register("bob").await;

    for token in ["x", &bob] {
        attack(&homeserver.front, SIGN_UP, token).await;
    }
    let wanted = json!({ "username": "mallory", "password": PASSWORD });
    let (status, answer) = homeserver.front.post(SIGN_UP, BRIDGE_TOKEN, &wanted).await;

    assert!((400..500).contains(&status), "{answer}");
    assert_eq!(homeserver.synapse.accounts().await, ["bob"]);
}
