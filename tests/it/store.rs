//! What the store promises of parallel callers, and of rows that are over.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use threepid::{
    clock::{Clock, Timestamp},
    secret::Sid,
    store::{Bound, Contacts, Outbox, Sessions},
    threepid::Threepid,
};

use crate::support::app::*;

const AT_ONCE: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_binds_of_one_address_one_wins() {
    let app = Arc::new(TestApp::new());
    let binds: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                let address = Threepid::email("alice@example.org").unwrap();
                let user = format!("@user{number}:example.org");
                app.store
                    .bind(&user, &address, None, Timestamp(0))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut bound = 0;
    for bind in binds {
        bound += usize::from(bind.await.unwrap() == Bound::Bound);
    }
    assert_eq!(bound, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_validations_one_is_the_first() {
    let app = Arc::new(TestApp::new());
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let sid = Sid::parse(&sid).unwrap().ours().unwrap();
    let marks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let app = Arc::clone(&app);
            let (now, end) = (app.clock.now(), app.clock.now() + Duration::from_mins(1));
            tokio::spawn(async move { app.store.mark_validated(sid, now, end).await.unwrap() })
        })
        .collect();
    let mut first = 0;
    for mark in marks {
        first += usize::from(mark.await.unwrap());
    }
    assert_eq!(first, 1);
}

#[tokio::test]
async fn what_is_over_is_swept_in_small_steps_and_what_lives_stays() {
    let app = TestApp::new();
    for number in 0..250 {
        let email = format!("u{number}@example.org");
        let body = json!({ "client_secret": "s", "email": email, "send_attempt": 1 });
        assert_eq!(app.post(REGISTER, &body).await.status, 200);
    }
    app.mails().await;
    app.wait(Duration::from_hours(47));
    let living = app.post(REGISTER, &alice(1)).await.sid();
    app.wait(Duration::from_secs(3601));
    let now = app.clock.now();

    let step = app
        .store
        .sweep(now.before(Duration::from_hours(24)), now)
        .await
        .unwrap();
    assert!((1..=300).contains(&step), "{step} rows in one step");
    app.threepid.sweep().await.unwrap();

    assert_eq!(app.store.backlog().await.unwrap().waiting, 1);
    let living = Sid::parse(&living).unwrap().ours().unwrap();
    assert!(app.store.find(living).await.unwrap().is_some());
    assert_eq!(app.threepid.sweep().await.unwrap(), 0);
}
