//! Addresses of accounts of a real Synapse, when something fails in the middle, and when many want the same.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    account_server::AccountServer,
    gate::Held,
    homeserver::{ADD, Homeserver, Recipe, configure},
    server::{PATIENCE, Site},
    synapse::{Synapse, user_id},
};

const ALICE: &str = "alice@example.org";
const SECRET: &str = "monkeys_are_GREAT";

/// A homeserver with Alice, and what she asks for: to add an address that she has proved, by her password.
struct Asking {
    homeserver: Homeserver,
    token: String,
    request: Value,
}

impl Asking {
    async fn begin(homeserver: Homeserver) -> Self {
        let token = homeserver.register("alice").await;
        let proved = homeserver.prove(ALICE, SECRET).await;
        let request = homeserver.ask_to_add("alice", &token, &proved).await;
        Self {
            request: request.expect("Synapse asks for her password"),
            homeserver,
            token,
        }
    }

    async fn add(&self) -> (u16, Value) {
        self.homeserver
            .front
            .post(ADD, &self.token, &self.request)
            .await
    }

    /// Asks in the background; whatever becomes of it.
    fn add_somehow(&self) -> tokio::task::JoinHandle<()> {
        let (front, token) = (self.homeserver.front.clone(), self.token.clone());
        let request = self.request.clone();
        tokio::spawn(async move {
            let _ = front.post(ADD, &token, &request).await;
        })
    }

    /// Her addresses, as Synapse knows them.
    async fn contacts(&self) -> Vec<String> {
        self.homeserver.synapse.api.contacts(&self.token).await
    }

    fn hold(&self, held: Held) {
        let gate = self.homeserver.gate.as_ref();
        gate.expect("it is gated").hold(held);
    }

    async fn reached(&self) {
        let gate = self.homeserver.gate.as_ref();
        gate.expect("it is gated").reached().await;
    }
}

/// The address is hers, once.
fn bound() -> Vec<String> {
    vec![format!("email:{ALICE}")]
}

/// Whether an answer says that somebody behind us failed, in the words of Matrix.
fn tells_of_a_failure(answer: &(u16, Value)) -> bool {
    [502, 504].contains(&answer.0) && answer.1["errcode"] == "M_UNKNOWN"
}

#[tokio::test]
async fn a_synapse_that_is_gone_is_told_and_the_same_request_works_when_it_is_back() {
    let mut asking = Asking::begin(Homeserver::start(Recipe::Sidecar).await).await;

    asking.homeserver.synapse.stop().await;
    let failed = asking.add().await;
    asking.homeserver.synapse.restart().await;
    let before = asking.contacts().await;
    // Synapse keeps its part of the authentication in its database.
    let added = asking.add().await;

    assert!(tells_of_a_failure(&failed), "{failed:?}");
    assert_eq!(before, Vec::<String>::new());
    assert_eq!(added, (200, json!({})));
    assert_eq!(asking.contacts().await, bound());
}

#[tokio::test]
async fn a_synapse_that_falls_silent_is_told_and_the_same_request_works_when_it_answers() {
    let asking = Asking::begin(Homeserver::start(Recipe::Sidecar).await).await;

    asking.homeserver.synapse.pause().await;
    let failed = asking.add().await;
    asking.homeserver.synapse.resume().await;
    let added = asking.add().await;

    assert!(tells_of_a_failure(&failed), "{failed:?}");
    assert_eq!(added, (200, json!({})));
    assert_eq!(asking.contacts().await, bound());
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_the_address_bound_once() {
    let asking = Asking::begin(Homeserver::gated().await).await;

    asking.hold(Held::After);
    let first = asking.add().await;
    let meanwhile = asking.contacts().await;
    asking.hold(Held::Nowhere);
    let added = asking.add().await;
    let again = asking.add().await;

    // Whoever looks afterwards what Synapse has done may know that all is well.
    let is_well = first == (200, json!({}));
    assert!(is_well || tells_of_a_failure(&first), "{first:?}");
    assert_eq!(meanwhile, bound());
    assert_eq!((added, again), ((200, json!({})), (200, json!({}))));
    assert_eq!(asking.contacts().await, bound());
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_binds_once_when_it_is_asked_again() {
    for held in [Held::Before, Held::After] {
        let mut asking = Asking::begin(Homeserver::gated().await).await;

        asking.hold(held);
        let lost = asking.add_somehow();
        asking.reached().await;
        asking.homeserver = asking.homeserver.restart().await;
        asking.hold(Held::Nowhere);
        lost.await.expect("nginx answers it");
        let added = asking.add().await;

        assert_eq!(added, (200, json!({})), "{held:?}");
        assert_eq!(asking.contacts().await, bound(), "{held:?}");
        let owner = asking.homeserver.synapse.owner("email", ALICE).await;
        assert_eq!(owner, Some(user_id("alice")), "{held:?}");
    }
}

#[tokio::test]
async fn an_administrator_who_is_logged_out_is_no_matter_of_the_client_s() {
    let asking = Asking::begin(Homeserver::start(Recipe::Sidecar).await).await;

    asking.homeserver.synapse.revoke_admin_token().await;
    let failed = asking.add().await;

    // A client that is told of an unknown token logs its user out.
    assert!(tells_of_a_failure(&failed), "{failed:?}");
    assert_eq!(asking.contacts().await, Vec::<String>::new());
}

#[tokio::test]
async fn eight_addresses_that_are_added_at_once_are_all_kept() {
    let homeserver = Homeserver::start(Recipe::Sidecar).await;
    let token = homeserver.register("alice").await;
    let mut proved = Vec::new();
    for number in 0..8 {
        let email = format!("alice{number}@example.org");
        proved.push(homeserver.prove(&email, &format!("secret{number}")).await);
    }

    let adding = proved
        .iter()
        .map(|creds| homeserver.add("alice", &token, creds));
    let added = join_all(adding).await;

    assert_eq!(added, vec![(200, json!({})); 8]);
    let listed = homeserver.synapse.api.contacts(&token).await;
    let expected: Vec<_> = (0..8)
        .map(|number| format!("email:alice{number}@example.org"))
        .collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn of_two_accounts_that_add_one_address_at_once_exactly_one_gets_it() {
    let homeserver = Homeserver::start(Recipe::Sidecar).await;
    for round in 0..3 {
        let (alice, bob) = (format!("alice{round}"), format!("bob{round}"));
        let email = format!("both{round}@example.org");
        let tokens = [
            homeserver.register(&alice).await,
            homeserver.register(&bob).await,
        ];
        let first = homeserver.prove(&email, "first").await;
        let second = homeserver.prove(&email, "second").await;

        let (first, second) = tokio::join!(
            homeserver.add(&alice, &tokens[0], &first),
            homeserver.add(&bob, &tokens[1], &second),
        );

        let statuses = BTreeSet::from([first.0, second.0]);
        assert_eq!(statuses, BTreeSet::from([200, 400]), "{first:?} {second:?}");
        let (lost, winner) = if first.0 == 200 {
            (second, &alice)
        } else {
            (first, &bob)
        };
        assert_eq!(lost.1["errcode"], "M_THREEPID_IN_USE");
        let owner = homeserver.synapse.owner("email", &email).await;
        assert_eq!(owner, Some(user_id(winner)));
        let mut listed = Vec::new();
        for token in &tokens {
            listed.extend(homeserver.synapse.api.contacts(token).await);
        }
        assert_eq!(listed, [format!("email:{email}")]);
    }
}

#[tokio::test]
async fn a_homeserver_whose_accounts_are_an_account_server_s_is_refused_at_start() {
    let accounts = AccountServer::start().await;
    let site = Site::new();
    let synapse = Synapse::start(&site.path("synapse"), accounts.options()).await;
    accounts.open_account(&synapse).await;
    let site = configure(site, Recipe::Sidecar, synapse.base(), "any");

    let refused = timeout(PATIENCE, site.run(&["serve"])).await;

    let refused = refused.expect("it does not serve");
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{why}");
    assert!(why.contains("homeserver") && why.contains("OAuth"), "{why}");
}

#[tokio::test]
async fn guests_and_the_locked_add_nothing_and_the_suspended_remove_nothing() {
    let homeserver = Homeserver::start(Recipe::Sidecar).await;
    let guest = homeserver.synapse.register_guest().await;
    let (locked, suspended) = (
        homeserver.register("lock").await,
        homeserver.register("susan").await,
    );
    let kept = homeserver.prove("susan@example.org", "kept").await;
    let bound = homeserver.add("susan", &suspended, &kept).await;
    let proved = homeserver.prove(ALICE, SECRET).await;
    homeserver.synapse.lock("lock").await;
    homeserver.synapse.suspend("susan").await;

    let by_guest = homeserver.add("guest", &guest, &proved).await;
    let by_locked = homeserver.add("lock", &locked, &proved).await;
    let by_suspended = homeserver.add("susan", &suspended, &proved).await;
    let delete = json!({ "medium": "email", "address": "susan@example.org" });
    let path = "/_matrix/client/v3/account/3pid/delete";
    let removed = homeserver.front.post(path, &suspended, &delete).await;

    assert_eq!(bound, (200, json!({})));
    for (refused, status, errcode) in [
        (by_guest, 403, "M_GUEST_ACCESS_FORBIDDEN"),
        (by_locked, 401, "M_USER_LOCKED"),
        (removed, 403, "M_USER_SUSPENDED"),
    ] {
        assert_eq!(
            (refused.0, &refused.1["errcode"]),
            (status, &errcode.into())
        );
    }
    assert_eq!(by_suspended, (200, json!({})));
    let listed = homeserver.synapse.api.contacts(&suspended).await;
    assert_eq!(
        listed,
        ["email:alice@example.org", "email:susan@example.org"]
    );
}
