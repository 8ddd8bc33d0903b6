//! The mails of invitations, and the relay that takes them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use threepid::{
    clock::Clock,
    courier::{Courier, DeliveryError, Message, capture::Capture},
    limits,
    store::Outbox,
    threepid::Threepid,
};

use crate::{identity_invites::*, support::app::*};

/// A relay that takes mails, puts them off or refuses them.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) mood: AtomicU8,
    pub(crate) taken: Capture,
}

pub(crate) const TAKES: u8 = 0;
pub(crate) const PUTS_OFF: u8 = 1;
pub(crate) const REFUSES: u8 = 2;

impl Relay {
    pub(crate) fn new(mood: u8) -> Arc<Self> {
        Arc::new(Self {
            mood: AtomicU8::new(mood),
            taken: Capture::in_memory(),
        })
    }
}

#[async_trait]
impl Courier for Relay {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        let taken = self.taken.deliver(to, message).await?;
        match self.mood.load(Ordering::SeqCst) {
            PUTS_OFF => Err(DeliveryError::transient("later")),
            REFUSES => Err(DeliveryError::permanent("no")),
            _ => Ok(taken),
        }
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        (Vec::new(), Ok(()))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// An identity server without limits, whose mails go to `relay`.
pub(crate) fn with_relay(relay: &Arc<Relay>) -> TestApp {
    let relay = Arc::clone(relay);
    TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).email(relay);
        with_identity(builder, |_| {})
    })
}

#[tokio::test]
async fn the_mail_names_who_invites_and_whereto_and_carries_token_and_key() {
    let app = TestApp::identity(|settings| settings.name = "id.example.com".parse().unwrap());

    let body = invited(&app, &alice_by_bob()).await;

    let mail = app.mail().await;
    assert_eq!(mail.to, "alice@example.org");
    assert_eq!(
        mail.subject,
        format!("{BOB} invites you to a room on Matrix")
    );
    assert_eq!(below(&mail, "Token:"), body["token"].as_str().unwrap());
    for text in [&mail.text, &mail.html] {
        for word in [
            BOB,
            "Bob Smith",
            "Emporium",
            "id.example.com",
            "alice@example.org",
        ] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(text.contains(&private_key(&mail)));
        assert!(!text.contains("mxc:") && !text.contains("!room"), "{text}");
    }
}

#[tokio::test]
async fn a_space_is_called_one() {
    let app = TestApp::identity(|_| {});
    let mut body = alice_by_bob();
    body["room_type"] = json!("m.space");

    invited(&app, &body).await;

    let mail = app.mail().await;
    assert!(mail.subject.contains("a space"), "{}", mail.subject);
    assert!(mail.text.contains("a space"), "{}", mail.text);
}

#[tokio::test]
async fn what_a_room_may_tell_is_never_an_error() {
    let app = TestApp::identity(|_| {});
    for value in [
        json!(null),
        json!(1),
        json!(["x"]),
        json!({ "x": 1 }),
        json!(""),
        json!(true),
    ] {
        let mut body = alice_by_bob();
        body["room_id"] = json!("$room");
        for field in [
            "room_alias",
            "room_avatar_url",
            "room_join_rules",
            "room_name",
            "sender_display_name",
            "sender_avatar_url",
            "room_type",
        ] {
            body[field] = value.clone();
        }

        invited(&app, &body).await;

        let mail = app.mail().await;
        let told = format!("{BOB} invites you to a room on Matrix.");
        assert!(mail.text.contains(&told), "{value}: {}", mail.text);
        assert!(
            mail.html
                .contains("</strong> invites you to a room on Matrix.")
        );
    }
}

#[tokio::test]
async fn hostile_words_stay_words_in_every_field() {
    let app = TestApp::identity(|_| {});
    let fields = [
        "room_alias",
        "room_avatar_url",
        "room_join_rules",
        "room_name",
        "sender_display_name",
        "sender_avatar_url",
        "room_type",
        "org.example.more",
    ];
    for foul in [
        "<script>alert(1)</script><img src=https://evil.example/x>",
        "\"><a href='https://evil.example/'>click</a>",
        "{{ mail.address }}{% include \"mail.html\" %}",
        "x\r\nBcc: eve@evil.example\r\n\r\nhello",
        "\u{202e}evil\u{2066}\u{200b}.\u{200b}example\u{2028}\0",
        "log in at https://evil.example/login or www.evil.example now",
        &"evil.example ".repeat(4000),
    ] {
        let mut all = alice_by_bob();
        // Of 40 kB there is room for one.
        let at_once = if foul.len() > 1000 {
            &fields[3..4]
        } else {
            &fields[..]
        };
        for field in at_once {
            all[*field] = json!(foul);
        }

        invited(&app, &all).await;

        let mail = app.mail().await;
        assert!(mail.text.len() < 3000 && mail.html.len() < 6000);
        assert!(mail.subject.starts_with(BOB) && mail.subject.len() < 80);
        for tag in ["<script", "<img", "<a "] {
            assert!(!mail.html.contains(tag), "{}", mail.html);
        }
        for shown in [&mail.subject, &mail.text, &mail.html] {
            for part in [
                "\nBcc",
                "\r",
                "\0",
                "\u{202e}",
                "\u{2066}",
                "\u{200b}",
                "\u{2028}",
                "evil.example",
                "https:/",
                "mxc:",
            ] {
                assert!(!shown.contains(part), "{part:?} in {shown}");
            }
        }
    }
}

#[tokio::test]
async fn an_invitation_that_is_refused_wastes_no_chance_to_see_whether_the_relay_is_back() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    associate(&app, "known@example.org", "@known:example.org").await;
    invited(&app, &alice_by_bob()).await;
    app.threepid.deliver_due().await.unwrap();
    app.wait(Duration::from_mins(6));

    let refused = invite(&app, &of("known@example.org")).await;

    assert_eq!(refused.errcode(), "M_THREEPID_IN_USE");
    assert_eq!(invite(&app, &of("carol@example.org")).await.status, 200);
    let waiting = invite(&app, &of("dora@example.org")).await;
    assert_eq!(waiting.errcode(), "M_EMAIL_SEND_ERROR");
}

#[tokio::test]
async fn while_no_mail_can_be_sent_nobody_is_invited() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    invited(&app, &alice_by_bob()).await;
    app.threepid.deliver_due().await.unwrap();
    app.wait(Duration::from_mins(5));

    let answer = invite(&app, &alice_by_bob()).await;

    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(answer.errcode(), "M_EMAIL_SEND_ERROR");
    assert_eq!(entries(&app).await.len(), 1);
}

#[tokio::test]
async fn a_mail_that_is_put_off_goes_later_as_the_same() {
    let relay = Relay::new(PUTS_OFF);
    let app = with_relay(&relay);
    invited(&app, &alice_by_bob()).await;
    app.threepid.deliver_due().await.unwrap();
    let waiting = newest(&app).await;
    assert_eq!((waiting.state, sealed(&app)), ("queued", 1));

    relay.mood.store(TAKES, Ordering::SeqCst);
    app.wait(Duration::from_secs(10));
    app.threepid.deliver_due().await.unwrap();

    assert_eq!((newest(&app).await.state, sealed(&app)), ("sent", 0));
    let tried = relay.taken.messages();
    assert_eq!(tried.len(), 2);
    assert_eq!(
        (&tried[0].id, &tried[0].text),
        (&tried[1].id, &tried[1].text)
    );
}

#[tokio::test]
async fn of_a_mail_that_failed_nothing_is_kept_to_try_again() {
    let relay = Relay::new(REFUSES);
    let app = with_relay(&relay);
    let body = invited(&app, &alice_by_bob()).await;

    app.threepid.deliver_due().await.unwrap();

    let failed = newest(&app).await;
    assert_eq!((failed.state, sealed(&app)), ("failed", 0));
    assert!(!app.store.retry(failed.id, app.clock.now()).await.unwrap());
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(relay.taken.messages().len(), 1);
    assert!(is_valid(&app, &body["public_keys"][1]).await, "it is open");
}
