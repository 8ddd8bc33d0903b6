//! Text messages from the request to the gateway.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;
use threepid::{
    courier::sms::{GatewaySettings, SmsCourier, SmsSettings},
    limits::{self, Ceilings},
    policy::{self, Numbers},
    rate::Rate,
    store::{Outbox, OutboxEntry},
};

use crate::support::{
    app::*,
    gateway::{Answer, SmsGateway},
    until,
};

const DAY: Duration = Duration::from_hours(24);
/// The limit of a gateway whose silence is the subject of the test.
const SHORT: Duration = Duration::from_secs(1);

fn gateway(name: &str, server: &SmsGateway) -> GatewaySettings {
    GatewaySettings {
        name: name.to_owned(),
        url: Some(format!("{}/send", server.url())),
        json: Some(json!({ "to": "{to_plus}", "text": "{text}", "id": "{id}" })),
        ..GatewaySettings::default()
    }
}

fn vonage(name: &str, server: &SmsGateway) -> GatewaySettings {
    GatewaySettings {
        url: Some(server.url()),
        username: Some("key".to_owned()),
        password: Some(SecretString::from("hunter2")),
        ..GatewaySettings::preset(name, "vonage")
    }
}

fn courier(gateways: Vec<GatewaySettings>) -> Arc<SmsCourier> {
    let settings = SmsSettings {
        gateways,
        sender: Some("Example".to_owned()),
        ..SmsSettings::default()
    };
    Arc::new(SmsCourier::new(&settings).expect("settings that fit together"))
}

fn app(server: &SmsGateway, limits: limits::Settings, policy: policy::Settings) -> TestApp {
    let courier = courier(vec![gateway("main", server)]);
    TestApp::with(|builder| builder.sms(courier).limits(limits).policy(policy))
}

fn plain_app(server: &SmsGateway) -> TestApp {
    app(server, limits::Settings::OFF, policy::Settings::default())
}

async fn newest(app: &TestApp) -> OutboxEntry {
    let mut listed = app.store.list(1).await.expect("the store answers");
    listed.remove(0)
}

#[tokio::test]
async fn the_code_that_the_gateway_gets_proves_the_number() {
    let server = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let app = plain_app(&server);
    let sid = app.post(REGISTER_PHONE, &alices_phone(1)).await.sid();
    assert!(
        server.asked().is_empty(),
        "the request does not wait for it"
    );

    app.threepid.deliver_due().await.unwrap();
    let sent = server.asked_once().json();
    let text = sent["text"].as_str().unwrap().to_owned();
    let (code, words) = text.split_at(6);
    let submitted = app.post(SUBMIT_PHONE, &shown(&sid, code)).await;

    assert_eq!(sent["to"], "+447700900001");
    assert!(words.starts_with(" is your threepid code "), "{text}");
    assert_eq!(submitted.status, 200, "{}", submitted.text);
    let entry = newest(&app).await;
    assert_eq!(
        (entry.state, entry.outcome.as_deref()),
        ("sent", Some("main: 201"))
    );
}

#[tokio::test]
async fn a_gateway_that_fails_is_tried_again_with_the_same_message_at_no_further_charge() {
    let busy = || Answer::Say(503, "<html>+447700900001</html>".to_owned());
    let server = SmsGateway::start([busy(), busy(), Answer::Say(200, String::new())]).await;
    let ceilings = Ceilings {
        per_number: vec![Rate::new(2, DAY)],
        ..Ceilings::OFF
    };
    let limits = limits::Settings {
        sms: ceilings,
        ..limits::Settings::OFF
    };
    let app = app(&server, limits, policy::Settings::default());
    app.post(REGISTER_PHONE, &alices_phone(1)).await;

    app.threepid.deliver_due().await.unwrap();
    assert_eq!(newest(&app).await.outcome.as_deref(), Some("main: 503"));
    for _ in 0..2 {
        app.wait(Duration::from_secs(20));
        app.threepid.deliver_due().await.unwrap();
    }

    assert_eq!(newest(&app).await.state, "sent");
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|one| one.json() == asked[0].json()));
    assert_eq!(app.post(REGISTER_PHONE, &alices_phone(2)).await.status, 200);
    assert_eq!(app.post(REGISTER_PHONE, &alices_phone(3)).await.status, 429);
}

/// The outbox's entry after more tries than a message may get, at one gateway and a second behind it; how often each was
/// asked.
async fn tried_for_minutes(
    answers: impl IntoIterator<Item = Answer>,
    describe: fn(&str, &SmsGateway) -> GatewaySettings,
    behind: Answer,
) -> (OutboxEntry, usize, usize) {
    let first = SmsGateway::start(answers).await;
    let second = SmsGateway::start([behind]).await;
    let impatient = GatewaySettings {
        timeout: Some(SHORT),
        ..describe("main", &first)
    };
    let courier = courier(vec![impatient, gateway("second", &second)]);
    let app = TestApp::with(|builder| builder.sms(courier).limits(limits::Settings::OFF));
    app.post(REGISTER_PHONE, &alices_phone(1)).await;
    for _ in 0..6 {
        app.threepid.deliver_due().await.expect("the store answers");
        app.wait(Duration::from_mins(1));
    }
    (
        newest(&app).await,
        first.asked().len(),
        second.asked().len(),
    )
}

/// A gateway that falls silent, how it is described, and what is told of it.
type Silent = (
    Answer,
    fn(&str, &SmsGateway) -> GatewaySettings,
    &'static str,
);

fn silent() -> [Silent; 4] {
    let cut = Answer::Say(200, "{\"messages\":[{\"sta".to_owned());
    [
        (Answer::Hang, gateway, "main: timed out"),
        (Answer::HangUp, gateway, "main: request: network error"),
        (cut, vonage, "main: 200"),
        (Answer::HangInBody(200), vonage, "main: 200"),
    ]
}

#[tokio::test]
async fn after_a_gateway_that_falls_silent_the_next_one_gets_the_message_at_once() {
    let all = silent().map(async |(answer, describe, outcome)| {
        let taken = Answer::Say(201, String::new());
        (tried_for_minutes([answer], describe, taken).await, outcome)
    });

    for ((entry, first, second), outcome) in join_all(all).await {
        assert_eq!((first, second), (1, 1), "{outcome}");
        let told = format!("{outcome}; second: 201");
        assert_eq!((entry.state, entry.outcome), ("sent", Some(told)));
    }
}

#[tokio::test]
async fn no_gateway_is_sent_a_message_more_than_three_times_that_it_may_have_taken() {
    let all = silent().map(async |(answer, describe, outcome)| {
        let down = Answer::Say(503, String::new());
        (tried_for_minutes([answer], describe, down).await, outcome)
    });

    for ((entry, first, second), outcome) in join_all(all).await {
        assert_eq!((first, second), (3, 3), "{outcome}");
        let told = format!("{outcome}; second: 503, may have been sent");
        assert_eq!((entry.state, entry.outcome), ("failed", Some(told)));
    }
}

#[tokio::test]
async fn a_number_that_the_gateway_refuses_for_good_is_given_up() {
    let server = SmsGateway::start([Answer::Say(400, "no such number".to_owned())]).await;
    let app = plain_app(&server);
    app.post(REGISTER_PHONE, &alices_phone(1)).await;

    app.threepid.deliver_due().await.unwrap();
    app.wait(Duration::from_mins(5));
    app.threepid.deliver_due().await.unwrap();

    let entry = newest(&app).await;
    assert_eq!(
        (entry.state, entry.outcome.as_deref()),
        ("failed", Some("main: 400"))
    );
    assert_eq!(entry.to, "+44…01");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_gateway_that_hangs_holds_up_no_mail() {
    let server = SmsGateway::start([Answer::Hang]).await;
    let patient = GatewaySettings {
        timeout: Some(Duration::from_mins(5)),
        ..gateway("main", &server)
    };
    let app = TestApp::with(|builder| {
        builder
            .sms(courier(vec![patient]))
            .limits(limits::Settings::OFF)
            .workers(1)
    });
    for n in 0..4 {
        let body = phone(&format!("0770090010{n}"), "s", 1);
        assert_eq!(app.post(REGISTER_PHONE, &body).await.status, 200);
    }
    app.post(REGISTER, &alice(1)).await;

    let background = app.threepid.start();

    // Far sooner than the gateway is given up.
    until("the mail arrives", async || {
        !app.mailbox.messages().is_empty()
    })
    .await;
    until("the gateway was asked", async || !server.asked().is_empty()).await;
    background.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_denied_costs_no_call_and_leaves_no_trace() {
    let server = SmsGateway::start([Answer::Say(201, String::new())]).await;
    let none: [&str; 0] = [];
    let numbers = Numbers::new(
        &["44", "33"],
        &["33"],
        &none,
        &["premium-rate", "satellite"],
    );
    let policy = policy::Settings {
        numbers: numbers.unwrap(),
        ..policy::Settings::default()
    };
    let app = app(&server, limits::Settings::OFF, policy);
    for number in [
        "+33 6 11 22 33 44",
        "+49 30 1234567",
        "+44 909 8790000",
        "+881 612345678",
        "+870 773111632",
    ] {
        for path in [REGISTER_PHONE, ADD_PHONE] {
            let answer = app.post(path, &phone(number, "s", 1)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.errcode().as_str()),
                (403, "M_THREEPID_DENIED"),
                "{number}"
            );
        }
    }
    assert_eq!(app.store.backlog().await.unwrap().waiting, 0);
    app.threepid.deliver_due().await.unwrap();

    assert!(server.asked().is_empty());
    let allowed = app.post(REGISTER_PHONE, &alices_phone(1)).await;
    assert_eq!(allowed.status, 200);
}

#[tokio::test]
async fn premium_and_satellite_numbers_are_denied_by_default() {
    let app = TestApp::new();
    for number in [
        "+44 909 8790000",
        "+1 900 234 5678",
        "+881 612345678",
        "+883510012345678",
    ] {
        let answer = app.post(ADD_PHONE, &phone(number, "s", 1)).await;
        assert_eq!(answer.errcode(), "M_THREEPID_DENIED", "{number}");
    }
    assert!(app.mails().await.is_empty());
}
