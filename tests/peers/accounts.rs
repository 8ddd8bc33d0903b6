//! Addresses and passwords of accounts of a real Synapse, through a real nginx, with the library of a real client.

use serde_json::{Value, json};

use crate::support::{
    client_api::contacts,
    homeserver::{Homeserver, Recipe, password, with_password},
    js_sdk::{JsSdk, Rejected},
    mails::code,
    server::sid,
    synapse::{Options, user_id},
};

const ALICE: &str = "alice@example.org";
const SECRET: &str = "monkeys_are_GREAT";
/// A number as people type it, and as it is stored.
const TYPED: &str = "07700 900001";
const MSISDN: &str = "447700900001";

/// Adds what a session has proved, with the password that the server asks for first.
async fn add(client: &mut JsSdk, localpart: &str, creds: &Value) -> Result<Value, Rejected> {
    let challenge = client.refused("addThreePidOnly", json!([creds])).await;
    assert_eq!(challenge.status, Some(401), "{challenge:?}");
    let request = with_password(creds, localpart, &challenge.data);
    client.call("addThreePidOnly", json!([request])).await
}

/// What shows the session of an answer.
fn creds(answer: &Value) -> Value {
    json!({ "sid": sid(answer), "client_secret": SECRET })
}

/// The one stage of a reset.
fn stage(answer: &Value) -> Value {
    json!({ "type": "m.login.email.identity", "threepid_creds": creds(answer) })
}

/// A sidecar, and Alice, who has added her address.
async fn with_contact(options: Options) -> (Homeserver, String) {
    let homeserver = Homeserver::with(options).await;
    let token = homeserver.register("alice").await;
    let proved = homeserver.prove(ALICE, "before").await;
    let added = homeserver.add("alice", &token, &proved).await;
    assert_eq!(added, (200, json!({})));
    (homeserver, token)
}

#[tokio::test]
async fn an_email_is_added_once_its_link_is_pressed_and_the_password_is_given() {
    let homeserver = Homeserver::start(Recipe::Sidecar).await;
    let mut client = homeserver.client_of("alice").await;
    let asked = json!(["Alice@Example.org", SECRET, 1]);
    let answer = client.must("requestAdd3pidEmailToken", asked).await;
    let text = homeserver.text_to(ALICE, 1).await;

    let (pressed, _) = homeserver.press(&text, &[]).await;
    let added = add(&mut client, "alice", &creds(&answer)).await;

    assert_eq!((pressed, added), (200, Ok(json!({}))));
    let listed = client.must("getThreePids", json!([])).await;
    assert_eq!(contacts(&listed), [format!("email:{ALICE}")]);
    let owner = homeserver.synapse.owner("email", ALICE).await;
    assert_eq!(owner, Some(user_id("alice")));
    let login = homeserver.front.login_by_email(ALICE, "alice's").await;
    assert_eq!(login.0, 200, "{}", login.1);
}

#[tokio::test]
async fn emails_and_phone_numbers_are_added_by_their_codes() {
    let homeserver = Homeserver::start(Recipe::Sidecar).await;
    let mut client = homeserver.client_of("alice").await;
    for (method, asked, to) in [
        ("requestAdd3pidEmailToken", json!([ALICE, SECRET, 1]), ALICE),
        (
            "requestAdd3pidMsisdnToken",
            json!(["GB", TYPED, SECRET, 1]),
            MSISDN,
        ),
    ] {
        let answer = client.must(method, asked).await;
        let text = homeserver.text_to(to, 1).await;
        let code = match to {
            MSISDN => text.split_whitespace().next().expect("a code"),
            _ => code(&text),
        };
        let submit = |code: &str| json!([answer["submit_url"], sid(&answer), SECRET, code]);

        let wrong = client
            .refused("submitMsisdnTokenOtherUrl", submit("x"))
            .await;
        let shown = client.must("submitMsisdnTokenOtherUrl", submit(code)).await;
        let added = add(&mut client, "alice", &creds(&answer)).await;

        assert_eq!(wrong.errcode, "M_TOKEN_INCORRECT");
        assert_eq!((shown, added), (json!({ "success": true }), Ok(json!({}))));
    }
    let token = homeserver.front.login("alice", "alice's").await;
    let listed = homeserver.synapse.api.contacts(&token).await;
    assert_eq!(
        listed,
        [format!("email:{ALICE}"), format!("msisdn:{MSISDN}")]
    );
}

#[tokio::test]
async fn neither_a_wrong_password_nor_an_unproved_address_adds_anything() {
    let homeserver = Homeserver::start(Recipe::Sidecar).await;
    let token = homeserver.register("alice").await;
    let proved = homeserver.prove(ALICE, SECRET).await;
    let unproved = json!({ "sid": proved["sid"], "client_secret": "another" });
    let mut request = homeserver
        .ask_to_add("alice", &token, &proved)
        .await
        .expect("a challenge");
    request["auth"]["password"] = "bob's".into();

    let add = "/_matrix/client/v3/account/3pid/add";
    let (wrong, again) = homeserver.front.post(add, &token, &request).await;
    let (status, refused) = homeserver.add("alice", &token, &unproved).await;

    assert_eq!(wrong, 401);
    assert!(again["flows"].is_array(), "{again}");
    let auth_failed = (400, &"M_THREEPID_AUTH_FAILED".into());
    assert_eq!((status, &refused["errcode"]), auth_failed);
    let listed = homeserver.synapse.api.contacts(&token).await;
    assert_eq!(listed, Vec::<String>::new());
}

#[tokio::test]
async fn people_delete_their_own_addresses_and_nobody_else_s() {
    let (homeserver, alice) = with_contact(Options::default()).await;
    let mut others = homeserver.client_of("bob").await;
    let mut own = homeserver.client();
    own.login("alice", "alice's").await;

    let _ = others.call("deleteThreePid", json!(["email", ALICE])).await;
    let before = homeserver.synapse.api.contacts(&alice).await;
    let deleted = own.must("deleteThreePid", json!(["email", ALICE])).await;

    assert_eq!(before, [format!("email:{ALICE}")]);
    assert_eq!(deleted, json!({ "id_server_unbind_result": "no-support" }));
    let after = homeserver.synapse.api.contacts(&alice).await;
    assert_eq!(after, Vec::<String>::new());
    assert_eq!(homeserver.synapse.owner("email", ALICE).await, None);
}

#[tokio::test]
async fn a_forgotten_password_is_reset_in_the_app() {
    let (homeserver, old_token) = with_contact(Options::default()).await;
    let mut client = homeserver.client();
    let asked = json!([ALICE, SECRET, 1]);
    let answer = client.must("requestPasswordEmailToken", asked).await;
    let text = homeserver.text_to(ALICE, 2).await;
    let reset = json!([stage(&answer), "new", true]);

    let early = client.refused("setPassword", reset.clone()).await;
    let (pressed, page) = homeserver.press(&text, &[("continue", "app")]).await;
    let done = client.must("setPassword", reset).await;

    assert_eq!(
        (early.status, early.errcode.as_str()),
        (Some(401), "M_UNAUTHORIZED")
    );
    assert_eq!((pressed, done), (200, json!({})), "{page}");
    assert_eq!(homeserver.front.try_login("alice", "alice's").await.0, 403);
    assert_eq!(homeserver.front.try_login("alice", "new").await.0, 200);
    let whoami = "/_matrix/client/v3/account/whoami";
    assert_eq!(homeserver.front.get(whoami, &old_token).await.0, 401);
}

#[tokio::test]
async fn a_forgotten_password_is_reset_on_the_page_and_not_by_whoever_asked() {
    let (homeserver, old_token) = with_contact(Options::default()).await;
    let mut stranger = homeserver.client();
    let asked = json!([ALICE, SECRET, 1]);
    let answer = stranger.must("requestPasswordEmailToken", asked).await;
    let text = homeserver.text_to(ALICE, 2).await;
    let form = |again| {
        [
            ("new_password", "new"),
            ("new_password_again", again),
            ("logout_devices", "on"),
        ]
    };

    let (unequal, _) = homeserver.press(&text, &form("other")).await;
    let (pressed, page) = homeserver.press(&text, &form("new")).await;
    let reset = json!([stage(&answer), "the stranger's", true]);
    let late = stranger.refused("setPassword", reset).await;

    assert_eq!((unequal, pressed), (400, 200), "{page}");
    assert_eq!(
        (late.status, late.errcode.as_str()),
        (Some(401), "M_UNAUTHORIZED")
    );
    for (password, expected) in [("alice's", 403), ("the stranger's", 403), ("new", 200)] {
        let (status, _) = homeserver.front.login_by_email(ALICE, password).await;
        assert_eq!(status, expected, "{password}");
    }
    let whoami = "/_matrix/client/v3/account/whoami";
    assert_eq!(homeserver.front.get(whoami, &old_token).await.0, 401);
}

#[tokio::test]
async fn a_password_that_synapse_s_policy_forbids_is_not_set() {
    let (homeserver, token) = with_contact(Options::default().passwords_of_at_least(12)).await;
    let mut client = homeserver.client();
    for (mails, secret) in [(2, "first"), (3, "second")] {
        let asked = json!([ALICE, secret, 1]);
        let answer = client.must("requestPasswordEmailToken", asked).await;
        let text = homeserver.text_to(ALICE, mails).await;

        let refused = if secret == "first" {
            homeserver.press(&text, &[("continue", "app")]).await;
            let creds = json!({ "sid": sid(&answer), "client_secret": secret });
            let stage = json!({ "type": "m.login.email.identity", "threepid_creds": creds });
            let reset = json!([stage, "short", true]);
            let refused = client.refused("setPassword", reset).await;
            assert_eq!(refused.errcode, "M_WEAK_PASSWORD");
            refused.status
        } else {
            let form = [("new_password", "short"), ("new_password_again", "short")];
            Some(homeserver.press(&text, &form).await.0.into())
        };

        assert_eq!(refused, Some(400), "{secret}");
    }
    let whoami = "/_matrix/client/v3/account/whoami";
    assert_eq!(homeserver.front.get(whoami, &token).await.0, 200);
    let login = homeserver
        .front
        .try_login("alice", &password("alice"))
        .await;
    assert_eq!(login.0, 200);
}
