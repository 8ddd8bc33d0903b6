//! Registration at a homeserver behind the webhook.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};
use threepid::{
    error::{Error, Result},
    homeserver::{
        Origin, PassedBack,
        registration::{DUMMY, NewAccount, Registering, Registrar, Stages},
        webhook::Webhook,
    },
    threepid::Threepid,
};

use crate::webhook_receiver::{Fault, Receiver};

const OP: &str = "an_operation";

fn alice() -> Map<String, Value> {
    let params = json!({ "username": "alice", "password": "wonderland", "device_id": "D" });
    params.as_object().cloned().expect("an object")
}

fn origin() -> Origin {
    Origin {
        address: "192.0.2.7".parse().ok(),
        user_agent: Some("Element".to_owned()),
    }
}

fn account<'a>(
    op_id: &'a str,
    params: &'a Map<String, Value>,
    threepids: &'a [Threepid],
) -> NewAccount<'a> {
    NewAccount {
        session: "s",
        op_id,
        params,
        threepids,
        last: None,
    }
}

async fn finish(webhook: &Webhook, op_id: &str) -> Result<Registering> {
    let params = alice();
    webhook
        .finish(account(op_id, &params, &[]), &origin())
        .await
}

fn user_id(told: Result<Registering>) -> String {
    match told {
        Ok(Registering::Registered(made)) => made.user_id,
        told => panic!("no account: {told:?}"),
    }
}

fn refusal(told: Result<Registering>) -> (u16, Value) {
    match told {
        Ok(Registering::Refused(told)) => words(&told),
        told => panic!("no refusal: {told:?}"),
    }
}

fn words(told: &PassedBack) -> (u16, Value) {
    let body = serde_json::from_slice(&told.body).expect("JSON");
    (told.status.as_u16(), body)
}

fn stages(told: Result<Registering>) -> Stages {
    match told {
        Ok(Registering::Stages(stages)) => stages,
        told => panic!("no stages: {told:?}"),
    }
}

#[tokio::test]
async fn a_registration_is_one_call_at_its_end() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    let params = alice();
    let email = [Threepid::email("alice@example.org").unwrap()];

    let begun = stages(webhook.start(&Map::new(), &origin()).await);
    assert!(receiver.seen().is_empty(), "nothing is to be asked");
    let made = webhook
        .finish(account(OP, &params, &email), &origin())
        .await;

    assert_eq!(begun.flows, [[DUMMY]]);
    assert_eq!(user_id(made), "@alice:example.org");
    assert_eq!(
        receiver.seen()[0].body,
        json!({
            "params": { "username": "alice", "password": "wonderland", "device_id": "D" },
            "threepids": [{ "medium": "email", "address": "alice@example.org" }],
            "client_ip": "192.0.2.7",
            "user_agent": "Element",
            "op_id": OP,
        })
    );
}

#[tokio::test]
async fn each_registration_has_a_session_of_its_own() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();

    let first = stages(webhook.start(&alice(), &origin()).await);
    let second = stages(webhook.start(&alice(), &origin()).await);

    assert_ne!(first.session, second.session);
    assert_eq!(first.session.len(), 24);
}

#[tokio::test]
async fn a_name_or_password_that_will_not_do_is_refused_at_the_beginning() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    finish(&webhook, OP).await.unwrap();
    let weak = json!({ "username": "bob", "password": "short" });

    let (status, taken) = refusal(webhook.start(&alice(), &origin()).await);
    let weak = webhook.start(weak.as_object().unwrap(), &origin()).await;

    assert_eq!(status, 400);
    let words = json!({ "errcode": "M_USER_IN_USE", "error": "This name is taken." });
    assert_eq!(taken, words);
    assert!(matches!(weak, Err(Error::WeakPassword(_))), "{weak:?}");
}

#[tokio::test]
async fn where_names_are_not_told_a_registration_begins_all_the_same() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    receiver.set(Fault::error(404, "M_UNRECOGNIZED"));

    let begun = webhook.start(&alice(), &origin()).await;
    let told = webhook.available("username=alice", &origin()).await;

    assert_eq!(stages(begun).flows, [[DUMMY]]);
    let (status, body) = words(&told.unwrap());
    assert_eq!((status, &body["errcode"]), (404, &json!("M_UNRECOGNIZED")));
}

#[tokio::test]
async fn there_are_no_stages_to_show() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    let auth = json!({ "type": "m.login.terms", "session": "s" });

    let shown = webhook
        .stage("s", &alice(), auth.as_object().unwrap(), &origin())
        .await;

    assert_eq!(refusal(shown).0, 400);
    assert!(receiver.seen().is_empty());
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_account() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    receiver.next([Fault::DropAfter]);

    let made = finish(&webhook, OP).await;

    assert_eq!(user_id(made), "@alice:example.org");
    let seen = receiver.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn what_was_made_is_told_whoever_asks_later() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    receiver.next([const { Fault::DropAfter }; 3]);
    let params = Map::new();
    let later = account(OP, &params, &[]);

    let before = webhook.made(later).await;
    receiver.next([const { Fault::DropAfter }; 3]);
    let lost = finish(&webhook, OP).await;
    let made = webhook.made(later).await;
    let again = webhook.repeat(later, &origin()).await;

    assert!(
        matches!(before, Err(Error::HomeserverFailed(_))),
        "{before:?}"
    );
    assert!(matches!(lost, Err(Error::HomeserverTimeout(_))), "{lost:?}");
    assert_eq!(made, Ok(Some("@alice:example.org".to_owned())));
    assert_eq!(user_id(again), "@alice:example.org");
}

#[tokio::test]
async fn an_operation_that_is_not_known_makes_no_account_by_repetition() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    let params = alice();
    let forgotten = account(OP, &params, &[]);

    let made = webhook.made(forgotten).await;
    let repeated = webhook.repeat(forgotten, &origin()).await;

    assert_eq!(made, Ok(None));
    assert!(matches!(repeated, Ok(Registering::Lost)), "{repeated:?}");
    let mut seen = receiver.seen().into_iter();
    assert!(seen.all(|call| call.verb() == "/account/registered"));
}

#[tokio::test]
async fn what_is_no_answer_never_says_that_nothing_was_made() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    for fault in [
        Fault::Answer(404, "<h1>Not found</h1>".to_owned()),
        Fault::error(404, "M_UNRECOGNIZED"),
        Fault::json(200, &json!({})),
    ] {
        receiver.next([fault]);
        let params = Map::new();
        let made = webhook.made(account(OP, &params, &[])).await;
        assert!(matches!(made, Err(Error::HomeserverFailed(_))), "{made:?}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_it_is() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    for (status, errcode) in [
        (400, "M_EXCLUSIVE"),
        (403, "M_FORBIDDEN"),
        (409, "M_THREEPID_IN_USE"),
        (429, "M_LIMIT_EXCEEDED"),
    ] {
        let body = json!({ "errcode": errcode, "error": "No.", "org.example.why": [1] });
        receiver.next([Fault::json(status, &body)]);

        let told = finish(&webhook, OP).await;

        assert_eq!(refusal(told), (status, body));
    }
    assert_eq!(user_id(finish(&webhook, OP).await), "@alice:example.org");
}

#[tokio::test]
async fn what_is_about_us_is_not_told_to_the_client() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    for fault in [
        Fault::error(401, "THREEPID_BAD_SIGNATURE"),
        Fault::error(401, "M_MISSING_TOKEN"),
        Fault::error(404, "M_UNRECOGNIZED"),
        Fault::Answer(400, "<h1>Bad request</h1>".to_owned()),
        Fault::Redirect("/elsewhere".to_owned()),
    ] {
        receiver.next([fault.clone()]);
        let told = finish(&webhook, OP).await;
        let is_failure = matches!(told, Err(Error::HomeserverFailed(_)));
        assert!(is_failure, "{fault:?}: {told:?}");
    }
}

#[tokio::test]
async fn an_account_without_a_name_is_not_known_to_be_made() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    for body in [json!({}), json!({ "user_id": "alice" }), json!([])] {
        receiver.next([Fault::json(200, &body)]);
        let told = finish(&webhook, OP).await;
        assert!(matches!(told, Err(Error::HomeserverTimeout(_))), "{told:?}");
    }
}

#[tokio::test]
async fn a_limit_after_a_lost_answer_does_not_say_that_nothing_was_made() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    receiver.next([Fault::DropAfter, Fault::error(429, "M_LIMIT_EXCEEDED")]);

    let told = finish(&webhook, OP).await;

    assert!(matches!(told, Err(Error::HomeserverTimeout(_))), "{told:?}");
}

#[tokio::test]
async fn names_are_told_free_or_not_in_the_homeserver_s_words() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    let ask = async |query: &str| words(&webhook.available(query, &origin()).await.unwrap());

    let free = ask("username=alice").await;
    finish(&webhook, OP).await.unwrap();
    let taken = ask("x=1&username=ali%63e").await;
    let odd = ask("username=%00").await;
    let none = ask("name=alice").await;

    assert_eq!(free, (200, json!({ "available": true })));
    assert_eq!(
        (taken.0, &taken.1["errcode"]),
        (400, &json!("M_USER_IN_USE"))
    );
    assert_eq!(odd.1["errcode"], "M_INVALID_USERNAME");
    assert_eq!(none.1["errcode"], "M_MISSING_PARAM");
}

#[tokio::test]
async fn a_limit_on_names_passes_with_its_time() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    receiver.next([
        Fault::error(429, "M_LIMIT_EXCEEDED"),
        Fault::Answer(429, String::new()),
        Fault::json(200, &json!({ "available": false })),
    ]);
    let ask = async || webhook.available("username=alice", &origin()).await;

    let told = ask().await.unwrap();
    let wordless = ask().await.unwrap_err();
    let nonsense = ask().await.unwrap_err();

    assert_eq!(told.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(told.retry_after.as_deref(), Some("7"));
    let retry_after = Duration::from_secs(7);
    assert_eq!(wordless, Error::Limited { retry_after });
    assert!(matches!(nonsense, Error::HomeserverFailed(_)));
}
