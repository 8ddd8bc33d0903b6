//! The addresses of an account: listed, added once they are proved, deleted.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use threepid::{limits, rate::Rate};

use crate::support::{app::*, host::*};

/// Where addresses are listed, and added as in old times.
pub(crate) const THREEPID: &str = "/_matrix/client/v3/account/3pid";
/// Where addresses are added.
pub(crate) const ADD_TO: &str = "/_matrix/client/v3/account/3pid/add";
/// Where addresses are deleted.
pub(crate) const DELETE: &str = "/_matrix/client/v3/account/3pid/delete";

/// What a client knows of a session.
pub(crate) fn session(sid: &str) -> Value {
    json!({ "sid": sid, "client_secret": "monkeys_are_GREAT" })
}

/// The same, with the password.
pub(crate) fn with_password(mut body: Value) -> Value {
    body["auth"] = json!({ "type": "m.login.password", "password": PASSPHRASE });
    body
}

/// Asks for a token and shows it.
pub(crate) async fn prove(app: &TestApp, path: &str, body: &Value) -> String {
    let sid = app.post(path, body).await.sid();
    let message = app.mail().await;
    let submit = if message.medium == "msisdn" {
        SUBMIT_PHONE
    } else {
        SUBMIT
    };
    let shown = app.post(submit, &shown(&sid, &code(&message))).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    sid
}

async fn list(app: &TestApp, token: &str) -> Value {
    let answer = app
        .send(as_user("GET", token, THREEPID, &Value::Null))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn an_address_that_is_proved_is_added_and_listed() {
    let host = Host::new();
    let app = host.app();
    let sid = prove(&app, ADD, &alice(1)).await;
    assert_eq!(list(&app, HERS).await, json!({ "threepids": [] }));

    let added = post_as(&app, HERS, ADD_TO, &with_password(session(&sid))).await;

    assert_eq!((added.status.as_u16(), added.json()), (200, json!({})));
    let now = app.threepid.now();
    assert_eq!(
        list(&app, HERS).await,
        json!({ "threepids": [{
            "medium": "email", "address": "alice@example.org", "validated_at": now, "added_at": now,
        }] })
    );
    assert_eq!(list(&app, HIS).await, json!({ "threepids": [] }));
}

#[tokio::test]
async fn an_address_whose_proof_nobody_saw_is_listed_with_all_four_keys() {
    let host = Host::new();
    host.give(ALICE, "msisdn", "447700900001");

    let listed = list(&host.app(), HERS).await;

    let added_at = 1_795_000_000_000_i64;
    assert_eq!(
        listed["threepids"],
        json!([{ "medium": "msisdn", "address": "447700900001", "validated_at": added_at, "added_at": added_at }])
    );
}

#[tokio::test]
async fn a_phone_number_is_added_too() {
    let host = Host::new();
    let app = host.app();
    let sid = prove(&app, ADD_PHONE, &alices_phone(1)).await;

    let added = post_as(&app, HERS, ADD_TO, &with_password(session(&sid))).await;

    assert_eq!(added.status, 200);
    assert_eq!(host.addresses(ALICE), ["447700900001"]);
}

#[tokio::test]
async fn a_proof_that_was_meant_for_signing_up_is_taken() {
    let host = Host::new();
    let app = host.app();
    let sid = prove(&app, REGISTER, &alice(1)).await;

    let added = post_as(&app, HERS, ADD_TO, &with_password(session(&sid))).await;

    assert_eq!(added.status, 200);
}

#[tokio::test]
async fn the_deprecated_endpoint_adds_whatever_its_session_is_called() {
    for (number, wrap) in [
        (
            0,
            (|it| json!({ "three_pid_creds": it })) as fn(Value) -> Value,
        ),
        (1, |it| json!({ "threePidCreds": it, "bind": true })),
        (2, |it| json!({ "threePidCreds": [it] })),
    ] {
        let host = Host::new();
        let app = host.app();
        let mut creds = session(&prove(&app, ADD, &alice(1)).await);
        creds["id_server"] = json!("not a server at all");
        let body = wrap(creds);

        let asked = post_as(&app, HERS, THREEPID, &body).await;
        let added = post_as(&app, HERS, THREEPID, &with_password(body)).await;

        assert_eq!(asked.status, 401, "it asks for the password too ({number})");
        assert_eq!((added.status.as_u16(), added.json()), (200, json!({})));
        assert_eq!(host.addresses(ALICE), ["alice@example.org"]);
    }
}

#[tokio::test]
async fn whoever_has_no_token_is_told_so_before_anything_else() {
    let app = Host::new().app();
    let paths = ["", "/add", "/bind", "/delete", "/unbind"].map(|path| format!("{THREEPID}{path}"));
    for path in paths {
        let none = app.post_text(&path, "no JSON").await;
        let unknown = post_as(&app, "unknown", &path, &json!([])).await;
        let guest = post_as(&app, GUEST, &path, &json!({})).await;

        assert_eq!(
            (none.status.as_u16(), none.errcode().as_str()),
            (401, "M_MISSING_TOKEN")
        );
        assert_eq!(
            (unknown.status.as_u16(), unknown.errcode().as_str()),
            (401, "M_UNKNOWN_TOKEN")
        );
        assert_eq!(
            (guest.status.as_u16(), guest.errcode().as_str()),
            (403, "M_GUEST_ACCESS_FORBIDDEN")
        );
    }
    assert_eq!(app.get(THREEPID, &[]).await.errcode(), "M_MISSING_TOKEN");
}

#[tokio::test]
async fn every_prefix_has_all_endpoints_with_their_methods_and_headers() {
    let app = Host::new().app();
    for prefix in ["v3", "r0", "unstable", "api/v1"] {
        for path in ["", "/add", "/bind", "/delete", "/unbind"] {
            let path = format!("/_matrix/client/{prefix}/account/3pid{path}");
            let posted = app.post(&path, &json!({})).await;
            let wrong = app.bare("PUT", &path, &[]).await;
            let options = app
                .bare("OPTIONS", &path, &[("Origin", "https://a.example")])
                .await;

            assert_eq!(posted.errcode(), "M_MISSING_TOKEN", "{path}");
            assert_eq!(posted.header("access-control-allow-origin"), "*");
            assert_eq!(
                (wrong.status.as_u16(), wrong.errcode().as_str()),
                (405, "M_UNRECOGNIZED")
            );
            assert_eq!(options.status, 200);
        }
    }
}

#[tokio::test]
async fn an_account_changes_its_addresses_only_so_often() {
    let host = Host::new();
    let app = TestApp::with(|builder| {
        host.set()(builder).limits(limits::Settings {
            per_account: Rate::new(2, Duration::from_hours(1)),
            ..limits::Settings::OFF
        })
    });
    let gone = json!({ "medium": "email", "address": "nobody@example.org" });
    for _ in 0..2 {
        assert_eq!(post_as(&app, HERS, DELETE, &gone).await.status, 200);
    }

    let limited = post_as(&app, HERS, DELETE, &gone).await;

    assert_eq!(limited.errcode(), "M_LIMIT_EXCEEDED");
    assert_eq!(post_as(&app, HIS, DELETE, &gone).await.status, 200);
    assert_eq!(list(&app, HERS).await, json!({ "threepids": [] }));
}

#[tokio::test]
async fn without_a_homeserver_nobody_is_told_that_their_token_is_unknown() {
    let app = TestApp::new();
    let contacts = "/_matrix/client/v3/account/3pid";

    let without = app.get(contacts, &[]).await;
    let with = app.get(contacts, &[("Authorization", "Bearer t")]).await;

    assert_eq!(
        (without.status.as_u16(), without.errcode().as_str()),
        (401, "M_MISSING_TOKEN")
    );
    // A client that is told M_UNKNOWN_TOKEN logs out.
    assert_eq!(
        (with.status.as_u16(), with.errcode().as_str()),
        (403, "M_FORBIDDEN")
    );
}

#[tokio::test]
async fn a_body_without_a_session_is_refused() {
    let app = Host::new().app();
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAM"),
        (json!({ "sid": "1" }), "M_MISSING_PARAM"),
        (json!({ "client_secret": "s" }), "M_MISSING_PARAM"),
        (
            json!({ "sid": "a b", "client_secret": "s" }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "sid": "1", "client_secret": "ä" }),
            "M_INVALID_PARAM",
        ),
        (json!({ "sid": 1, "client_secret": "s" }), "M_BAD_JSON"),
        (
            json!({ "sid": "1", "client_secret": "s", "auth": "x" }),
            "M_BAD_JSON",
        ),
        (
            json!({ "sid": "1", "client_secret": "s", "auth": { "session": 1 } }),
            "M_BAD_JSON",
        ),
        (json!([]), "M_BAD_JSON"),
    ] {
        let answer = post_as(&app, HERS, ADD_TO, &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (400, errcode),
            "{body}"
        );
    }
    let answer = post_as(&app, HERS, THREEPID, &json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.errcode().as_str()),
        (400, "M_MISSING_PARAM")
    );
}

/// Sessions that prove nothing to Alice, by what is wrong with them.
async fn worthless(app: &TestApp) -> Vec<(&'static str, Value)> {
    let late = prove(app, ADD, &json!({ "client_secret": "monkeys_are_GREAT", "email": "late@example.org", "send_attempt": 1 })).await;
    app.wait(Duration::from_hours(24));
    let pending = app.post(ADD, &alice(1)).await.sid();
    app.mails().await;
    let reset = json!({ "client_secret": "monkeys_are_GREAT", "email": "carol@example.org", "send_attempt": 1 });
    let reset = prove(app, PASSWORD, &reset).await;
    let his = json!({ "client_secret": "monkeys_are_GREAT", "email": "bob@example.org", "send_attempt": 1 });
    let his_sid = post_as(app, HIS, ADD, &his).await.sid();
    let message = app.mail().await;
    app.post(SUBMIT, &shown(&his_sid, &code(&message))).await;
    vec![
        ("unknown", session("1234")),
        ("pending", session(&pending)),
        ("expired", session(&late)),
        ("of a reset", session(&reset)),
        ("tied to Bob", session(&his_sid)),
        (
            "with another secret",
            json!({ "sid": his_sid, "client_secret": "another" }),
        ),
    ]
}

#[tokio::test]
async fn a_session_that_proves_nothing_is_refused_before_the_password_is_spent() {
    let host = Host::new();
    host.give("@carol:example.org", "email", "carol@example.org");
    let app = host.app();
    for (what, body) in worthless(&app).await {
        let old = with_password(json!({ "three_pid_creds": body }));

        let refused = post_as(&app, HERS, ADD_TO, &with_password(body)).await;
        let refused_old = post_as(&app, HERS, THREEPID, &old).await;

        let [now, then] = [&refused, &refused_old].map(|it| (it.status.as_u16(), it.errcode()));
        assert_eq!(now, (400, "M_THREEPID_AUTH_FAILED".to_owned()), "{what}");
        assert_eq!(then, (403, "M_THREEPID_AUTH_FAILED".to_owned()), "{what}");
    }
    assert!(host.shown().is_empty(), "the homeserver was not asked");
    assert!(host.addresses(ALICE).is_empty());
}

#[tokio::test]
async fn a_proof_is_for_one_request_and_its_repetitions() {
    let host = Host::new();
    let app = host.app();
    let sid = prove(&app, ADD, &alice(1)).await;
    let body = with_password(session(&sid));
    assert_eq!(post_as(&app, HERS, ADD_TO, &body).await.status, 200);

    let again = post_as(&app, HERS, ADD_TO, &body).await;
    let asked = post_as(&app, HERS, ADD_TO, &session(&sid)).await;
    let elsewhere = with_password(json!({ "three_pid_creds": session(&sid) }));
    let elsewhere = post_as(&app, HERS, THREEPID, &elsewhere).await;
    let bob = post_as(&app, HIS, ADD_TO, &body).await;

    assert_eq!((again.status.as_u16(), again.json()), (200, json!({})));
    assert_eq!(
        asked.status, 401,
        "a repetition is authenticated like any request"
    );
    assert_eq!((elsewhere.status.as_u16(), bob.status.as_u16()), (403, 400));
    assert_eq!(bob.errcode(), "M_THREEPID_AUTH_FAILED");
    assert_eq!(host.binds(), 1);
}

#[tokio::test]
async fn a_repetition_does_not_bring_back_what_was_deleted_since() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));
    post_as(&app, HERS, ADD_TO, &body).await;
    let named = json!({ "medium": "email", "address": "alice@example.org" });
    assert_eq!(post_as(&app, HERS, DELETE, &named).await.status, 200);

    post_as(&app, HERS, ADD_TO, &body).await;

    assert!(host.addresses(ALICE).is_empty());
}

#[tokio::test]
async fn requests_that_come_together_are_answered_alike() {
    let host = Host::new();
    let app = host.app();
    let body = with_password(session(&prove(&app, ADD, &alice(1)).await));

    let twins = (0..10).map(|_| post_as(&app, HERS, ADD_TO, &body));
    let answers = join_all(twins).await;

    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(host.binds(), 1);
}

#[tokio::test]
async fn of_two_accounts_with_proofs_of_one_address_one_gets_it() {
    let host = Host::new();
    let app = host.app();
    let hers = prove(&app, ADD, &alice(1)).await;
    let his = json!({ "client_secret": "his", "email": "ALICE@Example.org", "send_attempt": 1 });
    let his_sid = app.post(ADD, &his).await.sid();
    let token = code(&app.mail().await);
    let shown = json!({ "sid": his_sid, "client_secret": "his", "token": token });
    assert_eq!(app.post(SUBMIT, &shown).await.status, 200);
    let his = with_password(json!({ "sid": his_sid, "client_secret": "his" }));

    let first = post_as(&app, HERS, ADD_TO, &with_password(session(&hers))).await;
    let second = post_as(&app, HIS, ADD_TO, &his).await;

    assert_eq!(first.status, 200);
    assert_eq!(
        (second.status.as_u16(), second.errcode().as_str()),
        (400, "M_THREEPID_IN_USE")
    );
    assert!(host.addresses(BOB).is_empty());
}

#[tokio::test]
async fn an_address_that_the_account_has_already_is_added_again() {
    let host = Host::new();
    let app = host.app();
    let sid = prove(&app, ADD, &alice(1)).await;
    host.give(ALICE, "email", "alice@example.org");

    let added = post_as(&app, HERS, ADD_TO, &with_password(session(&sid))).await;

    assert_eq!(added.status, 200);
    assert_eq!(host.addresses(ALICE), ["alice@example.org"]);
}

#[tokio::test]
async fn where_changes_are_off_addresses_are_only_shown() {
    let host = Host::new();
    host.give(ALICE, "email", "alice@example.org");
    let set = host.set();
    let app = TestApp::with(|builder| set(builder).allow_changes(false));
    let named = json!({ "medium": "email", "address": "alice@example.org" });

    for path in [THREEPID, ADD_TO, DELETE] {
        let refused = app.post(path, &named).await;
        assert_eq!(
            (refused.status.as_u16(), refused.errcode().as_str()),
            (403, "M_FORBIDDEN")
        );
    }
    let unbound = post_as(&app, HERS, &format!("{THREEPID}/unbind"), &named).await;

    assert_eq!(unbound.status, 200);
    assert_eq!(
        list(&app, HERS).await["threepids"].as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn a_session_that_an_account_asked_for_is_that_account_s() {
    let host = Host::new();
    let app = host.app();
    let hers = post_as(&app, HERS, ADD, &alice(1)).await.sid();
    let token = code(&app.mail().await);
    let his = post_as(&app, HIS, ADD, &alice(2)).await.sid();
    app.mails().await;
    assert_eq!(app.post(SUBMIT, &shown(&hers, &token)).await.status, 200);

    let bob = post_as(&app, HIS, ADD_TO, &with_password(session(&hers))).await;
    let added = post_as(&app, HERS, ADD_TO, &with_password(session(&hers))).await;

    assert_ne!(hers, his, "a secret that Bob has guessed leads him nowhere");
    assert_eq!(bob.errcode(), "M_THREEPID_AUTH_FAILED");
    assert_eq!(added.status, 200);
}

#[tokio::test]
async fn who_asks_to_add_an_address_with_a_token_needs_one_that_is_good() {
    let app = Host::new().app();
    for path in [ADD, ADD_PHONE] {
        let body = if path == ADD {
            alice(1)
        } else {
            alices_phone(1)
        };
        assert_eq!(
            post_as(&app, "unknown", path, &body).await.errcode(),
            "M_UNKNOWN_TOKEN"
        );
        assert_eq!(
            post_as(&app, GUEST, path, &body).await.errcode(),
            "M_GUEST_ACCESS_FORBIDDEN"
        );
    }
    assert_eq!(
        post_as(&app, "unknown", REGISTER, &alice(1)).await.status,
        200
    );
    assert_eq!(TestApp::new().post(ADD, &alice(1)).await.status, 200);
}

#[tokio::test]
async fn nobody_has_the_homeserver_asked_for_tokens_without_limit() {
    let host = Host::new();
    let set = host.set();
    let app = TestApp::with(|builder| {
        set(builder).limits(limits::Settings {
            per_source: Rate::new(2, Duration::from_hours(1)),
            ..limits::Settings::OFF
        })
    });

    let known = post_as(&app, HERS, ADD, &alice(1)).await.status;
    let unknown = post_as(&app, "unknown", ADD, &alice(2)).await.status;
    let limited = post_as(&app, "unknown", ADD, &alice(2)).await.status;

    assert_eq!(
        [known, unknown, limited].map(|it| it.as_u16()),
        [200, 401, 429]
    );
}

#[tokio::test]
async fn an_account_deletes_its_own_address_however_it_is_written() {
    let host = Host::new();
    let app = host.app();
    for (medium, stored, written) in [
        ("email", "alice@example.org", "Alice@Example.ORG"),
        ("email", "Old@Example.org", "Old@Example.org"),
        ("email", "a%b@example.org", "a%b@example.org"),
        ("msisdn", "447700900001", "447700900001"),
        ("msisdn", "447700900001", "+447700900001"),
        ("msisdn", "12", "12"),
    ] {
        host.give(ALICE, medium, stored);

        let deleted = post_as(
            &app,
            HERS,
            DELETE,
            &json!({ "medium": medium, "address": written }),
        )
        .await;

        assert_eq!(
            deleted.json(),
            json!({ "id_server_unbind_result": "no-support" }),
            "{written}"
        );
        assert!(host.addresses(ALICE).is_empty(), "{written}");
    }
}

#[tokio::test]
async fn somebody_else_s_address_stays_and_nobody_learns_of_it() {
    let host = Host::new();
    host.give(BOB, "email", "bob@example.org");
    let app = host.app();
    let delete = |address| json!({ "medium": "email", "address": address });

    let foreign = post_as(&app, HERS, DELETE, &delete("bob@example.org")).await;
    let absent = post_as(&app, HERS, DELETE, &delete("nobody@example.org")).await;

    assert_eq!(
        (foreign.status, foreign.json()),
        (absent.status, absent.json())
    );
    assert_eq!(
        foreign.json(),
        json!({ "id_server_unbind_result": "no-support" })
    );
    assert_eq!(host.addresses(BOB), ["bob@example.org"]);
}

#[tokio::test]
async fn what_names_no_address_is_refused() {
    let app = Host::new().app();
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAM"),
        (json!({ "medium": "email" }), "M_MISSING_PARAM"),
        (
            json!({ "medium": "fax", "address": "1" }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "medium": "email", "address": "nobody" }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "medium": "msisdn", "address": "12" }),
            "M_INVALID_PARAM",
        ),
        (json!({ "medium": "email", "address": 1 }), "M_BAD_JSON"),
        (
            json!({ "medium": "email", "address": "a@b.org", "id_server": "https://x.org/" }),
            "M_INVALID_PARAM",
        ),
    ] {
        for path in [DELETE, "/_matrix/client/v3/account/3pid/unbind"] {
            let refused = post_as(&app, HERS, path, &body).await;
            assert_eq!(
                (refused.status.as_u16(), refused.errcode().as_str()),
                (400, errcode),
                "{body}"
            );
        }
    }
}

#[tokio::test]
async fn a_suspended_account_deletes_nothing() {
    let host = Host::new();
    host.give(ALICE, "email", "alice@example.org");
    host.suspend(ALICE);
    let app = host.app();

    let named = json!({ "medium": "email", "address": "alice@example.org" });
    let refused = post_as(&app, HERS, DELETE, &named).await;

    assert_eq!(
        (refused.status.as_u16(), refused.errcode().as_str()),
        (403, "M_USER_SUSPENDED")
    );
    assert_eq!(host.addresses(ALICE), ["alice@example.org"]);
}

#[tokio::test]
async fn a_code_is_taken_where_synapse_s_clients_bring_it() {
    const SUBMIT_THERE: &str = "/_matrix/client/unstable/add_threepid/msisdn/submit_token";
    let app = Host::new().app();
    let sid = app.post(ADD_PHONE, &alices_phone(1)).await.sid();
    let token = code(&app.mail().await);

    let wrong = app.post(SUBMIT_THERE, &shown(&sid, "000000")).await;
    let right = app.post(SUBMIT_THERE, &shown(&sid, &token)).await;

    assert_eq!(
        (wrong.status.as_u16(), wrong.errcode().as_str()),
        (400, "M_TOKEN_INCORRECT")
    );
    assert_eq!(
        (right.status.as_u16(), right.json()),
        (200, json!({ "success": true }))
    );
    let other = app
        .post(
            "/_matrix/client/v3/add_threepid/msisdn/submit_token",
            &json!({}),
        )
        .await;
    assert_eq!(other.status, 404);
}

#[tokio::test]
async fn a_host_s_new_account_gets_its_addresses() {
    let host = Host::new();
    host.give(BOB, "email", "bob@example.org");
    let app = host.app();
    let address = |text| threepid::threepid::Threepid::email(text).expect("an address");
    let (hers, his) = (address("alice@example.org"), address("bob@example.org"));

    let given = app
        .threepid
        .account_registered(ALICE, &[his, hers.clone()])
        .await;
    let again = app.threepid.account_registered(ALICE, &[hers]).await;

    assert_eq!((given, again), (Err(threepid::Error::InUse), Ok(())));
    assert_eq!(host.addresses(ALICE), ["alice@example.org"]);
    assert_eq!(host.addresses(BOB), ["bob@example.org"]);
}
