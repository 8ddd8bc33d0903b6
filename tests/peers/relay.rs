//! The relay is down, hangs, refuses or hangs up; and the server is told to stop while it sends.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep},
};

use crate::support::{
    mails::{Arrivals, link},
    server::{REGISTER, Server, Site, asking, until},
    smtp::{Phase, Script, SmtpServer},
};

/// How many mails are asked for while the relay fails.
const MAILS: usize = 20;
/// A request that takes as long has waited for the relay: a little less than a relay that hangs is waited for.
const LATE: Duration = Duration::from_secs(10);

fn site(address: &str) -> Site {
    Site::sending(&format!("smtp://{address}?tls=none"))
        .set("email.phase_timeout", "12s")
        .set("email.body_timeout", "12s")
}

fn address(number: usize) -> String {
    format!("u{number}@example.org")
}

/// Asks for mails, none of which a request waits for.
async fn ask_in_time(server: &Server) {
    for number in 0..MAILS {
        let asked = Instant::now();
        server.ask(&address(number)).await;
        assert!(
            asked.elapsed() < LATE,
            "a request took {:?}",
            asked.elapsed()
        );
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.ready().await.0, 200, "a relay makes nothing unready");
}

/// Waits for all mails: each arrived once, and its link works.
async fn all_arrived(server: &Server, relay: &SmtpServer) {
    server.settle().await;
    let mails = relay.arrived();
    let to: BTreeSet<_> = mails.iter().map(|mail| mail.to.clone()).collect();
    assert_eq!(to, (0..MAILS).map(address).collect());
    assert_eq!(mails.len(), MAILS, "some mails came twice");
    for mail in &mails {
        assert_eq!(server.press(link(&mail.text)).await, 200);
    }
    assert!(server.ready().await.1["relay"]["failing_since"].is_null());
}

async fn recovers_from(script: Script) {
    let relay = SmtpServer::start(script).await;
    let site = site(&relay.address());
    let server = site.start().await;

    ask_in_time(&server).await;
    until("the relay is known to fail", async || {
        server.ready().await.1["relay"]["failing_since"].is_number()
    })
    .await;
    relay.set(Script::default());

    all_arrived(&server, &relay).await;
}

#[tokio::test]
async fn a_relay_that_hangs_delays_mails_and_no_request() {
    recovers_from(Script::hanging_at(Phase::Greeting)).await;
}

#[tokio::test]
async fn a_relay_that_hangs_after_the_body_delays_mails_and_no_request() {
    recovers_from(Script::hanging_at(Phase::Body)).await;
}

#[tokio::test]
async fn a_relay_that_refuses_for_now_delays_mails_and_no_request() {
    recovers_from(Script::replying(Phase::Greeting, "421 4.3.2 not now")).await;
}

#[tokio::test]
async fn a_relay_that_hangs_up_in_the_body_delays_mails_and_no_request() {
    let script = Script {
        drops_in_data: true,
        ..Script::default()
    };
    recovers_from(script).await;
}

#[tokio::test]
async fn a_relay_that_is_down_delays_mails_and_no_request() {
    let relay = SmtpServer::start(Script::default()).await;
    // Nobody listens there yet, and nobody else can.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let site = site(&closed.local_addr().unwrap().to_string());
    let server = site.start().await;

    ask_in_time(&server).await;
    let opened = closed.listen(64).unwrap();
    let forward = tokio::spawn(forward(opened, relay.address()));

    all_arrived(&server, &relay).await;
    forward.abort();
}

async fn forward(from: TcpListener, to: String) {
    while let Ok((mut client, _)) = from.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            let mut relay = TcpStream::connect(to).await?;
            copy_bidirectional(&mut client, &mut relay).await
        });
    }
}

/// A `requestToken` whose last byte is held back.
async fn half_a_request(server: &Server, email: &str) -> (TcpStream, u8) {
    let body = asking(email).to_string();
    let host = server.base.strip_prefix("http://").expect("an http URL");
    let mut stream = TcpStream::connect(host).await.expect("it listens");
    let (start, last) = body.split_at(body.len() - 1);
    let head = format!(
        "POST {REGISTER} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{start}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    (stream, last.as_bytes()[0])
}

#[tokio::test]
async fn a_stop_waits_for_the_request_and_the_mail_under_way() {
    let slow = Script {
        delay: Duration::from_millis(300),
        ..Script::default()
    };
    let relay = SmtpServer::start(slow).await;
    let site = site(&relay.address());
    let server = site.start().await;
    let (mut request, last) = half_a_request(&server, "late@example.org").await;
    server.ask("early@example.org").await;
    relay.saw(0, ".").await;

    server.signal("TERM").await;
    sleep(Duration::from_millis(100)).await;
    request.write_all(&[last]).await.unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.ended().await.success(), "{}", site.log());
    site.start().await.settle().await;
    let mut to: Vec<_> = relay.arrived().into_iter().map(|mail| mail.to).collect();
    to.sort();
    assert_eq!(to, ["early@example.org", "late@example.org"]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_for_a_relay_that_hangs() {
    let relay = SmtpServer::start(Script::hanging_at(Phase::Rcpt)).await;
    let site = site(&relay.address())
        .set("email.phase_timeout", "5m")
        .set("server.shutdown_grace", "1s");
    let server = site.start().await;
    server.ask("alice@example.org").await;
    relay.saw(0, "RCPT").await;

    let told = Instant::now();
    server.signal("TERM").await;

    assert!(server.ended().await.success(), "{}", site.log());
    assert!(
        told.elapsed() < Duration::from_secs(30),
        "{:?}",
        told.elapsed()
    );
    relay.set(Script::default());
    site.start().await.settle().await;
    assert_eq!(relay.arrived().len(), 1);
}
