//! Mails through an SMTP relay, that may be in any mood.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use secrecy::SecretString;
use threepid::{
    clock::Timestamp,
    courier::{
        Courier, DeliveryError, Message,
        capture::Capture,
        email::{self, Auth, EmailSettings},
    },
    threepid::Threepid,
};

use crate::support::{
    closed_port,
    smtp::{Phase, Script, SmtpServer},
};

/// The limit of a phase where a time-out is the subject of the test.
const SHORT: Duration = Duration::from_secs(1);

fn message(text: &str) -> Message {
    Message {
        id: "message-1".to_owned(),
        at: Timestamp(1_795_341_600_000),
        subject: "Confirm your address".to_owned(),
        text: text.to_owned(),
        html: format!("<p>{text}</p>"),
        language: "en".to_owned(),
    }
}

fn settings(server: &SmtpServer, tls: &str) -> EmailSettings {
    let transport = format!("smtp://{}?tls={tls}", server.address());
    EmailSettings::new("Example <no-reply@example.org>", &transport)
}

fn with_login(server: &SmtpServer, tls: &str) -> EmailSettings {
    EmailSettings {
        transport: format!("smtp://me@{}?tls={tls}", server.address()),
        password: Some(SecretString::from("hunter2")),
        ..settings(server, tls)
    }
}

fn courier(settings: &EmailSettings) -> Arc<dyn Courier> {
    email::courier(settings, &Capture::in_memory()).expect("the settings fit")
}

fn plain(server: &SmtpServer) -> Arc<dyn Courier> {
    courier(&settings(server, "none"))
}

async fn deliver(courier: &dyn Courier, to: &str) -> Result<String, DeliveryError> {
    let to = Threepid::email(to).expect("it is an address");
    courier.deliver(&to, &message("Hello")).await
}

fn transient<T>(outcome: &str) -> Result<T, DeliveryError> {
    Err(DeliveryError::transient(outcome))
}

/// The same, of this recipient alone.
fn put_off<T>(outcome: &str) -> Result<T, DeliveryError> {
    Err(DeliveryError {
        of_recipient: true,
        ..DeliveryError::transient(outcome)
    })
}

fn permanent<T>(outcome: &str) -> Result<T, DeliveryError> {
    Err(DeliveryError::permanent(outcome))
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written() {
    let server = SmtpServer::start(Script::default()).await;
    let to = Threepid::email("alice@example.com").unwrap();
    let text = "one\n.\n..two\nMAIL FROM:<eve@example.net>";

    let outcome = plain(&server).deliver(&to, &message(text)).await;

    assert_eq!(outcome, Ok("sent: 250 2.0.0".to_owned()));
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].from, "<no-reply@example.org>");
    assert_eq!(mails[0].to, "<alice@example.com>");
    let mail = mail_parser::MessageParser::default()
        .parse(&mails[0].data)
        .unwrap();
    let body = mail.body_text(0).unwrap().replace("\r\n", "\n");
    assert_eq!(body.trim_end(), text);
}

#[tokio::test]
async fn a_connection_serves_many_mails_and_is_replaced_in_time() {
    let server = SmtpServer::start(Script::default()).await;
    let courier = plain(&server);

    for _ in 0..150 {
        deliver(&*courier, "alice@example.com").await.unwrap();
    }

    assert_eq!(server.mails().len(), 150);
    assert_eq!(server.connections(), 2);
    assert_eq!(server.mails()[99].connection, 1);
    assert_eq!(server.mails()[100].connection, 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_relay_closed_is_replaced() {
    let closing = Script {
        closes_after_mail: true,
        ..Script::default()
    };
    let server = SmtpServer::start(closing).await;
    let courier = plain(&server);

    for _ in 0..3 {
        let outcome = deliver(&*courier, "alice@example.com").await;
        assert_eq!(outcome, Ok("sent: 250 2.0.0".to_owned()));
    }

    assert_eq!(server.mails().len(), 3);
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_421_to_mail_on_a_kept_connection_is_tried_once_on_a_new_one() {
    let server = SmtpServer::start(Script::default()).await;
    let courier = plain(&server);
    deliver(&*courier, "alice@example.com").await.unwrap();
    server.set(Script::replying(Phase::Mail, "421 4.3.2 going down"));

    let outcome = deliver(&*courier, "alice@example.com").await;

    assert_eq!(outcome, transient("MAIL 421 4.3.2"));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_reply_of_550_to_rcpt_is_permanent() {
    let refusal = "550 5.1.1 <alice@example.com>: no such user";
    let server = SmtpServer::start(Script::replying(Phase::Rcpt, refusal)).await;
    let courier = plain(&server);

    let outcome = deliver(&*courier, "alice@example.com").await;

    assert_eq!(outcome, permanent("RCPT 550 5.1.1"));
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn each_answer_is_told_by_phase_and_code() {
    for (phase, reply, outcome) in [
        (
            Phase::Greeting,
            "554 5.7.1 go away",
            transient("greeting 554 5.7.1"),
        ),
        (Phase::Ehlo, "502 no", transient("greeting 502")),
        (
            Phase::Ehlo,
            "250-scripted\r\n250- \r\n250 HELP",
            transient("greeting: answer not understood"),
        ),
        (Phase::Mail, "452 4.3.1 full", transient("MAIL 452 4.3.1")),
        (
            Phase::Mail,
            "553 5.1.8 not you",
            permanent("MAIL 553 5.1.8"),
        ),
        (
            Phase::Mail,
            "530 5.7.0 log in first",
            transient("MAIL 530 5.7.0"),
        ),
        (Phase::Mail, "354 what", transient("MAIL 354")),
        (
            Phase::Rcpt,
            "251 will forward",
            Ok("sent: 250 2.0.0".to_owned()),
        ),
        (Phase::Rcpt, "252 perhaps", transient("RCPT 252")),
        (
            Phase::Rcpt,
            "450-4.2.0 alice@example.com\r\n450 4.2.0 greylisted",
            put_off("RCPT 450 4.2.0"),
        ),
        (Phase::Data, "250 what", transient("DATA 250")),
        (Phase::Data, "554 5.5.1 no", permanent("DATA 554 5.5.1")),
        (
            Phase::Body,
            "552 5.3.4 too large",
            permanent("body 552 5.3.4"),
        ),
        (Phase::Body, "451 4.7.1 later", transient("body 451 4.7.1")),
        (Phase::Body, "354 what", transient("body 354")),
        (
            Phase::Body,
            "nonsense",
            transient("body: answer not understood"),
        ),
    ] {
        let server = SmtpServer::start(Script::replying(phase, reply)).await;
        let told = deliver(&*plain(&server), "alice@example.com").await;
        assert_eq!(told, outcome, "{phase:?} {reply}");
    }
}

#[tokio::test]
async fn a_hanging_relay_is_given_up_after_the_phase_limit() {
    let cases = [
        (Phase::Greeting, "greeting: timed out"),
        (Phase::Ehlo, "greeting: timed out"),
        (Phase::Mail, "MAIL: timed out"),
        (Phase::Rcpt, "RCPT: timed out"),
        (Phase::Data, "DATA: timed out"),
        (Phase::Body, "body: timed out"),
    ];
    let told = cases.map(async |(phase, _)| {
        let server = SmtpServer::start(Script::hanging_at(phase)).await;
        let courier = courier(&EmailSettings {
            phase_timeout: SHORT,
            body_timeout: SHORT,
            ..settings(&server, "none")
        });
        tokio::time::timeout(courier.longest(), deliver(&*courier, "a@example.com")).await
    });

    for (told, (_, outcome)) in join_all(told).await.into_iter().zip(cases) {
        assert_eq!(told.unwrap(), transient(outcome));
    }
}

#[tokio::test]
async fn a_relay_may_take_longer_for_the_body_than_for_any_other_phase() {
    let server = SmtpServer::start(Script::hanging_at(Phase::Body)).await;
    let courier = courier(&EmailSettings {
        phase_timeout: SHORT,
        ..settings(&server, "none")
    });

    let told = tokio::time::timeout(SHORT * 4, deliver(&*courier, "a@example.com")).await;

    assert!(told.is_err(), "given up too early: {told:?}");
    assert!(courier.longest() > Duration::from_mins(10));
}

#[tokio::test]
async fn a_slow_relay_is_waited_for() {
    let slow = Script {
        delay: Duration::from_millis(50),
        ..Script::default()
    };
    let server = SmtpServer::start(slow).await;

    let outcome = deliver(&*plain(&server), "alice@example.com").await;

    assert_eq!(outcome, Ok("sent: 250 2.0.0".to_owned()));
}

#[tokio::test]
async fn a_connection_dropped_in_the_middle_of_data_is_transient() {
    let dropping = Script {
        drops_in_data: true,
        ..Script::default()
    };
    let server = SmtpServer::start(dropping).await;
    let courier = plain(&server);

    let outcome = deliver(&*courier, "alice@example.com").await;
    assert_eq!(outcome, transient("body: connection closed"));

    server.set(Script::default());
    deliver(&*courier, "bob@example.com").await.unwrap();
    assert_eq!(server.mails().len(), 1);
    assert_eq!(server.mails()[0].to, "<bob@example.com>");
}

#[tokio::test]
async fn a_cancelled_send_never_leaks_into_the_next_one() {
    for (phase, last_line) in [
        (Phase::Mail, "MAIL"),
        (Phase::Rcpt, "RCPT"),
        (Phase::Data, "DATA"),
        (Phase::Body, "."),
    ] {
        let server = SmtpServer::start(Script::default()).await;
        let courier = plain(&server);
        deliver(&*courier, "first@example.com").await.unwrap();
        server.set(Script::hanging_at(phase));
        let seen = server.lines().len();
        tokio::select! {
            outcome = deliver(&*courier, "alice@example.com") => panic!("{outcome:?}"),
            () = server.saw(seen, last_line) => {}
        }
        server.set(Script::default());

        let outcome = deliver(&*courier, "bob@example.com").await;

        assert_eq!(outcome, Ok("sent: 250 2.0.0".to_owned()));
        let mails = server.mails();
        let last = mails.last().unwrap();
        assert_eq!(
            (last.to.as_str(), last.connection),
            ("<bob@example.com>", 2)
        );
        assert!(last.data.contains("To: bob@example.com"));
        assert_eq!(mails.len(), 2, "the cancelled one was not taken");
    }
}

#[tokio::test]
async fn parallel_mails_have_connections_of_their_own() {
    let server = SmtpServer::start(Script::default()).await;
    let courier = plain(&server);

    let names: Vec<_> = (0..20)
        .map(|number| format!("user{number}@example.com"))
        .collect();
    let sends = names.iter().map(|name| deliver(&*courier, name));
    for outcome in join_all(sends).await {
        outcome.unwrap();
    }

    let mails = server.mails();
    assert_eq!(mails.len(), 20);
    for mail in mails {
        let name = mail.to.trim_matches(['<', '>']);
        assert!(mail.data.contains(&format!("To: {name}\r\n")), "{name}");
    }
}

#[tokio::test]
async fn starttls_that_is_not_offered_is_refused_and_nothing_is_sent() {
    let server = SmtpServer::start(Script::offering(&["AUTH PLAIN"])).await;
    let courier = courier(&with_login(&server, "required"));

    let outcome = deliver(&*courier, "alice@example.com").await;

    assert_eq!(outcome, transient("TLS: the relay offers no STARTTLS"));
    assert_eq!(verbs(&server), ["EHLO"]);
}

#[tokio::test]
async fn credentials_never_go_over_plain_connections() {
    let server = SmtpServer::start(Script::offering(&["AUTH PLAIN LOGIN"])).await;
    let courier = courier(&with_login(&server, "opportunistic"));

    let outcome = deliver(&*courier, "alice@example.com").await;

    let refusal = "AUTH: no password is sent without encryption";
    assert_eq!(outcome, transient(refusal));
    assert_eq!(verbs(&server), ["EHLO"]);
}

#[tokio::test]
async fn credentials_go_in_the_clear_only_if_that_was_written() {
    let server = SmtpServer::start(Script::offering(&["AUTH PLAIN LOGIN"])).await;
    let courier = courier(&with_login(&server, "none"));

    deliver(&*courier, "alice@example.com").await.unwrap();

    assert_eq!(
        verbs(&server),
        ["EHLO", "AUTH", "MAIL", "RCPT", "DATA", "."]
    );
}

#[tokio::test]
async fn without_encryption_to_be_had_an_opportunist_sends_in_the_clear() {
    let server = SmtpServer::start(Script::default()).await;

    let outcome = deliver(
        &*courier(&settings(&server, "opportunistic")),
        "a@example.com",
    )
    .await;

    assert_eq!(outcome, Ok("sent: 250 2.0.0".to_owned()));
}

#[tokio::test]
async fn what_is_slipped_in_after_starttls_is_not_taken_for_encrypted() {
    let slipped = "220 go on\r\n250-scripted\r\n250 AUTH PLAIN\r\n235 in\r\n250 ok\r\n250 ok\r\n354 go\r\n250 sent";
    let server = SmtpServer::start(Script {
        extensions: vec!["STARTTLS"],
        ..Script::replying(Phase::StartTls, slipped)
    })
    .await;
    let courier = courier(&with_login(&server, "required"));

    let outcome = deliver(&*courier, "alice@example.com").await;

    assert_eq!(outcome, transient("TLS: handshake failed"));
}

#[tokio::test]
async fn a_login_that_fails_is_transient() {
    for (script, outcome) in [
        (
            Script {
                extensions: vec!["AUTH PLAIN"],
                ..Script::replying(Phase::Auth, "535 5.7.8 wrong password")
            },
            "AUTH 535 5.7.8",
        ),
        (
            Script::offering(&["AUTH CRAM-MD5"]),
            "AUTH: the relay offers no way to log in that is set up here",
        ),
    ] {
        let server = SmtpServer::start(script).await;
        let courier = courier(&with_login(&server, "none"));
        assert_eq!(
            deliver(&*courier, "a@example.com").await,
            transient(outcome)
        );
        assert!(server.mails().is_empty());
    }
}

#[tokio::test]
async fn a_bearer_token_logs_in_where_that_is_set_up() {
    let script = Script::offering(&["AUTH PLAIN XOAUTH2"]);
    let server = SmtpServer::start(script.clone()).await;
    let courier = courier(&EmailSettings {
        auth: Auth::Xoauth2,
        ..with_login(&server, "none")
    });

    deliver(&*courier, "alice@example.com").await.unwrap();
    let token = "user=me\x01auth=Bearer hunter2\x01\x01";
    let line = format!("AUTH XOAUTH2 {}", STANDARD.encode(token));
    assert_eq!(server.lines()[1], line);

    let challenge = "334 eyJzdGF0dXMiOiI0MDEifQ==";
    server.set(Script {
        replies: vec![(Phase::Auth, challenge)],
        ..script
    });
    let (_, greeted) = courier.greet().await;
    assert_eq!(greeted, transient("AUTH: login refused"));
}

#[tokio::test]
async fn an_address_beyond_ascii_needs_a_relay_that_takes_it() {
    let server = SmtpServer::start(Script::default()).await;
    let courier = plain(&server);

    deliver(&*courier, "संपर्क@example.com").await.unwrap();
    assert_eq!(server.mails()[0].to, "<संपर्क@example.com>");
    assert!(server.mails()[0].from.ends_with(" SMTPUTF8"));

    let server = SmtpServer::start(Script::offering(&["8BITMIME"])).await;
    let outcome = deliver(&*plain(&server), "संपर्क@example.com").await;
    let refusal = "MAIL: the relay takes no address beyond ASCII (SMTPUTF8)";
    assert_eq!(outcome, permanent(refusal));
}

#[tokio::test]
async fn nobody_at_the_port_is_transient() {
    let (_nobody, closed) = closed_port();
    let transport = format!("smtp://{closed}?tls=none");
    let courier = courier(&EmailSettings::new("no-reply@example.org", &transport));

    let outcome = deliver(&*courier, "alice@example.com").await;

    assert_eq!(outcome, transient("connect: refused"));
}

#[tokio::test]
async fn a_greeting_tells_how_far_it_came() {
    let server = SmtpServer::start(Script::offering(&["AUTH PLAIN"])).await;
    let connected = format!("connected to {}", server.address());

    let (told, greeted) = courier(&with_login(&server, "none")).greet().await;
    assert_eq!(told, [&connected, "relay greets", "logged in as me"]);
    assert_eq!(greeted, Ok(()));
    assert_eq!(verbs(&server), ["EHLO", "AUTH", "NOOP", "QUIT"]);

    let (told, greeted) = courier(&with_login(&server, "required")).greet().await;
    assert_eq!(told, [&connected, "relay greets"]);
    assert_eq!(greeted, transient("TLS: the relay offers no STARTTLS"));
}

fn verbs(server: &SmtpServer) -> Vec<String> {
    let lines = server.lines();
    let verb = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    lines.iter().map(verb).collect()
}
