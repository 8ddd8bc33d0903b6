//! The example of a webhook, with the real program in front of it: all that a client does with an account.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    client_api::ClientApi,
    mails::link,
    server::{REGISTER, Server, Site, asking, sid},
};

const KEY: &str = "a_key_that_nobody_guesses";
const ADDRESS: &str = "alice@example.org";
const ALICE: &str = "@alice:example.org";
const PASSWORD: &str = "correct horse";
const NEW: &str = "battery staple";
const CLIENT: &str = "/_matrix/client/v3";

/// A homeserver behind the webhook. Dropped, it is killed.
struct Homeserver {
    process: Child,
    url: String,
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Homeserver {
    /// One that knows the keys in a file.
    fn start(site: &Site, keys: &str) -> Self {
        let file = site.path("receiver_keys");
        fs::write(&file, keys).expect("the folder can be written");
        let mut path = std::env::current_exe().expect("this test is a file");
        path.pop();
        path.pop();
        let mut process = Command::new(path.join("examples").join("webhook_server"))
            .arg(file)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo test builds the examples");
        let stdout = process.stdout.take().expect("it is piped");
        let greeting = BufReader::new(stdout).lines().next();
        let greeting = greeting.expect("a line").expect("text");
        let url = greeting.split_whitespace().last().expect("a URL");
        Self {
            process,
            url: url.to_owned(),
        }
    }
}

/// threepid in front of a homeserver that knows these keys, with settings for both.
fn in_front(keys: &str) -> (Homeserver, Site) {
    let site = Site::new();
    let homeserver = Homeserver::start(&site, keys);
    let file = site.path("keys");
    fs::write(&file, format!("{KEY}\n")).expect("the folder can be written");
    let site = site
        .set("homeserver.kind", "webhook")
        .set("homeserver.url", &homeserver.url)
        .set("homeserver.webhook_keys_file", file.to_string_lossy())
        .set("pages.finish_password_reset", "false");
    (homeserver, site)
}

/// Proves the address by the link of its newest mail; what `threepid_creds` holds.
async fn prove(server: &Server, path: &str) -> Value {
    let asked = asking(ADDRESS);
    let (status, answer) = server.post(path, &asked).await;
    assert_eq!(status, 200, "{answer}");
    server.settle().await;
    let mails = server.mailbox().await;
    let text = mails[0]["text"].as_str().expect("a text");
    assert_eq!(server.press(link(text)).await, 200);
    json!({ "sid": sid(&answer), "client_secret": asked["client_secret"] })
}

/// Does a request with a stage of user-interactive authentication, which is asked for first.
async fn with(
    api: &ClientApi,
    path: &str,
    token: &str,
    body: &Value,
    stage: &Value,
) -> (u16, Value) {
    let path = format!("{CLIENT}/{path}");
    let (status, challenge) = api.post(&path, token, body).await;
    assert_eq!(status, 401, "{challenge}");
    let mut body = body.clone();
    body["auth"] = stage.clone();
    body["auth"]["session"] = challenge["session"].clone();
    api.post(&path, token, &body).await
}

/// Signs Alice up with her address; her access token.
async fn sign_up(server: &Server, api: &ClientApi) -> String {
    let creds = prove(server, REGISTER).await;
    let wanted = json!({ "username": "alice", "password": PASSWORD });
    let stage = json!({ "type": "m.login.email.identity", "threepid_creds": creds });
    let (status, made) = with(api, "register", "", &wanted, &stage).await;
    assert_eq!((status, &made["user_id"]), (200, &json!(ALICE)), "{made}");
    made["access_token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn an_account_has_its_address_loses_it_and_gets_it_back_by_its_password() {
    let (_homeserver, site) = in_front(KEY);
    let server = site.start().await;
    let api = ClientApi::at(&server.base);
    let token = sign_up(&server, &api).await;
    let listed = [format!("email:{ADDRESS}")];

    assert_eq!(api.contacts(&token).await, listed);
    let gone = json!({ "medium": "email", "address": ADDRESS });
    let path = format!("{CLIENT}/account/3pid/delete");
    let (status, told) = api.post(&path, &token, &gone).await;
    assert_eq!(
        (status, api.contacts(&token).await.len()),
        (200, 0),
        "{told}"
    );

    let path = format!("{CLIENT}/account/3pid/email/requestToken");
    let creds = prove(&server, &path).await;
    for (password, expected) in [("wrong", 401), (PASSWORD, 200)] {
        let stage = json!({ "type": "m.login.password", "password": password });
        let (status, told) = with(&api, "account/3pid/add", &token, &creds, &stage).await;
        assert_eq!(status, expected, "{told}");
    }
    assert_eq!(api.contacts(&token).await, listed);
}

#[tokio::test]
async fn a_forgotten_password_is_set_and_logs_all_devices_out() {
    let (_homeserver, site) = in_front(KEY);
    let server = site.start().await;
    let api = ClientApi::at(&server.base);
    let token = sign_up(&server, &api).await;

    let path = format!("{CLIENT}/account/password/email/requestToken");
    let creds = prove(&server, &path).await;
    let stage = json!({ "type": "m.login.email.identity", "threepid_creds": creds });
    let wanted = json!({ "new_password": NEW, "logout_devices": true });
    let (status, told) = with(&api, "account/password", "", &wanted, &stage).await;

    assert_eq!(status, 200, "{told}");
    let path = format!("{CLIENT}/account/3pid");
    let (status, told) = api.get(&path, &token).await;
    assert_eq!((status, &told["errcode"]), (401, &json!("M_UNKNOWN_TOKEN")));
}

#[tokio::test]
async fn the_check_tells_a_receiver_that_works_from_one_with_another_key() {
    for (keys, works) in [
        (format!("another_key_for_later_days\n{KEY}\n"), true),
        ("another_key_for_later_days\n".to_owned(), false),
    ] {
        let (_homeserver, site) = in_front(&keys);

        let output = site.run(&["check"]).await;

        let told = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), works, "{told}");
        assert_eq!(told.contains("refuses a wrong signature"), works, "{told}");
        let advice = "give both sides the same key";
        assert_eq!(told.contains(advice), !works, "{told}");
        assert!(!told.contains(KEY), "{told}");
    }
}
