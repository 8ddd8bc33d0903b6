//! Which messages the identity server sends, and when it says that it sends none.

use std::time::Duration;

use serde_json::{Value, json};
use threepid::{
    courier::{
        capture::Capture,
        email::{self, EmailSettings},
    },
    limits,
    threepid::Medium,
    validation::{Validate, Validates},
};

use crate::support::{
    app::*,
    smtp::{Phase, Script, SmtpServer},
};

const ALICE: &str = "@alice:example.org";
const ASK: &str = "validate/email/requestToken";
const ASK_PHONE: &str = "validate/msisdn/requestToken";
const STORE: &str = "store-invite";
/// After so long nothing is queued any more for a relay that fails.
const A_WHILE: Duration = Duration::from_mins(10);

fn told(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.errcode())
}

fn asking(number: u32) -> Value {
    let email = format!("user{number}@example.org");
    json!({ "client_secret": "monkeys_are_GREAT", "email": email, "send_attempt": 1 })
}

fn inviting(address: &str) -> Value {
    json!({ "medium": "email", "address": address, "room_id": "!room:example.org", "sender": ALICE })
}

/// What Alice is told who asks for two tokens, after the relay has answered so for a while to whoever asked before.
async fn after(refusal: &'static str) -> [u16; 2] {
    let relay = SmtpServer::start(Script::replying(Phase::Rcpt, refusal)).await;
    let transport = format!("smtp://{}?tls=none", relay.address());
    let settings = EmailSettings::new("Example <no-reply@example.org>", &transport);
    let courier = email::courier(&settings, &Capture::in_memory()).expect("a courier");
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).email(courier);
        with_identity(builder, |_| {})
    });
    let token = app.identity_token(ALICE).await;
    for number in 0..3 {
        let asked = app.post_as(&token, ASK, &asking(number)).await;
        assert_eq!(asked.status, 200, "{}", asked.text);
    }
    for _ in 0..2 {
        app.threepid.deliver_due().await.expect("the store answers");
        app.wait(A_WHILE);
    }
    assert!(relay.mails().is_empty());
    // When none can be sent, one a minute is let through.
    let first = app.post_as(&token, ASK, &asking(3)).await;
    let second = app.post_as(&token, ASK, &asking(4)).await;
    [first, second].map(|answer| answer.status.as_u16())
}

#[tokio::test]
async fn addresses_that_the_relay_puts_off_stop_nobody_else() {
    for refusal in [
        "450 4.7.1 greylisted",
        "451 4.7.1 greylisted",
        "450 4.1.2 no such domain",
    ] {
        assert_eq!(after(refusal).await, [200, 200], "{refusal}");
    }
}

#[tokio::test]
async fn a_relay_that_is_out_of_order_takes_nobody_s_mail() {
    for refusal in ["451 4.3.0 out of order", "421 4.7.0 too many of you"] {
        assert_eq!(after(refusal).await, [200, 400], "{refusal}");
    }
}

/// An identity server where `validates` is said of email addresses and of phone numbers.
fn with(validates: Validates) -> TestApp {
    TestApp::with(|builder| {
        let builder = builder
            .limits(limits::Settings::OFF)
            .validates(Medium::Email, validates)
            .validates(Medium::Msisdn, validates);
        with_identity(builder, |_| {})
    })
}

#[tokio::test]
async fn a_medium_that_is_off_at_the_identity_server_sends_nothing() {
    let app = with(Validates {
        identity: Validate::Off,
        ..Validates::all(Validate::Here)
    });
    let token = app.identity_token(ALICE).await;

    let email = app.post_as(&token, ASK, &alice(1)).await;
    let phone = app.post_as(&token, ASK_PHONE, &alices_phone(1)).await;
    let invited = app
        .post_as(&token, STORE, &inviting("bob@example.org"))
        .await;

    assert_eq!(told(&email), (400, "M_EMAIL_SEND_ERROR".to_owned()));
    assert_eq!(told(&phone), (400, "M_SEND_ERROR".to_owned()));
    assert_eq!(told(&invited), (400, "M_EMAIL_SEND_ERROR".to_owned()));
    assert!(app.mails().await.is_empty());
    let homeservers = app.post(REGISTER, &alice(1)).await;
    assert_eq!(homeservers.status, 200, "that is another purpose");
}

#[tokio::test]
async fn what_is_off_for_the_homeserver_goes_on_at_the_identity_server() {
    let app = with(Validates::all(Validate::Off));
    let token = app.identity_token(ALICE).await;

    let email = app.post_as(&token, ASK, &alice(1)).await;
    let phone = app.post_as(&token, ASK_PHONE, &alices_phone(1)).await;
    let invited = app
        .post_as(&token, STORE, &inviting("bob@example.org"))
        .await;

    for answer in [email, phone, invited] {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(app.mails().await.len(), 3);
    let homeservers = app.post(REGISTER, &alice(1)).await;
    assert_eq!(
        told(&homeservers),
        (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED".to_owned())
    );
}
