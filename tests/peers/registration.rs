//! People who sign up at a real Synapse, through a real nginx, with the library of a real client.

use serde_json::{Value, json};

use crate::support::{
    captcha::{Captcha, SOLVED},
    homeserver::{Homeserver, Recipe},
    js_sdk::JsSdk,
    mails::code,
    newcomer::{DEVICE, Newcomer, PASSWORD, SIGN_UP},
    plan::Plan,
    server::SUBMIT,
    synapse::{Options, SHARED_SECRET, user_id},
};

const ALICE: &str = "alice@example.org";
/// A number as people type it, and as it is stored.
const TYPED: &str = "07700 900001";
const MSISDN: &str = "447700900001";
/// A registration token that Alice was given.
const INVITATION: &str = "come_in";
const FIRST: &str = "first";

/// What Alice asks for.
fn wanted() -> Value {
    json!({
        "username": "alice", "password": PASSWORD,
        "initial_device_display_name": DEVICE, "refresh_token": true,
    })
}

fn by_email() -> Value {
    json!({ "emailAddress": ALICE })
}

/// How a stage of Synapse's own is done.
fn done(stage: &str) -> Option<Value> {
    match stage {
        "m.login.registration_token" => Some(json!({ "type": stage, "token": INVITATION })),
        "m.login.recaptcha" => Some(json!({ "type": stage, "response": SOLVED })),
        "m.login.terms" => Some(json!({ "type": stage })),
        _ => None,
    }
}

/// Does the stages of Synapse's own; which they were, and what the page has come to.
async fn do_stages(client: &mut JsSdk, mut page: Value) -> (Vec<String>, Value) {
    let mut stages = Vec::new();
    while let Some(auth) = page["stage"].as_str().and_then(done) {
        stages.push(page["stage"].as_str().expect("a text").to_owned());
        page = client.submit(FIRST, auth).await;
    }
    (stages, page)
}

/// Whether a page waits for the address, and shows no error while it does.
fn waits_for_the_mail(page: &Value) -> bool {
    let errcode = &page["status"]["errcode"];
    page["stage"] == "m.login.email.identity"
        && (errcode.is_null() || errcode == "M_UNAUTHORIZED")
        && page["result"].is_null()
}

/// Alice's account is as she asked for it, and her address belongs to it.
async fn is_as_wanted(homeserver: &Homeserver, account: &Value) {
    let front = &homeserver.front;
    let token = account["access_token"].as_str().expect("a token");
    assert_eq!(account["user_id"], user_id("alice"));
    assert_eq!(homeserver.owner_of("email", ALICE).await, user_id("alice"));
    let (_, whoami) = front.get("/_matrix/client/v3/account/whoami", token).await;
    assert_eq!(whoami["user_id"], user_id("alice"), "{whoami}");
    let id = account["device_id"].as_str().expect("a device");
    let path = format!("/_matrix/client/v3/devices/{id}");
    let (_, device) = front.get(&path, token).await;
    assert_eq!(device["display_name"], DEVICE, "{device}");
    assert_eq!(front.contacts(token).await, [format!("email:{ALICE}")]);
    let login = front.login_by_email(ALICE, PASSWORD).await;
    assert_eq!(login.0, 200, "{}", login.1);
    assert_eq!(homeserver.synapse.accounts().await, ["alice"]);
}

#[tokio::test]
async fn an_account_is_made_by_a_mailed_link_after_all_stages_of_synapse_s_own() {
    let captcha = Captcha::start().await;
    let options = Options::default()
        .asking_for_captchas(&captcha)
        .asking_for_consent();
    let homeserver = Plan::open(options).token(INVITATION).start().await;
    let mut client = homeserver.client();

    let opened = client.open_tab(FIRST, &wanted(), by_email()).await;
    let terms = opened["params"]["m.login.terms"].clone();
    let (stages, early) = do_stages(&mut client, opened).await;
    let text = homeserver.text_to(ALICE, 1).await;
    homeserver.press_on(&text).await;
    let page = client.poll(FIRST).await;

    let own = [
        "m.login.registration_token",
        "m.login.recaptcha",
        "m.login.terms",
    ];
    assert_eq!(stages, own);
    assert!(waits_for_the_mail(&early), "{early}");
    assert_eq!(
        terms["policies"]["privacy_policy"]["en"]["name"],
        "House rules"
    );
    is_as_wanted(&homeserver, &page["result"]).await;
    assert!(page["result"]["refresh_token"].is_string(), "{page}");
}

#[tokio::test]
async fn the_tab_of_the_mailed_link_ends_what_another_began_and_both_have_the_account() {
    let homeserver = Plan::open(Options::default()).start().await;
    let (mut client, mut other) = (homeserver.client(), homeserver.client());

    let early = client.open_tab(FIRST, &wanted(), by_email()).await;
    let early = (client.poll(FIRST).await, early);
    let target = homeserver
        .press_on(&homeserver.text_to(ALICE, 1).await)
        .await;
    let opened = other.open_link("second", &target).await;
    let second = other.poll("second").await;
    let first = client.poll(FIRST).await;

    assert!(waits_for_the_mail(&early.0), "{early:?}");
    assert!(waits_for_the_mail(&early.1), "{early:?}");
    assert!(waits_for_the_mail(&opened), "{opened}");
    assert_eq!(opened["session"], early.0["session"]);
    is_as_wanted(&homeserver, &second["result"]).await;
    assert_eq!(first["result"]["user_id"], user_id("alice"), "{first}");
}

#[tokio::test]
async fn the_first_tab_may_end_it_and_the_tab_of_the_link_gets_the_account_as_well() {
    let homeserver = Plan::open(Options::default()).start().await;
    let (mut client, mut other) = (homeserver.client(), homeserver.client());

    client.open_tab(FIRST, &wanted(), by_email()).await;
    let target = homeserver
        .press_on(&homeserver.text_to(ALICE, 1).await)
        .await;
    let first = client.poll(FIRST).await;
    let mut second = other.open_link("second", &target).await;
    if second["result"].is_null() {
        second = other.poll("second").await;
    }

    is_as_wanted(&homeserver, &first["result"]).await;
    assert_eq!(second["result"]["user_id"], user_id("alice"), "{second}");
}

#[tokio::test]
async fn an_account_is_made_by_the_code_of_a_mail() {
    let homeserver = Plan::open(Options::default()).start().await;
    let mut client = homeserver.client();

    let page = client.open_tab(FIRST, &wanted(), by_email()).await;
    let text = homeserver.text_to(ALICE, 1).await;
    let mut shown = json!({
        "sid": page["sid"], "client_secret": page["clientSecret"], "token": "x",
    });
    let wrong = homeserver.front.post(SUBMIT, "", &shown).await;
    let early = client.poll(FIRST).await;
    shown["token"] = code(&text).into();
    let right = homeserver.front.post(SUBMIT, "", &shown).await;
    let page = client.poll(FIRST).await;

    assert_eq!(wrong.1["errcode"], "M_TOKEN_INCORRECT");
    assert!(waits_for_the_mail(&early), "{early}");
    assert_eq!(right, (200, json!({ "success": true })));
    is_as_wanted(&homeserver, &page["result"]).await;
}

#[tokio::test]
async fn an_account_is_made_by_the_code_of_a_short_message() {
    let homeserver = Plan::open(Options::default()).start().await;
    let mut client = homeserver.client();
    let inputs = json!({ "phoneCountry": "GB", "phoneNumber": TYPED });

    let page = client.open_tab(FIRST, &wanted(), inputs).await;
    assert_eq!(page["stage"], "m.login.msisdn", "{page}");
    let secret = &page["clientSecret"];
    let asked = json!(["GB", TYPED, secret, 1]);
    let answer = client.must("requestRegisterMsisdnToken", asked).await;
    let text = homeserver.text_to(MSISDN, 1).await;
    let code = text.split_whitespace().next().expect("a code");
    let shown = json!([answer["submit_url"], answer["sid"], secret, code]);
    let shown = client.must("submitMsisdnTokenOtherUrl", shown).await;
    let creds = json!({ "sid": answer["sid"], "client_secret": secret });
    let stage = json!({ "type": "m.login.msisdn", "threepid_creds": creds });
    let page = client.submit(FIRST, stage).await;

    assert_eq!(shown, json!({ "success": true }));
    assert_eq!(page["result"]["user_id"], user_id("alice"), "{page}");
    let owner = homeserver.owner_of("msisdn", MSISDN).await;
    assert_eq!(owner, user_id("alice"));
}

#[tokio::test]
async fn an_account_is_made_where_synapse_asks_about_addresses_by_itself() {
    let plan = Plan::open(Options::default()).recipe(Recipe::Overlay);
    let homeserver = plan.private_token().start().await;
    let mut client = homeserver.client();

    let early = client.open_tab(FIRST, &wanted(), by_email()).await;
    homeserver
        .press_on(&homeserver.text_to(ALICE, 1).await)
        .await;
    let page = client.poll(FIRST).await;

    // Synapse has a flow with phone numbers of its own here, whose stage it would do itself.
    assert!(waits_for_the_mail(&early), "{early}");
    is_as_wanted(&homeserver, &page["result"]).await;
}

#[tokio::test]
async fn an_account_is_made_by_a_token_or_a_secret_where_synapse_is_closed_to_all_others() {
    let by_token = Plan::open(Options::default())
        .private_token()
        .set("homeserver.registration", "token");
    let by_secret = Plan::new(Recipe::Sidecar)
        .set("homeserver.registration", "shared-secret")
        .set("homeserver.registration_shared_secret", SHARED_SECRET);
    for plan in [by_token, by_secret] {
        let homeserver = plan.start().await;
        let newcomer = Newcomer::at(&homeserver, "alice");

        let (status, account) = newcomer.sign_up().await;

        assert_eq!(status, 200, "{account}");
        assert!(account["refresh_token"].is_string(), "{account}");
        is_as_wanted(&homeserver, &account).await;
        let round = json!({ "username": "mallory", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let (status, _) = homeserver.synapse.api.post(SIGN_UP, "", &round).await;
        assert!([401, 403].contains(&status), "{status}");
    }
}
