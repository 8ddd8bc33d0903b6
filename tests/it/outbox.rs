//! Messages on their way, to a real (scripted) relay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use threepid::{
    courier::{
        Courier, DeliveryError, Message,
        capture::Capture,
        email::{self, EmailSettings},
    },
    limits,
    store::{Outbox, OutboxEntry, Sessions},
    threepid::{Medium, Threepid},
};

use crate::support::{
    app::*,
    smtp::{Phase, Script, SmtpServer},
    until,
};

async fn with_relay(script: Script) -> (TestApp, SmtpServer) {
    let relay = SmtpServer::start(script).await;
    let settings = EmailSettings::new(
        "Example <no-reply@example.org>",
        &format!("smtp://{}?tls=none", relay.address()),
    );
    let courier = email::courier(&settings, &Capture::in_memory()).expect("a courier");
    let app = TestApp::with(|builder| builder.limits(limits::Settings::OFF).email(courier));
    (app, relay)
}

async fn newest(app: &TestApp) -> OutboxEntry {
    app.store
        .list(1)
        .await
        .expect("the store answers")
        .remove(0)
}

#[tokio::test]
async fn a_relay_that_is_down_delays_a_mail_and_loses_none() {
    let (app, relay) = with_relay(Script::replying(
        Phase::Rcpt,
        "451 4.3.0 later, alice@example.org",
    ))
    .await;
    app.post(REGISTER, &alice(1)).await;
    app.threepid.deliver_due().await.unwrap();
    let waiting = newest(&app).await;
    assert_eq!((waiting.state, waiting.deliveries), ("queued", 1));
    assert_eq!(
        waiting.outcome.as_deref(),
        Some("RCPT 451 4.3.0"),
        "never the relay's own words"
    );
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(newest(&app).await.deliveries, 1, "not before its time");

    relay.set(Script::default());
    app.wait(Duration::from_secs(10));
    app.threepid.deliver_due().await.unwrap();

    assert_eq!(newest(&app).await.state, "sent");
    let mails = relay.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, "<alice@example.org>");
}

#[tokio::test]
async fn a_permanent_refusal_is_not_tried_again_and_the_next_attempt_sends() {
    let (app, relay) = with_relay(Script::replying(
        Phase::Rcpt,
        "550 5.1.1 no such user alice",
    ))
    .await;
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    app.threepid.deliver_due().await.unwrap();
    let failed = newest(&app).await;
    assert_eq!(
        (failed.state, failed.outcome.as_deref()),
        ("failed", Some("RCPT 550 5.1.1"))
    );
    app.wait(Duration::from_mins(30));
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(newest(&app).await.deliveries, 1);

    relay.set(Script::default());
    assert_eq!(app.post(REGISTER, &alice(2)).await.sid(), sid);
    app.threepid.deliver_due().await.unwrap();

    assert_eq!(relay.mails().len(), 1);
}

#[tokio::test]
async fn retries_end_when_the_link_would_be_useless() {
    let (app, relay) = with_relay(Script::replying(Phase::Mail, "421 busy")).await;
    app.post(REGISTER, &alice(1)).await;
    for _ in 0..70 {
        app.threepid.deliver_due().await.unwrap();
        app.wait(Duration::from_mins(1));
    }
    let entry = newest(&app).await;
    assert_eq!(entry.state, "failed");
    assert!(
        (5..20).contains(&entry.deliveries),
        "{} tries in an hour",
        entry.deliveries
    );
    assert!(relay.mails().is_empty());
}

#[tokio::test]
async fn a_mail_that_nobody_needs_any_more_is_dropped() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let sid = app.post(REGISTER, &alice(2)).await.sid();
    let mails = app.mails().await;
    assert_eq!(mails.len(), 1, "only the newest attempt's");
    app.post(REGISTER, &alice(3)).await;
    assert_eq!(
        app.post(SUBMIT, &shown(&sid, &link_value(&mails[0])))
            .await
            .status,
        200
    );
    assert!(
        app.mails().await.is_empty(),
        "the address is proved already"
    );
    let states: Vec<_> = app
        .store
        .list(3)
        .await
        .unwrap()
        .iter()
        .map(|entry| entry.state)
        .collect();
    assert_eq!(states, ["dropped", "sent", "dropped"]);
}

#[tokio::test]
async fn the_history_shows_no_whole_address() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let entry = newest(&app).await;
    assert_eq!(
        (entry.to.as_str(), entry.kind.as_str(), entry.state),
        ("a…@e….org", "register", "queued")
    );
}

#[tokio::test]
async fn an_operator_drops_and_retries() {
    let (app, relay) = with_relay(Script::replying(Phase::Rcpt, "550 5.1.1 no")).await;
    app.post(REGISTER, &alice(1)).await;
    let id = newest(&app).await.id;
    app.threepid.deliver_due().await.unwrap();
    relay.set(Script::default());
    let now = threepid::clock::Clock::now(&*app.clock);
    assert!(app.store.retry(id, now).await.unwrap());
    assert!(!app.store.retry(id + 100, now).await.unwrap());
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(relay.mails().len(), 1);
    assert!(
        !app.store.drop_message(id, now).await.unwrap(),
        "it is sent"
    );
    app.post(REGISTER, &alice(2)).await;
    assert!(
        app.store
            .drop_message(newest(&app).await.id, now)
            .await
            .unwrap()
    );
    app.threepid.deliver_due().await.unwrap();
    assert_eq!(relay.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_workers_send_each_mail_once() {
    let (app, relay) = with_relay(Script::default()).await;
    for number in 0..40 {
        let body = serde_json::json!({ "client_secret": "s", "email": format!("u{number}@example.org"), "send_attempt": 1 });
        assert_eq!(app.post(REGISTER, &body).await.status, 200);
    }
    let app = Arc::new(app);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { app.threepid.deliver_due().await.unwrap() })
        })
        .collect();
    let mut delivered = 0;
    for worker in workers {
        delivered += worker.await.unwrap();
    }
    assert_eq!(delivered, 40);
    let mut to: Vec<_> = relay.mails().into_iter().map(|mail| mail.to).collect();
    to.sort();
    to.dedup();
    assert_eq!(to.len(), 40);
}

#[tokio::test]
async fn a_dead_process_s_leases_are_given_back() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let now = threepid::clock::Clock::now(&*app.clock);
    let leased = app
        .store
        .lease(
            Medium::Email,
            "a dead process",
            9,
            now,
            now + Duration::from_mins(10),
        )
        .await
        .unwrap();
    assert_eq!(leased.ready.len(), 1);
    assert!(app.mails().await.is_empty(), "somebody else holds it");

    assert_eq!(app.store.free_leases(now).await.unwrap(), 1);

    assert_eq!(app.mails().await.len(), 1);
    assert!(
        !app.store
            .delivered(leased.ready[0].id, "late", now)
            .await
            .unwrap()
    );
    app.store.check().await.unwrap();
}

#[tokio::test]
async fn background_work_delivers_by_itself_and_stops() {
    let app = TestApp::new();
    let background = app.threepid.start();
    app.post(REGISTER, &alice(1)).await;

    until("the mail arrives", async || {
        !app.mailbox.messages().is_empty()
    })
    .await;

    assert!(background.stop(Duration::from_mins(1)).await);
    assert_eq!(app.mailbox.messages().len(), 1);
}

#[tokio::test]
async fn stale_messages_do_not_stand_in_the_way_of_live_ones() {
    let app = TestApp::new();
    for attempt in 1..=60 {
        app.post(REGISTER, &alice(attempt)).await;
    }
    assert_eq!(app.mails().await.len(), 1, "in one go: the newest");
}

/// A courier that panics at every other mail.
#[derive(Debug, Default)]
struct Clumsy {
    taken: AtomicUsize,
}

#[async_trait]
impl Courier for Clumsy {
    async fn deliver(&self, _: &Threepid, _: &Message) -> Result<String, DeliveryError> {
        let number = self.taken.fetch_add(1, Ordering::SeqCst);
        assert!(number % 2 == 1, "clumsy");
        Ok("taken".to_owned())
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        (Vec::new(), Ok(()))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn a_courier_that_panics_ends_no_worker() {
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF);
        builder.email(Arc::new(Clumsy::default())).workers(1)
    });
    let background = app.threepid.start();
    for number in 0..6 {
        let email = format!("u{number}@example.org");
        let body = serde_json::json!({ "client_secret": "s", "email": email, "send_attempt": 1 });
        app.post(REGISTER, &body).await;
    }

    let mut entries = Vec::new();
    until("each was tried", async || {
        entries = app.store.list(6).await.unwrap();
        entries.iter().all(|entry| entry.outcome.is_some())
    })
    .await;

    let sent = entries.iter().filter(|entry| entry.state == "sent").count();
    assert_eq!(sent, 3);
    let waiting = entries.iter().find(|entry| entry.state == "queued");
    assert_eq!(
        waiting.unwrap().outcome.as_deref(),
        Some("the courier panicked")
    );
    assert!(background.stop(Duration::from_mins(1)).await);
}

/// A courier that never comes back.
#[derive(Debug)]
struct Lost;

#[async_trait]
impl Courier for Lost {
    async fn deliver(&self, _: &Threepid, _: &Message) -> Result<String, DeliveryError> {
        std::future::pending().await
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        (Vec::new(), Ok(()))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn a_courier_that_is_lost_is_sent_again_with_mails_and_twice_with_a_text_message() {
    for (path, body, ended) in [
        (REGISTER, alice(1), ("queued", 4, "timed out")),
        (
            REGISTER_PHONE,
            alices_phone(1),
            ("failed", 3, "timed out, may have been sent"),
        ),
    ] {
        let app = TestApp::with(|builder| {
            let builder = builder.limits(limits::Settings::OFF);
            builder.email(Arc::new(Lost)).sms(Arc::new(Lost))
        });
        app.post(path, &body).await;

        tokio::time::pause();
        for _ in 0..4 {
            app.threepid.deliver_due().await.unwrap();
            app.wait(Duration::from_mins(1));
        }
        tokio::time::resume();

        let entry = newest(&app).await;
        let outcome = entry.outcome.as_deref().unwrap_or_default();
        assert_eq!((entry.state, entry.deliveries, outcome), ended);
    }
}

#[tokio::test]
async fn without_a_courier_nothing_is_taken_for_sent() {
    let app = TestApp::new();
    app.post(REGISTER, &alice(1)).await;
    let (url, keys) = (
        PUBLIC_URL.parse().unwrap(),
        threepid::Keyring::generate().unwrap(),
    );
    let silent = threepid::Threepid::builder(url, Arc::clone(&app.store), keys)
        .build()
        .unwrap();

    assert_eq!(silent.deliver_due().await.unwrap(), 0);

    assert_eq!(newest(&app).await.state, "queued");
}
