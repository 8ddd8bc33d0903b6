//! The addresses of accounts that a Synapse has: its own words and faults, as a client meets them.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use threepid::{
    Builder,
    homeserver::synapse::{Synapse, SynapseSettings},
    limits,
    secret::AccessToken,
};

use crate::{
    contacts::{ADD_TO, DELETE, THREEPID, prove, session},
    support::{
        app::*,
        homeserver::{ADMIN_TOKEN, Fault, Homeserver},
        host::{ALICE, BOB, HERS, HIS, PASSPHRASE, as_user, post_as},
    },
};

const USERS: &str = "/_synapse/admin/v2/users/";

/// A Synapse with the accounts of Alice and Bob, and us in front of it.
async fn both() -> (Homeserver, TestApp) {
    let homeserver = Homeserver::start().await;
    homeserver.user(ALICE, PASSPHRASE, HERS);
    homeserver.user(BOB, PASSPHRASE, HIS);
    let app = TestApp::with(set(&homeserver));
    (homeserver, app)
}

fn set(homeserver: &Homeserver) -> impl FnOnce(Builder) -> Builder + use<> {
    let settings = SynapseSettings {
        url: homeserver.url(),
        admin_token: AccessToken::parse(ADMIN_TOKEN).ok(),
        timeout: Duration::from_secs(5),
        ca_files: Vec::new(),
        registration: threepid::homeserver::synapse::Registration::default(),
    };
    let synapse = Synapse::new(settings).expect("settings that can be used");
    move |builder| {
        builder
            .limits(limits::Settings::OFF)
            .directory(Arc::<Synapse>::clone(&synapse))
            .accounts(synapse)
    }
}

/// A request with a password, in the session of a challenge.
fn answering(body: &Value, challenge: &Answer, password: &str) -> Value {
    assert_eq!(challenge.status, 401, "{}", challenge.text);
    let mut body = body.clone();
    body["auth"] = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": ALICE },
        "password": password, "session": challenge.json()["session"],
    });
    body
}

/// Alice's request to add the address of a session, her password given.
async fn add(app: &TestApp, body: &Value) -> Answer {
    let challenge = post_as(app, HERS, ADD_TO, body).await;
    let body = answering(body, &challenge, PASSPHRASE);
    post_as(app, HERS, ADD_TO, &body).await
}

fn email(address: &str) -> (String, String) {
    ("email".to_owned(), address.to_owned())
}

#[tokio::test]
async fn an_address_is_added_behind_synapse_s_own_password_dialogue() {
    let (homeserver, app) = both().await;
    let body = session(&prove(&app, ADD, &alice(1)).await);

    let asked = post_as(&app, HERS, ADD_TO, &body).await;
    let wrong = post_as(&app, HERS, ADD_TO, &answering(&body, &asked, "wrong")).await;
    let added = post_as(&app, HERS, ADD_TO, &answering(&body, &wrong, PASSPHRASE)).await;

    assert_eq!(
        asked.json()["flows"],
        json!([{ "stages": ["m.login.password"] }])
    );
    assert_eq!(
        (wrong.status.as_u16(), wrong.errcode().as_str()),
        (401, "M_FORBIDDEN")
    );
    assert_eq!((added.status.as_u16(), added.json()), (200, json!({})));
    assert_eq!(homeserver.threepids(ALICE), [email("alice@example.org")]);
    assert_eq!(
        homeserver.devices(ALICE),
        ["DEVICE"],
        "nobody was logged out"
    );
    let listed = app.send(as_user("GET", HERS, THREEPID, &Value::Null)).await;
    assert_eq!(
        listed.json()["threepids"][0]["address"],
        "alice@example.org"
    );
}

#[tokio::test]
async fn a_session_of_another_operation_never_reaches_synapse() {
    let (homeserver, app) = both().await;
    let body = session(&prove(&app, ADD, &alice(1)).await);
    let other = post_as(&app, HERS, ADD_TO, &session("1234")).await;

    let asked = post_as(&app, HERS, ADD_TO, &answering(&body, &other, PASSPHRASE)).await;

    assert_eq!(asked.status, 401);
    assert_ne!(asked.json()["session"], other.json()["session"]);
    let bodies = homeserver.log();
    assert!(bodies.iter().all(|(_, _, body)| body.get("auth").is_none()));
    assert!(homeserver.threepids(ALICE).is_empty());
}

#[tokio::test]
async fn an_address_that_another_account_has_stays_there() {
    let (homeserver, app) = both().await;
    let body = session(&prove(&app, ADD, &alice(1)).await);
    homeserver.give(BOB, "email", "alice@example.org");

    let refused = add(&app, &body).await;

    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (400, "M_THREEPID_IN_USE")
    );
    assert_eq!(homeserver.threepids(BOB), [email("alice@example.org")]);
}

#[tokio::test]
async fn whatever_goes_wrong_between_claim_and_take_a_retry_ends_it() {
    for (fault, status) in [
        (Fault::Status(500), 504),
        (Fault::Status(400), 502),
        (Fault::Drop, 504),
        (Fault::DropAfter, 200),
        (Fault::StatusAfter(502), 200),
        (Fault::Garbage, 200),
        (Fault::Limited(1000), 429),
    ] {
        let (homeserver, app) = both().await;
        let body = session(&prove(&app, ADD, &alice(1)).await);
        homeserver.fail_once("PUT", USERS, fault);

        let first = add(&app, &body).await;
        let app = app.restarted(set(&homeserver));
        let retried = add(&app, &body).await;
        let again = add(&app, &body).await;

        assert_eq!(first.status, status, "{fault:?}: {}", first.text);
        assert_eq!(
            (retried.status.as_u16(), again.status.as_u16()),
            (200, 200),
            "{fault:?}"
        );
        assert_eq!(
            homeserver.threepids(ALICE),
            [email("alice@example.org")],
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_synapse_that_is_gone_is_a_bad_gateway_and_not_a_logout() {
    let (homeserver, app) = both().await;
    let body = session(&prove(&app, ADD, &alice(1)).await);
    homeserver.down().await;

    let failed = post_as(&app, HERS, ADD_TO, &body).await;
    homeserver.up();
    let added = add(&app, &body).await;

    assert_eq!(
        (failed.status.as_u16(), failed.errcode().as_str()),
        (502, "M_UNKNOWN")
    );
    assert_eq!(added.status, 200);
}

#[tokio::test]
async fn a_token_is_what_synapse_says_it_is() {
    let (homeserver, app) = both().await;
    let asked = async || post_as(&app, HERS, ADD_TO, &json!({})).await.errcode();
    let named = json!({ "medium": "email", "address": "alice@example.org" });

    homeserver.change(ALICE, |user| user.is_guest = true);
    assert_eq!(asked().await, "M_GUEST_ACCESS_FORBIDDEN");
    homeserver.change(ALICE, |user| {
        user.is_guest = false;
        user.is_locked = true;
    });
    assert_eq!(asked().await, "M_USER_LOCKED");
    homeserver.change(ALICE, |user| {
        user.is_locked = false;
        user.is_suspended = true;
    });
    assert_eq!(asked().await, "M_MISSING_PARAM", "who is suspended may add");
    assert_eq!(
        post_as(&app, HERS, DELETE, &named).await.errcode(),
        "M_USER_SUSPENDED"
    );
}

#[tokio::test]
async fn an_account_deletes_what_its_list_shows_and_nothing_of_others() {
    let (homeserver, app) = both().await;
    homeserver.give(ALICE, "email", "Old@Example.org");
    homeserver.give(ALICE, "msisdn", "447700900001");
    homeserver.give(BOB, "email", "bob@example.org");
    for (medium, address) in [
        ("email", "Old@Example.org"),
        ("msisdn", "+447700900001"),
        ("email", "bob@example.org"),
    ] {
        let named = json!({ "medium": medium, "address": address });
        let deleted = post_as(&app, HERS, DELETE, &named).await;
        assert_eq!(
            deleted.json(),
            json!({ "id_server_unbind_result": "no-support" })
        );
    }

    assert!(homeserver.threepids(ALICE).is_empty());
    assert_eq!(homeserver.threepids(BOB), [email("bob@example.org")]);
}

#[tokio::test]
async fn synapse_signs_what_is_unbound_and_an_address_stays_if_it_can_not() {
    let (homeserver, app) = both().await;
    homeserver.give(ALICE, "email", "alice@example.org");
    let named =
        json!({ "medium": "email", "address": "alice@example.org", "id_server": "id.example.org" });
    homeserver.fail_once("POST", "3pid/unbind", Fault::Status(502));

    let failed = post_as(&app, HERS, DELETE, &named).await;
    let kept = homeserver.threepids(ALICE);
    let deleted = post_as(&app, HERS, DELETE, &named).await;

    assert!(failed.status.is_server_error());
    assert_eq!(kept, [email("alice@example.org")]);
    assert_eq!(
        deleted.json(),
        json!({ "id_server_unbind_result": "success" })
    );
    assert!(homeserver.threepids(ALICE).is_empty());
}
