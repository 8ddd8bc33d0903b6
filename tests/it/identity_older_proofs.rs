//! Several proofs of one address at the identity server: the newest counts, whatever is asked with an older one.

use std::time::Duration;

use serde_json::{Value, json};
use threepid::secret::AccessToken;

use crate::support::{
    app::{Answer, IDENTITY, REGISTER, SUBMIT, TestApp, alice, code, shown},
    identity::{bound, found, is_signed, proved},
};

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const CAROL: &str = "@carol:example.org";
const SHARED: &str = "shared@example.org";
const HOUR: Duration = Duration::from_hours(1);

/// A user with a proof of the shared address.
struct Prover {
    user_id: &'static str,
    token: AccessToken,
    pair: Value,
}

impl Prover {
    /// Proves it an hour after whatever was before.
    async fn new(app: &TestApp, user_id: &'static str) -> Self {
        app.wait(HOUR);
        let token = app.identity_token(user_id).await;
        let pair = proved(app, &token, SHARED).await;
        Self {
            user_id,
            token,
            pair,
        }
    }

    async fn bind(&self, app: &TestApp) -> Answer {
        let mut body = self.pair.clone();
        body["mxid"] = json!(self.user_id);
        app.post_as(&self.token, "3pid/bind", &body).await
    }

    /// Asks that the address lead to `user_id` no more.
    async fn unbind(&self, app: &TestApp, user_id: &str) -> Answer {
        let mut body = self.pair.clone();
        body["mxid"] = json!(user_id);
        body["threepid"] = json!({ "medium": "email", "address": SHARED });
        app.post(&format!("{IDENTITY}/3pid/unbind"), &body).await
    }
}

async fn owner(app: &TestApp) -> Option<String> {
    found(app, "email", SHARED).await
}

fn told(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.errcode())
}

fn error(status: u16, errcode: &str) -> (u16, String) {
    (status, errcode.to_owned())
}

#[tokio::test]
async fn while_another_user_s_association_is_in_force_a_newer_proof_takes_the_address() {
    let app = TestApp::identity(|_| {});
    let alice = Prover::new(&app, ALICE).await;
    assert_eq!(alice.bind(&app).await.status, 200);
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(owner(&app).await.as_deref(), Some(ALICE), "a proof alone");

    let answer = bob.bind(&app).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["mxid"], BOB);
    assert!(is_signed(&app, &answer.json()).await);
    assert_eq!(owner(&app).await.as_deref(), Some(BOB));
}

#[tokio::test]
async fn while_another_user_s_association_is_in_force_an_older_proof_is_as_none() {
    let app = TestApp::identity(|_| {});
    let alice = Prover::new(&app, ALICE).await;
    assert_eq!(alice.bind(&app).await.status, 200);
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);

    let answer = alice.bind(&app).await;

    assert_eq!(told(&answer), error(404, "M_NO_VALID_SESSION"));
    assert_eq!(owner(&app).await.as_deref(), Some(BOB));
}

#[tokio::test]
async fn an_older_proof_ends_nobody_s_association() {
    let app = TestApp::identity(|_| {});
    let alice = Prover::new(&app, ALICE).await;
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);

    let ended = alice.unbind(&app, BOB).await;
    let bound = alice.bind(&app).await;

    assert_eq!(told(&ended), error(403, "M_FORBIDDEN"));
    assert_eq!(told(&bound), error(404, "M_NO_VALID_SESSION"));
    assert_eq!(owner(&app).await.as_deref(), Some(BOB));
}

#[tokio::test]
async fn an_older_proof_is_refused_as_one_of_another_address_is() {
    let app = TestApp::identity(|_| {});
    let alice = Prover::new(&app, ALICE).await;
    let token = app.identity_token(CAROL).await;
    let of_another = Prover {
        user_id: CAROL,
        pair: proved(&app, &token, "carol@example.org").await,
        token,
    };
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);

    let older = alice.unbind(&app, BOB).await;
    let other = of_another.unbind(&app, BOB).await;

    assert_eq!((older.status, &older.text), (other.status, &other.text));
    assert_eq!(told(&older), error(403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn an_older_proof_of_the_same_user_ends_nothing_either() {
    let app = TestApp::identity(|_| {});
    let first = Prover::new(&app, BOB).await;
    assert_eq!(first.bind(&app).await.status, 200);
    app.wait(HOUR);
    bound(&app, BOB, SHARED).await;

    let answer = first.unbind(&app, BOB).await;

    assert_eq!(told(&answer), error(403, "M_FORBIDDEN"));
    assert_eq!(owner(&app).await.as_deref(), Some(BOB));
}

#[tokio::test]
async fn the_proof_that_made_an_association_ends_it_and_may_make_it_again() {
    let app = TestApp::identity(|_| {});
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);

    let ended = bob.unbind(&app, BOB).await;
    let owner_then = owner(&app).await;
    let again = bob.unbind(&app, BOB).await;
    let bound = bob.bind(&app).await;

    assert_eq!((ended.status.as_u16(), &*ended.text), (200, "{}"));
    assert_eq!(owner_then, None);
    assert_eq!((again.status.as_u16(), &*again.text), (200, "{}"));
    assert_eq!(bound.status, 200, "{}", bound.text);
    assert_eq!(owner(&app).await.as_deref(), Some(BOB));
}

#[tokio::test]
async fn once_the_user_has_ended_it_proofs_of_before_bind_nothing() {
    let app = TestApp::identity(|_| {});
    let alice = Prover::new(&app, ALICE).await;
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);
    assert_eq!(bob.unbind(&app, BOB).await.status, 200);

    let answer = alice.bind(&app).await;

    assert_eq!(told(&answer), error(400, "M_SESSION_EXPIRED"));
    assert_eq!(owner(&app).await, None);
}

#[tokio::test]
async fn whoever_proves_the_address_last_ends_what_was_before_for_good() {
    let app = TestApp::identity(|_| {});
    let alice = Prover::new(&app, ALICE).await;
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);
    let carol = Prover::new(&app, CAROL).await;

    let ended = carol.unbind(&app, BOB).await;

    assert_eq!(ended.status, 200, "{}", ended.text);
    for older in [&alice, &bob] {
        let answer = older.bind(&app).await;
        assert_eq!(told(&answer), error(400, "M_SESSION_EXPIRED"));
    }
    assert_eq!(owner(&app).await, None);
    assert_eq!(carol.bind(&app).await.status, 200);
    assert_eq!(owner(&app).await.as_deref(), Some(CAROL));
}

#[tokio::test]
async fn a_newer_proof_than_the_one_shown_stays() {
    let app = TestApp::identity(|_| {});
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);
    let carol = Prover::new(&app, CAROL).await;

    let ended = bob.unbind(&app, BOB).await;
    let bound = carol.bind(&app).await;

    assert_eq!(ended.status, 200, "{}", ended.text);
    assert_eq!(bound.status, 200, "{}", bound.text);
}

#[tokio::test]
async fn proofs_of_other_addresses_and_for_the_homeserver_stay() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let of_another = proved(&app, &token, "alice@example.org").await;
    let mut request = alice(1);
    request["email"] = json!(SHARED);
    let sid = app.post(REGISTER, &request).await.sid();
    let token_shown = shown(&sid, &code(&app.mail().await));
    assert_eq!(app.post(SUBMIT, &token_shown).await.status, 200);
    let bob = Prover::new(&app, BOB).await;
    assert_eq!(bob.bind(&app).await.status, 200);

    let ended = bob.unbind(&app, BOB).await;

    assert_eq!(ended.status, 200, "{}", ended.text);
    let mut body = of_another;
    body["mxid"] = json!(ALICE);
    let bound = app.post_as(&token, "3pid/bind", &body).await;
    assert_eq!(bound.status, 200, "{}", bound.text);
    let again = app.post(SUBMIT, &token_shown).await;
    assert_eq!(again.json(), json!({ "success": true }));
}
