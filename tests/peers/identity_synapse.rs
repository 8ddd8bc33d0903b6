//! Our identity server and a real Synapse: each calls the other, by its name and with TLS.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use crate::support::{
    identity::{IdentityServer, Neighbour, Neighbours},
    server::until,
    synapse,
};

/// The script that checks signatures.
const VERIFY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/verify_signed.py");
const EMAIL: &str = "bob@example.com";

/// Whether homeservers take the identity server's signature below `signed`.
async fn is_signed(identity: &IdentityServer, signed: &Value) -> bool {
    let signatures = &signed["signatures"][&identity.name];
    let keys = signatures.as_object().expect("signed under its own name");
    let key_id = keys.keys().next().expect("a signature");
    let (status, key) = identity.get(&format!("pubkey/{key_id}"), "").await;
    assert_eq!(status, 200, "{key}");
    let given = json!({
        "signed": signed, "name": identity.name, "key_id": key_id, "public_key": key["public_key"],
    });
    let mut python = Command::new(synapse::python())
        .arg(VERIFY)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python starts");
    let mut input = python.stdin.take().expect("it is piped");
    write!(input, "{given}").expect("python reads");
    drop(input);
    python.wait().expect("it is a child of ours").success()
}

/// A part of a path.
fn part(text: &str) -> String {
    percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string()
}

impl Neighbours {
    /// Makes a private room of somebody's; its id.
    async fn room(&self, owner: &Neighbour) -> String {
        let body = json!({ "preset": "private_chat", "name": "The library" });
        let path = "/_matrix/client/v3/createRoom";
        let (status, answer) = self.synapse.api.post(path, &owner.token, &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["room_id"].as_str().expect("a room").to_owned()
    }

    /// Invites an email address, as clients do.
    async fn invite(&self, inviter: &Neighbour, room: &str, email: &str) {
        let endpoint = format!("rooms/{}/invite", part(room));
        let body = json!({ "medium": "email", "address": email });
        self.through_synapse(inviter, &endpoint, body).await;
    }

    /// What somebody is in a room, as its owner sees it; `null` for strangers.
    async fn membership(&self, owner: &Neighbour, room: &str, user_id: &str) -> Value {
        let (room, user) = (part(room), part(user_id));
        let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/{user}");
        let (_, mut event) = self.synapse.api.get(&path, &owner.token).await;
        event["membership"].take()
    }

    /// The invitations of people who had no user id, as the room knows them.
    async fn third_party_invites(&self, owner: &Neighbour, room: &str) -> Vec<Value> {
        let path = format!("/_matrix/client/v3/rooms/{}/state", part(room));
        let (_, state) = self.synapse.api.get(&path, &owner.token).await;
        let events = state.as_array().expect("a list of events").iter();
        let of_third_parties = events.filter(|one| one["type"] == "m.room.third_party_invite");
        of_third_parties.cloned().collect()
    }

    /// Joins a room with what `body` holds; status and answer.
    async fn enter(&self, who: &Neighbour, room: &str, body: &Value) -> (u16, Value) {
        let path = format!("/_matrix/client/v3/join/{}", part(room));
        self.synapse.api.post(&path, &who.token, body).await
    }

    /// Synapse has asked the identity server whether a key is still one of its own.
    fn has_asked_about_a_key(&self, path: &str) {
        let (log, name) = (self.synapse.log(), &self.identity.name);
        let asked = format!("GET https://{name}/_matrix/identity/v2/{path}?public_key=");
        let answers = log.lines().filter(|line| line.contains(&asked));
        let statuses: Vec<_> = answers.filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(statuses, ["200"], "{log}");
    }

    /// Makes all `OpenID` tokens of Synapse's older than they may be.
    fn wait_for_openid_tokens_to_expire(&self) {
        let database = rusqlite::Connection::open(self.synapse.path("homeserver.db"));
        let database = database.expect("it is a database");
        database
            .busy_timeout(Duration::from_secs(10))
            .expect("it is open");
        let changed = database.execute("UPDATE open_id_tokens SET ts_valid_until_ms = 1", []);
        assert!(changed.expect("Synapse has that table") > 0);
    }
}

#[tokio::test]
async fn an_openid_token_of_synapse_opens_an_account_and_nothing_else_does() {
    let neighbours = Neighbours::start("").await;
    let alice = neighbours.join("alice").await;
    let identity = &neighbours.identity;
    let openid = neighbours.openid(&alice.user_id, &alice.token).await;
    let with = |key: &str, value: &str| {
        let mut other = openid.clone();
        other[key] = value.into();
        other
    };

    let account = identity.get("account", &alice.id_token).await;
    let of_client = with("access_token", &alice.token);
    let foreign = identity.post("account/register", "", &of_client).await;
    let nobody = with("matrix_server_name", "localhost:1");
    let unreachable = identity.post("account/register", "", &nobody).await;
    neighbours.wait_for_openid_tokens_to_expire();
    let expired = identity.post("account/register", "", &openid).await;
    let logged_out = identity
        .post("account/logout", &alice.id_token, &json!({}))
        .await;
    let gone = identity.get("account", &alice.id_token).await;

    assert_eq!(account, (200, json!({ "user_id": alice.user_id })));
    for (status, refused) in [foreign, expired, gone] {
        assert_eq!(
            (status, &refused["errcode"]),
            (401, &"M_UNAUTHORIZED".into()),
            "{refused}"
        );
    }
    assert_eq!(
        (unreachable.0, &unreachable.1["errcode"]),
        (502, &"M_UNKNOWN".into())
    );
    assert_eq!(logged_out, (200, json!({})));
}

#[tokio::test]
async fn an_address_is_bound_and_unbound_through_synapse() {
    let neighbours = Neighbours::start("").await;
    let (alice, bob) = (neighbours.join("alice").await, neighbours.join("bob").await);
    let identity = &neighbours.identity;

    neighbours.bind(&bob, EMAIL).await;
    let found = identity.look_up(&alice.id_token, EMAIL).await;
    let threepid = json!({ "medium": "email", "address": EMAIL });
    let unbound = neighbours
        .through_synapse(&bob, "account/3pid/unbind", threepid)
        .await;

    assert_eq!(found, Some(bob.user_id));
    assert_eq!(unbound, json!({ "id_server_unbind_result": "success" }));
    assert_eq!(identity.look_up(&alice.id_token, EMAIL).await, None);
}

#[tokio::test]
async fn an_association_is_signed_as_homeservers_check_it() {
    let neighbours = Neighbours::start("").await;
    let bob = neighbours.join("bob").await;
    let identity = &neighbours.identity;

    // Synapse does not pass the association on.
    let mut asked = neighbours.bind(&bob, EMAIL).await;
    asked["mxid"] = bob.user_id.as_str().into();
    let (status, bound) = identity.post("3pid/bind", &bob.id_token, &asked).await;

    assert_eq!(status, 200, "{bound}");
    assert_eq!(
        (&bound["medium"], &bound["address"], &bound["mxid"]),
        (&"email".into(), &EMAIL.into(), &bob.user_id.as_str().into())
    );
    for time in ["ts", "not_before", "not_after"] {
        assert!(bound[time].is_u64(), "{time}: {bound}");
    }
    assert!(is_signed(identity, &bound).await, "{bound}");
    let mut forged = bound.clone();
    forged["mxid"] = neighbours.user_id("alice").into();
    assert!(!is_signed(identity, &forged).await, "it proves nothing");
}

#[tokio::test]
async fn an_account_that_is_deactivated_is_found_no_more() {
    let neighbours = Neighbours::start("").await;
    let (alice, bob) = (neighbours.join("alice").await, neighbours.join("bob").await);
    let identity = &neighbours.identity;
    neighbours.bind(&bob, EMAIL).await;
    neighbours.bind(&alice, "alice@example.com").await;

    let user = json!({ "type": "m.id.user", "user": bob.user_id });
    let auth = json!({ "type": "m.login.password", "identifier": user, "password": "bob's" });
    let path = "/_matrix/client/v3/account/deactivate";
    let body = json!({ "auth": auth });
    let (status, answer) = neighbours.synapse.api.post(path, &bob.token, &body).await;

    assert_eq!(
        (status, &answer["id_server_unbind_result"]),
        (200, &"success".into())
    );
    assert_eq!(identity.look_up(&alice.id_token, EMAIL).await, None);
    let hers = identity.look_up(&alice.id_token, "alice@example.com").await;
    assert_eq!(hers, Some(alice.user_id));
}

#[tokio::test]
async fn nobody_unbinds_an_address_of_somebody_else_through_synapse() {
    let neighbours = Neighbours::start("").await;
    let (alice, bob) = (neighbours.join("alice").await, neighbours.join("bob").await);
    neighbours.bind(&bob, EMAIL).await;

    let threepid = json!({ "medium": "email", "address": EMAIL });
    neighbours
        .through_synapse(&alice, "account/3pid/unbind", threepid)
        .await;

    let found = neighbours.identity.look_up(&alice.id_token, EMAIL).await;
    assert_eq!(found, Some(bob.user_id));
}

#[tokio::test]
async fn somebody_who_was_invited_by_email_is_in_the_room_once_the_address_is_bound() {
    let neighbours = Neighbours::start("").await;
    let alice = neighbours.join("alice").await;
    let room = neighbours.room(&alice).await;
    neighbours.invite(&alice, &room, EMAIL).await;
    let mail = neighbours.identity.text_to(EMAIL, 1).await;
    let invites = neighbours.third_party_invites(&alice, &room).await;

    let bob = neighbours.join("bob").await;
    let before = neighbours.membership(&alice, &room, &bob.user_id).await;
    neighbours.bind(&bob, EMAIL).await;

    assert!(
        mail.contains(&alice.user_id) && mail.contains("The library"),
        "{mail}"
    );
    assert_eq!(invites.len(), 1, "{invites:?}");
    assert!(!invites[0].to_string().contains(EMAIL), "{invites:?}");
    assert_eq!(before, Value::Null);
    until("Synapse was told", async || {
        neighbours.membership(&alice, &room, &bob.user_id).await == "invite"
    })
    .await;
    let (status, answer) = neighbours.enter(&bob, &room, &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    neighbours.has_asked_about_a_key("pubkey/isvalid");
}

#[tokio::test]
async fn somebody_who_was_invited_by_email_joins_with_what_the_mail_tells() {
    let neighbours = Neighbours::start("").await;
    let (alice, bob) = (neighbours.join("alice").await, neighbours.join("bob").await);
    let room = neighbours.room(&alice).await;
    neighbours.invite(&alice, &room, EMAIL).await;
    let mail = neighbours.identity.text_to(EMAIL, 1).await;

    let uninvited = neighbours.enter(&bob, &room, &json!({})).await;
    let mut asked = invitation(&mail);
    asked["mxid"] = bob.user_id.as_str().into();
    let (status, signed) = neighbours
        .identity
        .post("sign-ed25519", &bob.id_token, &asked)
        .await;
    let body = json!({ "third_party_signed": signed });
    let (joined, answer) = neighbours.enter(&bob, &room, &body).await;

    assert_eq!(uninvited.0, 403, "{uninvited:?}");
    assert_eq!(status, 200, "{signed}");
    assert_eq!(signed["sender"], alice.user_id.as_str());
    assert_eq!(
        joined,
        200,
        "{answer}; Synapse: {}",
        neighbours.synapse.complaints()
    );
    neighbours.has_asked_about_a_key("pubkey/ephemeral/isvalid");
}

#[tokio::test]
async fn somebody_whose_address_is_bound_is_invited_at_once() {
    let neighbours = Neighbours::start("").await;
    let (alice, bob) = (neighbours.join("alice").await, neighbours.join("bob").await);
    neighbours.bind(&bob, EMAIL).await;
    let room = neighbours.room(&alice).await;

    neighbours.invite(&alice, &room, EMAIL).await;

    let membership = neighbours.membership(&alice, &room, &bob.user_id).await;
    assert_eq!(membership, "invite");
    let invites = neighbours.third_party_invites(&alice, &room).await;
    assert_eq!(invites, Vec::<Value>::new());
}

/// The token and the private key in an invitation's mail.
fn invitation(mail: &str) -> Value {
    let below = |title: &str| {
        let mut lines = mail.lines().skip_while(|line| line.trim() != title);
        let value = lines.nth(1).expect("it is in the mail");
        value.trim().to_owned()
    };
    json!({ "token": below("Token:"), "private_key": below("Private key:") })
}
