//! Commands beside a live server, on the same database.

use serde_json::{Value, json};

use crate::support::server::{Site, asking};

const PASSWORD: &str = "/_matrix/client/v3/account/password/email/requestToken";

/// What a command prints, which must succeed.
async fn printed(site: &Site, arguments: &[&str]) -> Value {
    let output = site.run(arguments).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[tokio::test]
async fn a_live_server_sees_at_once_which_addresses_are_added_and_removed() {
    let site = Site::new();
    let server = site.start().await;
    let kinds = async || -> Vec<Value> {
        let listed = printed(&site, &["outbox", "list", "--json"]).await;
        let entries = listed.as_array().expect("a list").iter();
        entries.map(|entry| entry["kind"].clone()).collect()
    };
    let ask = async |secret: &str| {
        let mut body = asking("alice@example.org");
        body["client_secret"] = secret.into();
        assert_eq!(server.post(PASSWORD, &body).await.0, 200);
    };

    ask("before").await;
    let alice = ["@alice:localhost", "alice@example.org"];
    printed(&site, &[&["addresses", "add"], &alice[..]].concat()).await;
    ask("with").await;
    let listed = printed(&site, &["addresses", "list", "--json"]).await;
    printed(&site, &[&["addresses", "remove"], &alice[..]].concat()).await;
    ask("after").await;

    assert_eq!(listed[0]["user_id"], alice[0]);
    assert_eq!(kinds().await, ["no_account", "password", "no_account"]);
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_first_goes_on() {
    let site = Site::new();
    let server = site.start().await;
    server.ask("alice@example.org").await;

    let second = site.run(&["serve"]).await;
    let checked = printed(&site, &["check", "--json"]).await;

    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains(&format!("process {}", server.id())), "{told}");
    assert_eq!(checked["ok"], true, "{checked}");
    server.ask("bob@example.org").await;
}

#[tokio::test]
async fn no_log_holds_a_phone_number_or_its_code_whatever_is_asked_for() {
    let site = Site::new().set("log.level", "trace");
    let server = site.start().await;
    let path = "/_matrix/client/v3/register/msisdn/requestToken";
    let body = json!({ "client_secret": "monkeys_are_GREAT", "country": "GB", "phone_number": "07400 123456", "send_attempt": 1 });

    let (status, _) = server.post(path, &body).await;
    server.settle().await;
    let sms = server.mailbox().await.remove(0);

    assert_eq!(status, 200);
    let code = sms["text"].as_str().and_then(|text| text.get(..6));
    for secret in [
        "7400123456",
        "7400 123456",
        "monkeys",
        code.expect("a code"),
    ] {
        assert!(!site.log().contains(secret), "{secret}");
    }
    assert!(site.log().contains("answered"), "there is a log");
}
