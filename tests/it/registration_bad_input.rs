//! Registrations that are not as they should be: what clients send out of order or malformed, and what the homeserver
//! answers that it should not.

use axum::http::Request;
use serde_json::{Value, json};

use crate::{
    contacts::prove,
    registration::*,
    support::{
        app::*,
        homeserver::{Fault, Homeserver, SERVICE_TOKEN},
    },
};

const GUESTS: &str = "/_matrix/client/v3/register?kind=guest";

/// What a request is refused with that asks nobody anything.
async fn refused(text: &str) -> (u16, String) {
    let (homeserver, app) = front().await;
    let answer = app.post_text(SIGN_UP, text.to_owned()).await;
    assert_eq!(asked(&homeserver), 0, "{text}");
    (answer.status.as_u16(), answer.errcode())
}

#[tokio::test]
async fn what_can_not_be_read_is_refused_before_anybody_is_asked() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
    for (text, errcode) in [
        ("", "M_NOT_JSON"),
        ("{", "M_NOT_JSON"),
        (deep.as_str(), "M_NOT_JSON"),
        ("[]", "M_BAD_JSON"),
        (r#"{"username":"alice","username":"bob"}"#, "M_BAD_JSON"),
        (r#"{"auth":{},"auth":null}"#, "M_BAD_JSON"),
        (r#"{"auth":[]}"#, "M_BAD_JSON"),
        (r#"{"auth":"m.login.dummy"}"#, "M_BAD_JSON"),
        (r#"{"auth":{"session":5}}"#, "M_BAD_JSON"),
        (r#"{"auth":{"session":["a"]}}"#, "M_BAD_JSON"),
        (r#"{"auth":{"type":5}}"#, "M_BAD_JSON"),
        (r#"{"auth":{"threepid_creds":{}}}"#, "M_MISSING_PARAM"),
    ] {
        assert_eq!(refused(text).await, refusal(400, errcode), "{text:.80}");
    }
}

#[tokio::test]
async fn credentials_that_are_none_are_refused() {
    for (creds, errcode) in [
        (r#""s""#, "M_INVALID_PARAM"),
        ("5", "M_INVALID_PARAM"),
        ("[]", "M_INVALID_PARAM"),
        ("{}", "M_MISSING_PARAM"),
        (r#"{"sid":"s"}"#, "M_MISSING_PARAM"),
        (r#"{"sid":5,"client_secret":"c"}"#, "M_INVALID_PARAM"),
        (r#"{"sid":"a b","client_secret":"c"}"#, "M_INVALID_PARAM"),
        (r#"{"sid":"s","client_secret":""}"#, "M_INVALID_PARAM"),
    ] {
        let text = format!(r#"{{"auth":{{"type":"{EMAIL}","threepid_creds":{creds}}}}}"#);
        assert_eq!(refused(&text).await, refusal(400, errcode), "{text}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let text = json!({ "username": "a".repeat(70_000) }).to_string();

    assert_eq!(refused(&text).await, refusal(413, "M_TOO_LARGE"));
}

#[tokio::test]
async fn null_is_nothing() {
    for auth in [
        json!(null),
        json!({}),
        json!({ "session": null, "type": null }),
    ] {
        let (_homeserver, app) = front().await;

        begin(&app, &with(&wanted(), auth)).await;
    }
}

#[tokio::test]
async fn a_name_that_is_no_string_is_not_shown_to_the_homeserver() {
    let (homeserver, app) = front().await;
    let nobody = json!({ "username": 5, "password": ["x"] });

    let refused = app.post(SIGN_UP, &nobody).await;

    assert_eq!(told(&refused), refusal(400, "M_BAD_JSON"));
    assert_eq!(asked(&homeserver), 0);
    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn a_stage_that_is_not_offered_never_reaches_the_homeserver() {
    for name in ["m.login.dummy", "m.login.password", TOKEN, "", "x"] {
        let (homeserver, app) = front().await;
        let session = begin(&app, &wanted()).await;

        let refused = app
            .post(SIGN_UP, &with(&wanted(), stage(&session, name)))
            .await;

        assert_eq!(told(&refused), refusal(401, "M_INVALID_PARAM"), "{name}");
        assert_eq!(session_of(&refused), session);
        assert_eq!(asked(&homeserver), 1, "{name}");
    }
}

#[tokio::test]
async fn a_dummy_at_once_makes_no_account() {
    let (homeserver, app) = front().await;
    let dummy = json!({ "type": "m.login.dummy" });

    let refused = app.post(SIGN_UP, &with(&wanted(), dummy)).await;

    assert_eq!(refused.status, 401);
    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn our_stage_may_be_shown_twice() {
    let (homeserver, app) = front().await;
    homeserver
        .registration(|registration| registration.flows = vec![vec![CAPTCHA, "m.login.dummy"]]);
    let body = nearly(&app).await;
    let session = body["auth"]["session"].as_str().unwrap();

    for _ in 0..2 {
        let asked = app.post(SIGN_UP, &body).await;
        assert_eq!(asked.json()["completed"], json!([EMAIL]));
    }
    let unsaid = json!({ "session": session, "type": EMAIL });
    let asked = app.post(SIGN_UP, &with(&wanted(), unsaid)).await;
    let done = app
        .post(SIGN_UP, &with(&wanted(), stage(session, CAPTCHA)))
        .await;

    assert_eq!(asked.json()["completed"], json!([EMAIL]));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}

#[tokio::test]
async fn what_proves_no_address_looks_alike() {
    let (homeserver, app) = front().await;
    let session = begin(&app, &wanted()).await;
    let unproved = app.post(REGISTER, &alice(1)).await.sid();
    app.mails().await;
    let mut bob = alice(1);
    bob["email"] = json!("bob@example.org");
    let bobs = prove(&app, REGISTER, &bob).await;
    let to_add = prove(&app, ADD, &alice(1)).await;
    let mut foreign = email(&session, &bobs);
    foreign["threepid_creds"]["client_secret"] = json!("another");
    let mut phone = email(&session, &bobs);
    phone["type"] = json!("m.login.msisdn");
    let expected = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &unproved)))
        .await;

    for auth in [
        email(&session, "none"),
        email(&session, &to_add),
        foreign,
        phone,
    ] {
        let refused = app.post(SIGN_UP, &with(&wanted(), auth.clone())).await;
        assert_eq!(refused.text, expected.text, "{auth}");
    }

    assert_eq!(told(&expected), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(asked(&homeserver), 1);
}

#[tokio::test]
async fn a_proof_for_a_password_registers_nobody() {
    let (homeserver, app) = front().await;
    homeserver.user("@bob:example.org", "his", "his_token");
    homeserver.give("@bob:example.org", "email", "alice@example.org");
    let sid = prove(&app, PASSWORD, &alice(1)).await;
    homeserver.remove("@bob:example.org");
    let session = begin(&app, &wanted()).await;

    let refused = app
        .post(SIGN_UP, &with(&wanted(), email(&session, &sid)))
        .await;

    assert_eq!(told(&refused), refusal(401, "M_UNAUTHORIZED"));
    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn another_s_session_takes_no_other_name() {
    let (homeserver, app) = front().await;
    let session = begin(&app, &wanted()).await;
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let refused = app
        .post(SIGN_UP, &with(&named("mallory"), email(&session, &sid)))
        .await;

    assert_eq!(told(&refused), refusal(403, "M_FORBIDDEN"));
    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn a_session_that_nobody_knows_is_a_fresh_one() {
    let (homeserver, app) = front().await;
    let sid = prove(&app, REGISTER, &alice(1)).await;
    let long = "x".repeat(10_000);

    for session in ["", "guessed", "../../", long.as_str()] {
        let fresh = app
            .post(SIGN_UP, &with(&wanted(), email(session, &sid)))
            .await;
        assert_eq!(fresh.status, 401, "{}", fresh.text);
        assert_ne!(session_of(&fresh), session);
    }

    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn who_could_be_guest_or_user_is_nobody() {
    let (homeserver, app) = front().await;
    for query in [
        "kind=guest&kind=user",
        "kind=user&kind=guest",
        "kind=GUEST",
        "kind=",
        "kind=x",
    ] {
        let refused = app.post(&format!("{SIGN_UP}?{query}"), &wanted()).await;
        assert_eq!(told(&refused), refusal(400, "M_INVALID_PARAM"), "{query}");
    }

    assert_eq!(asked(&homeserver), 0);
}

#[tokio::test]
async fn a_guest_is_the_homeserver_s_alone() {
    let (homeserver, app) = front().await;

    let guest = app
        .post(&format!("{GUESTS}&x=1;kind=user"), &wanted())
        .await;

    assert_eq!(guest.status, 200, "{}", guest.text);
    assert_eq!(guest.header("cache-control"), "no-store");
    let (_, path, body) = homeserver.log().pop().unwrap();
    assert_eq!((path.as_str(), body), (GUESTS, wanted()));
    assert!(!homeserver.has(ALICE), "a guest has no name of its own");
}

fn service(token: Option<&str>, auth: bool) -> Request<axum::body::Body> {
    let mut body = json!({ "type": "m.login.application_service", "username": "_irc_bob" });
    if auth {
        body["auth"] = json!({ "type": "m.login.dummy" });
    }
    let mut request = Request::post(SIGN_UP);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    request.body(body.to_string().into()).expect("a request")
}

#[tokio::test]
async fn an_application_service_registers_its_users_by_its_token() {
    let (homeserver, app) = front().await;

    let done = app.send(service(Some(SERVICE_TOKEN), false)).await;

    assert_eq!(done.json()["user_id"], "@_irc_bob:example.org");
    assert_eq!(made(&homeserver), ["@_irc_bob:example.org"]);
}

#[tokio::test]
async fn who_says_only_that_it_is_a_service_gets_no_account() {
    let (homeserver, app) = front().await;
    for (token, auth) in [
        (None, false),
        (Some("guessed"), false),
        (None, true),
        (Some(SERVICE_TOKEN), true),
    ] {
        let refused = app.send(service(token, auth)).await;
        assert!(refused.status.is_client_error(), "{}", refused.text);
    }

    assert!(made(&homeserver).is_empty());
}

#[tokio::test]
async fn a_user_s_access_token_is_not_shown_to_register() {
    let (homeserver, app) = front().await;
    let request = Request::post(SIGN_UP).header("Authorization", "Bearer hers");

    let asked = app
        .send(request.body(wanted().to_string().into()).unwrap())
        .await;

    assert_eq!(asked.status, 401);
    assert_eq!(homeserver.seen().pop().unwrap().header("authorization"), "");
}

/// What is no list of stages.
fn nonsense() -> Vec<(u16, &'static str)> {
    let many = json!({ "session": "s", "flows": vec![json!({ "stages": ["x"] }); 100] });
    let huge = json!({ "session": "s", "flows": [], "params": { "x": "y".repeat(20_000) } });
    let long = json!({ "session": "s", "flows": [{ "stages": vec!["x"; 100] }] });
    let leaked = |value: Value| -> &'static str { value.to_string().leak() };
    vec![
        (401, leaked(many)),
        (401, leaked(huge)),
        (401, leaked(long)),
        (401, "{}"),
        (401, "<h1>Unauthorized</h1>"),
        (401, r#"{"session":"s","flows":"none"}"#),
        (401, r#"{"session":"s","flows":[{"stages":[1]}]}"#),
        (401, r#"{"session":"s","flows":[{}]}"#),
        (401, r#"{"session":5,"flows":[]}"#),
        (401, r#"{"session":"","flows":[]}"#),
        (401, r#"{"session":"s","flows":[],"completed":5}"#),
        (401, r#"{"session":"s","flows":[],"params":[]}"#),
        (302, ""),
        (404, "<h1>Not found</h1>"),
        (400, "null"),
    ]
}

/// What may be the end of it.
const ENDLESS: [(u16, &str); 6] = [
    (200, "{}"),
    (200, "<h1>Welcome</h1>"),
    (200, r#"{"user_id":"alice"}"#),
    (200, r#"{"user_id":["@alice:example.org"]}"#),
    (500, r#"{"errcode":"M_UNKNOWN","error":"?"}"#),
    (503, ""),
];

#[tokio::test]
async fn a_homeserver_that_begins_with_nonsense_is_a_bad_gateway() {
    for (status, text) in nonsense().into_iter().chain(ENDLESS) {
        let (homeserver, app) = front().await;
        homeserver.fail_once("POST", SIGN_UP, Fault::Says(status, text));

        let failed = app.post(SIGN_UP, &wanted()).await;

        assert_eq!(
            told(&failed),
            refusal(502, "M_UNKNOWN"),
            "{status} {text:.80}"
        );
        assert_eq!(app.post(SIGN_UP, &wanted()).await.status, 401);
    }
}

#[tokio::test]
async fn a_homeserver_whose_flows_leave_no_way_is_a_bad_gateway() {
    for flows in [vec![], vec![vec![EMAIL], vec!["m.login.msisdn"]]] {
        let (homeserver, app) = front().await;
        homeserver.registration(|registration| registration.flows = flows);

        let failed = app.post(SIGN_UP, &wanted()).await;

        assert_eq!(told(&failed), refusal(502, "M_UNKNOWN"));
    }
}

/// Registers Alice against an answer to her last request, which did nothing; what another registration with her proof is
/// answered then. Hers ends well in the end.
async fn ended_by(homeserver: &Homeserver, app: &TestApp, fault: Fault) -> (u16, Answer) {
    let session = begin(app, &named("bob")).await;
    let body = nearly(app).await;
    let mut other = with(&named("bob"), body["auth"].clone());
    other["auth"]["session"] = json!(session);
    homeserver.fail_once("POST", SIGN_UP, fault);
    let failed = app.post(SIGN_UP, &body).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::Limited(1000));

    let others = app.post(SIGN_UP, &other).await;
    homeserver.heal();
    let done = app.post(SIGN_UP, &body).await;

    assert_eq!(done.status, 200, "{fault:?}: {}", done.text);
    assert_alice_s(homeserver);
    (failed.status.as_u16(), others)
}

#[tokio::test]
async fn a_homeserver_that_certainly_did_nothing_costs_no_proof() {
    for (status, text) in nonsense() {
        let (homeserver, app) = front().await;

        let (failed, others) = ended_by(&homeserver, &app, Fault::Says(status, text)).await;

        assert_eq!(
            (failed, others.status.as_u16()),
            (502, 429),
            "{status} {text:.80}"
        );
    }
}

#[tokio::test]
async fn a_homeserver_that_may_have_made_the_account_leaves_the_proof_to_it() {
    for (status, text) in ENDLESS {
        let (homeserver, app) = front().await;

        let (failed, others) = ended_by(&homeserver, &app, Fault::Says(status, text)).await;

        assert_eq!(
            (failed, others.status.as_u16()),
            (504, 409),
            "{status} {text:.80}"
        );
    }
}

#[tokio::test]
async fn a_stage_that_is_answered_with_nonsense_is_a_bad_gateway() {
    let (homeserver, app) = front().await;
    homeserver
        .registration(|registration| registration.flows = vec![vec![CAPTCHA, "m.login.dummy"]]);
    let session = begin(&app, &wanted()).await;
    let body = with(&wanted(), stage(&session, CAPTCHA));
    for (status, text) in nonsense().into_iter().chain(ENDLESS) {
        homeserver.fail_once("POST", SIGN_UP, Fault::Says(status, text));

        let failed = app.post(SIGN_UP, &body).await;

        assert_eq!(
            told(&failed),
            refusal(502, "M_UNKNOWN"),
            "{status} {text:.80}"
        );
    }

    assert_eq!(
        app.post(SIGN_UP, &body).await.json()["completed"],
        json!([CAPTCHA])
    );
}

#[tokio::test]
async fn an_answer_in_another_session_is_gone_on_with_there() {
    const OTHER: &str = r#"{"session":"other","flows":[{"stages":["m.login.dummy"]}],"params":{}}"#;
    let (homeserver, app) = front().await;
    let body = nearly(&app).await;
    homeserver.fail_once("POST", SIGN_UP, Fault::Says(401, OTHER));

    let moved = app.post(SIGN_UP, &body).await;
    let session = json!({ "auth": { "session": session_of(&moved) } });
    let done = app.post(SIGN_UP, &session).await;

    assert_eq!(told(&moved), refusal(401, "M_UNAUTHORIZED"));
    assert_eq!(done.status, 200, "{}", done.text);
    assert_alice_s(&homeserver);
}
