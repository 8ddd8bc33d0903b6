//! A client that proves an email address and follows `submit_url`; on a homeserver it signs up with it.
//!
//! `cargo run --example client -- [SERVER] [ADDRESS]`; by default the homeserver of `cargo run --example embed`.
//! It reads the code from the server's mailbox page, or asks for it where there is none.
#![expect(clippy::print_stdout, reason = "it tells its reader what it does")]

use std::{error::Error, io, time::Duration};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments
        .next()
        .unwrap_or_else(|| "http://127.0.0.1:8008".to_owned());
    let address = arguments
        .next()
        .unwrap_or_else(|| "alice@example.org".to_owned());
    let http = Client::builder()
        .timeout(Duration::from_secs(10))
        .no_proxy()
        .build()?;

    let old = mailbox(&http, &server).await.unwrap_or_default();
    // The secret is the client's own; it never leaves this process but for the server.
    let secret = format!("{:x}{:x}", rand::random::<u64>(), rand::random::<u64>());
    let asked = json!({ "client_secret": secret, "email": address, "send_attempt": 1 });
    let url = format!("{server}/_matrix/client/v3/register/email/requestToken");
    let opened: Value = http
        .post(url)
        .json(&asked)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    println!("requestToken: {opened}");
    let sid = opened["sid"].as_str().ok_or("no sid in the answer")?;

    // With a submit_url the message holds a code; without one the person opens the link, and the client waits.
    if let Some(submit_url) = opened["submit_url"].as_str() {
        let code = match from_mailbox(&http, &server, &address, &old).await {
            Some(code) => code,
            None => ask("Type the code from the mail: ")?,
        };
        let shown = json!({ "sid": sid, "client_secret": secret, "token": code });
        let submitted: Value = http
            .post(submit_url)
            .json(&shown)
            .send()
            .await?
            .json()
            .await?;
        println!("submitToken: {submitted}");
        if submitted["success"] != true {
            return Err("the address is not proved; the newest mail tells why".into());
        }
    }

    let creds = json!({ "sid": sid, "client_secret": secret });
    let auth = json!({ "type": "m.login.email.identity", "session": "s", "threepid_creds": creds });
    let wanted = json!({ "username": "alice", "password": "correct horse", "auth": auth });
    for _ in 0..150 {
        let answer = http
            .post(format!("{server}/_matrix/client/v3/register"))
            .json(&wanted)
            .send()
            .await?;
        match answer.status() {
            StatusCode::OK => {
                return Ok(println!(
                    "registered: {}",
                    answer.json::<Value>().await?["user_id"]
                ));
            }
            StatusCode::UNAUTHORIZED => tokio::time::sleep(Duration::from_secs(2)).await,
            StatusCode::NOT_FOUND => {
                return Ok(println!("proved; this server has no accounts to register"));
            }
            other => return Err(format!("the homeserver says {other}").into()),
        }
    }
    Err("nobody opened the link in the mail".into())
}

/// What the server's mailbox page holds, newest first; `None` where there is none.
async fn mailbox(http: &Client, server: &str) -> Option<Vec<Value>> {
    let url = format!("{server}/_threepid/mailbox/messages");
    let answer = http.get(url).send().await.ok()?;
    answer.error_for_status().ok()?.json().await.ok()
}

/// The code of a mail to `address` that was not there before, where mails are captured.
async fn from_mailbox(http: &Client, server: &str, address: &str, old: &[Value]) -> Option<String> {
    for _ in 0..50 {
        let mails = mailbox(http, server).await?;
        let new = |mail: &&Value| mail["to"] == address && !old.contains(mail);
        let text = mails
            .iter()
            .find(new)
            .and_then(|mail| mail["text"].as_str());
        if let Some(text) = text {
            let is_code =
                |word: &&str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit());
            return text.split_whitespace().find(is_code).map(str::to_owned);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

fn ask(question: &str) -> io::Result<String> {
    println!("{question}");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
