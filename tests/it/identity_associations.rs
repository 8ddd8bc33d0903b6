//! Associations at the identity server: `3pid/getValidated3pid` and `3pid/bind`.

use std::time::Duration;

use axum::http::{Request, header};
use serde_json::{Value, json};
use threepid::{limits, rate::Rate};

use crate::support::{
    app::{IDENTITY, PASSWORD, REGISTER, TestApp, alice, code, refusal, shown, with_identity},
    identity::{SECRET, asked, bound, found, is_signed, proved, query},
};

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const BIND: &str = "3pid/bind";
/// How long a session lives.
const LIFE: Duration = Duration::from_hours(24);

/// A body of `3pid/bind`.
fn binding(pair: &Value, mxid: &str) -> Value {
    json!({ "sid": pair["sid"], "client_secret": pair["client_secret"], "mxid": mxid })
}

fn validated(pair: &Value) -> String {
    format!("3pid/getValidated3pid?{}", query(pair))
}

#[tokio::test]
async fn a_validated_address_is_shown_in_its_canonical_form() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = proved(&app, &token, "Alice@Example.ORG").await;
    let phone = proved(&app, &token, "07700900001").await;

    let email = app.get_as(&token, &validated(&pair)).await;
    let phone = app.get_as(&token, &validated(&phone)).await;

    assert_eq!((email.status.as_u16(), phone.status.as_u16()), (200, 200));
    let at = 1_795_341_600_000_i64;
    let wanted = json!({ "medium": "email", "address": "alice@example.org", "validated_at": at });
    assert_eq!(email.json(), wanted);
    let wanted = json!({ "medium": "msisdn", "address": "447700900001", "validated_at": at });
    assert_eq!(phone.json(), wanted);
}

#[tokio::test]
async fn showing_a_session_without_its_pair_is_refused() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;

    for (query, errcode) in [
        ("", "M_MISSING_PARAMS"),
        ("?sid=1", "M_MISSING_PARAMS"),
        ("?client_secret=x", "M_MISSING_PARAMS"),
        ("?sid=1&client_secret=x&sid=1", "M_INVALID_PARAM"),
        ("?sid=1&client_secret=x&client_secret=x", "M_INVALID_PARAM"),
        ("?sid=&client_secret=x", "M_INVALID_PARAM"),
        ("?sid=1&client_secret=a%20b", "M_INVALID_PARAM"),
    ] {
        let path = format!("3pid/getValidated3pid{query}");
        let answer = app.get_as(&token, &path).await;
        assert_eq!(answer.refusal(), refusal(400, errcode), "{query}");
    }
}

#[tokio::test]
async fn a_session_that_is_not_validated_is_neither_shown_nor_bound() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = asked(&app, &token, "alice@example.org").await;

    let seen = app.get_as(&token, &validated(&pair)).await;
    let bound = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;

    for answer in [seen, bound] {
        assert_eq!(answer.status, 400);
        assert_eq!(answer.errcode(), "M_SESSION_NOT_VALIDATED");
    }
    assert_eq!(found(&app, "email", "alice@example.org").await, None);
}

#[tokio::test]
async fn a_session_that_has_run_out_is_neither_shown_nor_bound() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = proved(&app, &token, "alice@example.org").await;
    app.wait(LIFE);

    let seen = app.get_as(&token, &validated(&pair)).await;
    let bound = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;

    for answer in [seen, bound] {
        assert_eq!(answer.status, 400);
        assert_eq!(answer.errcode(), "M_SESSION_EXPIRED");
    }
    assert_eq!(found(&app, "email", "alice@example.org").await, None);
}

#[tokio::test]
async fn what_is_not_the_users_session_is_unknown_whichever_half_is_wrong() {
    let app = TestApp::identity(|_| {});
    let (alice, bob) = (
        app.identity_token(ALICE).await,
        app.identity_token(BOB).await,
    );
    let bobs = proved(&app, &bob, "bob@example.org").await;
    let own = proved(&app, &alice, "alice@example.org").await;
    let other = |key: &str| {
        let mut pair = own.clone();
        pair[key] = json!("another");
        pair
    };

    for pair in [bobs.clone(), other("sid"), other("client_secret")] {
        let seen = app.get_as(&alice, &validated(&pair)).await;
        let bound = app.post_as(&alice, BIND, &binding(&pair, ALICE)).await;
        for answer in [seen, bound] {
            assert_eq!(answer.status, 404, "{pair}");
            assert_eq!(answer.errcode(), "M_NO_VALID_SESSION");
        }
    }
    assert_eq!(found(&app, "email", "bob@example.org").await, None);
}

#[tokio::test]
async fn a_session_for_the_homeserver_is_unknown_to_the_identity_server() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    app.own(ALICE, "alice@example.org").await;
    for (path, address) in [
        (REGISTER, "new@example.org"),
        (PASSWORD, "alice@example.org"),
    ] {
        let mut body = alice(1);
        body["email"] = json!(address);
        let sid = app.post(path, &body).await.sid();
        let shown = shown(&sid, &code(&app.mail().await));
        let answer = app.post("/_threepid/email/submitToken", &shown).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let pair = json!({ "sid": sid, "client_secret": SECRET });

        let seen = app.get_as(&token, &validated(&pair)).await;
        let bound = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;

        assert_eq!(seen.refusal(), refusal(404, "M_NO_VALID_SESSION"));
        assert_eq!(bound.refusal(), refusal(404, "M_NO_VALID_SESSION"));
    }
}

#[tokio::test]
async fn both_need_an_access_token() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = proved(&app, &token, "alice@example.org").await;

    let seen = app
        .get(&format!("{IDENTITY}/{}", validated(&pair)), &[])
        .await;
    let path = format!("{IDENTITY}/{BIND}");
    let bound = app.post(&path, &binding(&pair, ALICE)).await;
    let without_a_body = app.post_text(&path, "no JSON").await;

    for answer in [seen, bound, without_a_body] {
        assert_eq!(answer.status, 401);
        assert_eq!(answer.errcode(), "M_UNAUTHORIZED");
    }
}

#[tokio::test]
async fn an_association_is_told_whole_and_signed() {
    let app = TestApp::identity(|_| {});

    let association = bound(&app, ALICE, "Alice@example.org").await;

    assert!(is_signed(&app, &association).await);
    let mut told = association;
    told.as_object_mut().unwrap().remove("signatures");
    let now = 1_795_341_600_000_i64;
    let wanted = json!({
        "medium": "email", "address": "alice@example.org", "mxid": ALICE,
        "ts": now, "not_before": now, "not_after": now + 3_155_760_000_000_i64,
    });
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn a_user_is_found_by_what_they_bound() {
    let app = TestApp::identity(|_| {});

    bound(&app, ALICE, "Alice@example.org").await;
    bound(&app, ALICE, "07700900001").await;

    let found_by = async |medium, address| found(&app, medium, address).await;
    assert_eq!(
        found_by("email", "alice@example.org").await.as_deref(),
        Some(ALICE)
    );
    assert_eq!(
        found_by("msisdn", "447700900001").await.as_deref(),
        Some(ALICE)
    );
    assert_eq!(found_by("email", "bob@example.org").await, None);
}

#[tokio::test]
async fn whoever_proves_an_address_later_is_found_by_it() {
    let app = TestApp::identity(|_| {});
    bound(&app, ALICE, "shared@example.org").await;

    bound(&app, BOB, "shared@example.org").await;

    assert_eq!(
        found(&app, "email", "shared@example.org").await.as_deref(),
        Some(BOB)
    );
}

#[tokio::test]
async fn the_same_binding_may_be_asked_for_again() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = proved(&app, &token, "alice@example.org").await;
    let first = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;

    let again = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;

    assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
    assert_eq!(first.json(), again.json());
}

#[tokio::test]
async fn nobody_binds_for_somebody_else() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = proved(&app, &token, "alice@example.org").await;
    let unknown = json!({ "sid": "1", "client_secret": "x" });

    for pair in [pair, unknown] {
        for mxid in [BOB, "@alice:example.org:443", "@ALICE:example.org"] {
            let answer = app.post_as(&token, BIND, &binding(&pair, mxid)).await;
            assert_eq!(answer.status, 403, "{mxid}");
            assert_eq!(answer.errcode(), "M_UNAUTHORIZED");
        }
    }
    assert_eq!(found(&app, "email", "alice@example.org").await, None);
}

#[tokio::test]
async fn a_binding_that_lacks_something_is_refused() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let whole = binding(&json!({ "sid": "1", "client_secret": "x" }), ALICE);
    for key in ["sid", "client_secret", "mxid"] {
        let mut body = whole.clone();
        body.as_object_mut().unwrap().remove(key);
        let answer = app.post_as(&token, BIND, &body).await;
        assert_eq!(answer.refusal(), refusal(400, "M_MISSING_PARAMS"));
    }
    for mxid in [
        "",
        "alice",
        "@alice",
        "@:example.org",
        "@alice:example.org:x",
        "@a b:example.org",
    ] {
        let mut body = whole.clone();
        body["mxid"] = json!(mxid);
        let answer = app.post_as(&token, BIND, &body).await;
        assert_eq!(answer.status, 400, "{mxid}");
        assert_eq!(answer.errcode(), "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn a_form_binds_only_where_the_operator_takes_forms() {
    for (legacy, status) in [(true, 200), (false, 400)] {
        let app = TestApp::identity(|settings| settings.legacy = legacy);
        let token = app.identity_token(ALICE).await;
        let pair = proved(&app, &token, "alice@example.org").await;
        let form = format!("{}&mxid=%40alice%3Aexample.org", query(&pair));
        let request = Request::post(format!("{IDENTITY}/{BIND}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");

        let answer = app.send(request.body(form.into()).unwrap()).await;

        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn an_account_binds_only_so_often() {
    let app = TestApp::with(|builder| {
        let limits = limits::Settings {
            per_account: Rate::new(2, Duration::from_mins(1)),
            ..limits::Settings::OFF
        };
        with_identity(builder.limits(limits), |_| {})
    });
    let token = app.identity_token(ALICE).await;
    let body = binding(&json!({ "sid": "1", "client_secret": "x" }), ALICE);
    for _ in 0..2 {
        assert_eq!(app.post_as(&token, BIND, &body).await.status, 404);
    }

    let answer = app.post_as(&token, BIND, &body).await;

    assert_eq!(answer.status, 429);
    assert_eq!(answer.errcode(), "M_LIMIT_EXCEEDED");
    assert_eq!(answer.json()["retry_after_ms"], 30_000);
}

#[tokio::test]
async fn a_proof_that_is_older_than_another_user_s_binds_nothing() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let pair = proved(&app, &token, "shared@example.org").await;
    app.wait(Duration::from_hours(1));
    bound(&app, BOB, "shared@example.org").await;

    let late = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;
    let mut unbinding = binding(&pair, BOB);
    unbinding["threepid"] = json!({ "medium": "email", "address": "shared@example.org" });
    let path = format!("{IDENTITY}/3pid/unbind");
    let ended = app.post(&path, &unbinding).await;
    let later = app.post_as(&token, BIND, &binding(&pair, ALICE)).await;

    for late in [late, later] {
        assert_eq!(late.status, 404, "{}", late.text);
        assert_eq!(late.errcode(), "M_NO_VALID_SESSION");
    }
    assert_eq!(ended.status, 403, "{}", ended.text);
    assert_eq!(ended.errcode(), "M_FORBIDDEN");
    let owner = found(&app, "email", "shared@example.org").await;
    assert_eq!(owner.as_deref(), Some(BOB));
    app.wait(Duration::from_hours(1));
    bound(&app, ALICE, "shared@example.org").await;
    let owner = found(&app, "email", "shared@example.org").await;
    assert_eq!(owner.as_deref(), Some(ALICE));
}

#[tokio::test]
async fn of_two_who_proved_an_address_the_later_proof_counts_whoever_binds_first() {
    let app = TestApp::identity(|_| {});
    let (alice, bob) = (
        app.identity_token(ALICE).await,
        app.identity_token(BOB).await,
    );
    let earlier = proved(&app, &alice, "shared@example.org").await;
    app.wait(Duration::from_mins(1));
    let later = proved(&app, &bob, "shared@example.org").await;
    app.wait(Duration::from_mins(1));
    let first = app.post_as(&alice, BIND, &binding(&earlier, ALICE)).await;
    assert_eq!(first.status, 200, "{}", first.text);
    app.wait(Duration::from_mins(1));

    let second = app.post_as(&bob, BIND, &binding(&later, BOB)).await;
    let third = app.post_as(&alice, BIND, &binding(&earlier, ALICE)).await;

    assert_eq!(second.status, 200, "{}", second.text);
    assert_eq!(third.errcode(), "M_NO_VALID_SESSION");
    let owner = found(&app, "email", "shared@example.org").await;
    assert_eq!(owner.as_deref(), Some(BOB));
}

#[tokio::test]
async fn binding_again_with_an_old_proof_makes_nobody_s_newer_proof_useless() {
    let app = TestApp::identity(|_| {});
    let (alice, bob) = (
        app.identity_token(ALICE).await,
        app.identity_token(BOB).await,
    );
    let old = proved(&app, &alice, "shared@example.org").await;
    app.post_as(&alice, BIND, &binding(&old, ALICE)).await;
    app.wait(Duration::from_hours(1));
    let new = proved(&app, &bob, "shared@example.org").await;
    app.wait(Duration::from_hours(1));
    let again = app.post_as(&alice, BIND, &binding(&old, ALICE)).await;
    assert_eq!(again.status, 200, "{}", again.text);

    let answer = app.post_as(&bob, BIND, &binding(&new, BOB)).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let owner = found(&app, "email", "shared@example.org").await;
    assert_eq!(owner.as_deref(), Some(BOB));
}
