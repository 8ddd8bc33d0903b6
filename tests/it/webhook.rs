//! Addresses and accounts of a homeserver behind the webhook.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use threepid::{
    clock::{SystemClock, Timestamp},
    error::{Error, Result},
    homeserver::{
        Accounts, Directory, Origin, PassedOn, Reauth, Requester,
        registration::{NewAccount, Registering, Registrar},
        webhook::{SigningKey, Webhook, WebhookSettings},
    },
    password::NewPassword,
    secret::AccessToken,
    store::Bound,
    threepid::Threepid,
};

use crate::{
    support::upstream::{self, Upstream},
    webhook_receiver::{Fault, KEY, NOW, OLD_KEY, Receiver},
};

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const PASSWORD: &str = "wonderland";

fn email(address: &str) -> Threepid {
    Threepid::email(address).expect("an address")
}

/// Makes an account; its access token.
pub(crate) async fn sign_up(webhook: &Webhook, name: &str) -> AccessToken {
    let params = json!({ "username": name, "password": PASSWORD });
    let account = NewAccount {
        session: "s",
        op_id: name,
        params: params.as_object().expect("an object"),
        threepids: &[],
        last: None,
    };
    let made = webhook.finish(account, &Origin::default()).await;
    let Ok(Registering::Registered(made)) = made else {
        panic!("{name} can not sign up: {made:?}");
    };
    let body: Value = serde_json::from_slice(&made.body).expect("JSON");
    AccessToken::parse(body["access_token"].as_str().expect("a token")).expect("a good one")
}

/// A receiver with alice and bob, who have no addresses.
async fn populated() -> (Receiver, Arc<Webhook>) {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook();
    sign_up(&webhook, "alice").await;
    sign_up(&webhook, "bob").await;
    receiver.seen();
    (receiver, webhook)
}

async fn bind(webhook: &Webhook, user_id: &str, address: &str) -> Result<Bound> {
    let validated_at = Some(Timestamp(NOW - 1000));
    let threepid = email(address);
    webhook
        .bind(user_id, &threepid, validated_at, Timestamp(NOW))
        .await
}

async fn unbind(webhook: &Webhook, user_id: &str, address: &str) -> Result<bool> {
    Directory::unbind(webhook, user_id, &email(address)).await
}

async fn reset(webhook: &Webhook, user_id: &str, password: &str) -> Result<()> {
    let new = NewPassword::parse(password).expect("a password");
    webhook.reset_password(user_id, &new, true).await
}

async fn whoami(webhook: &Webhook, token: &AccessToken) -> Result<Requester> {
    webhook.whoami(token, &Origin::default()).await
}

#[tokio::test]
async fn an_address_gets_an_owner_and_loses_it() {
    let (receiver, webhook) = populated().await;

    let before = webhook.owner(&email("a@example.org")).await;
    let bound = bind(&webhook, ALICE, "a@example.org").await;
    let again = bind(&webhook, ALICE, "a@example.org").await;
    let owner = webhook.owner(&email("a@example.org")).await;
    let list = webhook.list(ALICE).await.unwrap();
    let gone = unbind(&webhook, ALICE, "a@example.org").await;
    let never = unbind(&webhook, ALICE, "a@example.org").await;

    assert_eq!((before, owner), (Ok(None), Ok(Some(ALICE.to_owned()))));
    assert_eq!((bound, again), (Ok(Bound::Bound), Ok(Bound::Bound)));
    assert_eq!((gone, never), (Ok(true), Ok(false)));
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].address, "a@example.org");
    assert_eq!(list[0].validated_at, Some(Timestamp(NOW - 1000)));
    assert_eq!(list[0].added_at, Timestamp(NOW));
    assert_eq!(webhook.list(ALICE).await, Ok(Vec::new()));
    assert!(receiver.seen().iter().all(|call| call.is_signed));
}

#[tokio::test]
async fn an_address_of_another_account_stays_there() {
    let (_receiver, webhook) = populated().await;
    bind(&webhook, BOB, "b@example.org").await.unwrap();

    let bound = bind(&webhook, ALICE, "b@example.org").await;
    let unbound = unbind(&webhook, ALICE, "b@example.org").await;

    assert_eq!(bound, Ok(Bound::OwnedByOther));
    assert_eq!(unbound, Ok(false));
    let owner = webhook.owner(&email("b@example.org")).await;
    assert_eq!(owner, Ok(Some(BOB.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_accounts_at_once_one_gets_the_address() {
    let (_receiver, webhook) = populated().await;

    let binds = [ALICE, BOB].map(|user_id| bind(&webhook, user_id, "a@example.org"));
    let mut bound = join_all(binds).await;

    bound.sort_by_key(|bound| *bound != Ok(Bound::Bound));
    assert_eq!(bound, [Ok(Bound::Bound), Ok(Bound::OwnedByOther)]);
}

#[tokio::test]
async fn what_is_no_answer_is_never_nobody() {
    let (receiver, webhook) = populated().await;
    let text = |status, body: &str| Fault::Answer(status, body.to_owned());
    for (fault, told) in [
        (text(200, "{}"), "200 and no user_id"),
        (text(200, r#"{"user_id":""}"#), "200 and no user_id"),
        (text(200, r#"{"user_id":"alice"}"#), "200 and no user_id"),
        (text(200, r#"{"user_id":false}"#), "200 and no user_id"),
        (text(200, "null"), "something else than a JSON object"),
        (text(200, "[]"), "something else than a JSON object"),
        (text(200, ""), "something else than a JSON object"),
        (text(204, ""), "204 (no errcode)"),
        (text(404, "<h1>Not found</h1>"), "404 (no errcode)"),
        (Fault::error(404, "M_UNRECOGNIZED"), "404 (M_UNRECOGNIZED)"),
        (Fault::error(400, "M_NOT_FOUND"), "400 (M_NOT_FOUND)"),
        (Fault::error(403, "M_FORBIDDEN"), "403 (M_FORBIDDEN)"),
        (Fault::error(500, "M_NOT_FOUND"), "500 (M_NOT_FOUND)"),
        (text(200, &" ".repeat(2_000_000)), "more than 1048576 bytes"),
    ] {
        receiver.set(fault);

        let Err(Error::HomeserverFailed(cause)) = webhook.owner(&email("x@y.org")).await else {
            panic!("{told} is a failure");
        };

        assert!(cause.contains(told), "{told}: {cause}");
        assert!(!cause.contains("y.org") && !cause.contains(KEY), "{cause}");
    }
}

#[tokio::test]
async fn nobody_is_said_in_two_ways() {
    let (receiver, webhook) = populated().await;
    for nobody in [
        Fault::json(200, &json!({ "user_id": null })),
        Fault::error(404, "M_NOT_FOUND"),
    ] {
        receiver.next([nobody]);
        assert_eq!(webhook.owner(&email("x@y.org")).await, Ok(None));
    }
}

#[tokio::test]
async fn a_list_that_lacks_something_is_a_failure() {
    let (receiver, webhook) = populated().await;
    let entry =
        json!({ "medium": "email", "address": "a@b.org", "validated_at": null, "added_at": 1 });
    receiver.next([Fault::json(200, &json!({ "threepids": [entry] }))]);

    let list = webhook.list(ALICE).await.unwrap();

    assert_eq!(list[0].validated_at, None);
    for key in ["medium", "address", "added_at", "validated_at"] {
        let mut broken = entry.clone();
        broken[key] = json!({});
        receiver.next([Fault::json(200, &json!({ "threepids": [entry, broken] }))]);
        let list = webhook.list(ALICE).await;
        assert!(matches!(list, Err(Error::HomeserverFailed(_))), "{key}");
    }
    receiver.next([Fault::json(200, &json!({}))]);
    assert!(webhook.list(ALICE).await.is_err());
}

#[tokio::test]
async fn an_account_that_can_have_no_addresses_gets_none() {
    let (receiver, webhook) = populated().await;

    let absent = bind(&webhook, "@absent:example.org", "a@example.org").await;
    receiver.next([Fault::error(403, "M_FORBIDDEN")]);
    let bridge = bind(&webhook, ALICE, "a@example.org").await;

    assert!(matches!(absent, Err(Error::Forbidden(_))), "{absent:?}");
    let words = "Words for M_FORBIDDEN".into();
    assert_eq!(bridge, Err(Error::Forbidden(words)));
}

#[tokio::test]
async fn a_token_tells_whose_it_is() {
    let (_receiver, webhook) = populated().await;
    let token = sign_up(&webhook, "carol").await;

    let known = whoami(&webhook, &token).await.unwrap();
    let unknown = whoami(&webhook, &AccessToken::parse("made_up").unwrap()).await;

    assert_eq!(known.user_id, "@carol:example.org");
    assert!(known.device_id.is_some());
    let soft_logout = false;
    assert_eq!(unknown.unwrap_err(), Error::UnknownToken { soft_logout });
}

#[tokio::test]
async fn what_keeps_an_account_out_is_told_to_the_client() {
    let (receiver, webhook) = populated().await;
    let token = AccessToken::parse("t").unwrap();
    let logged_out = json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "x", "soft_logout": true });
    let guest = json!({ "user_id": ALICE, "is_guest": true });
    for (fault, error) in [
        (
            Fault::json(401, &logged_out),
            Error::UnknownToken { soft_logout: true },
        ),
        (Fault::error(401, "M_USER_LOCKED"), Error::UserLocked),
        (Fault::error(403, "M_USER_SUSPENDED"), Error::UserSuspended),
        (Fault::json(200, &guest), Error::GuestForbidden),
    ] {
        receiver.next([fault]);
        assert_eq!(whoami(&webhook, &token).await.unwrap_err(), error);
    }
    for fault in [
        Fault::Answer(401, String::new()),
        Fault::json(200, &json!({ "device_id": "D" })),
    ] {
        receiver.next([fault]);
        let told = whoami(&webhook, &token).await.unwrap_err();
        assert!(matches!(told, Error::HomeserverFailed(_)), "{told:?}");
    }
}

#[tokio::test]
async fn whoever_is_asked_again_shows_their_password() {
    let (_receiver, webhook) = populated().await;
    let access_token = sign_up(&webhook, "carol").await;
    let requester = whoami(&webhook, &access_token).await.unwrap();
    let ask = async |auth: Option<Value>| {
        let origin = Origin::default();
        webhook.reauth(&requester, auth.as_ref(), &origin).await
    };

    let Ok(Reauth::Challenge(first)) = ask(None).await else {
        panic!("a challenge");
    };
    let shown = |password| {
        Some(
            json!({ "type": "m.login.password", "session": first["session"], "password": password }),
        )
    };
    let wrong = ask(shown("builder")).await;
    let right = ask(shown(PASSWORD)).await;

    assert_eq!(first["flows"], json!([{ "stages": ["m.login.password"] }]));
    let Ok(Reauth::Challenge(wrong)) = wrong else {
        panic!("a challenge: {wrong:?}");
    };
    assert_eq!(wrong["errcode"], "M_FORBIDDEN");
    assert_eq!(right, Ok(Reauth::Done));
}

#[tokio::test]
async fn a_stage_is_shown_once() {
    let (receiver, webhook) = populated().await;
    let requester = Requester {
        user_id: ALICE.to_owned(),
        device_id: None,
        access_token: AccessToken::parse("t").unwrap(),
    };
    receiver.set(Fault::StatusAfter(502));

    let origin = Origin::default();
    let shown = webhook.reauth(&requester, Some(&json!({})), &origin).await;
    let times_shown = receiver.seen().len();
    let asked = webhook.reauth(&requester, None, &origin).await;
    let times_asked = receiver.seen().len();

    assert!(shown.is_err() && asked.is_err());
    assert_eq!((times_shown, times_asked), (1, 3));
}

#[tokio::test]
async fn a_new_password_ends_all_devices() {
    let (_receiver, webhook) = populated().await;
    let token = sign_up(&webhook, "carol").await;

    let done = reset(&webhook, "@carol:example.org", "correct horse").await;

    assert_eq!(done, Ok(()));
    assert!(whoami(&webhook, &token).await.is_err());
}

#[tokio::test]
async fn a_password_that_is_not_set_says_why() {
    let (receiver, webhook) = populated().await;

    let gone = reset(&webhook, "@absent:example.org", "correct horse").await;
    let weak = reset(&webhook, ALICE, "short").await;
    receiver.next([
        Fault::error(403, "M_FORBIDDEN"),
        Fault::error(400, "M_BAD_JSON"),
        Fault::Answer(404, String::new()),
    ]);
    let elsewhere = reset(&webhook, ALICE, "correct horse").await;
    let refused = reset(&webhook, ALICE, "correct horse").await;
    let absent = reset(&webhook, ALICE, "correct horse").await;

    assert_eq!(gone, Err(Error::AccountGone));
    assert_eq!(weak, Err(Error::WeakPassword("Write a longer one.".into())));
    assert!(matches!(elsewhere, Err(Error::Forbidden(_))));
    assert!(matches!(refused, Err(Error::HomeserverFailed(_))));
    assert!(matches!(absent, Err(Error::HomeserverFailed(_))));
}

#[tokio::test]
async fn what_is_optional_may_be_absent() {
    let (receiver, webhook) = populated().await;
    receiver.set(Fault::Answer(404, "<h1>Not found</h1>".to_owned()));

    let suspended = webhook.is_suspended(ALICE).await;
    let policy = webhook.password_policy().await.unwrap();

    assert_eq!(suspended, Ok(false));
    assert_eq!(policy.minimum_length, 0);
}

#[tokio::test]
async fn a_suspended_account_is_known() {
    let (receiver, webhook) = populated().await;
    receiver.next([Fault::json(200, &json!({ "suspended": true }))]);
    receiver.next([Fault::json(200, &json!({ "suspended": "yes" }))]);

    assert_eq!(webhook.is_suspended(ALICE).await, Ok(true));
    let broken = webhook.is_suspended(ALICE).await;
    assert!(matches!(broken, Err(Error::HomeserverFailed(_))));
    assert_eq!(webhook.is_suspended(ALICE).await, Ok(false));
}

#[tokio::test]
async fn the_password_policy_is_asked_for_once_in_a_while() {
    let (receiver, webhook) = populated().await;

    let first = webhook.password_policy().await.unwrap();
    let second = webhook.password_policy().await.unwrap();

    assert_eq!((first.minimum_length, second.minimum_length), (8, 8));
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn requests_of_the_homeserver_s_own_are_sent_there() {
    let (receiver, webhook) = populated().await;
    let request = PassedOn {
        method: Method::POST,
        path_and_query: "/_matrix/client/v3/account/password".to_owned(),
        access_token: None,
        body: Vec::new(),
    };

    let Err(Error::Forbidden(why)) = webhook.pass_on(request, &Origin::default()).await else {
        panic!("it is refused");
    };

    assert!(why.contains("homeserver itself"), "{why}");
    assert!(receiver.seen().is_empty());
}

#[tokio::test]
async fn what_was_lost_is_asked_for_again_by_the_same_name() {
    let (receiver, webhook) = populated().await;
    bind(&webhook, ALICE, "a@example.org").await.unwrap();
    receiver.seen();
    receiver.next([Fault::DropAfter, Fault::StatusAfter(503)]);

    let removed = unbind(&webhook, ALICE, "a@example.org").await;

    assert_eq!(removed, Ok(true), "the first answer, and not the third");
    let seen = receiver.seen();
    let bodies: Vec<_> = seen.iter().map(|call| &call.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(seen.iter().all(|call| call.is_signed));
    assert_eq!(unbind(&webhook, ALICE, "a@example.org").await, Ok(false));
    let other = &receiver.seen()[0].body;
    assert_ne!(other["op_id"], bodies[0]["op_id"]);
}

#[tokio::test]
async fn after_three_tries_nobody_knows() {
    let (receiver, webhook) = populated().await;
    receiver.set(Fault::StatusAfter(500));

    let bound = bind(&webhook, ALICE, "a@example.org").await;
    let reset = reset(&webhook, ALICE, "correct horse").await;
    let owner = webhook.owner(&email("a@example.org")).await;

    assert!(matches!(bound, Err(Error::HomeserverTimeout(_))));
    assert!(matches!(reset, Err(Error::HomeserverTimeout(_))));
    assert!(matches!(owner, Err(Error::HomeserverFailed(_))));
    assert_eq!(receiver.seen().len(), 9);
}

#[tokio::test]
async fn a_receiver_that_says_nothing_is_asked_twice() {
    let (receiver, _webhook) = populated().await;
    let webhook = receiver.impatient();
    receiver.set(Fault::Silent);

    let bound = bind(&webhook, ALICE, "a@example.org").await;
    let asked = receiver.seen();
    let owner = webhook.owner(&email("a@example.org")).await;

    assert!(matches!(bound, Err(Error::HomeserverTimeout(_))));
    assert!(matches!(owner, Err(Error::HomeserverTimeout(_))));
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, asked[1].body);
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_tells_nothing() {
    let (receiver, webhook) = populated().await;
    for fault in [
        Fault::error(429, "M_LIMIT_EXCEEDED"),
        Fault::Answer(404, "<h1>Not found</h1>".to_owned()),
        Fault::error(401, "THREEPID_BAD_SIGNATURE"),
        Fault::Redirect("/elsewhere".to_owned()),
    ] {
        receiver.next([Fault::DropAfter, fault.clone()]);
        let bound = bind(&webhook, ALICE, "a@example.org").await;
        assert!(
            matches!(bound, Err(Error::HomeserverTimeout(_))),
            "{fault:?}: {bound:?}"
        );
    }
    receiver.next([Fault::DropAfter]);
    let bound = bind(&webhook, BOB, "a@example.org").await;
    assert_eq!(bound, Ok(Bound::OwnedByOther), "that is an answer");
}

#[tokio::test]
async fn a_limit_says_how_long() {
    let (receiver, webhook) = populated().await;
    receiver.next([Fault::error(429, "M_LIMIT_EXCEEDED")]);

    let bound = bind(&webhook, ALICE, "a@example.org").await;

    let retry_after = Duration::from_secs(7);
    assert_eq!(bound, Err(Error::Limited { retry_after }));
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn a_receiver_that_is_down_has_done_nothing() {
    let (receiver, webhook) = populated().await;
    drop(receiver);

    let mut bound = bind(&webhook, ALICE, "a@example.org").await;
    if matches!(bound, Err(Error::HomeserverTimeout(_))) {
        // The connection that was kept broke off; there is no new one.
        bound = bind(&webhook, ALICE, "a@example.org").await;
    }

    assert!(
        matches!(bound, Err(Error::HomeserverFailed(_))),
        "{bound:?}"
    );
}

#[tokio::test]
async fn nobody_is_sent_elsewhere() {
    let (receiver, webhook) = populated().await;
    let elsewhere = Receiver::start().await;
    let to = elsewhere.settings().url.join("directory/owner").unwrap();
    receiver.next([Fault::Redirect(to.to_string())]);

    let owner = webhook.owner(&email("a@example.org")).await;

    assert!(
        matches!(owner, Err(Error::HomeserverFailed(_))),
        "{owner:?}"
    );
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn each_call_is_signed_at_its_time_and_for_its_path() {
    let (receiver, webhook) = populated().await;

    webhook.owner(&email("a@example.org")).await.unwrap();
    receiver.clock().advance(Duration::from_mins(10));
    webhook.owner(&email("a@example.org")).await.unwrap();

    let seen = receiver.seen();
    assert_eq!(seen[0].path, "/threepid/directory/owner");
    assert!(seen[0].signature().starts_with("t=1795341600,v1="));
    assert!(seen[1].signature().starts_with("t=1795342200,v1="));
    assert_eq!(seen[0].headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_base_with_odd_letters_is_signed_as_it_is_sent() {
    let (receiver, _webhook) = populated().await;
    let mut settings = receiver.settings();
    settings.url = settings.url.join("/a b/%2f/ü/").unwrap();
    receiver.set(Fault::json(200, &json!({ "user_id": null })));
    let webhook = Webhook::new(settings).unwrap();

    let owner = webhook.owner(&email("a@example.org")).await;

    assert_eq!(owner, Ok(None));
    let seen = receiver.seen();
    assert_eq!(seen[0].path, "/a%20b/%2f/%C3%BC/directory/owner");
    assert!(seen[0].is_signed);
}

#[tokio::test]
async fn either_key_of_the_receiver_will_do_and_no_other() {
    let (receiver, _webhook) = populated().await;
    let ask = async |keys: &[&str]| {
        let keys = keys.iter().map(|key| SigningKey::parse(key).unwrap());
        let settings = WebhookSettings {
            keys: keys.collect(),
            ..receiver.settings()
        };
        let webhook = Webhook::new(settings).unwrap();
        webhook.owner(&email("a@example.org")).await
    };

    assert_eq!(ask(&[KEY]).await, Ok(None));
    assert_eq!(
        ask(&[OLD_KEY, "another_key_for_later_days"]).await,
        Ok(None)
    );
    let Err(Error::HomeserverFailed(cause)) = ask(&["another_key_for_later_days", KEY]).await
    else {
        panic!("the first key signs");
    };
    assert!(cause.contains("webhook_keys"), "{cause}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told() {
    let (receiver, _webhook) = populated().await;
    let clock = Arc::new(SystemClock);
    let settings = WebhookSettings {
        clock,
        ..receiver.settings()
    };
    // A minute before 1970, for the receiver.
    receiver.clock().set(Timestamp(-60_000));

    let owner = Webhook::new(settings).unwrap();
    let owner = owner.owner(&email("a@example.org")).await;

    let Err(Error::HomeserverFailed(cause)) = owner else {
        panic!("{owner:?}");
    };
    assert!(cause.contains("right time"), "{cause}");
}

#[tokio::test]
async fn settings_that_can_not_be_used_are_refused_at_once() {
    let receiver = Receiver::start().await;
    let refusal = |url: &str| {
        let url = url.parse().unwrap();
        Webhook::new(WebhookSettings {
            url,
            ..receiver.settings()
        })
        .err()
    };

    for good in [
        "https://example.org",
        "https://example.org/a/b/",
        "http://localhost:1",
        "http://[::1]/hook",
    ] {
        assert_eq!(refusal(good), None, "{good}");
    }
    for bad in [
        "http://example.org",
        "http://192.168.0.1:8009",
        "ftp://example.org",
        "https://me:secret@example.org",
        "https://example.org/?secret",
        "https://example.org/#secret",
    ] {
        let why = refusal(bad).unwrap_or_else(|| panic!("{bad} is refused"));
        assert!(
            why.contains("homeserver.url") && !why.contains("secret"),
            "{why}"
        );
    }
    let without_keys = WebhookSettings {
        keys: Vec::new(),
        ..receiver.settings()
    };
    assert!(Webhook::new(without_keys).is_err_and(|why| why.contains("webhook_keys_file")));
}

#[tokio::test]
async fn a_receiver_with_a_certificate_of_its_own_is_trusted_by_file() {
    let upstream = Upstream::start().await;
    let found = json!({ "user_id": ALICE });
    upstream.answer("/directory/owner", upstream::Answer::json(200, found));
    let receiver = Receiver::start().await;
    let call = async |ca_files: Vec<PathBuf>| {
        let settings = WebhookSettings {
            url: format!("https://{}", upstream.name()).parse().unwrap(),
            ca_files,
            ..receiver.settings()
        };
        let webhook = Webhook::new(settings).unwrap();
        webhook.owner(&email("a@example.org")).await
    };

    let trusted = call(vec![upstream.ca_file()]).await;
    let distrusted = call(Vec::new()).await;

    assert_eq!(trusted, Ok(Some(ALICE.to_owned())));
    assert!(matches!(distrusted, Err(Error::HomeserverFailed(_))));
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let (receiver, webhook) = populated().await;
    receiver.set(Fault::StatusAfter(500));

    let reset = reset(&webhook, ALICE, "correct horse").await;
    let token = AccessToken::parse("correct_horse").unwrap();
    let whoami = whoami(&webhook, &token).await;

    let shown = format!("{webhook:?} {:?} {reset:?} {whoami:?}", receiver.settings());
    for secret in [KEY, "correct", "horse"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[tokio::test]
async fn a_good_receiver_passes_the_check() {
    let (receiver, webhook) = populated().await;

    let (told, end) = webhook.greet().await;

    assert_eq!(end, Ok(()), "{told:?}");
    assert!(told[0].contains("accepts the signature"), "{told:?}");
    assert_eq!(
        told.last().map(String::as_str),
        Some("of the optional calls it has: password policy, suspended accounts, free names")
    );
    for call in receiver.seen() {
        let verb = call.verb();
        let changes = call.body.get("op_id").is_some() && verb != "/account/registered";
        assert!(!changes, "{verb}");
    }
}

#[tokio::test]
async fn the_check_finds_what_a_receiver_does_wrong() {
    let (receiver, webhook) = populated().await;
    let nobody = || Fault::json(200, &json!({ "user_id": null }));
    let bad_signature = || Fault::error(401, "THREEPID_BAD_SIGNATURE");
    let somebody = || Fault::json(200, &json!({ "user_id": ALICE }));
    let unknown = || Fault::error(401, "M_UNKNOWN_TOKEN");
    for (faults, told) in [
        (vec![bad_signature()], "webhook_keys"),
        (vec![somebody()], "made up"),
        (vec![Fault::Answer(404, String::new())], "404 (no errcode)"),
        (vec![nobody(), nobody()], "look at signatures"),
        (vec![nobody(), bad_signature(), somebody()], "whoami"),
        (
            vec![nobody(), bad_signature(), unknown(), somebody()],
            "account/registered",
        ),
        (
            vec![
                nobody(),
                bad_signature(),
                unknown(),
                Fault::Answer(404, String::new()),
            ],
            "account/registered",
        ),
    ] {
        receiver.next(faults);
        let (_, end) = webhook.greet().await;
        let why = end.expect_err(told);
        assert!(why.contains(told), "{told}: {why}");
    }
}
