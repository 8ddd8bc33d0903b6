//! Addresses that Synapse itself adds, and asks the program about: the delegate.

use serde_json::{Value, json};

use crate::support::{
    homeserver::{Homeserver, PREFIX, Recipe, with_password},
    js_sdk::JsSdk,
    server::sid,
    synapse::user_id,
};

const ALICE: &str = "alice@example.org";
const SECRET: &str = "monkeys_are_GREAT";
/// A number as people type it, and as it is stored.
const TYPED: &str = "07700 900001";
const MSISDN: &str = "447700900001";

/// The session of an answer, shown with the password that Synapse asks for.
async fn shown(client: &mut JsSdk, localpart: &str, answer: &Value) -> Value {
    let creds = json!({ "sid": sid(answer), "client_secret": SECRET });
    let challenge = client.refused("addThreePidOnly", json!([creds])).await;
    assert_eq!(challenge.status, Some(401), "{challenge:?}");
    json!([with_password(&creds, localpart, &challenge.data)])
}

#[tokio::test]
async fn synapse_adds_what_was_proved_here_and_knows_no_administrator() {
    let homeserver = Homeserver::start(Recipe::Delegate).await;
    let mut client = homeserver.client_of("alice").await;

    add_an_email(&homeserver, &mut client).await;
    add_a_phone_number(&homeserver, &mut client).await;
}

#[tokio::test]
async fn synapse_adds_what_was_proved_here_and_nobody_has() {
    let homeserver = Homeserver::start(Recipe::KnowingDelegate).await;
    let mut client = homeserver.client_of("alice").await;

    add_an_email(&homeserver, &mut client).await;
    add_a_phone_number(&homeserver, &mut client).await;
}

async fn add_an_email(homeserver: &Homeserver, client: &mut JsSdk) {
    let asked = json!([ALICE, SECRET, 1]);
    let answer = client.must("requestAdd3pidEmailToken", asked).await;
    let text = homeserver.text_to(ALICE, 1).await;

    let request = shown(client, "alice", &answer).await;
    let early = client.refused("addThreePidOnly", request).await;
    let (pressed, _) = homeserver.press(&text, &[]).await;
    let request = shown(client, "alice", &answer).await;
    let added = client.must("addThreePidOnly", request).await;

    assert_eq!(early.errcode, "M_THREEPID_AUTH_FAILED");
    assert_eq!((pressed, added), (200, json!({})));
    let login = homeserver.front.login_by_email(ALICE, "alice's").await;
    assert_eq!(login.0, 200, "{}", login.1);
}

async fn add_a_phone_number(homeserver: &Homeserver, client: &mut JsSdk) {
    let asked = json!(["GB", TYPED, SECRET, 1]);
    let answer = client.must("requestAdd3pidMsisdnToken", asked).await;
    let text = homeserver.text_to(MSISDN, 1).await;
    let code = text.split_whitespace().next().expect("a code");
    let submit = |code: &str| json!([answer["submit_url"], sid(&answer), SECRET, code]);

    // Synapse turns every other status into a failure of ours.
    let wrong = client.must("submitMsisdnTokenOtherUrl", submit("x")).await;
    let right = client.must("submitMsisdnTokenOtherUrl", submit(code)).await;
    let request = shown(client, "alice", &answer).await;
    let added = client.must("addThreePidOnly", request).await;

    assert_eq!(answer["msisdn"], MSISDN);
    assert_eq!(
        (&wrong["success"], &right["success"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(added, json!({}));
    let owner = homeserver.synapse.owner("msisdn", MSISDN).await;
    assert_eq!(owner, Some(user_id("alice")));
}

#[tokio::test]
async fn an_address_that_an_account_has_is_not_moved_to_another() {
    // Synapse by itself would: it looks whose an address is when a token is asked for, and not when it is added.
    let homeserver = Homeserver::start(Recipe::KnowingDelegate).await;
    let (alice, bob) = (
        homeserver.register("alice").await,
        homeserver.register("bob").await,
    );
    let first = homeserver.prove(ALICE, "first").await;
    let second = homeserver.prove(ALICE, "second").await;

    let added = homeserver.add("alice", &alice, &first).await;
    let (status, refused) = homeserver.add("bob", &bob, &second).await;

    assert_eq!(added, (200, json!({})));
    let auth_failed = (400, &"M_THREEPID_AUTH_FAILED".into());
    assert_eq!((status, &refused["errcode"]), auth_failed);
    let owner = homeserver.synapse.owner("email", ALICE).await;
    assert_eq!(owner, Some(user_id("alice")));
}

#[tokio::test]
async fn what_homeserver_and_delegate_tell_each_other_is_not_for_the_world() {
    let homeserver = Homeserver::start(Recipe::Delegate).await;
    let api = "_matrix/identity/api/v1/3pid/getValidated3pid?sid=1&client_secret=a";
    for path in [
        format!("/{PREFIX}/{api}"),
        format!("/{api}"),
        "/_synapse/admin/v1/server_version".to_owned(),
    ] {
        let token = homeserver.synapse.admin_token();
        let (status, answer) = homeserver.front.get(&path, token).await;
        assert_eq!(status, 404, "{path}: {answer}");
    }
}
