//! The account side of a homeserver such as Synapse: tokens, re-authentication, passwords.

use std::time::Duration;

use serde_json::{Value, json};
use threepid::{
    error::{Error, Result},
    homeserver::{Accounts, Origin, PassedOn, Reauth, Requester, synapse::Synapse},
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    threepid::Threepid,
};

use crate::{
    support::homeserver::{Fault, Homeserver, Seen},
    synapse::{ALICE, impatient, populated, synapse},
};

fn origin() -> Origin {
    Origin {
        address: Some("2001:db8::7".parse().expect("an address")),
        user_agent: Some("Element/1.11".to_owned()),
    }
}

fn token(text: &str) -> AccessToken {
    AccessToken::parse(text).expect("a token")
}

async fn whoami(synapse: &Synapse) -> Result<Requester> {
    synapse.whoami(&token("alice_s_token"), &origin()).await
}

fn password(text: &str) -> NewPassword {
    NewPassword::parse(text).expect("a password")
}

/// The requests that came last.
fn last(homeserver: &Homeserver) -> Seen {
    homeserver.seen().pop().expect("a request")
}

#[tokio::test]
async fn a_token_names_its_account_and_the_homeserver_learns_whose_request_it_is() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);

    let alice = whoami(&synapse).await.unwrap();

    assert_eq!(alice.user_id, ALICE);
    assert_eq!(alice.device_id.as_deref(), Some("DEVICE"));
    let seen = last(&homeserver);
    assert_eq!(seen.header("x-forwarded-for"), "2001:db8::7");
    assert_eq!(seen.header("user-agent"), "Element/1.11");
    synapse.is_suspended(ALICE).await.unwrap();
    assert_eq!(last(&homeserver).header("user-agent"), "threepid");
    assert_eq!(last(&homeserver).header("x-forwarded-for"), "");
}

#[tokio::test]
async fn those_who_may_not_are_refused_in_the_homeserver_s_words() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let unknown = synapse.whoami(&token("nobody_s"), &origin()).await;
    assert_eq!(
        unknown.unwrap_err(),
        Error::UnknownToken { soft_logout: false }
    );

    homeserver.change(ALICE, |alice| alice.is_locked = true);
    assert_eq!(whoami(&synapse).await.unwrap_err(), Error::UserLocked);

    homeserver.change(ALICE, |alice| {
        alice.is_locked = false;
        alice.is_guest = true;
    });
    assert_eq!(whoami(&synapse).await.unwrap_err(), Error::GuestForbidden);

    homeserver.set(Fault::Limited(400));
    let retry_after = Duration::from_millis(400);
    assert_eq!(
        whoami(&synapse).await.unwrap_err(),
        Error::Limited { retry_after }
    );
}

#[tokio::test]
async fn a_homeserver_that_fails_refuses_nobody() {
    let homeserver = populated().await;
    let synapse = impatient(&homeserver);
    for fault in [
        Fault::Html,
        Fault::Garbage,
        Fault::Status(502),
        Fault::Drop,
        Fault::Huge,
    ] {
        homeserver.set(fault);
        let failed = whoami(&synapse).await.unwrap_err();
        assert!(
            matches!(failed, Error::HomeserverFailed(_)),
            "{fault:?}: {failed:?}"
        );
    }
    homeserver.set(Fault::Silent);
    let late = whoami(&synapse).await.unwrap_err();
    assert!(matches!(late, Error::HomeserverTimeout(_)), "{late:?}");
}

fn challenge(reauth: Reauth) -> Value {
    match reauth {
        Reauth::Challenge(challenge) => Value::Object(challenge),
        Reauth::Done => panic!("a challenge"),
    }
}

#[tokio::test]
async fn a_requester_proves_themselves_to_the_homeserver_and_keeps_their_devices() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let alice = whoami(&synapse).await.unwrap();
    let show = async |auth: Option<Value>| {
        let reauth = synapse.reauth(&alice, auth.as_ref(), &origin()).await;
        reauth.unwrap()
    };

    let asked = challenge(show(None).await);
    let mut auth = json!({
        "type": "m.login.password", "session": asked["session"], "password": "wrong",
        "identifier": { "type": "m.id.user", "user": ALICE },
    });
    let wrong = challenge(show(Some(auth.clone())).await);
    auth["password"] = json!("wonderland");
    let right = show(Some(auth)).await;

    assert_eq!(asked["flows"], json!([{ "stages": ["m.login.password"] }]));
    assert_eq!(asked["params"], json!({}), "all that the homeserver says");
    assert_eq!(wrong["errcode"], "M_FORBIDDEN");
    assert_eq!(wrong["session"], asked["session"]);
    assert_eq!(right, Reauth::Done);
    assert_eq!(homeserver.devices(ALICE), ["DEVICE"]);
    for (_, path, body) in homeserver.log() {
        let is_named = body["devices"] == json!(["3PID-REAUTH"]);
        assert!(!path.ends_with("delete_devices") || is_named, "{body}");
    }
}

#[tokio::test]
async fn only_a_challenge_is_a_challenge() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let alice = whoami(&synapse).await.unwrap();
    let reauth = async || synapse.reauth(&alice, None, &origin()).await;

    homeserver.constant_session("for_all");
    let asked = challenge(reauth().await.unwrap());
    assert_eq!(asked["session"], "for_all");
    homeserver.skip_reauth(true);
    assert_eq!(
        reauth().await,
        Ok(Reauth::Done),
        "it has just asked for the password"
    );
    for (fault, expected) in [
        (
            Fault::TokenRevoked,
            Error::UnknownToken { soft_logout: false },
        ),
        (Fault::NotAdmin, Error::Forbidden("Words of POST".into())),
    ] {
        homeserver.set(fault);
        assert_eq!(reauth().await, Err(expected));
    }
    for fault in [
        Fault::Unrecognized,
        Fault::Html,
        Fault::Status(500),
        Fault::Garbage,
    ] {
        homeserver.set(fault);
        let failed = reauth().await;
        assert!(
            matches!(failed, Err(Error::HomeserverFailed(_))),
            "{fault:?}: {failed:?}"
        );
    }
}

#[tokio::test]
async fn a_suspended_account_is_known() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);

    assert_eq!(synapse.is_suspended(ALICE).await, Ok(false));
    homeserver.change(ALICE, |alice| alice.is_suspended = true);
    assert_eq!(synapse.is_suspended(ALICE).await, Ok(true));
    assert_eq!(synapse.is_suspended("@absent:example.org").await, Ok(false));
}

#[tokio::test]
async fn a_password_is_set_and_devices_are_logged_out_if_that_is_asked_for() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    assert!(synapse.sets_passwords());

    synapse
        .reset_password(ALICE, &password("rabbit \" \\ ä"), false)
        .await
        .unwrap();
    assert_eq!(homeserver.password(ALICE), "rabbit \" \\ ä");
    assert_eq!(homeserver.devices(ALICE), ["DEVICE"]);

    synapse
        .reset_password(ALICE, &password("hatter"), true)
        .await
        .unwrap();
    assert_eq!(homeserver.password(ALICE), "hatter");
    assert!(homeserver.devices(ALICE).is_empty());
}

#[tokio::test]
async fn no_password_is_set_for_those_who_have_none() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let reset = async |user_id| synapse.reset_password(user_id, &password("x"), true).await;

    assert_eq!(reset("@absent:example.org").await, Err(Error::AccountGone));
    homeserver.change(ALICE, |alice| alice.appservice = Some("irc".to_owned()));
    let bridge = reset(ALICE).await;
    assert!(matches!(bridge, Err(Error::Forbidden(_))), "{bridge:?}");
    homeserver.change(ALICE, |alice| alice.is_deactivated = true);
    assert_eq!(reset(ALICE).await, Err(Error::AccountGone));
    assert_eq!(homeserver.password(ALICE), "wonderland");
    homeserver.remove(ALICE);
    assert_eq!(reset(ALICE).await, Err(Error::AccountGone));
    assert!(!homeserver.has("@absent:example.org"));
}

#[tokio::test]
async fn a_failed_reset_says_whether_it_may_have_been_made() {
    for (fault, is_certain) in [
        (Fault::Silent, false),
        (Fault::SilentAfter, false),
        (Fault::Drop, false),
        (Fault::DropAfter, false),
        (Fault::Status(500), false),
        (Fault::StatusAfter(502), false),
        (Fault::Garbage, false),
        (Fault::Html, true),
        (Fault::Unrecognized, true),
        (Fault::NotAdmin, true),
        (Fault::TokenRevoked, true),
        (Fault::Status(400), true),
    ] {
        let homeserver = populated().await;
        let synapse = impatient(&homeserver);
        homeserver.fail_once("POST", "reset_password", fault);

        let failed = synapse
            .reset_password(ALICE, &password("hatter"), true)
            .await;
        let again = synapse
            .reset_password(ALICE, &password("hatter"), true)
            .await;

        match failed.unwrap_err() {
            Error::HomeserverFailed(_) if is_certain => {}
            Error::HomeserverTimeout(_) if !is_certain => {}
            other => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(again, Ok(()), "{fault:?}");
    }
}

#[tokio::test]
async fn the_password_policy_is_read_once_in_a_while() {
    let homeserver = populated().await;
    homeserver.policy(json!({ "m.minimum_length": 12, "m.require_digit": true }));
    let synapse = synapse(&homeserver);

    let policy = synapse.password_policy().await.unwrap();
    homeserver.down().await;
    let again = synapse.password_policy().await.unwrap();

    assert_eq!((policy.minimum_length, policy.require_digit), (12, true));
    assert_eq!(again, policy);
}

#[tokio::test]
async fn a_homeserver_without_a_policy_demands_nothing() {
    for fault in [Fault::Unrecognized, Fault::Html] {
        let homeserver = populated().await;
        homeserver.set(fault);
        let policy = synapse(&homeserver).password_policy().await;
        assert_eq!(policy, Ok(PasswordPolicy::default()), "{fault:?}");
    }
    let homeserver = populated().await;
    homeserver.set(Fault::Status(500));
    let failed = synapse(&homeserver).password_policy().await;
    assert!(
        matches!(failed, Err(Error::HomeserverFailed(_))),
        "{failed:?}"
    );
}

#[tokio::test]
async fn the_homeserver_unbinds_if_it_can() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let alice = whoami(&synapse).await.unwrap();
    let id_server: IdServer = "id.example.org".parse().unwrap();
    let address = Threepid::email("old@example.org").unwrap();
    let unbind =
        async || Accounts::unbind(&*synapse, &alice, &address, &id_server, &origin()).await;

    assert_eq!(unbind().await, Ok(Some(Unbound::Success)));
    let expected =
        json!({ "medium": "email", "address": "old@example.org", "id_server": "id.example.org" });
    assert_eq!(last(&homeserver).json(), expected);
    homeserver.set(Fault::Unrecognized);
    assert_eq!(unbind().await, Ok(None));
    homeserver.set(Fault::TokenRevoked);
    assert_eq!(
        unbind().await,
        Err(Error::UnknownToken { soft_logout: false })
    );
    homeserver.set(Fault::Status(400));
    let relayed = unbind().await;
    assert!(matches!(relayed, Err(Error::Relayed { .. })), "{relayed:?}");
    homeserver.set(Fault::Status(500));
    let failed = unbind().await;
    assert!(
        matches!(failed, Err(Error::HomeserverTimeout(_))),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_request_is_passed_on_as_it_came() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let pass_on = async |body: &str| {
        let request = PassedOn {
            method: "POST".parse().unwrap(),
            path_and_query: "/_matrix/client/v3/account/password?x=%2F".to_owned(),
            access_token: Some(token("alice_s_token")),
            body: body.as_bytes().to_vec(),
        };
        synapse.pass_on(request, &origin()).await
    };

    let back = pass_on("{ \"new_password\" : \"hatter\" }").await.unwrap();

    let body: Value = serde_json::from_slice(&back.body).unwrap();
    assert_eq!(
        (back.status.as_u16(), body["flows"].is_array()),
        (401, true)
    );
    let seen = last(&homeserver);
    assert_eq!(seen.path, "/_matrix/client/v3/account/password?x=%2F");
    assert_eq!(seen.body, b"{ \"new_password\" : \"hatter\" }");
    assert_eq!(seen.header("authorization"), "Bearer alice_s_token");
    assert_eq!(seen.header("x-forwarded-for"), "2001:db8::7");
    homeserver.set(Fault::Limited(100));
    assert_eq!(pass_on("{}").await.unwrap().status, 429);
    homeserver.set(Fault::Html);
    let page = pass_on("{}").await;
    assert!(matches!(page, Err(Error::HomeserverFailed(_))), "{page:?}");
}

#[tokio::test]
async fn accounts_live_elsewhere_only_if_nothing_of_theirs_is_here() {
    let homeserver = populated().await;
    let synapse = impatient(&homeserver);

    assert_eq!(synapse.accounts_live_elsewhere().await, Ok(false));
    homeserver.hand_accounts_over();
    assert_eq!(synapse.accounts_live_elsewhere().await, Ok(true));
    for fault in [
        Fault::Status(503),
        Fault::Silent,
        Fault::Limited(100),
        Fault::Drop,
    ] {
        homeserver.set(fault);
        let unclear = synapse.accounts_live_elsewhere().await;
        assert!(unclear.is_err(), "{fault:?}: {unclear:?}");
    }
    homeserver.down().await;
    let unreachable = synapse.accounts_live_elsewhere().await;
    assert!(
        matches!(unreachable, Err(Error::HomeserverFailed(_))),
        "{unreachable:?}"
    );
}

#[tokio::test]
async fn an_operator_hears_what_works_and_what_does_not() {
    let homeserver = populated().await;
    let synapse = synapse(&homeserver);
    let (told, end) = synapse.greet().await;
    assert_eq!(
        (told.len(), end),
        (3, Ok(())),
        "it answers, the token is good, accounts are its own"
    );

    homeserver.fail("", "_synapse", Fault::TokenRevoked);
    let (told, end) = synapse.greet().await;
    assert_eq!(told.len(), 1);
    assert!(end.unwrap_err().contains("homeserver.admin_token_file"));

    homeserver.heal();
    homeserver.hand_accounts_over();
    let (told, end) = synapse.greet().await;
    assert_eq!(told.len(), 2);
    assert!(end.unwrap_err().contains("OAuth account server"));

    homeserver.down().await;
    let (told, end) = synapse.greet().await;
    assert!(told.is_empty());
    assert!(end.unwrap_err().contains("can not be reached"));
}
