//! Which messages the identity server sends, and when it says that it sends none.

use std::time::Duration;

use serde_json::{Value, json};
use threepid::{
    courier::{
        capture::Capture,
        email::{self, EmailSettings},
    },
    limits,
};

use crate::support::{
    app::*,
    smtp::{Phase, Script, SmtpServer},
};

const ALICE: &str = "@alice:example.org";
const ASK: &str = "validate/email/requestToken";
/// After so long nothing is queued any more for a relay that fails.
const A_WHILE: Duration = Duration::from_mins(10);

fn asking(number: u32) -> Value {
    let email = format!("user{number}@example.org");
    json!({ "client_secret": "monkeys_are_GREAT", "email": email, "send_attempt": 1 })
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
