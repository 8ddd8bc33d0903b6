//! The three flows as an operator tries them: curl, the default configuration, other ports.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    install::need,
    mails::{code, link},
    server::{Server, Site},
};

const SECRET: &str = "monkeys_are_GREAT";
const DONE: &str = "Done, go back to your app";

async fn start() -> (Site, Server) {
    need(&["curl"], &["curl"]);
    let site = Site::plain()
        .set("server.listen", "127.0.0.1:0")
        .set("server.internal_listen", "127.0.0.1:0");
    let server = site.start().await;
    (site, server)
}

/// Runs curl, which must succeed; what it prints.
async fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--noproxy",
        "*",
    ])
    .args(arguments);
    let output = curl
        .kill_on_drop(true)
        .output()
        .await
        .expect("curl is installed");
    let printed = String::from_utf8(output.stdout).expect("it prints text");
    assert!(
        output.status.success(),
        "{arguments:?}: {}: {printed}",
        output.status
    );
    printed
}

async fn curl_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&curl(arguments).await).expect("an answer in JSON")
}

/// Asks for a token; the answer, and the text of the mail.
async fn ask(server: &Server, endpoint: &str, email: &str) -> (Value, String) {
    let url = format!(
        "{}/_matrix/client/v3/{endpoint}/email/requestToken",
        server.base
    );
    let body = json!({ "client_secret": SECRET, "email": email, "send_attempt": 1 });
    let answer = curl_json(&[&url, "-d", &body.to_string()]).await;
    server.mail_to(email).await;
    let mails = curl_json(&[&format!("{}/_threepid/mailbox/messages", server.base)]).await;
    let mail = &mails[0];
    assert_eq!(mail["to"], email);
    (answer, mail["text"].as_str().expect("a text").to_owned())
}

async fn prove_by_link(server: &Server, endpoint: &str, email: &str) {
    let (_, mail) = ask(server, endpoint, email).await;

    let before = curl(&[link(&mail)]).await;
    assert!(
        before.contains("<button") && before.contains(email),
        "{before}"
    );
    let after = curl(&["-X", "POST", link(&mail)]).await;

    assert!(after.contains(DONE), "{after}");
}

async fn prove_by_code(server: &Server, endpoint: &str, email: &str) {
    let (answer, mail) = ask(server, endpoint, email).await;

    let submit_url = answer["submit_url"].as_str().expect("where the code goes");
    let shown = json!({ "sid": answer["sid"], "client_secret": SECRET, "token": code(&mail) });
    let proved = curl_json(&[submit_url, "-d", &shown.to_string()]).await;

    assert_eq!(proved, json!({ "success": true }));
    assert!(curl(&[link(&mail)]).await.contains(DONE));
}

#[tokio::test]
async fn an_address_is_proved_to_sign_up() {
    let (_site, server) = start().await;

    prove_by_link(&server, "register", "alice@example.org").await;
    prove_by_code(&server, "register", "bob@example.org").await;
}

#[tokio::test]
async fn an_address_is_proved_to_add_it_to_an_account() {
    let (_site, server) = start().await;

    prove_by_link(&server, "account/3pid", "alice@example.org").await;
    prove_by_code(&server, "account/3pid", "bob@example.org").await;
}

#[tokio::test]
async fn an_address_of_an_account_is_proved_to_reset_its_password() {
    let (site, server) = start().await;
    for name in ["alice", "bob"] {
        let (user_id, email) = (format!("@{name}:localhost"), format!("{name}@example.org"));
        let added = site.run(&["addresses", "add", &user_id, &email]).await;
        assert!(added.status.success());
    }

    prove_by_link(&server, "account/password", "alice@example.org").await;
    prove_by_code(&server, "account/password", "bob@example.org").await;
}
