//! Many who sign up at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::support::{
    homeserver::Homeserver,
    newcomer::{Newcomer, SIGN_UP_EMAIL},
    plan::Plan,
    server::until,
    synapse::{Options, user_id},
};

/// How many sign up at once where all have an address of their own.
const MANY: usize = 64;

async fn open() -> Homeserver {
    Plan::open(Options::default()).start().await
}

#[tokio::test]
async fn of_four_who_show_one_address_at_once_exactly_one_gets_an_account() {
    let homeserver = open().await;
    let creds = Newcomer::at(&homeserver, "shared").prove().await;
    let names = ["alice", "bob", "carol", "dave"];
    let newcomers = names.map(|name| Newcomer::at(&homeserver, name));
    let sessions = join_all(newcomers.iter().map(Newcomer::session)).await;

    let showing = newcomers.iter().zip(&sessions);
    let shown = join_all(showing.map(|(newcomer, session)| newcomer.show(session, &creds))).await;

    let accounts = homeserver.synapse.accounts().await;
    let won = shown.iter().filter(|(status, _)| *status == 200);
    assert_eq!((won.count(), accounts.len()), (1, 1), "{shown:?}");
    let refused = shown.iter().map(|(status, _)| *status);
    let refused: BTreeSet<_> = refused.filter(|status| *status != 200).collect();
    assert!(
        refused.iter().all(|status| (400..500).contains(status)),
        "{shown:?}"
    );
    let owner = homeserver.owner_of("email", "shared@example.org").await;
    assert_eq!(owner, user_id(&accounts[0]));
}

#[tokio::test]
async fn of_four_requests_of_one_session_all_get_the_same_account() {
    let homeserver = open().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (session, creds) = (alice.session().await, alice.prove().await);

    let shown = join_all((0..4).map(|_| alice.show(&session, &creds))).await;
    let (status, later) = alice.show(&session, &creds).await;

    // Whoever comes while another is at it may be told to come again.
    assert!(shown.iter().any(|(status, _)| *status == 200), "{shown:?}");
    assert!(shown.iter().all(|(status, _)| *status < 500), "{shown:?}");
    let made = shown.iter().filter(|(status, _)| *status == 200);
    for (_, account) in made {
        assert_eq!(account["user_id"], user_id("alice"));
    }
    assert_eq!((status, &later["user_id"]), (200, &user_id("alice").into()));
    assert_eq!(homeserver.synapse.accounts().await, ["alice"]);
}

#[tokio::test]
async fn of_two_names_in_one_session_at_once_one_account_comes() {
    let homeserver = open().await;
    let (alice, bob) = (
        Newcomer::at(&homeserver, "alice"),
        Newcomer::at(&homeserver, "bob"),
    );
    let (session, creds) = (alice.session().await, alice.prove().await);

    tokio::join!(alice.show(&session, &creds), bob.show(&session, &creds));

    let accounts = homeserver.synapse.accounts().await;
    assert_eq!(accounts.len(), 1, "{accounts:?}");
    let owner = homeserver.owner_of("email", &alice.email()).await;
    assert_eq!(owner, user_id(&accounts[0]));
}

#[tokio::test]
async fn of_two_proofs_of_one_address_at_once_one_makes_an_account() {
    let homeserver = open().await;
    let (alice, bob) = (
        Newcomer::at(&homeserver, "alice"),
        Newcomer::at(&homeserver, "bob"),
    );
    let email = alice.email();
    let first = homeserver.prove_at(SIGN_UP_EMAIL, &email, "first").await;
    let second = homeserver.prove_at(SIGN_UP_EMAIL, &email, "second").await;
    let sessions = [alice.session().await, bob.session().await];

    let (one, two) = tokio::join!(
        alice.show(&sessions[0], &first),
        bob.show(&sessions[1], &second),
    );

    let accounts = homeserver.synapse.accounts().await;
    let won = [&one, &two]
        .into_iter()
        .filter(|shown| shown.0 == 200)
        .count();
    assert_eq!((won, accounts.len()), (1, 1), "{one:?} {two:?}");
    let owner = homeserver.owner_of("email", &email).await;
    assert_eq!(owner, user_id(&accounts[0]));
}

#[tokio::test]
async fn sixty_four_who_sign_up_at_once_all_get_an_account_with_their_address() {
    // Synapse does one thing after the other.
    let patient = Plan::open(Options::default())
        .set("homeserver.timeout", "20s")
        .set("server.request_timeout", "120s");
    let homeserver = patient.start().await;
    let names: Vec<_> = (0..MANY).map(|number| format!("user{number:02}")).collect();
    let newcomers = names.iter().map(|name| Newcomer::at(&homeserver, name));
    let newcomers: Vec<_> = newcomers.collect();
    let creds = join_all(newcomers.iter().map(Newcomer::ask)).await;
    let mut mails = Vec::new();
    until("all mails are there", async || {
        mails = homeserver.server.mailbox().await;
        mails.len() == MANY
    })
    .await;
    for mail in &mails {
        let text = mail["text"].as_str().expect("a text");
        assert_eq!(homeserver.press(text, &[]).await.0, 200);
    }

    let signing_up = newcomers.iter().zip(&creds).map(async |(newcomer, creds)| {
        let session = newcomer.session().await;
        newcomer.show(&session, creds).await
    });
    let made = join_all(signing_up).await;

    for (status, account) in &made {
        assert_eq!(*status, 200, "{account}");
    }
    assert_eq!(homeserver.synapse.accounts().await, names);
    for newcomer in &newcomers {
        let owner = homeserver.owner_of("email", &newcomer.email()).await;
        assert_eq!(owner, user_id(newcomer.localpart));
    }
}
