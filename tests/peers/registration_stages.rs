//! What people who sign up are asked for, and whose word is passed on.

use serde_json::{Value, json};

use crate::support::{
    captcha::{Captcha, SOLVED},
    homeserver::{Homeserver, Recipe},
    newcomer::{Newcomer, PASSWORD, SIGN_UP, flows, stage},
    plan::{PRIVATE_TOKEN, Plan},
    synapse::{BRIDGE_TOKEN, Options, SHARED_SECRET, user_id},
};

const EMAIL: &str = "m.login.email.identity";
const MSISDN: &str = "m.login.msisdn";
const CAPTCHA: &str = "m.login.recaptcha";
const TERMS: &str = "m.login.terms";

/// What an answer says of why.
fn why(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

async fn open() -> Homeserver {
    Plan::open(Options::default()).start().await
}

#[tokio::test]
async fn the_operator_says_which_addresses_people_show() {
    for (required, expected) in [
        ("any", vec![vec![EMAIL], vec![MSISDN]]),
        ("email", vec![vec![EMAIL]]),
        ("msisdn", vec![vec![MSISDN]]),
        ("both", vec![vec![EMAIL, MSISDN]]),
    ] {
        let plan = Plan::open(Options::default()).set("accounts.registration_requires", required);
        let homeserver = plan.start().await;
        let newcomer = Newcomer::at(&homeserver, "alice");

        let (status, answer) = newcomer.post(&newcomer.request(None)).await;

        let mut told = flows(&answer);
        for flow in &mut told {
            // Which of them comes first is nobody's matter.
            flow.sort_unstable();
        }
        told.sort_unstable();
        assert_eq!((status, told), (401, expected), "{required}");
    }
}

#[tokio::test]
async fn where_no_address_is_required_people_sign_up_with_and_without_one() {
    let plan = Plan::open(Options::default()).set("accounts.registration_requires", "nothing");
    let homeserver = plan.start().await;
    let (alice, bob) = (
        Newcomer::at(&homeserver, "alice"),
        Newcomer::at(&homeserver, "bob"),
    );

    let with = alice.sign_up().await;
    let dummy = json!({ "type": "m.login.dummy", "session": bob.session().await });
    let without = bob.post(&bob.request(Some(&dummy))).await;

    assert_eq!((with.0, without.0), (200, 200), "{with:?} {without:?}");
    let owner = homeserver.owner_of("email", &alice.email()).await;
    assert_eq!(owner, user_id("alice"));
    assert_eq!(homeserver.synapse.accounts().await, ["alice", "bob"]);
}

#[tokio::test]
async fn a_token_of_ours_is_hidden_and_the_other_stages_are_not() {
    let captcha = Captcha::start().await;
    let options = Options::default()
        .asking_for_captchas(&captcha)
        .asking_for_consent();
    let homeserver = Plan::open(options).private_token().start().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let creds = alice.prove().await;

    let (_, first) = alice.post(&alice.request(None)).await;
    let session = first["session"].as_str().expect("a session");
    for auth in [
        json!({ "type": CAPTCHA, "response": SOLVED, "session": session }),
        json!({ "type": TERMS, "session": session }),
    ] {
        let (status, answer) = alice.post(&alice.request(Some(&auth))).await;
        assert_eq!(status, 401, "{answer}");
        assert!(!answer.to_string().contains(PRIVATE_TOKEN), "{answer}");
    }
    let (status, account) = alice.show(session, &creds).await;

    let mut told = flows(&first);
    told.sort_unstable();
    let expected = [[CAPTCHA, TERMS, EMAIL], [CAPTCHA, TERMS, MSISDN]];
    assert_eq!(told, expected, "{first}");
    assert_eq!(first["params"][CAPTCHA]["public_key"], "everybody's key");
    assert_eq!(
        (status, &account["user_id"]),
        (200, &user_id("alice").into())
    );
}

#[tokio::test]
async fn the_address_may_be_shown_before_the_captcha_which_stays_to_be_solved() {
    let captcha = Captcha::start().await;
    let options = Options::default().asking_for_captchas(&captcha);
    let homeserver = Plan::open(options).start().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (session, creds) = (alice.session().await, alice.prove().await);
    let solved = |response| json!({ "type": CAPTCHA, "response": response, "session": session });

    let shown = alice.show(&session, &creds).await;
    let wrong = alice.post(&alice.request(Some(&solved("x")))).await;
    let nobody = homeserver.synapse.accounts().await;
    let right = alice.post(&alice.request(Some(&solved(SOLVED)))).await;

    assert_eq!(shown.0, 401, "{}", shown.1);
    assert_eq!(why(&wrong), (401, "M_UNAUTHORIZED"));
    assert_eq!(nobody, Vec::<String>::new());
    assert_eq!(right.0, 200, "{}", right.1);
    let owner = homeserver.owner_of("email", &alice.email()).await;
    assert_eq!(owner, user_id("alice"));
    let asked: Vec<_> = captcha
        .asked()
        .into_iter()
        .map(|asked| asked.response)
        .collect();
    assert_eq!(asked, ["x", SOLVED]);
}

#[tokio::test]
async fn an_address_that_is_not_proved_makes_no_account() {
    let homeserver = open().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (session, asked) = (alice.session().await, alice.ask().await);
    let unknown = json!({ "sid": asked["sid"], "client_secret": "another" });
    let contact = homeserver.prove("carol@example.org", "carol").await;

    let early = alice.show(&session, &asked).await;
    let wrong = alice.show(&session, &unknown).await;
    let _ = alice.show(&session, &json!({})).await;
    let dummy = json!({ "type": "m.login.dummy", "session": session });
    let dummy = alice.post(&alice.request(Some(&dummy))).await;

    assert_eq!(why(&early), (401, "M_UNAUTHORIZED"));
    assert_eq!(early.1["session"], session.as_str());
    assert!(early.1["flows"].is_array(), "{}", early.1);
    assert_eq!(why(&wrong), (401, "M_UNAUTHORIZED"));
    assert!([400, 401].contains(&dummy.0), "{dummy:?}");
    let (_, other) = alice.show(&session, &contact).await;
    assert!(other["access_token"].is_null(), "{other}");
    assert_eq!(homeserver.synapse.accounts().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_is_taken_and_a_password_that_is_weak_are_told_at_once() {
    let options = Options::default().passwords_of_at_least(12);
    let homeserver = Plan::open(options).start().await;
    homeserver.register("bob").await;

    let taken = Newcomer::at(&homeserver, "bob");
    let taken = taken.post(&taken.request(None)).await;
    let weak = json!({ "username": "alice", "password": "short" });
    let weak = homeserver.front.post(SIGN_UP, "", &weak).await;
    let invalid = json!({ "username": "@:", "password": PASSWORD });
    let invalid = homeserver.front.post(SIGN_UP, "", &invalid).await;

    assert_eq!(why(&taken), (400, "M_USER_IN_USE"));
    assert_eq!(why(&weak), (400, "M_PASSWORD_TOO_SHORT"));
    assert_eq!(why(&invalid), (400, "M_INVALID_USERNAME"));
    let path = format!("{SIGN_UP}/available?username=");
    let free = homeserver.front.get(&format!("{path}alice"), "").await;
    let taken = homeserver.front.get(&format!("{path}bob"), "").await;
    assert_eq!(free, (200, json!({ "available": true })));
    assert_eq!(why(&taken), (400, "M_USER_IN_USE"));
}

#[tokio::test]
async fn a_name_that_is_taken_meanwhile_is_told_and_the_proof_works_for_another() {
    let homeserver = open().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (session, creds) = (alice.session().await, alice.prove().await);
    homeserver.register("alice").await;

    let refused = alice.show(&session, &creds).await;
    let again = Newcomer::at(&homeserver, "alice2");
    let session = again.session().await;
    let (status, account) = again.show(&session, &creds).await;

    assert_eq!(why(&refused), (400, "M_USER_IN_USE"));
    assert_eq!(
        (status, &account["user_id"]),
        (200, &user_id("alice2").into())
    );
    let owner = homeserver.owner_of("email", &alice.email()).await;
    assert_eq!(owner, user_id("alice2"));
}

#[tokio::test]
async fn who_began_with_a_name_and_a_password_needs_to_tell_neither_again() {
    let homeserver = open().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (session, creds) = (alice.session().await, alice.prove().await);

    let knows = json!({ "auth": { "session": session } });
    let early = alice.post(&knows).await;
    let shown = json!({ "auth": stage(&session, &creds) });
    let (status, account) = alice.post(&shown).await;
    let repeated = alice.post(&shown).await;

    assert_eq!((early.0, &early.1["session"]), (401, &json!(session)));
    assert_eq!(
        (status, &account["user_id"]),
        (200, &user_id("alice").into())
    );
    assert_eq!(
        (repeated.0, &repeated.1["user_id"]),
        (200, &user_id("alice").into())
    );
    let login = homeserver.front.try_login("alice", PASSWORD).await;
    assert_eq!(login.0, 200, "{}", login.1);
    assert_eq!(homeserver.synapse.accounts().await, ["alice"]);
}

#[tokio::test]
async fn an_address_of_an_account_makes_no_second_one() {
    let homeserver = open().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (status, account) = alice.sign_up().await;
    assert_eq!(status, 200, "{account}");
    homeserver.owner_of("email", &alice.email()).await;

    let second = Newcomer::at(&homeserver, "mallory");
    let session = second.session().await;
    let earlier = homeserver.texts_to(&alice.email()).await.len();
    let (status, answer) = second.show(&session, &alice.ask_again().await).await;

    assert_eq!(status, 401, "{answer}");
    let text = homeserver.text_to(&alice.email(), earlier + 1).await;
    assert!(!text.contains("/_threepid/link/"), "{text}");
    assert_eq!(homeserver.synapse.accounts().await, ["alice"]);
}

#[tokio::test]
async fn guests_and_application_services_are_synapse_s_own_matter() {
    let plan = Plan::open(Options::default().with_bridge());
    let homeserver = plan.private_token().start().await;
    let front = &homeserver.front;
    let bridged = json!({ "type": "m.login.application_service", "username": "bridged_bob" });
    let guests = format!("{SIGN_UP}?kind=guest");

    let guest = front.post(&guests, "", &json!({})).await;
    let bob = front.post(SIGN_UP, BRIDGE_TOKEN, &bridged).await;
    let stranger = front.post(SIGN_UP, "x", &bridged).await;
    let foreign = json!({ "type": "m.login.application_service", "username": "alice" });
    let foreign = front.post(SIGN_UP, BRIDGE_TOKEN, &foreign).await;

    assert_eq!(guest.0, 200, "{}", guest.1);
    let token = guest.1["access_token"].as_str().expect("a token");
    let (_, whoami) = front.get("/_matrix/client/v3/account/whoami", token).await;
    assert_eq!(whoami["is_guest"], true);
    assert_eq!(
        (bob.0, &bob.1["user_id"]),
        (200, &user_id("bridged_bob").into())
    );
    assert_eq!(why(&stranger), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(why(&foreign), (400, "M_EXCLUSIVE"));
    assert_eq!(homeserver.synapse.accounts().await, ["bridged_bob"]);
}

#[tokio::test]
async fn synapse_s_limits_and_captchas_are_for_each_client_and_not_for_us() {
    let captcha = Captcha::start().await;
    let rarely = json!({ "per_second": 0.001, "burst_count": 1 });
    let options = Options::default()
        .asking_for_captchas(&captcha)
        .set("rc_registration", rarely);
    let plan = Plan::open(options).set("accounts.registration_requires", "nothing");
    let homeserver = plan.start().await;
    let solved = json!({ "type": CAPTCHA, "response": SOLVED });

    let mut statuses = Vec::new();
    for (name, address) in [
        ("alice", "203.0.113.7"),
        ("bob", "203.0.113.7"),
        ("carol", "203.0.113.8"),
    ] {
        let newcomer = Newcomer::at(&homeserver, name);
        let begun = from(address, &homeserver, &newcomer.request(None)).await;
        statuses.push(begun.0);
        let mut auth = solved.clone();
        auth["session"] = begun.1["session"].clone();
        from(address, &homeserver, &newcomer.request(Some(&auth))).await;
        auth["type"] = "m.login.dummy".into();
        from(address, &homeserver, &newcomer.request(Some(&auth))).await;
    }

    assert_eq!(statuses, [401, 429, 401]);
    assert_eq!(homeserver.synapse.accounts().await, ["alice", "carol"]);
    let asked = captcha
        .asked()
        .into_iter()
        .map(|asked| asked.remote_address);
    assert_eq!(asked.collect::<Vec<_>>(), ["203.0.113.7", "203.0.113.8"]);
}

/// Posts to `/register` as nginx does for a client at this address.
async fn from(address: &str, homeserver: &Homeserver, body: &Value) -> (u16, Value) {
    let url = format!("{}{SIGN_UP}", homeserver.server.base);
    let request = homeserver.server.client.post(url).json(body);
    let sent = request.header("X-Forwarded-For", address).send().await;
    let answer = sent.expect("the server answers");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("it answers in JSON"))
}

#[tokio::test]
async fn an_account_that_needs_no_token_yet_has_its_address_all_the_same() {
    let homeserver = open().await;
    let alice = Newcomer::at(&homeserver, "alice");
    let (session, creds) = (alice.session().await, alice.prove().await);
    let mut request = alice.request(Some(&stage(&session, &creds)));
    request["inhibit_login"] = true.into();

    let (status, account) = alice.post(&request).await;

    assert_eq!(
        (status, &account["user_id"]),
        (200, &user_id("alice").into())
    );
    assert!(account["access_token"].is_null(), "{account}");
    let owner = homeserver.owner_of("email", &alice.email()).await;
    assert_eq!(owner, user_id("alice"));
}

#[tokio::test]
async fn a_weak_password_is_refused_where_synapse_itself_would_take_it() {
    let plan = Plan::new(Recipe::Sidecar)
        .options(Options::default().passwords_of_at_least(12))
        .set("homeserver.registration", "shared-secret")
        .set("homeserver.registration_shared_secret", SHARED_SECRET);
    let homeserver = plan.start().await;
    let weak = json!({ "username": "alice", "password": "short" });

    let refused = homeserver.front.post(SIGN_UP, "", &weak).await;

    assert_eq!(why(&refused), (400, "M_WEAK_PASSWORD"));
}

#[tokio::test]
async fn nobody_signs_up_where_the_operator_has_closed_it() {
    let plan = Plan::open(Options::default()).set("homeserver.registration", "off");
    let homeserver = plan.start().await;
    let alice = Newcomer::at(&homeserver, "alice");

    let refused = alice.post(&alice.request(None)).await;

    assert!([403, 404].contains(&refused.0), "{refused:?}");
    assert_eq!(homeserver.synapse.accounts().await, Vec::<String>::new());
}
