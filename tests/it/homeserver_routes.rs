//! What a homeserver asks of us in operations of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use threepid::{Builder, error::Dialect, limits, secret::AccessToken};

use crate::support::app::*;

const TOKEN: &str = "a-token-that-nobody-guesses-1234567890";
const ALICE: &str = "@alice:example.org";

fn with_token(builder: Builder) -> Builder {
    builder
        .limits(limits::Settings::OFF)
        .api_token(AccessToken::parse(TOKEN).expect("a token"))
}

fn path(endpoint: &str) -> String {
    format!("/_threepid/homeserver/v1/{endpoint}")
}

async fn call_as(app: &TestApp, authorization: Option<&str>, endpoint: &str, body: &str) -> Answer {
    let mut request = Request::post(path(endpoint));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Body::from(body.to_owned()));
    let router = app.threepid.internal_router();
    send(&router, "127.0.0.1:4711", request.expect("a request")).await
}

async fn call(app: &TestApp, endpoint: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    call_as(app, Some(&bearer), endpoint, &body.to_string()).await
}

async fn ok(app: &TestApp, endpoint: &str, body: &Value) -> Value {
    let answer = call(app, endpoint, body).await;
    assert_eq!(answer.status, 200, "{endpoint} {body}: {}", answer.text);
    answer.json()
}

/// Has alice's address proved for what `ask` is for.
async fn proved(app: &TestApp, ask: &str) -> String {
    let sid = app.post(ask, &alice(1)).await.sid();
    let code = code(&app.mail().await);
    assert_eq!(app.post(SUBMIT, &shown(&sid, &code)).await.status, 200);
    sid
}

fn pair(sid: &str, purpose: &str) -> Value {
    json!({ "sid": sid, "client_secret": "monkeys_are_GREAT", "purpose": purpose })
}

fn claim(sid: &str, op_id: &str) -> Value {
    let mut claim = pair(sid, "register");
    claim["op_id"] = json!(op_id);
    claim
}

fn with_digest(mut claim: Value, digest: &str) -> Value {
    claim["digest"] = json!(digest);
    claim
}

#[tokio::test]
async fn without_a_token_of_ours_there_is_nothing() {
    let app = TestApp::new();
    for endpoint in ["session", "owner", "session/claim", "nothing"] {
        let answer = call(&app, endpoint, &json!({})).await;
        assert_eq!(
            answer.refusal(),
            refusal(404, "M_UNRECOGNIZED"),
            "{endpoint}"
        );
    }
}

#[tokio::test]
async fn the_token_lets_a_homeserver_in_and_nobody_else() {
    let app = TestApp::with(with_token);
    let body = json!({ "medium": "email", "address": "alice@example.org" }).to_string();
    let longer = format!("Bearer {TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    for (authorization, expected) in [
        (None, (401, "M_MISSING_TOKEN")),
        (Some(TOKEN), (401, "M_MISSING_TOKEN")),
        (Some(basic.as_str()), (401, "M_MISSING_TOKEN")),
        (Some("Bearer"), (401, "M_MISSING_TOKEN")),
        (Some("Bearer x"), (401, "M_UNKNOWN_TOKEN")),
        (Some(longer.as_str()), (401, "M_UNKNOWN_TOKEN")),
    ] {
        for body in [body.as_str(), "no json"] {
            let answer = call_as(&app, authorization, "owner", body).await;
            let expected = (expected.0, expected.1.to_owned());
            assert_eq!(answer.refusal(), expected, "{authorization:?}");
        }
    }
    for scheme in ["Bearer", "bearer"] {
        let authorization = format!("{scheme} {TOKEN}");
        let answer = call_as(&app, Some(&authorization), "owner", &body).await;
        assert_eq!(answer.json(), json!({ "user_id": null }));
    }
}

#[tokio::test]
async fn the_public_listener_has_none_of_it() {
    let app = TestApp::with(with_token);
    let bearer = format!("Bearer {TOKEN}");
    let request = Request::post(path("owner"))
        .header("authorization", bearer)
        .body(Body::from("{}"));
    let answer = app.send(request.expect("a request")).await;
    assert_eq!(answer.refusal(), refusal(404, "M_UNRECOGNIZED"));
}

#[tokio::test]
async fn other_methods_are_told_from_other_paths() {
    let app = TestApp::with(with_token);
    let router = app.threepid.internal_router();
    let request = Request::get(path("owner"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Body::empty());
    let answer = send(&router, "127.0.0.1:1", request.expect("a request")).await;
    assert_eq!(answer.refusal(), refusal(405, "M_UNRECOGNIZED"));
    let unknown = call(&app, "nothing", &json!({})).await;
    assert_eq!(unknown.refusal(), refusal(404, "M_UNRECOGNIZED"));
}

#[tokio::test]
async fn a_homeserver_looks_at_a_proof_as_often_as_it_likes() {
    let app = TestApp::with(with_token);
    let sid = app.post(REGISTER, &alice(1)).await.sid();
    let before = call(&app, "session", &pair(&sid, "register")).await;
    let mail = app.mail().await;
    app.post(SUBMIT, &shown(&sid, &code(&mail))).await;

    assert_eq!(before.refusal(), refusal(400, "M_SESSION_NOT_VALIDATED"));
    for purpose in ["register", "add", "register"] {
        assert_eq!(
            ok(&app, "session", &pair(&sid, purpose)).await,
            json!({"medium": "email", "address": "alice@example.org", "validated_at": 1_795_341_600_000_i64})
        );
    }
    for (body, expected) in [
        (pair(&sid, "password"), (404, "M_NO_VALID_SESSION")),
        (pair("unknown", "register"), (404, "M_NO_VALID_SESSION")),
        (pair("a b", "register"), (400, "M_INVALID_PARAM")),
        (pair(&sid, "identity"), (400, "M_INVALID_PARAM")),
        (
            json!({ "sid": sid, "client_secret": "s" }),
            (400, "M_MISSING_PARAMS"),
        ),
        (json!([]), (400, "M_BAD_JSON")),
    ] {
        let answer = call(&app, "session", &body).await;
        assert_eq!(answer.refusal(), refusal(expected.0, expected.1), "{body}");
    }
    app.wait(Duration::from_hours(24));
    let late = call(&app, "session", &pair(&sid, "register")).await;
    assert_eq!(late.refusal(), refusal(400, "M_SESSION_EXPIRED"));
}

#[tokio::test]
async fn a_proof_for_a_password_names_the_account() {
    let app = TestApp::with(with_token);
    app.own(ALICE, "alice@example.org").await;
    let sid = proved(&app, PASSWORD).await;
    let proof = ok(&app, "session", &pair(&sid, "password")).await;
    assert_eq!(proof["user_id"], ALICE);
}

#[tokio::test]
async fn a_proof_is_claimed_once_and_taken_once() {
    let app = TestApp::with(with_token);
    let sid = proved(&app, REGISTER).await;
    let first = with_digest(claim(&sid, "op-1"), "request 1");

    let claimed = ok(&app, "session/claim", &first).await;
    let again = call(&app, "session/claim", &first).await;
    let other = call(&app, "session/claim", &claim(&sid, "op-2")).await;
    let taken = ok(&app, "session/take", &json!({ "op_id": "op-1" })).await;
    let twice = call(&app, "session/take", &json!({ "op_id": "op-1" })).await;

    assert_eq!(
        claimed,
        json!({
            "medium": "email", "address": "alice@example.org", "validated_at": 1_795_341_600_000_i64,
            "done_before": false,
        })
    );
    assert_eq!(
        again.refusal(),
        refusal(409, "M_UNKNOWN"),
        "while its lease runs"
    );
    assert_eq!(other.refusal(), refusal(409, "M_UNKNOWN"));
    assert_eq!(taken, json!({}));
    assert_eq!(twice.refusal(), refusal(404, "M_NOT_FOUND"));
    let repeated = ok(&app, "session/claim", &first).await;
    assert_eq!(repeated["done_before"], true);
    assert_eq!(repeated["address"], "alice@example.org");
    for spent in [
        with_digest(claim(&sid, "op-1"), "request 2"),
        with_digest(claim(&sid, "op-2"), "request 1"),
        claim(&sid, "op-1"),
    ] {
        let answer = call(&app, "session/claim", &spent).await;
        assert_eq!(
            answer.refusal(),
            refusal(409, "M_THREEPID_AUTH_FAILED"),
            "{spent}"
        );
    }
    let look = call(&app, "session", &pair(&sid, "register")).await;
    assert_eq!(look.refusal(), refusal(409, "M_THREEPID_AUTH_FAILED"));
}

#[tokio::test]
async fn a_proof_that_was_given_back_is_free_again() {
    let app = TestApp::with(with_token);
    let sid = proved(&app, REGISTER).await;
    ok(&app, "session/claim", &claim(&sid, "op-1")).await;

    let released = ok(&app, "session/release", &json!({ "op_id": "op-1" })).await;

    assert_eq!(released, json!({}));
    let claimed = ok(&app, "session/claim", &claim(&sid, "op-2")).await;
    assert_eq!(claimed["done_before"], false);
    for endpoint in ["session/release", "session/take"] {
        let gone = call(&app, endpoint, &json!({ "op_id": "op-1" })).await;
        assert_eq!(gone.refusal(), refusal(404, "M_NOT_FOUND"));
    }
}

#[tokio::test]
async fn the_same_operation_goes_on_after_its_lease() {
    let app = TestApp::with(with_token);
    let sid = proved(&app, REGISTER).await;
    ok(&app, "session/claim", &claim(&sid, "op-1")).await;
    let app = app.restarted(with_token);
    app.wait(Duration::from_mins(2));

    let other = call(&app, "session/claim", &claim(&sid, "op-2")).await;
    let same = ok(&app, "session/claim", &claim(&sid, "op-1")).await;

    assert_eq!(other.refusal(), refusal(409, "M_UNKNOWN"));
    assert_eq!(same["done_before"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_parallel_claims_one_gets_the_proof() {
    let app = Arc::new(TestApp::with(with_token));
    let sid = proved(&app, REGISTER).await;
    let claims = (0..20).map(|number| {
        // Half of them are one operation, sent again and again.
        let body = claim(&sid, &format!("op-{}", number % 11));
        let app = Arc::clone(&app);
        tokio::spawn(async move { call(&app, "session/claim", &body).await.status.as_u16() })
    });
    let mut counted = BTreeMap::new();
    for status in join_all(claims).await {
        *counted
            .entry(status.expect("it does not panic"))
            .or_insert(0) += 1;
    }
    assert_eq!(counted, BTreeMap::from([(200, 1), (409, 19)]));

    let takes = (0..20).map(|number| {
        let body = json!({ "op_id": format!("op-{}", number % 11) });
        let app = Arc::clone(&app);
        tokio::spawn(async move { call(&app, "session/take", &body).await.status.as_u16() })
    });
    let mut counted = BTreeMap::new();
    for status in join_all(takes).await {
        *counted
            .entry(status.expect("it does not panic"))
            .or_insert(0) += 1;
    }
    assert_eq!(counted, BTreeMap::from([(200, 1), (404, 19)]));
}

#[tokio::test]
async fn an_operation_of_a_homeserver_s_is_none_of_ours() {
    let app = TestApp::with(with_token);
    let sid = proved(&app, REGISTER).await;
    ok(&app, "session/claim", &claim(&sid, "op-1")).await;

    let validation = app.threepid.validation();

    assert!(!validation.take("op-1").await.expect("the store answers"));
    ok(&app, "session/take", &json!({ "op_id": "op-1" })).await;
    for op_id in ["", "two words", "é", &"x".repeat(256)] {
        let answer = call(&app, "session/take", &json!({ "op_id": op_id })).await;
        assert_eq!(answer.refusal(), refusal(400, "M_INVALID_PARAM"), "{op_id}");
    }
}

#[tokio::test]
async fn a_new_account_has_its_addresses() {
    let app = TestApp::with(with_token);
    let body = json!({ "user_id": ALICE, "threepids": [
        { "medium": "email", "address": "Alice@Example.org" },
        { "medium": "msisdn", "address": "+447700900001" },
    ]});
    for _ in 0..2 {
        assert_eq!(ok(&app, "account/registered", &body).await, json!({}));
    }

    let email = json!({ "medium": "email", "address": "ALICE@example.org" });
    let phone = json!({ "medium": "msisdn", "address": "447700900001" });
    for address in [email, phone] {
        let owner = ok(&app, "owner", &address).await;
        assert_eq!(owner, json!({ "user_id": ALICE }), "{address}");
    }
    let mut other = body.clone();
    other["user_id"] = json!("@eve:example.org");
    let refused = call(&app, "account/registered", &other).await;
    assert_eq!(refused.refusal(), refusal(400, "M_THREEPID_IN_USE"));
}

#[tokio::test]
async fn a_reset_is_for_no_other_account() {
    let app = TestApp::with(with_token);
    app.own(ALICE, "alice@example.org").await;
    let sid = app.post(PASSWORD, &alice(1)).await.sid();
    let code = code(&app.mail().await);
    app.post(SUBMIT, &shown(&sid, &code)).await;
    let mut body =
        json!({ "sid": sid, "client_secret": "monkeys_are_GREAT", "purpose": "password" });
    assert_eq!(ok(&app, "session", &body).await["user_id"], ALICE);

    body["user_id"] = json!("@eve:example.org");

    let refused = call(&app, "session", &body).await;
    assert_eq!(refused.refusal(), refusal(404, "M_NO_VALID_SESSION"));
}

#[tokio::test]
async fn an_account_that_ends_leaves_its_addresses_and_resets_behind() {
    let app = TestApp::with(with_token);
    app.own(ALICE, "alice@example.org").await;
    let sid = app.post(PASSWORD, &alice(1)).await.sid();
    let code = code(&app.mail().await);
    let address = json!({ "medium": "email", "address": "alice@example.org" });
    for (erase, owner) in [(false, json!(ALICE)), (true, Value::Null)] {
        let body = json!({ "user_id": ALICE, "erase": erase });
        let ended = ok(&app, "account/deactivated", &body).await;
        assert_eq!(ended, json!({ "id_server_unbind_result": "success" }));
        assert_eq!(ok(&app, "owner", &address).await["user_id"], owner);
    }
    let late = app.post(SUBMIT, &shown(&sid, &code)).await;
    assert_eq!(late.errcode(), "M_TOKEN_INCORRECT", "as if nobody had it");
}

#[tokio::test]
async fn an_account_is_found_by_what_people_log_in_with() {
    let app = TestApp::with(with_token);
    app.own(ALICE, "alice@example.org").await;
    app.own(ALICE, "07700900001").await;
    let email =
        |address: &str| json!({"type": "m.id.thirdparty", "medium": "email", "address": address});
    let phone = |number: &str| json!({"type": "m.id.phone", "country": "GB", "phone": number});
    for (identifier, user_id) in [
        (email("Alice@EXAMPLE.org"), json!(ALICE)),
        (email("bob@example.org"), Value::Null),
        (email("nonsense"), Value::Null),
        (phone("07700 900001"), json!(ALICE)),
        (phone("+44 7700 900001"), json!(ALICE)),
        (phone("07700 900002"), Value::Null),
        (phone("12"), Value::Null),
        (
            json!({"type": "m.id.phone", "country": "GB", "number": "07700900001"}),
            json!(ALICE),
        ),
        (
            json!({"type": "m.id.thirdparty", "medium": "msisdn", "address": "447700900001"}),
            json!(ALICE),
        ),
    ] {
        let body = json!({ "identifier": identifier });
        assert_eq!(
            ok(&app, "login", &body).await,
            json!({ "user_id": user_id }),
            "{body}"
        );
        // A host that mounts the library asks without HTTP.
        let found = app.threepid.find_account(&identifier).await;
        assert_eq!(found, Ok(user_id.as_str().map(str::to_owned)), "{body}");
    }
}

#[tokio::test]
async fn a_host_s_own_identifiers_are_not_looked_up() {
    let app = TestApp::new();
    for (identifier, errcode) in [
        (
            json!({ "type": "m.id.user", "user": "alice" }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "type": "m.id.phone", "country": "GB" }),
            "M_MISSING_PARAM",
        ),
        (json!("alice"), "M_BAD_JSON"),
    ] {
        let found = app.threepid.find_account(&identifier).await;
        let refused = found.expect_err("it names no address");
        assert_eq!(
            refused.wire(Dialect::Client),
            (StatusCode::BAD_REQUEST, errcode)
        );
    }
}

async fn assert_refused(app: &TestApp, endpoint: &str, body: &Value, errcode: &str) {
    let answer = call(app, endpoint, body).await;
    let expected = (400, errcode.to_owned());
    assert_eq!(answer.refusal(), expected, "{endpoint} {body}");
}

#[tokio::test]
async fn a_question_that_is_wrong_is_told_why() {
    let app = TestApp::with(with_token);
    let address = |medium: &str, address: Value| json!({ "medium": medium, "address": address });
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAMS"),
        (address("email", json!(1)), "M_BAD_JSON"),
        (address("pager", json!("1")), "M_INVALID_PARAM"),
        (address("email", json!("x")), "M_INVALID_EMAIL"),
        (address("msisdn", json!("07700900001")), "M_INVALID_ADDRESS"),
    ] {
        assert_refused(&app, "owner", &body, errcode).await;
    }
    for (identifier, errcode) in [
        (Value::Null, "M_MISSING_PARAMS"),
        (json!("alice"), "M_BAD_JSON"),
        (json!({"type": "m.id.user", "user": "a"}), "M_INVALID_PARAM"),
        (
            json!({"type": "m.id.phone", "country": "GB"}),
            "M_MISSING_PARAMS",
        ),
        (
            json!({"type": "m.id.phone", "country": "uk", "phone": "1"}),
            "M_INVALID_PARAM",
        ),
    ] {
        let body = json!({ "identifier": identifier });
        assert_refused(&app, "login", &body, errcode).await;
    }
}

#[tokio::test]
async fn news_of_an_account_that_are_wrong_are_told_why() {
    let app = TestApp::with(with_token);
    let address = json!({ "medium": "email", "address": "alice@example.org" });
    for (threepids, errcode) in [
        (Value::Null, "M_MISSING_PARAMS"),
        (json!({}), "M_BAD_JSON"),
        (json!(["a"]), "M_BAD_JSON"),
        (json!([{"medium": "email"}]), "M_MISSING_PARAMS"),
        (json!(vec![address; 101]), "M_INVALID_PARAM"),
    ] {
        let body = json!({ "user_id": ALICE, "threepids": threepids });
        assert_refused(&app, "account/registered", &body, errcode).await;
    }
    for (body, errcode) in [
        (json!({ "user_id": "alice" }), "M_INVALID_PARAM"),
        (json!({ "user_id": "@alice" }), "M_INVALID_PARAM"),
        (json!({ "user_id": ALICE, "erase": "yes" }), "M_BAD_JSON"),
    ] {
        assert_refused(&app, "account/deactivated", &body, errcode).await;
    }
}
