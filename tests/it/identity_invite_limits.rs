//! How many invitations an address has, and how many are sent.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use threepid::{clock::Clock, limits, rate::Rate, store::Invites};

use crate::support::app::*;

const ALICE: &str = "alice@example.org";
const BOB: &str = "@bob:example.net";

async fn invite(app: &TestApp, sender: &str, address: &str) -> Answer {
    let token = app.identity_token(sender).await;
    let body = json!({
        "medium": "email", "address": address, "room_id": "!room:example.net", "sender": sender,
    });
    app.post_as(&token, "store-invite", &body).await
}

/// An invitation that is taken; its own key.
async fn invited(app: &TestApp, sender: &str, address: &str) -> Value {
    let answer = invite(app, sender, address).await;
    assert_eq!(answer.status, 200, "{sender}: {}", answer.text);
    answer.json()["public_keys"][1]["public_key"].take()
}

async fn is_valid(app: &TestApp, key: &Value) -> bool {
    let key = key.as_str().expect("a key").replace('+', "%2B");
    let path = format!("{IDENTITY}/pubkey/ephemeral/isvalid?public_key={key}");
    app.get(&path, &[]).await.json()["valid"] == true
}

fn assert_full(answer: &Answer) {
    let told = (answer.status.as_u16(), &*answer.errcode());
    assert_eq!(told, (400, "M_TOO_LARGE"), "{}", answer.text);
}

fn assert_limited(answer: &Answer) {
    let told = (answer.status.as_u16(), &*answer.errcode());
    assert_eq!(told, (429, "M_LIMIT_EXCEEDED"), "{}", answer.text);
}

#[tokio::test]
async fn one_sender_s_invitations_of_an_address_all_stay_and_more_are_refused() {
    let app = TestApp::identity(|_| {});
    let mut keys = Vec::new();
    for _ in 0..10 {
        app.wait(Duration::from_secs(1));
        keys.push(invited(&app, BOB, ALICE).await);
    }

    let refused = invite(&app, BOB, ALICE).await;

    assert_full(&refused);
    assert!(refused.text.contains("by their user id"), "what to do");
    for key in &keys {
        assert!(is_valid(&app, key).await);
    }
    assert_eq!(app.mails().await.len(), 10);
    invited(&app, BOB, "carol@example.org").await;
    invited(&app, "@carol:example.net", ALICE).await;
}

#[tokio::test]
async fn the_users_of_one_homeserver_leave_room_for_those_of_others() {
    let app = TestApp::identity(|_| {});
    for number in 0..10 {
        invited(&app, &format!("@user{number}:example.net"), ALICE).await;
        invited(&app, &format!("@user{number}:Example.NET:8448"), ALICE).await;
    }

    for sender in [BOB, "@bob:example.net:443", "@bob:EXAMPLE.net"] {
        assert_full(&invite(&app, sender, ALICE).await);
    }

    invited(&app, "@bob:example.com", ALICE).await;
    invited(&app, "@bob:sub.example.net", ALICE).await;
}

#[tokio::test]
async fn the_users_of_a_homeserver_that_the_operator_names_share_only_what_all_share() {
    let app = TestApp::identity(|settings| {
        settings.homeservers = vec!["example.net".parse().expect("a name")];
        settings.invites_per_address = 22;
    });
    for number in 0..22 {
        invited(&app, &format!("@user{number}:example.net"), ALICE).await;
    }

    assert_full(&invite(&app, BOB, ALICE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_sender_s_parallel_invitations_of_an_address_no_more_are_taken() {
    let app = Arc::new(TestApp::identity(|_| {}));
    let asked: Vec<_> = (0..30)
        .map(|_| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { invite(&app, BOB, ALICE).await })
        })
        .collect();

    let mut taken = 0;
    for answer in asked {
        let answer = answer.await.unwrap();
        match answer.status.as_u16() {
            200 => taken += 1,
            _ => assert_full(&answer),
        }
    }

    assert_eq!((taken, app.mails().await.len()), (10, 10));
}

#[tokio::test]
async fn what_is_open_no_more_makes_room() {
    let app = TestApp::identity(|settings| settings.invite_lifetime = Duration::from_hours(1));
    for _ in 0..10 {
        invited(&app, BOB, ALICE).await;
    }
    let entries = app.store.list_invites(1, app.clock.now()).await.unwrap();
    let id = u128::from_str_radix(&entries[0].id, 16).unwrap();

    let withdrawn = app.store.withdraw_invite(id.to_be_bytes(), app.clock.now());

    assert!(withdrawn.await.unwrap());
    invited(&app, BOB, ALICE).await;
    assert_full(&invite(&app, BOB, ALICE).await);
    app.wait(Duration::from_hours(1));
    invited(&app, BOB, ALICE).await;
}

/// Two accounts of one homeserver may invite, and three in all.
fn with_few_per_homeserver(homeservers: &[&str]) -> TestApp {
    let day = Duration::from_hours(24);
    let limits = limits::Settings {
        invites_per_account: Rate::new(2, day),
        invites_per_homeserver: Rate::new(3, day),
        ..limits::Settings::OFF
    };
    let named = homeservers.iter().map(|name| name.parse().expect("a name"));
    TestApp::with(|builder| {
        with_identity(builder.limits(limits), |settings| {
            settings.homeservers = named.collect();
        })
    })
}

#[tokio::test]
async fn accounts_of_one_homeserver_invite_only_so_many_together() {
    let app = with_few_per_homeserver(&[]);
    invited(&app, BOB, "one@example.org").await;
    invited(&app, BOB, "two@example.org").await;
    assert_limited(&invite(&app, BOB, "three@example.org").await);

    invited(&app, "@carol:example.net:8448", "three@example.org").await;

    for sender in ["@carol:example.net:8448", "@dora:EXAMPLE.net"] {
        assert_limited(&invite(&app, sender, "four@example.org").await);
    }
    invited(&app, "@dora:example.com", "four@example.org").await;
    app.wait(Duration::from_hours(24));
    invited(&app, "@dora:example.net", "five@example.org").await;
}

#[tokio::test]
async fn a_homeserver_that_the_operator_names_shares_no_limit_of_invitations() {
    let app = with_few_per_homeserver(&["example.com", "example.net"]);
    for number in 0..4 {
        let sender = format!("@user{number}:example.net");
        invited(&app, &sender, &format!("u{number}@example.org")).await;
    }

    invited(&app, "@user0:example.net", "again@example.org").await;

    assert_limited(&invite(&app, "@user0:example.net", "more@example.org").await);
}
