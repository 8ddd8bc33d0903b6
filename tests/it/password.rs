//! `account/password`: a new password for whoever proved an address of the account.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};
use threepid::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::Directory,
    password::PasswordPolicy,
    secret::AccessToken,
    store::{Bound, Contact},
    threepid::{Medium, Threepid},
    validation::{Validate, Validates},
};

use crate::support::{accounts::FakeAccounts, app::*, resets::*};

/// Only the name of the session differs from answer to answer.
fn blotted(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    assert!(body["session"].is_string(), "{body}");
    body["session"] = json!("…");
    (answer.status.as_u16(), body)
}

fn with_phones() -> impl Future<Output = Resets> {
    Resets::with(|builder| builder.validates(Medium::Msisdn, Validates::all(Validate::Here)))
}

#[tokio::test]
async fn without_auth_it_tells_the_flows() {
    let resets = Resets::new().await;
    for body in [
        json!({}),
        json!({ "new_password": "new" }),
        json!({ "auth": null }),
        json!({ "auth": { "session": "x" } }),
    ] {
        let answer = resets.app.post(RESET, &body).await;

        assert_eq!(
            blotted(&answer),
            (
                401,
                json!({
                    "session": "…",
                    "flows": [{ "stages": ["m.login.email.identity"] }],
                    "params": {},
                    "completed": [],
                })
            )
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_session_of_ours_goes_on_and_another_gives_way() {
    let resets = Resets::new().await;
    let named = |session: &Value| json!({ "auth": { "session": session } });
    let first = resets.app.post(RESET, &json!({})).await.json()["session"].clone();

    let again = resets.app.post(RESET, &named(&first)).await.json();
    assert_eq!(again["session"], first);
    let foreign = resets.app.post(RESET, &named(&json!("x"))).await.json();
    assert_ne!(foreign["session"], "x");
    resets.app.wait(Duration::from_hours(1));
    let over = resets.app.post(RESET, &named(&first)).await.json();
    assert_ne!(over["session"], first);
}

#[tokio::test]
async fn every_stage_that_is_not_done_looks_alike() {
    let resets = Resets::new().await;
    let pending = resets.mailed().await;
    let decoy = json!({ "client_secret": "monkeys_are_GREAT", "email": "nobody@example.org", "send_attempt": 1 });
    let decoy = resets.app.post(PASSWORD, &decoy).await.sid();
    let new = json!({ "client_secret": "monkeys_are_GREAT", "email": "new@example.org", "send_attempt": 1 });
    resets.app.mails().await;
    let other = resets.app.post(REGISTER, &new).await.sid();
    let code = code(&resets.app.mail().await);
    resets.app.post(SUBMIT, &shown(&other, &code)).await;
    let wanted = blotted(&resets.set(&pending.sid, "new").await);

    assert_eq!(wanted.0, 401);
    assert_eq!(wanted.1["errcode"], "M_UNAUTHORIZED");
    for sid in ["unknown", &decoy, &other] {
        assert_eq!(blotted(&resets.set(sid, "new").await), wanted, "{sid}");
    }
    let mut wrong = setting(&pending.sid, "new");
    wrong["auth"]["threepid_creds"]["client_secret"] = json!("wrong");
    assert_eq!(blotted(&resets.app.post(RESET, &wrong).await), wanted);
    resets.app.wait(Duration::from_hours(24));
    assert_eq!(blotted(&resets.set(&pending.sid, "new").await), wanted);
    assert_eq!(resets.password(), "old");
}

#[tokio::test]
async fn a_proved_address_sets_the_password_once() {
    let resets = Resets::new().await;
    let sid = resets.proved().await.sid;

    let first = resets.set(&sid, "new").await;
    let again = resets.set(&sid, "new").await;
    let other = resets.set(&sid, "other").await;

    assert_eq!((first.status.as_u16(), first.json()), (200, json!({})));
    assert_eq!((again.status.as_u16(), again.json()), (200, json!({})));
    assert_eq!(other.status, 401);
    assert_eq!(other.errcode(), "M_UNAUTHORIZED");
    let wanted = (OWNER.to_owned(), "new".to_owned(), true);
    assert_eq!(resets.accounts.resets(), [wanted]);
}

#[tokio::test]
async fn devices_stay_logged_in_if_the_client_says_so() {
    let resets = Resets::new().await;
    let sid = resets.proved().await.sid;
    let mut body = setting(&sid, "new");
    body["logout_devices"] = json!(false);

    assert_eq!(resets.app.post(RESET, &body).await.status, 200);

    assert!(!resets.accounts.resets()[0].2);
    assert_eq!(
        resets.set(&sid, "new").await.status,
        401,
        "it is another request"
    );
}

#[tokio::test]
async fn all_prefixes_and_old_spellings_work() {
    for prefix in ["v3", "r0", "unstable", "api/v1"] {
        let resets = Resets::new().await;
        let sid = resets.proved().await.sid;
        let creds = json!({ "sid": sid, "client_secret": "monkeys_are_GREAT", "id_server": "x" });
        let body = json!({
            "new_password": "new",
            "auth": { "type": "m.login.email.identity", "threepidCreds": creds },
        });

        let path = format!("/_matrix/client/{prefix}/account/password");

        assert_eq!(resets.app.post(&path, &body).await.status, 200, "{prefix}");
        assert_eq!(resets.app.get(&path, &[]).await.errcode(), "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn all_addresses_of_the_account_are_told() {
    let resets = Resets::new().await;
    resets.app.own(OWNER, "second@example.org").await;
    resets.app.own(OWNER, "07700900001").await;
    let sid = resets.proved().await.sid;

    resets.set(&sid, "new").await;

    let mut mails = resets.app.mails().await;
    mails.sort_by(|one, other| one.to.cmp(&other.to));
    let to: Vec<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    assert_eq!(to, ["alice@example.org", "second@example.org"]);
    for mail in &mails {
        assert!(mail.subject.contains("password"), "{}", mail.subject);
        assert!(mail.text.contains(OWNER), "{}", mail.text);
        assert!(mail.text.contains("127.0.0.0/24"), "{}", mail.text);
        assert!(!mail.text.contains("http"), "{}", mail.text);
    }
    assert!(mails[0].id != mails[1].id);
}

#[tokio::test]
async fn the_other_resets_of_the_account_end() {
    let resets = Resets::new().await;
    let mut elsewhere = alice(1);
    elsewhere["client_secret"] = json!("other");
    let other = resets.asked(&elsewhere).await;
    let sid = resets.proved().await.sid;

    assert_eq!(resets.set(&sid, "new").await.status, 200);

    assert_eq!(resets.app.get(&other.link, &[]).await.status, 410);
}

#[tokio::test]
async fn a_weak_password_spends_nothing() {
    let resets = Resets::new().await;
    resets.accounts.demand(PasswordPolicy {
        minimum_length: 8,
        ..PasswordPolicy::default()
    });
    let sid = resets.proved().await.sid;

    let weak = resets.set(&sid, "short").await;
    let empty = resets.set(&sid, "").await;

    assert_eq!(
        (weak.status.as_u16(), &*weak.errcode()),
        (400, "M_WEAK_PASSWORD")
    );
    assert!(weak.text.contains("8 characters"), "{}", weak.text);
    assert_eq!(
        (empty.status.as_u16(), &*empty.errcode()),
        (400, "M_WEAK_PASSWORD")
    );
    assert!(resets.accounts.resets().is_empty());
    assert_eq!(resets.set(&sid, "long enough").await.status, 200);
}

#[tokio::test]
async fn what_the_request_lacks_is_told_once_the_stage_is_done() {
    let resets = Resets::new().await;
    let pending = resets.mailed().await;
    let auth = email_stage(&pending.sid);
    let bodies = [
        (json!({ "auth": auth }), "M_MISSING_PARAM"),
        (json!({ "auth": auth, "new_password": 1 }), "M_BAD_JSON"),
        (
            json!({ "auth": auth, "new_password": "x".repeat(513) }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "auth": auth, "new_password": "new", "logout_devices": "yes" }),
            "M_BAD_JSON",
        ),
    ];
    for (body, _) in &bodies {
        assert_eq!(resets.app.post(RESET, body).await.status, 401, "{body}");
    }
    resets
        .app
        .post(SUBMIT, &shown(&pending.sid, &pending.code))
        .await;

    for (body, errcode) in &bodies {
        let answer = resets.app.post(RESET, body).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.errcode()),
            (400, *errcode)
        );
    }
    assert_eq!(resets.set(&pending.sid, "new").await.status, 200);
}

#[tokio::test]
async fn an_auth_that_is_no_stage_is_never_401() {
    let resets = Resets::new().await;
    for (auth, errcode) in [
        (json!("x"), "M_BAD_JSON"),
        (json!({ "type": 1 }), "M_BAD_JSON"),
        (json!({ "type": "m.login.password" }), "M_INVALID_PARAM"),
        (json!({ "type": "m.login.msisdn" }), "M_INVALID_PARAM"),
        (
            json!({ "type": "m.login.email.identity" }),
            "M_MISSING_PARAM",
        ),
        (json!({ "threepid_creds": {} }), "M_MISSING_PARAM"),
        (
            json!({ "type": "m.login.email.identity", "threepid_creds": { "sid": "s" } }),
            "M_MISSING_PARAM",
        ),
        (
            json!({ "type": "m.login.email.identity", "threepid_creds": { "sid": "s", "client_secret": 1 } }),
            "M_INVALID_PARAM",
        ),
    ] {
        let body = json!({ "new_password": "new", "auth": auth });
        let answer = resets.app.post(RESET, &body).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.errcode()),
            (400, errcode),
            "{body}"
        );
    }
}

#[tokio::test]
async fn an_address_that_the_account_lost_resets_nothing() {
    let resets = Resets::new().await;
    let sid = resets.proved().await.sid;
    let address = Threepid::email("alice@example.org").unwrap();
    let directory = resets.app.threepid.directory();
    directory.unbind(OWNER, &address).await.unwrap();
    resets
        .app
        .own("@next:example.org", "alice@example.org")
        .await;

    let answer = resets.set(&sid, "new").await;

    assert_eq!(
        (answer.status.as_u16(), &*answer.errcode()),
        (404, "M_THREEPID_NOT_FOUND")
    );
    assert!(resets.accounts.resets().is_empty());
    assert_eq!(
        resets.set(&sid, "new").await.status,
        401,
        "the session is over"
    );
}

#[tokio::test]
async fn an_account_that_is_gone_ends_the_session() {
    let resets = Resets::new().await;
    resets.accounts.fail(Some(Error::AccountGone));
    let sid = resets.proved().await.sid;

    assert_eq!(resets.set(&sid, "new").await.status, 404);

    resets.accounts.fail(None);
    assert_eq!(resets.set(&sid, "new").await.status, 401);
    assert!(resets.app.mails().await.is_empty());
}

#[tokio::test]
async fn a_homeserver_that_failed_leaves_the_proof() {
    let resets = Resets::new().await;
    let sid = resets.proved().await.sid;
    for (fault, status) in [
        (Error::HomeserverFailed("down".to_owned()), 502),
        (Error::WeakPassword("It is your name.".into()), 400),
    ] {
        resets.accounts.fail(Some(fault));
        let answer = resets.set(&sid, "other").await;
        assert_eq!(answer.status, status);
        assert!(!answer.text.contains("down"));
    }
    resets.accounts.fail(None);

    assert_eq!(resets.set(&sid, "new").await.status, 200);
    assert_eq!(resets.password(), "new");
}

#[tokio::test]
async fn after_a_time_out_the_same_request_goes_on_and_no_other() {
    let resets = Resets::new().await;
    let sid = resets.proved().await.sid;
    let late = Error::HomeserverTimeout("slow".to_owned());
    resets.accounts.fail(Some(late));
    assert_eq!(resets.set(&sid, "new").await.status, 504);
    resets.accounts.fail(None);

    let other = resets.set(&sid, "other").await;
    let same = resets.set(&sid, "new").await;

    assert_eq!((other.status.as_u16(), same.status.as_u16()), (409, 200));
    assert_eq!(resets.password(), "new");
    assert_eq!(resets.app.mails().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_equal_requests_at_once_one_sets_the_password() {
    let resets = Arc::new(Resets::new().await);
    let sid = resets.proved().await.sid;
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let (resets, sid) = (Arc::clone(&resets), sid.clone());
            tokio::spawn(async move { resets.set(&sid, "new").await.status })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(resets.accounts.resets().len(), 1);
    assert_eq!(resets.app.mails().await.len(), 1);
}

#[tokio::test]
async fn a_request_with_a_token_goes_to_the_homeserver_as_it_came() {
    let resets = Resets::new().await;
    let path = "/_matrix/client/r0/account/password?user_id=%40a%3Ab";
    let request = http::Request::post(path)
        .header("authorization", "Bearer syt_x")
        .body(axum::body::Body::from("{\"a\": 1, \"a\": 2}"))
        .unwrap();

    let answer = resets.app.send(request).await;

    assert_eq!(answer.status, 429);
    assert_eq!(answer.text, r#"{"errcode":"M_LIMIT_EXCEEDED"}"#);
    assert_eq!(answer.header("retry-after"), "7");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let passed = resets.accounts.passed_on().remove(0);
    assert_eq!(passed.method, "POST");
    assert_eq!(passed.path_and_query, path);
    assert_eq!(passed.body, b"{\"a\": 1, \"a\": 2}");
    assert!(passed.access_token == Some(AccessToken::parse("syt_x").unwrap()));
}

#[tokio::test]
async fn a_password_that_is_changed_ends_the_resets_that_were_asked_for() {
    let resets = Resets::new().await;
    let proved = resets.proved().await;
    let request = http::Request::post(RESET)
        .header("authorization", "Bearer syt_x")
        .body(axum::body::Body::from("{\"new_password\":\"hers\"}"))
        .unwrap();

    assert_eq!(resets.app.send(request).await.status, 200);

    assert_eq!(resets.set(&proved.sid, "stolen").await.status, 401);
    assert!(resets.accounts.resets().is_empty());
}

#[tokio::test]
async fn a_stage_that_is_done_is_not_repeated_in_its_session() {
    let resets = Resets::new().await;
    let proved = resets.proved().await;
    let challenge = resets.app.post(RESET, &json!({})).await.json();
    let session = json!({ "session": challenge["session"] });
    let mut shown = email_stage(&proved.sid);
    shown["session"] = challenge["session"].clone();

    let without = resets.app.post(RESET, &json!({ "auth": shown })).await;
    let by_session = json!({ "new_password": "new", "auth": session });
    let set = resets.app.post(RESET, &by_session).await;
    let again = resets.app.post(RESET, &by_session).await;

    assert_eq!(without.errcode(), "M_MISSING_PARAM");
    assert_eq!((set.status.as_u16(), set.json()), (200, json!({})));
    assert_eq!((again.status.as_u16(), again.json()), (200, json!({})));
    assert_eq!(resets.accounts.resets().len(), 1);
}

#[tokio::test]
async fn what_is_ended_looks_as_if_nobody_had_an_account() {
    let resets = Resets::new().await;
    let mailed = resets.mailed().await;
    let mut other = alice(1);
    other["client_secret"] = json!("another.secret");
    let sid = resets.asked(&other).await;
    resets
        .app
        .post(
            SUBMIT,
            &json!({ "sid": sid.sid, "client_secret": "another.secret", "token": sid.code }),
        )
        .await;
    let mut done = setting(&sid.sid, "new");
    done["auth"]["threepid_creds"]["client_secret"] = json!("another.secret");
    assert_eq!(resets.app.post(RESET, &done).await.status, 200);

    let repeated = resets.app.post(PASSWORD, &alice(1)).await;

    assert_eq!(repeated.sid(), mailed.sid, "as before");
    assert_eq!(resets.app.get(&mailed.link, &[]).await.status, 410);
    assert_eq!(resets.set(&mailed.sid, "stolen").await.status, 401);
}

#[tokio::test]
async fn without_a_homeserver_nobody_is_logged_out_and_no_password_set() {
    let app = TestApp::new();
    app.own(OWNER, "alice@example.org").await;
    let with_token = [("authorization", "Bearer syt_x")];
    let answer = app.bare("POST", RESET, &with_token).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.errcode()),
        (403, "M_FORBIDDEN")
    );
    let sid = app.post(PASSWORD, &alice(1)).await.sid();
    let code = code(&app.mail().await);
    app.post(SUBMIT, &shown(&sid, &code)).await;

    let answer = app.post(RESET, &setting(&sid, "new")).await;

    assert_eq!(
        (answer.status.as_u16(), &*answer.errcode()),
        (403, "M_FORBIDDEN")
    );
}

#[tokio::test]
async fn an_operator_may_turn_it_off() {
    let resets = Resets::with(|builder| builder.password_change(false)).await;
    for headers in [&[][..], &[("authorization", "Bearer syt_x")]] {
        let answer = resets.app.bare("POST", RESET, headers).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.errcode()),
            (403, "M_FORBIDDEN")
        );
    }
    assert!(resets.accounts.passed_on().is_empty());
}

#[tokio::test]
async fn a_number_resets_only_where_the_operator_lets_it() {
    let resets = with_phones().await;
    resets.app.own(OWNER, "07700900001").await;
    let sid = resets
        .app
        .post(PASSWORD_PHONE, &alices_phone(1))
        .await
        .sid();
    let code = code(&resets.app.mail().await);
    resets.app.post(SUBMIT_PHONE, &shown(&sid, &code)).await;
    let flows = resets.app.post(RESET, &json!({})).await.json()["flows"].clone();

    let as_email = resets.set(&sid, "new").await;
    let mut body = setting(&sid, "new");
    body["auth"]["type"] = json!("m.login.msisdn");
    let as_number = resets.app.post(RESET, &body).await;

    assert_eq!(
        flows,
        json!([{ "stages": ["m.login.email.identity"] }, { "stages": ["m.login.msisdn"] }])
    );
    assert_eq!(
        (as_email.status.as_u16(), as_number.status.as_u16()),
        (401, 200)
    );
    assert_eq!(resets.set(&sid, "new").await.status, 401, "nor afterwards");
    let mail = resets.app.mail().await;
    assert_eq!(mail.to, "alice@example.org", "and the mails are told");
}

#[tokio::test]
async fn an_account_with_a_number_alone_is_told_by_text_message() {
    let resets = with_phones().await;
    let accounts = FakeAccounts::of(&["@phone:example.org"]);
    let app = TestApp::with(|builder| {
        builder
            .validates(Medium::Msisdn, Validates::all(Validate::Here))
            .accounts(accounts)
    });
    drop(resets);
    app.own("@phone:example.org", "07700900001").await;
    let sid = app.post(PASSWORD_PHONE, &alices_phone(1)).await.sid();
    let code = code(&app.mail().await);
    app.post(SUBMIT_PHONE, &shown(&sid, &code)).await;
    let mut body = setting(&sid, "new");
    body["auth"]["type"] = json!("m.login.msisdn");

    assert_eq!(app.post(RESET, &body).await.status, 200);

    let told = app.mail().await;
    assert_eq!((&*told.medium, &*told.to), ("msisdn", "447700900001"));
    assert!(told.text.contains("password of your account was changed"));
}

/// A directory that knows who owns alice's address, and can not list an account's.
#[derive(Debug)]
struct Listless;

#[async_trait]
impl Directory for Listless {
    async fn owner(&self, _: &Threepid) -> Result<Option<String>> {
        Ok(Some(OWNER.to_owned()))
    }

    async fn bind(
        &self,
        _: &str,
        _: &Threepid,
        _: Option<Timestamp>,
        _: Timestamp,
    ) -> Result<Bound> {
        Ok(Bound::Bound)
    }

    async fn unbind(&self, _: &str, _: &Threepid) -> Result<bool> {
        Ok(false)
    }

    async fn list(&self, _: &str) -> Result<Vec<Contact>> {
        Err(Error::HomeserverFailed("no list".to_owned()))
    }
}

#[tokio::test]
async fn if_the_account_s_addresses_are_not_to_be_had_the_proved_one_is_told() {
    let resets = Resets::with(|builder| builder.directory(Arc::new(Listless))).await;
    let sid = resets.proved().await.sid;

    assert_eq!(resets.set(&sid, "new").await.status, 200);

    assert_eq!(resets.app.mail().await.to, "alice@example.org");
}
