//! Addresses of accounts that Synapse keeps.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use threepid::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::{
        Accounts, Directory, Origin,
        synapse::{Synapse, SynapseSettings},
    },
    secret::AccessToken,
    store::Bound,
    threepid::Threepid,
};

use crate::support::{
    homeserver::{ADMIN_TOKEN, Fault, Homeserver},
    upstream::{self, Upstream},
};

pub(crate) const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const OWNERS: &str = "/_synapse/admin/v1/threepid/";
const USERS: &str = "/_synapse/admin/v2/users/";
/// What a fault that never answers costs a test.
const SHORT: Duration = Duration::from_secs(1);

pub(crate) fn settings(homeserver: &Homeserver) -> SynapseSettings {
    SynapseSettings {
        url: homeserver.url(),
        admin_token: Some(AccessToken::parse(ADMIN_TOKEN).expect("a token")),
        timeout: Duration::from_secs(20),
        ca_files: Vec::new(),
        registration: threepid::homeserver::synapse::Registration::default(),
    }
}

pub(crate) fn synapse(homeserver: &Homeserver) -> Arc<Synapse> {
    Synapse::new(settings(homeserver)).expect("settings that can be used")
}

/// As soon as something takes too long it counts as too late.
pub(crate) fn impatient(homeserver: &Homeserver) -> Arc<Synapse> {
    let settings = SynapseSettings {
        timeout: SHORT,
        ..settings(homeserver)
    };
    Synapse::new(settings).expect("settings that can be used")
}

/// A homeserver with alice, who has two addresses, and bob, who has one.
pub(crate) async fn populated() -> Homeserver {
    let homeserver = Homeserver::start().await;
    homeserver.user(ALICE, "wonderland", "alice_s_token");
    homeserver.user(BOB, "builder", "bob_s_token");
    homeserver.give(ALICE, "email", "Old@Example.org");
    homeserver.give(ALICE, "msisdn", "447700900001");
    homeserver.give(BOB, "email", "bob@example.org");
    homeserver
}

fn email(address: &str) -> Threepid {
    Threepid::email(address).expect("an address")
}

async fn bind(synapse: &Synapse, user_id: &str, address: &str) -> Result<Bound> {
    let threepid = email(address);
    synapse
        .bind(user_id, &threepid, None, Timestamp(1_795_341_600_000))
        .await
}

async fn unbind(synapse: &Synapse, user_id: &str, address: &str) -> Result<bool> {
    Directory::unbind(synapse, user_id, &email(address)).await
}

fn addresses(homeserver: &Homeserver, user_id: &str) -> Vec<String> {
    let threepids = homeserver.threepids(user_id).into_iter();
    threepids.map(|(_, address)| address).collect()
}

#[tokio::test]
async fn an_owner_is_whoever_the_homeserver_names() {
    let homeserver = populated().await;
    homeserver.give(BOB, "email", "a/b+c?d#e@example.org");
    let synapse = synapse(&homeserver);

    let odd = synapse.owner(&email("a/b+c?d#e@example.org")).await;
    let phone = Threepid::msisdn("GB", "07700900001").unwrap();

    assert_eq!(odd, Ok(Some(BOB.to_owned())));
    assert_eq!(synapse.owner(&phone).await, Ok(Some(ALICE.to_owned())));
    assert_eq!(synapse.owner(&email("new@example.org")).await, Ok(None));
    let log = homeserver.log();
    assert_eq!(
        log[0].1,
        format!("{OWNERS}email/users/a%2Fb%2Bc%3Fd%23e%40example%2Eorg"),
        "an address never becomes a path of its own"
    );
}

#[tokio::test]
async fn what_is_no_answer_is_never_nobody() {
    let homeserver = populated().await;
    let synapse = impatient(&homeserver);
    for (fault, told) in [
        (Fault::Html, "404 (no errcode)"),
        (Fault::Unrecognized, "404 (M_UNRECOGNIZED)"),
        (Fault::Status(500), "500 (M_UNKNOWN)"),
        (Fault::Garbage, "something else than a JSON object"),
        (Fault::Huge, "more than 1048576 bytes"),
        (Fault::Drop, "nothing"),
        (
            Fault::TokenRevoked,
            "refuses the admin token (M_UNKNOWN_TOKEN)",
        ),
        (Fault::NotAdmin, "homeserver.admin_token_file"),
    ] {
        homeserver.set(fault);

        let Err(Error::HomeserverFailed(cause)) = synapse.owner(&email("x@y.org")).await else {
            panic!("{fault:?} is a failure");
        };

        assert!(cause.contains(told), "{fault:?}: {cause}");
        assert!(
            !cause.contains("y.org") && !cause.contains(ADMIN_TOKEN),
            "{cause}"
        );
    }
    homeserver.set(Fault::Silent);
    let late = synapse.owner(&email("x@y.org")).await;
    assert!(matches!(late, Err(Error::HomeserverTimeout(_))), "{late:?}");
    homeserver.set(Fault::Limited(2500));
    let retry_after = Duration::from_millis(2500);
    assert_eq!(
        synapse.owner(&email("x@y.org")).await,
        Err(Error::Limited { retry_after })
    );
}

#[tokio::test]
async fn a_homeserver_that_is_down_is_found_again() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    assert_eq!(synapse.owner(&email("new@example.org")).await, Ok(None));

    homeserver.down().await;
    let down = bind(&synapse, ALICE, "new@example.org").await;
    homeserver.up();
    let up = bind(&synapse, ALICE, "new@example.org").await;

    assert!(matches!(down, Err(Error::HomeserverFailed(_))), "{down:?}");
    assert_eq!(up, Ok(Bound::Bound));
}

#[tokio::test]
async fn an_address_is_added_and_all_others_stay() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);

    let bound = bind(&synapse, ALICE, "new@example.org").await;
    let again = bind(&synapse, ALICE, "new@example.org").await;

    assert_eq!((bound, again), (Ok(Bound::Bound), Ok(Bound::AlreadyYours)));
    assert_eq!(
        addresses(&homeserver, ALICE),
        ["Old@Example.org", "new@example.org", "447700900001"]
    );
    let list = synapse.list(ALICE).await.unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0].added_at, Timestamp(1000), "it was not written anew");
    assert_eq!(list[0].validated_at, Some(Timestamp(1000)));
}

#[tokio::test]
async fn an_address_of_another_account_stays_there() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);

    let bound = bind(&synapse, ALICE, "bob@example.org").await;

    assert_eq!(bound, Ok(Bound::OwnedByOther));
    assert_eq!(addresses(&homeserver, BOB), ["bob@example.org"]);
    assert_eq!(homeserver.count("PUT", ""), 0);
}

#[tokio::test]
async fn nobody_is_made_by_giving_them_an_address() {
    let homeserver = populated().await;
    homeserver.user("@gone:example.org", "", "gone_s_token");
    homeserver.change("@gone:example.org", |user| user.is_deactivated = true);
    homeserver.user("@guest:example.org", "", "guest_s_token");
    homeserver.change("@guest:example.org", |user| user.is_guest = true);
    homeserver.user("@irc:example.org", "", "irc_s_token");
    homeserver.change("@irc:example.org", |user| {
        user.appservice = Some("irc".to_owned());
    });
    let synapse = synapse(&homeserver);

    for name in ["absent", "gone", "guest", "irc"] {
        let user_id = format!("@{name}:example.org");
        let bound = bind(&synapse, &user_id, "new@example.org").await;
        assert!(
            matches!(bound, Err(Error::Forbidden(_))),
            "{name}: {bound:?}"
        );
    }
    let unbound = unbind(&synapse, "@absent:example.org", "new@example.org").await;

    assert_eq!(unbound, Ok(false));
    assert!(!homeserver.has("@absent:example.org"));
    assert_eq!(homeserver.count("PUT", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_addresses_at_once_are_all_kept() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let addresses: Vec<_> = (0..8)
        .map(|number| format!("n{number}@example.org"))
        .collect();

    let binds = addresses
        .iter()
        .map(|address| bind(&synapse, ALICE, address));
    let bound = join_all(binds).await;

    assert_eq!(bound, vec![Ok(Bound::Bound); 8]);
    assert_eq!(homeserver.threepids(ALICE).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_accounts_one_gets_the_address() {
    let homeserver = Homeserver::start().await;
    let users: Vec<_> = (0..8)
        .map(|number| format!("@u{number}:example.org"))
        .collect();
    for user_id in &users {
        homeserver.user(user_id, "", user_id);
    }
    let synapse = synapse(&homeserver);
    // Between look-up and list there is time for all of them.
    homeserver.fail("GET", USERS, Fault::Slow(50));

    let binds = users
        .iter()
        .map(|user_id| bind(&synapse, user_id, "a@example.org"));
    let mut bound = join_all(binds).await;

    bound.sort_by_key(|bound| *bound != Ok(Bound::Bound));
    assert_eq!(bound[0], Ok(Bound::Bound));
    assert_eq!(bound[1..], vec![Ok(Bound::OwnedByOther); 7]);
    assert_eq!(homeserver.count("PUT", ""), 1);
}

/// After each, the same call is made again, as whoever asks for it does.
#[tokio::test]
async fn every_fault_leaves_the_address_untaken_or_wholly_bound() {
    let old = ["Old@Example.org", "447700900001"];
    let whole = ["Old@Example.org", "new@example.org", "447700900001"];
    for (nth, method, part) in [
        (1, "GET", OWNERS),
        (1, "GET", USERS),
        (1, "PUT", USERS),
        (2, "GET", USERS),
        (2, "GET", OWNERS),
    ] {
        for fault in [
            Fault::Silent,
            Fault::SilentAfter,
            Fault::Drop,
            Fault::DropAfter,
            Fault::Status(500),
            Fault::StatusAfter(500),
            Fault::Html,
            Fault::Garbage,
            Fault::Limited(1000),
            Fault::TokenRevoked,
        ] {
            let case = format!("{fault:?} at {method} {part} {nth}");
            let homeserver = populated().await;
            let synapse = impatient(&homeserver);
            homeserver.fail_nth(nth, method, part, fault);

            let failed = bind(&synapse, ALICE, "new@example.org").await;
            let left = addresses(&homeserver, ALICE);
            homeserver.heal();
            let again = bind(&synapse, ALICE, "new@example.org").await;

            match &failed {
                Err(Error::HomeserverTimeout(_)) => {
                    assert!(left == old || left == whole, "{case}: {left:?}");
                }
                // It was looked at, and done again if it was wrong.
                Ok(bound) => assert!(*bound == Bound::Bound && left == whole, "{case}: {left:?}"),
                Err(_) => assert_eq!(left, old, "{case}: {failed:?}"),
            }
            let is_there = matches!(again, Ok(Bound::Bound | Bound::AlreadyYours));
            assert!(is_there, "{case}: {again:?}");
            assert_eq!(addresses(&homeserver, ALICE), whole, "{case}");
        }
    }
}

#[tokio::test]
async fn what_another_writer_undid_is_written_once_more() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    homeserver.fail_once("PUT", USERS, Fault::Undone);

    let bound = bind(&synapse, ALICE, "new@example.org").await;
    homeserver.set(Fault::Undone);
    let never = bind(&synapse, ALICE, "newer@example.org").await;

    assert_eq!(bound, Ok(Bound::Bound));
    assert!(
        matches!(never, Err(Error::HomeserverTimeout(_))),
        "{never:?}"
    );
    assert_eq!(homeserver.count("PUT", ""), 4);
    assert_eq!(homeserver.threepids(ALICE).len(), 3);
}

#[tokio::test]
async fn what_another_writer_gave_away_is_not_taken_back() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    homeserver.fail_once("PUT", USERS, Fault::ThenGivenTo(BOB));

    let bound = bind(&synapse, ALICE, "new@example.org").await;

    assert_eq!(bound, Ok(Bound::OwnedByOther));
    assert_eq!(
        addresses(&homeserver, BOB),
        ["bob@example.org", "new@example.org"]
    );
    assert_eq!(homeserver.count("PUT", ""), 1);
}

#[tokio::test]
async fn what_moved_to_another_account_meanwhile_stays_there() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let phone = Threepid::msisdn("GB", "07700900001").unwrap();
    homeserver.fail_once("PUT", USERS, Fault::ThenMoved("Old@Example.org", BOB));

    let unbound = Directory::unbind(&*synapse, ALICE, &phone).await;

    assert_eq!(unbound, Ok(true));
    let bobs = ["Old@Example.org", "bob@example.org"];
    assert_eq!(addresses(&homeserver, BOB), bobs);
    assert!(addresses(&homeserver, ALICE).is_empty());
    assert_eq!(homeserver.count("PUT", ""), 1);
}

#[tokio::test]
async fn what_was_lost_beside_a_moved_address_is_written_again() {
    let homeserver = populated().await;
    let synapse = impatient(&homeserver);
    homeserver.fail_once("PUT", USERS, Fault::StatusHalfway(200));
    let moved = Fault::ThenMoved("new@example.org", BOB);
    homeserver.fail_nth(2, "GET", USERS, moved);

    let bound = bind(&synapse, ALICE, "new@example.org").await;

    assert_eq!(bound, Ok(Bound::OwnedByOther));
    let alices = ["Old@Example.org", "447700900001"];
    assert_eq!(addresses(&homeserver, ALICE), alices);
    let bobs = ["bob@example.org", "new@example.org"];
    assert_eq!(addresses(&homeserver, BOB), bobs);
}

#[tokio::test]
async fn a_refused_list_takes_no_address_back_in_any_spelling() {
    for spelling in ["Old@Example.org", "old@example.org"] {
        let homeserver = populated().await;
        homeserver.refuse("evil@example.org");
        let synapse = synapse(&homeserver);
        homeserver.fail_once("PUT", USERS, Fault::ThenMoved(spelling, BOB));

        let refused = bind(&synapse, ALICE, "evil@example.org").await;

        let is_failure = matches!(refused, Err(Error::HomeserverFailed(_)));
        assert!(is_failure, "{spelling}: {refused:?}");
        assert_eq!(addresses(&homeserver, ALICE), ["447700900001"]);
        let bobs = addresses(&homeserver, BOB);
        assert!(bobs.iter().any(|address| address == spelling), "{bobs:?}");
    }
}

#[tokio::test]
async fn what_is_done_without_an_answer_counts_as_done() {
    for fault in [
        Fault::SilentAfter,
        Fault::DropAfter,
        Fault::StatusAfter(500),
    ] {
        let homeserver = populated().await;
        let synapse = impatient(&homeserver);

        homeserver.fail_once("PUT", USERS, fault);
        let bound = bind(&synapse, ALICE, "new@example.org").await;
        homeserver.fail_once("PUT", USERS, fault);
        let unbound = unbind(&synapse, ALICE, "new@example.org").await;

        assert_eq!((bound, unbound), (Ok(Bound::Bound), Ok(true)), "{fault:?}");
        let alices = ["Old@Example.org", "447700900001"];
        assert_eq!(addresses(&homeserver, ALICE), alices, "{fault:?}");
        assert_eq!(homeserver.count("PUT", ""), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_list_that_is_lost_halfway_is_restored() {
    for fault in [
        Fault::SilentHalfway,
        Fault::DropHalfway,
        Fault::StatusHalfway(500),
    ] {
        let homeserver = populated().await;
        let synapse = impatient(&homeserver);
        let old = addresses(&homeserver, ALICE);

        homeserver.fail_once("PUT", USERS, fault);
        let bound = bind(&synapse, ALICE, "new@example.org").await;
        let after_bind = addresses(&homeserver, ALICE);
        let other = populated().await;
        other.fail_once("PUT", USERS, fault);
        let unbound = unbind(&impatient(&other), ALICE, "old@example.org").await;
        let after_unbind = addresses(&other, ALICE);

        let is_unknown = matches!(bound, Err(Error::HomeserverTimeout(_)));
        assert!(is_unknown, "{fault:?}: {bound:?}");
        let is_unknown = matches!(unbound, Err(Error::HomeserverTimeout(_)));
        assert!(is_unknown, "{fault:?}: {unbound:?}");
        assert_eq!((&after_bind, &after_unbind), (&old, &old), "{fault:?}");
        let again = bind(&synapse, ALICE, "new@example.org").await;
        assert_eq!(again, Ok(Bound::Bound), "{fault:?}");
        assert_eq!(homeserver.threepids(ALICE).len(), 3, "{fault:?}");
    }
}

#[tokio::test]
async fn a_restored_list_takes_nothing_from_another_account() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    homeserver.fail_once("PUT", USERS, Fault::StatusHalfway(500));
    let moved = Fault::ThenMoved("old@example.org", BOB);
    homeserver.fail_nth(2, "GET", USERS, moved);

    let failed = bind(&synapse, ALICE, "new@example.org").await;

    let is_unknown = matches!(failed, Err(Error::HomeserverTimeout(_)));
    assert!(is_unknown, "{failed:?}");
    assert_eq!(addresses(&homeserver, ALICE), ["447700900001"]);
    let bobs = ["bob@example.org", "old@example.org"];
    assert_eq!(addresses(&homeserver, BOB), bobs);
}

#[tokio::test]
async fn a_list_that_can_not_be_read_back_fails_as_its_change_did() {
    for fault in [
        Fault::Status(503),
        Fault::Limited(1000),
        Fault::TokenRevoked,
    ] {
        let homeserver = populated().await;
        let synapse = synapse(&homeserver);
        homeserver.fail_once("PUT", USERS, Fault::StatusHalfway(500));
        homeserver.fail_nth(2, "GET", USERS, fault);

        let Err(Error::HomeserverTimeout(cause)) = bind(&synapse, ALICE, "new@example.org").await
        else {
            panic!("{fault:?}: nobody knows what was done");
        };

        assert!(cause.contains("PUT") && cause.contains("500"), "{cause}");
        assert_eq!(homeserver.count("PUT", ""), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_account_that_goes_during_a_change_is_not_made_again() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    homeserver.fail_once("PUT", USERS, Fault::StatusAndGone(502));

    let failed = bind(&synapse, ALICE, "new@example.org").await;

    let is_unknown = matches!(failed, Err(Error::HomeserverTimeout(_)));
    assert!(is_unknown, "{failed:?}");
    assert!(!homeserver.has(ALICE));
    assert_eq!(homeserver.count("PUT", ""), 1);
}

#[tokio::test]
async fn a_refused_address_costs_no_other() {
    let homeserver = populated().await;
    homeserver.refuse("evil@example.org");
    let synapse = synapse(&homeserver);

    let refused = bind(&synapse, ALICE, "evil@example.org").await;

    assert!(
        matches!(refused, Err(Error::HomeserverFailed(_))),
        "{refused:?}"
    );
    assert_eq!(
        addresses(&homeserver, ALICE),
        ["Old@Example.org", "447700900001"]
    );
}

#[tokio::test]
async fn an_address_is_taken_away_in_any_spelling_and_no_other() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);

    let not_theirs = unbind(&synapse, ALICE, "bob@example.org").await;
    let unbound = unbind(&synapse, ALICE, "old@example.org").await;
    let again = unbind(&synapse, ALICE, "old@example.org").await;

    assert_eq!(
        (not_theirs, unbound, again),
        (Ok(false), Ok(true), Ok(false))
    );
    assert_eq!(addresses(&homeserver, ALICE), ["447700900001"]);
    assert_eq!(addresses(&homeserver, BOB), ["bob@example.org"]);
    assert_eq!(homeserver.count("PUT", ""), 1);
}

#[tokio::test]
async fn without_an_admin_token_there_is_no_directory() {
    let homeserver = populated().await;
    let settings = SynapseSettings {
        admin_token: None,
        ..settings(&homeserver)
    };
    let synapse = Synapse::new(settings).unwrap();

    let bound = bind(&synapse, ALICE, "new@example.org").await;
    let token = AccessToken::parse("alice_s_token").unwrap();
    let requester = synapse.whoami(&token, &Origin::default()).await.unwrap();

    assert!(
        matches!(bound, Err(Error::HomeserverFailed(_))),
        "{bound:?}"
    );
    assert_eq!(requester.user_id, ALICE);
    assert!(!synapse.sets_passwords());
    assert_eq!(synapse.is_suspended(ALICE).await, Ok(false));
    assert_eq!(homeserver.count("", "_synapse"), 0);
}

#[tokio::test]
async fn certificates_that_the_operator_names_are_trusted_and_no_others() {
    let upstream = Upstream::start().await;
    let found = json!({ "user_id": ALICE });
    upstream.answer("/account/whoami", upstream::Answer::json(200, found));
    let call = async |ca_files: Vec<PathBuf>| {
        let settings = SynapseSettings {
            url: format!("https://{}", upstream.name()).parse().unwrap(),
            admin_token: None,
            timeout: Duration::from_secs(20),
            ca_files,
            registration: threepid::homeserver::synapse::Registration::default(),
        };
        let token = AccessToken::parse("t").unwrap();
        let synapse = Synapse::new(settings).unwrap();
        synapse.whoami(&token, &Origin::default()).await
    };

    let trusted = call(vec![upstream.ca_file()]).await;
    let distrusted = call(Vec::new()).await;

    assert_eq!(trusted.unwrap().user_id, ALICE);
    let is_failure = matches!(distrusted, Err(Error::HomeserverFailed(_)));
    assert!(is_failure, "{distrusted:?}");
}

#[tokio::test]
async fn settings_that_can_not_be_used_are_refused_at_once() {
    let homeserver = Homeserver::start().await;
    for url in [
        "ftp://example.org",
        "http://me:secret@example.org",
        "https://example.org/?x=1",
        "https://example.org/#x",
        "mailto:a@b.org",
    ] {
        let settings = SynapseSettings {
            url: url.parse().unwrap(),
            ..settings(&homeserver)
        };
        let why = Synapse::new(settings).unwrap_err();
        assert!(
            why.starts_with("homeserver.url") && !why.contains("secret"),
            "{why}"
        );
    }
    let settings = SynapseSettings {
        ca_files: vec![PathBuf::from("/nowhere/ca.pem")],
        registration: threepid::homeserver::synapse::Registration::default(),
        ..settings(&homeserver)
    };
    let why = Synapse::new(settings).unwrap_err();
    assert!(why.ends_with("correct homeserver.ca_files"), "{why}");
}

#[tokio::test]
async fn debug_shows_no_token() {
    let homeserver = Homeserver::start().await;
    let shown = format!("{:?}{:?}", settings(&homeserver), synapse(&homeserver));
    assert!(!shown.contains(ADMIN_TOKEN), "{shown}");
}

#[tokio::test]
async fn a_change_that_may_come_late_lets_no_other_pass() {
    let homeserver = populated().await;
    let synapse = impatient(&homeserver);
    homeserver.fail("PUT", USERS, Fault::Silent);
    let late = bind(&synapse, ALICE, "late@example.org").await;
    homeserver.heal();

    let other = bind(&synapse, ALICE, "other@example.org").await;
    let bobs = bind(&synapse, BOB, "his@example.org").await;
    let same = bind(&synapse, ALICE, "late@example.org").await;
    let then = bind(&synapse, ALICE, "other@example.org").await;

    assert!(matches!(late, Err(Error::HomeserverTimeout(_))), "{late:?}");
    assert!(
        matches!(other, Err(Error::HomeserverFailed(_))),
        "{other:?}"
    );
    assert_eq!(
        (bobs, same, then),
        (Ok(Bound::Bound), Ok(Bound::Bound), Ok(Bound::Bound))
    );
}
