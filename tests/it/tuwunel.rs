//! tuwunel behind us, through its likeness of Synapse's admin API, as its source says that it answers; it was not run.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, json};
use threepid::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::{
        Accounts, Directory, Origin, Reauth, Requester,
        local::LocalDirectory,
        registration::Registrar,
        split::SplitDirectory,
        synapse::{Registration, Synapse, SynapseSettings},
    },
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    store::Bound,
    threepid::Threepid,
};

use crate::{
    dendrite::{SESSION, account, object, told},
    support::{
        app::TestApp,
        host::{ALICE, BOB, HERS},
        recorded::Recorded,
    },
};

const NOW: Timestamp = Timestamp(1_795_341_600_000);

fn token(text: &str) -> AccessToken {
    AccessToken::parse(text).expect("a token")
}

async fn with(registration: Registration, files: &[&str]) -> (Recorded, Arc<Synapse>) {
    let recorded = Recorded::start("tuwunel", files).await;
    let settings = SynapseSettings {
        url: recorded.url(),
        admin_token: Some(token("token_of_the_admin")),
        timeout: Duration::from_secs(20),
        ca_files: Vec::new(),
        registration,
    };
    let tuwunel = Synapse::new(settings).expect("settings that can be used");
    (recorded, tuwunel)
}

async fn tuwunel(files: &[&str]) -> (Recorded, Arc<Synapse>) {
    with(Registration::default(), files).await
}

fn email() -> Threepid {
    Threepid::email("alice@example.org").expect("an address")
}

fn number() -> Threepid {
    Threepid::msisdn("GB", "07700900001").expect("a number")
}

async fn bind(directory: &dyn Directory, threepid: &Threepid) -> Result<Bound> {
    directory.bind(ALICE, threepid, Some(NOW), NOW).await
}

#[tokio::test]
async fn an_owner_is_whoever_tuwunel_names() {
    let (_recorded, tuwunel) = tuwunel(&["owner", "owner_none"]).await;

    assert_eq!(tuwunel.owner(&email()).await, Ok(Some(ALICE.to_owned())));
    assert_eq!(tuwunel.owner(&email()).await, Ok(None));
}

#[tokio::test]
async fn an_email_address_is_bound_and_read_back() {
    let (_recorded, tuwunel) = tuwunel(&["bind"]).await;

    assert_eq!(bind(&*tuwunel, &email()).await, Ok(Bound::Bound));
}

#[tokio::test]
async fn an_address_that_tuwunel_would_move_stays() {
    let (_recorded, tuwunel) = tuwunel(&["owner_bob"]).await;

    assert_eq!(bind(&*tuwunel, &email()).await, Ok(Bound::OwnedByOther));
}

#[tokio::test]
async fn a_phone_number_that_tuwunel_drops_is_not_said_to_be_bound() {
    let (_recorded, tuwunel) = tuwunel(&["bind_number"]).await;

    let bound = bind(&*tuwunel, &number()).await;

    assert!(
        matches!(bound, Err(Error::HomeserverTimeout(_))),
        "{bound:?}"
    );
}

#[tokio::test]
async fn an_email_address_is_taken_away() {
    let (_recorded, tuwunel) = tuwunel(&["unbind"]).await;

    assert_eq!(
        Directory::unbind(&*tuwunel, ALICE, &email()).await,
        Ok(true)
    );
}

#[tokio::test]
async fn phone_numbers_are_kept_here_and_email_addresses_there() {
    let (_recorded, tuwunel) = tuwunel(&["bind", "list", "owner"]).await;
    let app = TestApp::new();
    let store = Arc::clone(&app.store);
    let split = SplitDirectory {
        email: tuwunel,
        msisdn: Arc::new(LocalDirectory::new(store)),
    };

    assert_eq!(bind(&split, &email()).await, Ok(Bound::Bound));
    assert_eq!(bind(&split, &number()).await, Ok(Bound::Bound));

    let list = split.list(ALICE).await.unwrap();
    let list: Vec<_> = list.iter().map(|contact| &contact.address).collect();
    assert_eq!(list, ["alice@example.org", "447700900001"]);
    assert_eq!(split.owner(&email()).await, Ok(Some(ALICE.to_owned())));
    assert_eq!(split.owner(&number()).await, Ok(Some(ALICE.to_owned())));
    assert_eq!(split.unbind(BOB, &number()).await, Ok(false));
    assert_eq!(split.unbind(ALICE, &number()).await, Ok(true));
}

#[tokio::test]
async fn a_password_is_set_for_an_account_that_is_there() {
    let (_recorded, tuwunel) = tuwunel(&["reset"]).await;
    let new = NewPassword::parse("battery staple").unwrap();

    assert_eq!(tuwunel.reset_password(ALICE, &new, true).await, Ok(()));
    let gone = tuwunel.reset_password(ALICE, &new, true).await;

    assert_eq!(gone, Err(Error::AccountGone));
}

#[tokio::test]
async fn tuwunel_demands_nothing_of_passwords() {
    let (_recorded, tuwunel) = tuwunel(&["password_policy"]).await;

    let policy = tuwunel.password_policy().await;

    assert_eq!(policy, Ok(PasswordPolicy::default()));
}

#[tokio::test]
async fn a_requester_proves_themselves_and_keeps_their_devices() {
    let (_recorded, tuwunel) = tuwunel(&["whoami", "reauth", "reauth_forgotten"]).await;
    let origin = Origin::default();
    let alice: Requester = tuwunel.whoami(&token(HERS), &origin).await.unwrap();
    let asked = tuwunel.reauth(&alice, None, &origin).await;
    let Ok(Reauth::Challenge(asked)) = asked else {
        panic!("a challenge");
    };
    let mut auth = json!({
        "type": "m.login.password", "session": asked["session"], "password": "wrong",
        "identifier": { "type": "m.id.user", "user": ALICE },
    });

    let wrong = tuwunel.reauth(&alice, Some(&auth), &origin).await;
    auth["password"] = json!("correct horse");
    let right = tuwunel.reauth(&alice, Some(&auth), &origin).await;
    let spent = tuwunel.reauth(&alice, Some(&auth), &origin).await;

    assert!(matches!(wrong, Ok(Reauth::Challenge(body)) if body["errcode"] == "M_FORBIDDEN"));
    assert_eq!(right, Ok(Reauth::Done));
    let why = "UIAA session does not exist.";
    assert_eq!(spent, Err(Error::Forbidden(why.into())));
}

#[tokio::test]
async fn an_account_is_made_by_whatever_stage_is_ours() {
    let secret = || Some(token("nobody_but_us_knows_this"));
    let params = object(json!({ "username": "alice", "password": "correct horse" }));
    for (file, token) in [("register_dummy", None), ("register_token", secret())] {
        let (_recorded, tuwunel) = with(Registration::Overlay { token }, &[file]).await;
        let origin = Origin::default();

        let begun = tuwunel.start(&params, &origin).await;
        let made = tuwunel.finish(account(&params), &origin).await;

        let waits = json!({ "session": SESSION, "flows": [["m.login.dummy"]], "completed": [] });
        assert_eq!(told(begun.unwrap()), waits, "{file}");
        assert_eq!(told(made.unwrap()), ALICE, "{file}");
    }
}

#[tokio::test]
async fn clients_do_what_is_left_beside_the_token() {
    let token = Some(token("nobody_but_us_knows_this"));
    let (_recorded, tuwunel) = with(
        Registration::Overlay { token },
        &["register_token_and_terms"],
    )
    .await;
    let origin = Origin::default();
    let params = object(json!({ "username": "alice", "password": "correct horse" }));
    let terms = object(json!({ "type": "m.login.terms", "session": SESSION }));

    let begun = tuwunel.start(&params, &origin).await;
    let agreed = tuwunel.stage(SESSION, &params, &terms, &origin).await;
    let made = tuwunel.finish(account(&params), &origin).await;

    let flows = json!([["m.login.terms", "m.login.dummy"]]);
    assert_eq!(told(begun.unwrap())["flows"], flows);
    assert_eq!(told(agreed.unwrap())["completed"], json!(["m.login.terms"]));
    assert_eq!(told(made.unwrap()), ALICE);
}

#[tokio::test]
async fn a_token_that_tuwunel_does_not_take_is_the_operator_s_matter() {
    let token = Some(token("nobody_but_us_knows_this"));
    let (_recorded, tuwunel) =
        with(Registration::Overlay { token }, &["register_token_wrong"]).await;
    let params = object(json!({ "username": "alice", "password": "correct horse" }));

    let failed = tuwunel.finish(account(&params), &Origin::default()).await;

    let why = failed.unwrap_err();
    assert!(
        matches!(&why, Error::HomeserverFailed(cause) if cause.contains("registration_token_file")),
        "{why:?}"
    );
}

#[tokio::test]
async fn tuwunel_forgets_a_session_that_made_its_account() {
    let (_recorded, tuwunel) = tuwunel(&["repeat"]).await;
    let nothing = Map::new();

    let again = tuwunel.repeat(account(&nothing), &Origin::default()).await;

    assert_eq!(told(again.unwrap()), "lost");
}

#[tokio::test]
async fn nothing_is_said_of_an_account_that_may_be_somebody_else_s() {
    let params = object(json!({ "username": "alice" }));
    for (file, is_known) in [
        ("made_not_yet", true),
        ("made_not_yet_and_taken", true),
        ("made_never", true),
        ("made_perhaps", false),
    ] {
        let (_recorded, tuwunel) = tuwunel(&[file]).await;
        match tuwunel.made(account(&params)).await {
            Ok(made) => assert_eq!((made, is_known), (None, true), "{file}"),
            Err(Error::HomeserverTimeout(_)) => assert!(!is_known, "{file}"),
            Err(other) => panic!("{file}: {other:?}"),
        }
    }
}
