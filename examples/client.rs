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
    // The secret is the client's own: together with the sid it is worth the proof.
    let secret = format!("{:x}{:x}", rand::random::<u64>(), rand::random::<u64>());
    let sid = prove(&http, &server, &address, &secret).await?;
    register(
        &http,
        &server,
        &json!({ "sid": sid, "client_secret": secret }),
    )
    .await
}

/// Asks for a token and, if the message holds a code, shows it; the session.
async fn prove(
    http: &Client,
    server: &str,
    address: &str,
    secret: &str,
) -> Result<String, Box<dyn Error>> {
    let old = mailbox(http, server).await.unwrap_or_default();
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
    // Without a submit_url the person opens the link in the mail, and the client waits.
    let Some(submit_url) = opened["submit_url"].as_str() else {
        return Ok(sid.to_owned());
    };
    let code = match from_mailbox(http, server, address, &old).await {
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
    Ok(sid.to_owned())
}

/// Signs up with the proof, as soon as there is one.
async fn register(http: &Client, server: &str, creds: &Value) -> Result<(), Box<dyn Error>> {
    let auth = json!({ "type": "m.login.email.identity", "session": "s", "threepid_creds": creds });
    let wanted = json!({ "username": "alice", "password": "correct horse", "auth": auth });
    for _ in 0..150 {
        let url = format!("{server}/_matrix/client/v3/register");
        let answer = http.post(url).json(&wanted).send().await?;
        match answer.status() {
            StatusCode::OK => {
                println!("registered: {}", answer.json::<Value>().await?["user_id"]);
                return Ok(());
            }
            StatusCode::NOT_FOUND => {
                println!("proved; this server has no accounts to register");
                return Ok(());
            }
            StatusCode::UNAUTHORIZED => tokio::time::sleep(Duration::from_secs(2)).await,
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
