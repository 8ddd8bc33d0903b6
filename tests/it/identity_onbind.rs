//! Homeservers are told of what their users bind: `3pid/onbind`.

use std::{sync::Arc, time::Duration};

use rusqlite::Connection;
use serde_json::{Value, json};
use threepid::{limits, threepid::Threepid};
use tokio::sync::Semaphore;

use crate::support::{
    app::{TestApp, with_identity},
    federation::{FederationServer, POST_ONBIND, PUT_ONBIND},
    identity::{asking, bound, is_signed},
    until,
    upstream::Answer,
};

const ADDRESS: &str = "alice@example.org";
/// Longer than the longest wait between two tries.
const A_WHILE: Duration = Duration::from_hours(2);

/// An identity server that trusts a homeserver's certificate.
fn app_for(homeserver: &FederationServer) -> TestApp {
    asking(homeserver.outbound(), limits::Settings::OFF, |_| {})
}

/// The same server, begun again.
fn restarted(app: TestApp, homeserver: &FederationServer) -> TestApp {
    let outbound = homeserver.outbound();
    app.restarted(|builder| with_identity(builder.outbound(outbound), |_| {}))
}

/// Tells homeservers what is due; how much it was.
async fn tell(app: &TestApp) -> usize {
    let telling = app.threepid.tell_homeservers_due();
    telling.await.expect("the store answers")
}

/// Whom a homeserver was told of, in the order of being told.
fn told(homeserver: &FederationServer) -> Vec<Value> {
    let requests = homeserver.requests(POST_ONBIND);
    requests
        .iter()
        .map(|request| request.json()["mxid"].clone())
        .collect()
}

/// Lets a user be found by an address, as a host does that knows whose it is: without a mail.
async fn associated(app: &TestApp, user_id: &str, address: &str) {
    let address = Threepid::email(address).expect("an address");
    let associated = app.threepid.associate(user_id, &address).await;
    associated.expect("the store answers");
}

/// Associations of twenty users of a homeserver.
async fn many_associated(app: &TestApp, homeserver: &FederationServer) {
    for number in 0..20 {
        let user = homeserver.user(&format!("user{number}"));
        associated(app, &user, &format!("user{number}@example.org")).await;
    }
}

/// Invites whoever has an address; the invitation's token.
async fn invited(app: &TestApp, address: &str) -> String {
    let sender = "@inviter:example.org";
    let token = app.identity_token(sender).await;
    let body = json!({
        "medium": "email", "address": address, "room_id": "!room:example.org", "sender": sender,
    });
    let answer = app.post_as(&token, "store-invite", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    app.mail().await;
    let token = answer.json()["token"].as_str().map(str::to_owned);
    token.expect("a token")
}

#[tokio::test]
async fn a_homeserver_is_told_what_its_user_bound() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    let alice = homeserver.user("alice");
    bound(&app, &alice, "Alice@example.org").await;

    let count = tell(&app).await;

    let requests = homeserver.requests(POST_ONBIND);
    assert_eq!((count, requests.len()), (1, 1));
    let mut body = requests[0].json();
    assert!(is_signed(&app, &body).await);
    body.as_object_mut().unwrap().remove("signatures");
    let wanted = json!({ "medium": "email", "address": ADDRESS, "mxid": alice, "invites": [] });
    assert_eq!(body, wanted);
    assert_eq!((tell(&app).await, homeserver.count(PUT_ONBIND)), (0, 0));
}

#[tokio::test]
async fn the_invitations_of_an_address_are_told_once() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    let alice = homeserver.user("alice");
    let first = invited(&app, ADDRESS).await;
    app.wait(Duration::from_secs(1));
    let second = invited(&app, ADDRESS).await;
    invited(&app, "bob@example.org").await;
    bound(&app, &alice, ADDRESS).await;

    tell(&app).await;

    let body = homeserver.requests(POST_ONBIND)[0].json();
    assert!(is_signed(&app, &body).await);
    let invites = body["invites"].as_array().unwrap();
    assert_eq!(invites.len(), 2);
    for (invite, token) in invites.iter().zip([first, second]) {
        assert!(is_signed(&app, &invite["signed"]).await);
        let mut invite = invite.clone();
        invite["signed"]
            .as_object_mut()
            .unwrap()
            .remove("signatures");
        let wanted = json!({
            "medium": "email", "address": ADDRESS, "mxid": alice, "room_id": "!room:example.org",
            "sender": "@inviter:example.org", "signed": { "mxid": alice, "token": token },
        });
        assert_eq!(invite, wanted);
    }
    bound(&app, &alice, ADDRESS).await;
    tell(&app).await;
    assert_eq!(
        homeserver.requests(POST_ONBIND)[1].json()["invites"],
        json!([])
    );
}

#[tokio::test]
async fn invitations_wait_for_the_next_user_if_a_homeserver_refuses() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    invited(&app, ADDRESS).await;
    homeserver.answer(POST_ONBIND, Answer::error(403, "M_FORBIDDEN"));
    bound(&app, &homeserver.user("alice"), ADDRESS).await;
    tell(&app).await;
    app.wait(A_WHILE);
    assert_eq!(tell(&app).await, 0);

    homeserver.answer(POST_ONBIND, Answer::json(200, json!({})));
    bound(&app, &homeserver.user("bob"), ADDRESS).await;
    tell(&app).await;

    let invites = &homeserver.requests(POST_ONBIND)[1].json()["invites"];
    assert_eq!(invites.as_array().unwrap().len(), 1);
    assert_eq!(invites[0]["signed"]["mxid"], homeserver.user("bob"));
}

#[tokio::test]
async fn a_homeserver_that_does_not_take_post_is_told_by_put() {
    for refusal in [404, 405] {
        let homeserver = FederationServer::start().await;
        homeserver.answer(POST_ONBIND, Answer::error(refusal, "M_UNRECOGNIZED"));
        homeserver.answer(PUT_ONBIND, Answer::json(200, json!({})));
        let app = app_for(&homeserver);
        bound(&app, &homeserver.user("alice"), ADDRESS).await;

        tell(&app).await;

        assert_eq!(homeserver.count(POST_ONBIND), homeserver.count(PUT_ONBIND));
        let put = homeserver.requests(PUT_ONBIND)[0].json();
        assert_eq!(put, homeserver.requests(POST_ONBIND)[0].json());
        app.wait(A_WHILE);
        assert_eq!(tell(&app).await, 0);
    }
}

#[tokio::test]
async fn a_homeserver_that_fails_is_told_again_later() {
    let homeserver = FederationServer::start().await;
    homeserver.answer(POST_ONBIND, Answer::error(500, "M_UNKNOWN"));
    let app = app_for(&homeserver);
    bound(&app, &homeserver.user("alice"), ADDRESS).await;
    assert_eq!((tell(&app).await, tell(&app).await), (1, 0));

    app.wait(Duration::from_secs(8));
    assert_eq!((tell(&app).await, tell(&app).await), (1, 0));
    homeserver.answer(POST_ONBIND, Answer::json(200, json!({})));
    app.wait(Duration::from_secs(16));
    assert_eq!(tell(&app).await, 1);

    assert_eq!(homeserver.count(POST_ONBIND), 3);
    app.wait(A_WHILE);
    assert_eq!(tell(&app).await, 0);
}

#[tokio::test]
async fn a_homeserver_that_goes_on_failing_is_given_up() {
    let homeserver = FederationServer::start().await;
    homeserver.answer(POST_ONBIND, Answer::error(500, "M_UNKNOWN"));
    let app = app_for(&homeserver);
    bound(&app, &homeserver.user("alice"), ADDRESS).await;
    let mut tries = 0;
    while tell(&app).await == 1 {
        tries += 1;
        app.wait(A_WHILE);
        assert!(tries < 100);
    }

    app.wait(Duration::from_hours(24 * 7));

    assert_eq!(tell(&app).await, 0);
    assert_eq!((tries, homeserver.count(POST_ONBIND)), (33, 33));
}

#[tokio::test]
async fn binding_does_not_wait_for_the_homeserver() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);

    bound(&app, &homeserver.user("alice"), ADDRESS).await;

    assert_eq!(homeserver.upstream().connections(), 0);
}

#[tokio::test]
async fn a_homeserver_is_told_after_a_restart() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    let alice = homeserver.user("alice");
    bound(&app, &alice, ADDRESS).await;

    let app = restarted(app, &homeserver);

    assert_eq!(tell(&app).await, 1);
    assert_eq!(told(&homeserver), [json!(alice)]);
}

#[tokio::test]
async fn a_server_that_dies_while_it_tells_tells_again() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    let alice = homeserver.user("alice");
    bound(&app, &alice, ADDRESS).await;
    let slow = Answer::json(200, json!({})).after(Duration::from_hours(1));
    homeserver.answer(POST_ONBIND, slow);
    let threepid = app.threepid.clone();
    let telling = tokio::spawn(async move { threepid.tell_homeservers_due().await });
    until("the homeserver is told", async || {
        homeserver.count(POST_ONBIND) > 0
    })
    .await;
    telling.abort();
    assert!(telling.await.is_err());

    let app = restarted(app, &homeserver);
    homeserver.answer(POST_ONBIND, Answer::json(200, json!({})));

    assert_eq!((tell(&app).await, tell(&app).await), (1, 0));
    assert_eq!(told(&homeserver), [json!(alice), json!(alice)]);
}

#[tokio::test]
async fn what_is_unbound_before_is_not_told() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    let alice = homeserver.user("alice");
    bound(&app, &alice, ADDRESS).await;
    let token = app.identity_token(&alice).await;
    let mut body = crate::support::identity::proved(&app, &token, ADDRESS).await;
    body["mxid"] = json!(alice);
    body["threepid"] = json!({ "medium": "email", "address": ADDRESS });
    let unbound = app.post("/_matrix/identity/v2/3pid/unbind", &body).await;
    assert_eq!(unbound.status, 200, "{}", unbound.text);

    assert_eq!(tell(&app).await, 0);
    assert_eq!(homeserver.count(POST_ONBIND), 0);
}

#[tokio::test]
async fn the_newest_user_of_an_address_is_told_and_no_other() {
    let homeserver = FederationServer::start().await;
    let other = FederationServer::start().await;
    let app = app_for(&homeserver);
    bound(&app, &homeserver.user("alice"), ADDRESS).await;
    let bob = other.user("bob");
    bound(&app, &bob, ADDRESS).await;

    assert_eq!(tell(&app).await, 1);

    assert_eq!(told(&other), [json!(bob)]);
    assert_eq!(homeserver.count(POST_ONBIND), 0);
}

#[tokio::test]
async fn homeservers_of_former_and_of_present_users_are_told_in_turn() {
    let homeserver = FederationServer::start().await;
    let other = FederationServer::start().await;
    let app = app_for(&homeserver);
    let (alice, bob) = (homeserver.user("alice"), other.user("bob"));
    bound(&app, &alice, ADDRESS).await;
    tell(&app).await;
    bound(&app, &bob, ADDRESS).await;

    tell(&app).await;

    assert_eq!(
        (told(&homeserver), told(&other)),
        (vec![json!(alice)], vec![json!(bob)])
    );
}

#[tokio::test]
async fn many_associations_of_one_homeserver_are_all_told() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    many_associated(&app, &homeserver).await;

    assert_eq!(tell(&app).await, 20);

    assert_eq!(told(&homeserver).len(), 20);
}

#[tokio::test]
async fn in_the_background_a_homeserver_that_hangs_holds_up_no_other() {
    let slow = FederationServer::start().await;
    let never = Answer::json(200, json!({})).after(Duration::from_hours(1));
    slow.answer(POST_ONBIND, never);
    let quick = FederationServer::start().await;
    let app = app_for(&slow);
    let background = app.threepid.start();
    many_associated(&app, &slow).await;
    until("the one that hangs is told", async || {
        slow.count(POST_ONBIND) > 0
    })
    .await;

    associated(&app, &quick.user("alice"), ADDRESS).await;
    until("the other is told", async || quick.count(POST_ONBIND) > 0).await;

    assert_eq!(told(&quick), [json!(quick.user("alice"))]);
    background.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_withdrawn_while_others_are_told_is_not_told() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    let (alice, bob) = (homeserver.user("alice"), homeserver.user("bob"));
    invited(&app, "bob@example.org").await;
    bound(&app, &alice, ADDRESS).await;
    bound(&app, &bob, "bob@example.org").await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Answer::json(200, json!({})).behind(&gate);
    homeserver.answer(POST_ONBIND, held);
    let threepid = app.threepid.clone();
    let telling = tokio::spawn(async move { threepid.tell_homeservers_due().await });
    until("the first is told", async || {
        homeserver.count(POST_ONBIND) > 0
    })
    .await;

    let connection = Connection::open(app.dir().join("threepid.db")).expect("the database");
    let withdraw = "UPDATE invite SET withdrawn_at = 1";
    assert_eq!(connection.execute(withdraw, []).expect("a row"), 1);
    gate.add_permits(1);
    telling.await.expect("no panic").expect("the store answers");

    assert_eq!(told(&homeserver), [json!(alice), json!(bob)]);
    let body = homeserver.requests(POST_ONBIND)[1].json();
    assert_eq!(body["invites"], json!([]));
}

#[tokio::test]
async fn an_invitation_whose_server_key_is_gone_holds_up_no_other() {
    let homeserver = FederationServer::start().await;
    let app = app_for(&homeserver);
    invited(&app, ADDRESS).await;
    let connection = Connection::open(app.dir().join("threepid.db")).expect("the database");
    let forget = "UPDATE invite SET key_id = zeroblob(length(key_id))";
    assert_eq!(connection.execute(forget, []).expect("a row"), 1);
    app.wait(Duration::from_secs(1));
    let token = invited(&app, ADDRESS).await;
    bound(&app, &homeserver.user("alice"), ADDRESS).await;

    tell(&app).await;

    let body = homeserver.requests(POST_ONBIND)[0].json();
    assert_eq!(body["invites"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["invites"][0]["signed"]["token"], json!(token));
}
