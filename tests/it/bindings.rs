//! Bindings at identity servers: made in an account's name, remembered, and undone.

use serde_json::{Value, json};
use threepid::{Builder, id_server::Unbound, outbound::Outbound, validation::IdentityServers};

use crate::{
    contacts::{DELETE, THREEPID},
    support::{
        app::*,
        host::*,
        upstream::{self, Upstream},
    },
};

const BIND: &str = "/_matrix/client/v3/account/3pid/bind";
const UNBIND: &str = "/_matrix/client/v3/account/3pid/unbind";
const BIND_THERE: &str = "/_matrix/identity/v2/3pid/bind";
const UNBIND_THERE: &str = "/_matrix/identity/v2/3pid/unbind";

/// A homeserver, and an identity server that binds and unbinds whatever it is asked to.
struct Both {
    host: std::sync::Arc<Host>,
    upstream: Upstream,
}

impl Both {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        upstream.answer(BIND_THERE, association(ALICE));
        upstream.answer(UNBIND_THERE, upstream::Answer::json(200, json!({})));
        let host = Host::new();
        host.give(ALICE, "email", "alice@example.org");
        Self { host, upstream }
    }

    fn app(&self) -> TestApp {
        TestApp::with(self.set())
    }

    /// No server is trusted here: for bindings none needs to be.
    fn set(&self) -> impl FnOnce(Builder) -> Builder + use<> {
        let outbound = Outbound::new(self.upstream.settings()).expect("its certificate");
        let set = self.host.set();
        move |builder| {
            set(builder)
                .identity_servers(IdentityServers::default())
                .outbound(outbound)
        }
    }

    async fn bind(&self, app: &TestApp) -> Answer {
        post_as(app, HERS, BIND, &self.session()).await
    }

    fn session(&self) -> Value {
        json!({
            "sid": "1234", "client_secret": "hers.secret",
            "id_server": self.upstream.name(), "id_access_token": "their_token",
        })
    }

    /// The bodies that came to a path.
    fn asked(&self, path: &str) -> Vec<Value> {
        let requests = self.upstream.requests();
        let meant = requests.iter().filter(|request| request.path == path);
        meant.map(upstream::Request::json).collect()
    }
}

fn association(user_id: &str) -> upstream::Answer {
    let body = json!({
        "medium": "email", "address": "Alice@example.org", "mxid": user_id,
        "ts": 1, "not_before": 1, "not_after": 2, "signatures": {},
    });
    upstream::Answer::json(200, body)
}

fn alices() -> Value {
    json!({ "medium": "email", "address": "alice@example.org" })
}

fn result(word: &str) -> Value {
    json!({ "id_server_unbind_result": word })
}

#[tokio::test]
async fn a_binding_is_made_in_the_name_of_whoever_asks() {
    let both = Both::new().await;
    let app = both.app();

    let bound = both.bind(&app).await;

    assert_eq!(
        (bound.status.as_u16(), bound.json()),
        (200, json!({})),
        "{}",
        bound.text
    );
    let asked = &both.upstream.requests()[0];
    assert_eq!(asked.header("authorization"), Some("Bearer their_token"));
    assert_eq!(
        asked.json(),
        json!({ "sid": "1234", "client_secret": "hers.secret", "mxid": ALICE })
    );
    assert_eq!(
        both.host.binds(),
        0,
        "the account's own addresses stay as they are"
    );
}

#[tokio::test]
async fn a_binding_needs_a_whole_session_at_a_named_server() {
    let both = Both::new().await;
    let app = both.app();
    for key in ["sid", "client_secret", "id_server", "id_access_token"] {
        let mut body = both.session();
        body.as_object_mut().unwrap().remove(key);
        let refused = post_as(&app, HERS, BIND, &body).await;
        assert_eq!(
            (refused.status.as_u16(), refused.errcode().as_str()),
            (400, "M_MISSING_PARAM")
        );
    }
    for (key, value) in [
        ("sid", "a b"),
        ("client_secret", "ä"),
        ("id_server", "https://id.example.org"),
        ("id_server", "id.example.org/path"),
        ("id_server", "me@id.example.org"),
        ("id_server", ""),
        ("id_access_token", ""),
        ("id_access_token", "two\nlines"),
    ] {
        let mut body = both.session();
        body[key] = json!(value);
        let refused = post_as(&app, HERS, BIND, &body).await;
        assert_eq!(
            (refused.status.as_u16(), refused.errcode().as_str()),
            (400, "M_INVALID_PARAM")
        );
    }
    assert_eq!(both.upstream.connections(), 0);
}

#[tokio::test]
async fn what_an_identity_server_refuses_is_passed_on() {
    let both = Both::new().await;
    let app = both.app();
    for (answer, status, errcode) in [
        (
            upstream::Answer::error(400, "M_SESSION_NOT_VALIDATED"),
            400,
            "M_SESSION_NOT_VALIDATED",
        ),
        (
            upstream::Answer::error(403, "M_TERMS_NOT_SIGNED"),
            403,
            "M_TERMS_NOT_SIGNED",
        ),
        (association(BOB), 502, "M_UNKNOWN"),
        (upstream::Answer::closing(), 502, "M_UNKNOWN"),
    ] {
        both.upstream.answer(BIND_THERE, answer);
        let refused = both.bind(&app).await;
        assert_eq!(
            (refused.status.as_u16(), refused.errcode().as_str()),
            (status, errcode)
        );
    }
    let unbound = post_as(&app, HERS, UNBIND, &alices()).await;
    assert_eq!(unbound.json(), result("no-support"), "nothing was bound");
    assert!(both.asked(UNBIND_THERE).is_empty());
}

#[tokio::test]
async fn a_private_address_is_not_connected_to() {
    let host = Host::new();
    let app = host.app();
    for server in [
        "127.0.0.1:8443",
        "localhost:8443",
        "[::1]:8443",
        "169.254.169.254",
    ] {
        let body = json!({ "sid": "1", "client_secret": "s", "id_server": server, "id_access_token": "t" });
        let refused = post_as(&app, HERS, BIND, &body).await;
        assert_eq!(
            (refused.status.as_u16(), refused.errcode().as_str()),
            (502, "M_UNKNOWN")
        );
    }
}

#[tokio::test]
async fn a_remembered_binding_is_undone_by_its_session_and_the_address_stays() {
    let both = Both::new().await;
    let app = both.app();
    both.bind(&app).await;
    let bytes = std::fs::read(app.dir().join("threepid.db-wal")).unwrap();
    let app = app.restarted(both.set());

    let unbound = post_as(
        &app,
        HERS,
        UNBIND,
        &json!({ "medium": "email", "address": "ALICE@example.org" }),
    )
    .await;
    let again = post_as(&app, HERS, UNBIND, &alices()).await;

    assert_eq!(
        (unbound.json(), again.json()),
        (result("success"), result("no-support"))
    );
    assert_eq!(
        both.asked(UNBIND_THERE),
        [json!({
            "mxid": ALICE, "threepid": { "medium": "email", "address": "alice@example.org" },
            "sid": "1234", "client_secret": "hers.secret",
        })]
    );
    assert_eq!(both.host.addresses(ALICE), ["alice@example.org"]);
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        !text.contains("hers.secret") && !text.contains("their_token"),
        "they are sealed"
    );
}

#[tokio::test]
async fn a_deleted_address_is_unbound_first() {
    let both = Both::new().await;
    let app = both.app();
    both.bind(&app).await;

    let deleted = post_as(&app, HERS, DELETE, &alices()).await;

    assert_eq!(deleted.json(), result("success"));
    assert_eq!(both.asked(UNBIND_THERE).len(), 1);
    assert!(both.host.addresses(ALICE).is_empty());
}

#[tokio::test]
async fn a_server_that_can_not_unbind_keeps_nobody_from_deleting() {
    for answer in [
        upstream::Answer::new(404, "text/html", "<h1>Not found</h1>"),
        upstream::Answer::error(400, "M_SESSION_EXPIRED"),
        upstream::Answer::error(404, "M_NO_VALID_SESSION"),
        upstream::Answer::error(401, "M_UNKNOWN_TOKEN"),
    ] {
        let both = Both::new().await;
        let app = both.app();
        both.bind(&app).await;
        both.upstream.answer(UNBIND_THERE, answer);

        let deleted = post_as(&app, HERS, DELETE, &alices()).await;

        assert_eq!(
            (deleted.status.as_u16(), deleted.json()),
            (200, result("no-support"))
        );
        assert!(both.host.addresses(ALICE).is_empty());
    }
}

#[tokio::test]
async fn a_named_server_that_refuses_or_fails_leaves_the_address_as_it_was() {
    for (answer, status, errcode) in [
        (
            upstream::Answer::error(403, "M_FORBIDDEN"),
            403,
            "M_FORBIDDEN",
        ),
        (upstream::Answer::error(500, "M_UNKNOWN"), 502, "M_UNKNOWN"),
        (upstream::Answer::closing(), 502, "M_UNKNOWN"),
    ] {
        let both = Both::new().await;
        let app = both.app();
        both.bind(&app).await;
        both.upstream.answer(UNBIND_THERE, answer);

        let mut named = alices();
        named["id_server"] = json!(both.upstream.name());
        for (path, body) in [(DELETE, &named), (UNBIND, &named), (UNBIND, &alices())] {
            let refused = post_as(&app, HERS, path, body).await;
            assert_eq!(
                (refused.status.as_u16(), refused.errcode().as_str()),
                (status, errcode)
            );
        }
        assert_eq!(both.host.addresses(ALICE), ["alice@example.org"]);
    }
}

/// Whoever had the password for a while may have bound the address at a server of their own.
#[tokio::test]
async fn a_remembered_server_keeps_nobody_from_deleting() {
    for answer in [
        upstream::Answer::error(403, "M_FORBIDDEN"),
        upstream::Answer::error(500, "M_UNKNOWN"),
        upstream::Answer::closing(),
    ] {
        let both = Both::new().await;
        let app = both.app();
        both.bind(&app).await;
        both.upstream.answer(UNBIND_THERE, answer);

        let deleted = post_as(&app, HERS, DELETE, &alices()).await;

        assert_eq!(
            (deleted.status.as_u16(), deleted.json()),
            (200, result("no-support"))
        );
        assert!(both.host.addresses(ALICE).is_empty());
    }
}

#[tokio::test]
async fn the_homeserver_s_signature_comes_first() {
    for (signed, word) in [
        (Unbound::Success, "success"),
        (Unbound::NoSupport, "no-support"),
    ] {
        let both = Both::new().await;
        let app = both.app();
        both.host.sign(signed);
        let mut named = alices();
        named["id_server"] = json!(both.upstream.name());

        let unbound = post_as(&app, HERS, UNBIND, &named).await;

        assert_eq!(unbound.json(), result(word));
        assert!(both.asked(UNBIND_THERE).is_empty(), "it asks by itself");
    }
}

#[tokio::test]
async fn no_server_hears_of_an_address_that_is_not_the_account_s() {
    let both = Both::new().await;
    let app = both.app();
    both.host.sign(Unbound::Success);
    for path in [DELETE, UNBIND] {
        let mut named = alices();
        named["id_server"] = json!(both.upstream.name());

        let unbound = post_as(&app, HIS, path, &named).await;

        assert_eq!(
            (unbound.status.as_u16(), unbound.json()),
            (200, result("no-support"))
        );
    }
    assert_eq!(both.upstream.connections(), 0);
    assert_eq!(both.host.addresses(ALICE), ["alice@example.org"]);
}

#[tokio::test]
async fn a_binding_of_an_address_that_the_account_has_no_more_can_still_be_undone() {
    let both = Both::new().await;
    let app = both.app();
    both.bind(&app).await;
    both.upstream
        .answer(UNBIND_THERE, upstream::Answer::new(501, "text/plain", "no"));
    assert_eq!(
        post_as(&app, HERS, DELETE, &alices()).await.json(),
        result("no-support")
    );
    both.upstream
        .answer(UNBIND_THERE, upstream::Answer::json(200, json!({})));

    let unbound = post_as(&app, HERS, DELETE, &alices()).await;

    assert_eq!(unbound.json(), result("success"));
}

#[tokio::test]
async fn an_account_that_ends_is_bound_nowhere() {
    let both = Both::new().await;
    let app = both.app();
    both.bind(&app).await;

    let ended = app.threepid.account_deactivated(ALICE, false).await;
    let again = app.threepid.account_deactivated(ALICE, false).await;

    assert_eq!((ended, again), (Ok(Unbound::Success), Ok(Unbound::Success)));
    assert_eq!(both.asked(UNBIND_THERE).len(), 1);
    assert_eq!(both.host.addresses(ALICE), ["alice@example.org"]);
}

#[tokio::test]
async fn an_account_that_is_erased_loses_its_addresses_whatever_servers_say() {
    let both = Both::new().await;
    both.host.give(BOB, "email", "bob@example.org");
    let app = both.app();
    both.bind(&app).await;
    both.upstream
        .answer(UNBIND_THERE, upstream::Answer::closing());

    let erased = app.threepid.account_deactivated(ALICE, true).await;

    assert_eq!(erased, Ok(Unbound::NoSupport));
    assert!(both.host.addresses(ALICE).is_empty());
    assert_eq!(both.host.addresses(BOB), ["bob@example.org"]);
}

#[tokio::test]
async fn the_resets_of_an_account_end_with_it() {
    let both = Both::new().await;
    let app = both.app();
    app.post(PASSWORD, &alice(1)).await;
    let mail = app.mail().await;
    assert_eq!(app.get(&link_path(&mail), &[]).await.status, 200);

    app.threepid
        .account_deactivated(ALICE, false)
        .await
        .unwrap();

    assert_eq!(app.get(&link_path(&mail), &[]).await.status, 410);
    let listed = app.send(as_user("GET", HERS, THREEPID, &Value::Null)).await;
    assert_eq!(listed.json()["threepids"].as_array().map(Vec::len), Some(1));
}
