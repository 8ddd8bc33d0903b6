//! A real Synapse and a real matrix-js-sdk, by themselves: what the other tests build on.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    account_server::{AccountServer, ISSUER, LOCALPART},
    client_api::contacts,
    gateway::{Answer, SmsGateway},
    js_sdk::JsSdk,
    synapse::{Options, Synapse, user_id},
};

/// A Synapse with Alice, and the folder of its data.
async fn with_alice(options: Options) -> (Synapse, TempDir) {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let synapse = Synapse::start(dir.path(), options).await;
    synapse.register("alice", "alice's", false).await;
    (synapse, dir)
}

#[tokio::test]
async fn accounts_outlive_a_synapse_that_is_killed() {
    let (mut synapse, _dir) = with_alice(Options::default()).await;
    let token = synapse.api.login("alice", "alice's").await;

    synapse.stop().await;
    synapse.restart().await;

    assert_eq!(synapse.api.contacts(&token).await, Vec::<String>::new());
    assert_eq!(synapse.api.try_login("alice", "bob's").await.0, 403);
    let unknown = synapse.api.login_by_email("alice@example.org", "alice's");
    assert_eq!(unknown.await.0, 403);
}

#[tokio::test]
async fn js_sdk_lists_the_addresses_and_tells_why_a_call_was_refused() {
    let (synapse, _dir) = with_alice(Options::default()).await;
    let mut client = JsSdk::start(synapse.base(), None);

    let early = client.refused("getThreePids", json!([])).await;
    client.login("alice", "alice's").await;
    let listed = client.must("getThreePids", json!([])).await;
    let unproved = json!({ "sid": "1", "client_secret": "monkeys" });
    let challenge = client.refused("addThreePidOnly", json!([unproved])).await;

    assert_eq!(
        (early.status, early.errcode.as_str()),
        (Some(401), "M_MISSING_TOKEN")
    );
    assert_eq!(contacts(&listed), Vec::<String>::new());
    assert_eq!(challenge.status, Some(401));
    assert_eq!(
        challenge.data["flows"],
        json!([{ "stages": ["m.login.password"] }])
    );
}

#[tokio::test]
async fn phone_numbers_are_proved_where_the_configuration_says() {
    let sent = json!({ "success": true, "sid": "1", "msisdn": "447700900001" });
    let delegate = SmsGateway::start([Answer::json(200, &sent)]).await;
    let url = format!("{}/hs/secret", delegate.url());
    let options = Options::default().phones_proved_by(&url, "https://matrix.example.org/");
    let (synapse, _dir) = with_alice(options).await;
    let mut client = JsSdk::start(synapse.base(), None);
    client.login("alice", "alice's").await;

    let number = json!(["GB", "07700900001", "monkeys", 1]);
    let answer = client.must("requestAdd3pidMsisdnToken", number).await;

    let asked = delegate.asked_once();
    let path = "/hs/secret/_matrix/identity/api/v1/validate/msisdn/requestToken";
    assert_eq!(asked.path, path);
    assert_eq!(asked.json()["phone_number"], "07700900001");
    assert_eq!(answer["sid"], "1");
    let submit_url = answer["submit_url"].as_str().unwrap_or_default();
    assert!(
        submit_url.starts_with("https://matrix.example.org/_matrix/client/"),
        "{answer}"
    );
}

#[tokio::test]
async fn administrators_can_do_what_the_other_tests_ask_of_them() {
    let (synapse, _dir) = with_alice(Options::default().passwords_of_at_least(8)).await;
    let alice = synapse.api.login("alice", "alice's").await;
    let path = format!("/_synapse/admin/v2/users/{}", user_id("alice"));
    let threepids = json!([{ "medium": "email", "address": "alice@example.org" }]);
    let bound = json!({ "threepids": threepids });
    let (status, answer) = synapse.api.put(&path, synapse.admin_token(), &bound).await;
    assert_eq!(status, 200, "{answer}");

    let owner = synapse.owner("email", "alice@example.org").await;
    let contacts = synapse.api.contacts(&alice).await;
    synapse.suspend("alice").await;
    synapse.lock("alice").await;
    let (locked, refused) = synapse
        .api
        .get("/_matrix/client/v3/account/whoami", &alice)
        .await;
    synapse.revoke_admin_token().await;
    let (revoked, _) = synapse.api.get(&path, synapse.admin_token()).await;

    assert_eq!(owner, Some(user_id("alice")));
    assert_eq!(contacts, ["email:alice@example.org"]);
    assert_eq!(
        (locked, &refused["errcode"]),
        (401, &"M_USER_LOCKED".into())
    );
    assert_eq!(revoked, 401);
    assert!(!synapse.register_guest().await.is_empty());
}

#[tokio::test]
async fn a_paused_synapse_goes_on_where_it_was() {
    let (synapse, _dir) = with_alice(Options::default()).await;
    synapse.pause().await;

    let mut login = std::pin::pin!(synapse.api.login("alice", "alice's"));
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut login).await;
    synapse.resume().await;

    assert!(early.is_err(), "it answered");
    assert!(!login.await.is_empty());
}

#[tokio::test]
async fn accounts_can_be_those_of_an_account_server() {
    let accounts = AccountServer::start().await;
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let synapse = Synapse::start(dir.path(), accounts.options()).await;
    accounts.open_account(&synapse).await;

    let (known, metadata) = synapse
        .api
        .get("/_matrix/client/v1/auth_metadata", "")
        .await;
    let (_, own) = synapse
        .api
        .get("/_matrix/client/v3/account/whoami", "any")
        .await;
    let (gone, _) = synapse
        .api
        .post("/_matrix/client/v3/login", "", &json!({}))
        .await;

    assert_eq!((known, &metadata["issuer"]), (200, &ISSUER.into()));
    assert_eq!(own["user_id"], Value::from(user_id(LOCALPART)));
    assert_eq!(gone, 404);
}
