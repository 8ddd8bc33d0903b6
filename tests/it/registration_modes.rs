//! Registration by what only we know: a private registration token, or the secret that a Synapse shares.

use std::time::Duration;

use serde_json::{Value, json};
use threepid::{
    homeserver::synapse::{Registration as Mode, SharedSecret},
    secret::AccessToken,
};

use crate::{
    contacts::prove,
    registration::*,
    support::{
        app::*,
        homeserver::{Fault, Homeserver, REGISTRATION_TOKEN, SHARED_SECRET},
    },
};

const BY_SECRET: &str = "/_synapse/admin/v1/register";
const DUMMY: &str = "m.login.dummy";

fn private(token: &str) -> AccessToken {
    AccessToken::parse(token).expect("a token")
}

/// A Synapse that wants our private token, and a captcha.
async fn guarded(token: &str) -> (Homeserver, TestApp) {
    let mode = Mode::Overlay {
        token: Some(private(token)),
    };
    let (homeserver, app) = in_mode(mode).await;
    homeserver.registration(|registration| {
        registration.flows = vec![vec![TOKEN, CAPTCHA, DUMMY]];
        registration.params = json!({ TOKEN: { "x": 1 }, CAPTCHA: { "public_key": "k" } });
    });
    (homeserver, app)
}

/// The stages that the homeserver was shown, in order.
fn stages(homeserver: &Homeserver) -> Vec<String> {
    let log = homeserver.log();
    let shown = log
        .iter()
        .filter_map(|(_, _, body)| body["auth"]["type"].as_str());
    shown.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_private_token_is_hidden_and_shown_at_the_end_alone() {
    let (homeserver, app) = guarded(REGISTRATION_TOKEN).await;
    let first = app.post(SIGN_UP, &wanted()).await;
    let session = session_of(&first);
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let captcha = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, CAPTCHA)))
        .await;
    let before = stages(&homeserver);
    let done = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;

    assert_eq!(
        flows(&first),
        [[CAPTCHA, EMAIL], [CAPTCHA, "m.login.msisdn"]]
    );
    assert_eq!(
        first.json()["params"],
        json!({ CAPTCHA: { "public_key": "k" } })
    );
    assert_eq!(captcha.json()["completed"], json!([CAPTCHA]));
    assert_eq!(before, [CAPTCHA]);
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(stages(&homeserver), [CAPTCHA, TOKEN, DUMMY]);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_client_can_not_show_a_private_token_itself() {
    let (homeserver, app) = guarded(REGISTRATION_TOKEN).await;
    let session = begin(&app, &wanted()).await;

    let refused = app
        .post(SIGN_UP, &with(&wanted(), stage(&session, TOKEN)))
        .await;

    assert_eq!(told(&refused), refusal(401, "M_INVALID_PARAM"));
    assert!(stages(&homeserver).is_empty());
}

#[tokio::test]
async fn a_private_token_may_be_all_that_the_homeserver_wants() {
    let (homeserver, app) = guarded(REGISTRATION_TOKEN).await;
    homeserver.registration(|registration| registration.flows = vec![vec![TOKEN]]);

    let done = app.post(SIGN_UP, &nearly(&app).await).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn a_private_token_that_is_refused_costs_no_proof() {
    let (homeserver, app) = guarded("expired").await;
    homeserver.registration(|registration| registration.flows = vec![vec![TOKEN, DUMMY]]);
    let body = nearly(&app).await;

    let failed = app.post(SIGN_UP, &body).await;
    let set = before(&homeserver, Mode::Token(private(REGISTRATION_TOKEN)));
    let app = app.restarted(set);
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&failed), refusal(502, "M_UNKNOWN"));
    assert!(!failed.text.contains("expired"), "{}", failed.text);
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn any_answer_that_is_lost_at_the_end_is_given_again() {
    for nth in 1..=2 {
        for fault in [Fault::Drop, Fault::DropAfter] {
            let (homeserver, app) = guarded(REGISTRATION_TOKEN).await;
            homeserver.registration(|registration| registration.flows = vec![vec![TOKEN, DUMMY]]);
            let body = nearly(&app).await;
            homeserver.fail_nth(nth, "POST", SIGN_UP, fault);

            let lost = app.post(SIGN_UP, &body).await;
            let done = app.post(SIGN_UP, &body).await;

            assert_eq!(told(&lost), refusal(504, "M_UNKNOWN"), "{nth} {fault:?}");
            assert_eq!(done.status, 200, "{}", done.text);
            assert_alice_s(&homeserver);
        }
    }
}

#[tokio::test]
async fn by_a_token_alone_only_our_stage_is_left() {
    let (homeserver, app) = in_mode(Mode::Token(private(REGISTRATION_TOKEN))).await;
    homeserver.registration(|registration| {
        registration.flows = vec![vec![TOKEN, DUMMY]];
        registration.params = json!({ TOKEN: {} });
    });

    let first = app.post(SIGN_UP, &wanted()).await;
    let done = app.post(SIGN_UP, &nearly(&app).await).await;

    assert_eq!(flows(&first), [[EMAIL], ["m.login.msisdn"]]);
    assert_eq!(first.json()["params"], json!({}));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn by_a_token_alone_nobody_registers_where_more_is_wanted() {
    let (homeserver, app) = in_mode(Mode::Token(private(REGISTRATION_TOKEN))).await;
    homeserver.registration(|registration| registration.flows = vec![vec![TOKEN, CAPTCHA, DUMMY]]);

    let failed = app.post(SIGN_UP, &wanted()).await;

    assert_eq!(told(&failed), refusal(502, "M_UNKNOWN"));
}

/// A Synapse where nobody registers but by its secret.
async fn closed() -> (Homeserver, TestApp) {
    let (homeserver, app) = in_mode(secret()).await;
    homeserver.registration(|registration| registration.is_closed = true);
    (homeserver, app)
}

fn secret() -> Mode {
    Mode::SharedSecret(SharedSecret::parse(SHARED_SECRET).expect("a secret"))
}

#[tokio::test]
async fn by_the_secret_an_account_is_made_where_registration_is_closed() {
    let (homeserver, app) = closed().await;
    let mut body = nearly(&app).await;
    body["device_id"] = json!("ALICES");
    body["refresh_token"] = json!(true);

    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.json()["user_id"], ALICE);
    assert!(done.json()["refresh_token"].is_string());
    assert_alice_s(&homeserver);
    let devices = homeserver.devices(ALICE);
    assert_ne!(devices, ["ALICES"], "the device is named by us");
    homeserver.change(ALICE, |user| {
        assert_eq!(user.device_names[&devices[0]], "Laptop");
    });
}

#[tokio::test]
async fn by_the_secret_names_and_passwords_are_looked_at_first() {
    let (homeserver, app) = closed().await;
    homeserver.policy(json!({ "m.minimum_length": 12 }));
    homeserver.user("@bob:example.org", "his", "his_token");
    let weak = json!({ "username": "alice", "password": "short" });

    let weak = app.post(SIGN_UP, &weak).await;
    let taken = app.post(SIGN_UP, &named("bob")).await;
    let bad = app.post(SIGN_UP, &named("b ob")).await;

    assert_eq!(told(&weak), refusal(400, "M_WEAK_PASSWORD"));
    assert_eq!(told(&taken), refusal(400, "M_USER_IN_USE"));
    assert_eq!(told(&bad), refusal(400, "M_INVALID_USERNAME"));
}

#[tokio::test]
async fn by_the_secret_no_weak_password_slips_in_later() {
    for before in [json!({}), json!({ "username": "alice" })] {
        let (homeserver, app) = closed().await;
        homeserver.policy(json!({ "m.minimum_length": 12 }));
        let session = begin(&app, &before).await;
        let sid = prove(&app, REGISTER, &alice(1)).await;
        let missing = app
            .post(SIGN_UP, &with(&before, email(&session, &sid)))
            .await;
        let weak =
            json!({ "username": "alice", "password": "short", "auth": email(&session, &sid) });

        let refused = app.post(SIGN_UP, &weak).await;
        let done = app
            .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
            .await;

        assert_eq!(told(&missing), refusal(400, "M_MISSING_PARAM"));
        assert_eq!(told(&refused), refusal(400, "M_WEAK_PASSWORD"));
        assert_eq!(done.status, 200, "{}", done.text);
        assert_alice_s(&homeserver);
    }
}

#[tokio::test]
async fn by_the_secret_a_name_that_is_taken_meanwhile_costs_no_proof() {
    let (homeserver, app) = closed().await;
    let body = nearly(&app).await;
    homeserver.user(ALICE, "hers", "her_token");

    let refused = app.post(SIGN_UP, &body).await;
    let done = app
        .post(SIGN_UP, &with(&named("alice2"), body["auth"].clone()))
        .await;

    assert_eq!(told(&refused), refusal(400, "M_USER_IN_USE"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(homeserver.threepids(ALICE).is_empty());
}

#[tokio::test]
async fn by_the_secret_a_repetition_is_a_login() {
    let (homeserver, app) = closed().await;
    let body = nearly(&app).await;
    let first = app.post(SIGN_UP, &body).await;

    let again = app.post(SIGN_UP, &body).await;
    let alone = json!({ "auth": { "session": body["auth"]["session"] } });
    let alone = app.post(SIGN_UP, &alone).await;

    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.json()["device_id"], first.json()["device_id"]);
    assert_eq!(told(&alone), refusal(403, "M_FORBIDDEN"));
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn by_the_secret_a_lost_answer_is_given_again() {
    let (homeserver, app) = closed().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", BY_SECRET, Fault::DropAfter);

    let lost = app.post(SIGN_UP, &body).await;
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(told(&lost), refusal(504, "M_UNKNOWN"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.json()["access_token"].is_string());
    assert_alice_s(&homeserver);
}

/// Looks after a registration by the secret that was not seen to end, in the next process.
async fn recovered(
    fault: Fault,
    meanwhile: impl FnOnce(&Homeserver),
) -> (Homeserver, TestApp, Value) {
    let (homeserver, app) = closed().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", BY_SECRET, fault);
    assert_eq!(app.post(SIGN_UP, &body).await.status, 504);
    meanwhile(&homeserver);
    let app = app.restarted(before(&homeserver, secret()));
    app.wait(Duration::from_secs(31));
    let finished = app.threepid.finish_registrations().await;
    assert_eq!(finished.expect("the store answers"), 1);
    (homeserver, app, body)
}

#[tokio::test]
async fn by_the_secret_an_account_that_was_made_is_found() {
    let (homeserver, app, body) = recovered(Fault::DropAfter, |_| ()).await;

    assert_alice_s(&homeserver);
    let repeated = app.post(SIGN_UP, &body).await;
    assert_eq!(repeated.status, 200, "{}", repeated.text);
}

#[tokio::test]
async fn by_the_secret_an_account_that_somebody_else_made_gets_no_address() {
    let taken = |homeserver: &Homeserver| homeserver.user(ALICE, "somebody else's", "token");
    let (homeserver, app, body) = recovered(Fault::Drop, taken).await;

    assert!(homeserver.threepids(ALICE).is_empty());
    let done = app
        .post(
            SIGN_UP,
            &with(&named("alice2"), email_of(&app, &body).await),
        )
        .await;
    assert_eq!(
        done.status, 409,
        "nobody can tell whose the account is: {}",
        done.text
    );
    assert!(!homeserver.has("@alice2:example.org"));
}

/// The proof of a registration, for a new one.
async fn email_of(app: &TestApp, body: &Value) -> Value {
    let mut auth = body["auth"].clone();
    auth["session"] = json!(begin(app, &named("alice2")).await);
    auth
}

#[tokio::test]
async fn by_the_secret_whether_a_name_is_free_is_told_where_registration_is_closed() {
    let (homeserver, app) = closed().await;
    homeserver.user(ALICE, "hers", "her_token");
    let ask = async |name: &str| {
        app.get(&format!("{SIGN_UP}/available?username={name}"), &[])
            .await
    };

    assert_eq!(ask("bob").await.json(), json!({ "available": true }));
    assert_eq!(told(&ask("alice").await), refusal(400, "M_USER_IN_USE"));
}

#[tokio::test]
async fn without_an_admin_token_nobody_registers_by_the_secret() {
    let (homeserver, app) = closed().await;
    homeserver.fail("GET", "username_available", Fault::TokenRevoked);

    let failed = app.post(SIGN_UP, &wanted()).await;

    assert_eq!(told(&failed), refusal(502, "M_UNKNOWN"));
}
