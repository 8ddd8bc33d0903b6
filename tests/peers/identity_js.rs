//! Our identity server as matrix-js-sdk uses it, beside a Synapse.

use serde_json::{Value, json};

use crate::support::{
    client_api::contacts,
    identity::{Neighbours, TERMS},
    js_sdk::JsSdk,
    mails::link,
};

const BOB: &str = "bob@example.com";
const SECRET: &str = "monkeys_are_GREAT";
/// A number as people type it, and as it is stored.
const TYPED: &str = "07700 900001";
const MSISDN: &str = "447700900001";
/// What the library calls identity servers, besides integration managers.
const SERVICE: &str = "SERVICE_TYPE_IS";

/// A Synapse, an identity server, and a client that is logged in.
struct World {
    neighbours: Neighbours,
    client: JsSdk,
    user_id: String,
    /// The client's token at the identity server, once it has one.
    id_token: String,
}

impl World {
    /// With a client that has no account at the identity server yet.
    async fn logged_in(settings: &str) -> Self {
        let neighbours = Neighbours::start(settings).await;
        neighbours.synapse.register("bob", "bob's", false).await;
        let ca_file = &neighbours.identity.ca_file;
        let mut client = JsSdk::start(neighbours.synapse.base(), Some(ca_file));
        client.login("bob", "bob's").await;
        let url = neighbours.identity.api.base.clone();
        client.must("useIdentityServer", json!([url, null])).await;
        Self {
            user_id: neighbours.user_id("bob"),
            id_token: String::new(),
            neighbours,
            client,
        }
    }

    /// The same with an account there.
    async fn registered(settings: &str) -> Self {
        let mut world = Self::logged_in(settings).await;
        let openid = world.client.must("getOpenIdToken", json!([])).await;
        let account = json!([openid]);
        let answer = world
            .client
            .must("registerWithIdentityServer", account)
            .await;
        let token = answer["token"].as_str().expect("a token");
        world.id_token = token.to_owned();
        let own = json!([world.url(), token]);
        world.client.must("useIdentityServer", own).await;
        world
    }

    fn url(&self) -> &str {
        &self.neighbours.identity.api.base
    }

    /// Proves the email address by the mailed link, and binds it.
    async fn bind_email(&mut self) {
        let asked = json!([BOB, SECRET, 1, null, self.id_token]);
        let answer = self.client.must("requestEmailToken", asked).await;
        let mail = self.neighbours.identity.server.mail_to(BOB).await;
        let pressed = self.neighbours.identity.server.press(link(&mail)).await;
        assert_eq!(pressed, 200);
        self.bind(&answer["sid"]).await;
    }

    /// Proves the phone number by the code, and binds it; what the identity server said to the code.
    async fn bind_phone(&mut self) -> Value {
        let asked = json!(["GB", TYPED, SECRET, 1, null, self.id_token]);
        let answer = self.client.must("requestMsisdnToken", asked).await;
        let identity = &self.neighbours.identity;
        let text = identity.text_to(MSISDN, 1).await;
        let shown = json!([answer["sid"], SECRET, six_digits(&text), self.id_token]);
        let proved = self.client.must("submitMsisdnToken", shown).await;
        self.bind(&answer["sid"]).await;
        proved
    }

    async fn bind(&mut self, sid: &Value) {
        let bound = json!([{
            "sid": sid, "client_secret": SECRET,
            "id_server": self.neighbours.identity.name, "id_access_token": self.id_token,
        }]);
        let answer = self.client.must("bindThreePid", bound).await;
        assert_eq!(answer, json!({}));
    }
}

/// The code in a text message: six digits that stand alone.
fn six_digits(text: &str) -> &str {
    let is_code = |word: &&str| word.len() == 6 && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.find(is_code).expect("a code in the message")
}

#[tokio::test]
async fn a_client_agrees_to_the_terms_before_it_is_served() {
    let mut world = World::registered(TERMS).await;
    let token = world.id_token.clone();
    let own = json!([token]);

    let early = world
        .client
        .refused("getIdentityAccount", own.clone())
        .await;
    let hashes = world
        .client
        .refused("getIdentityHashDetails", own.clone())
        .await;
    let asked = json!([SERVICE, world.url()]);
    let terms = world.client.must("getTerms", asked).await;
    let german = &terms["policies"]["privacy_policy"]["de"]["url"];
    let accepts = json!([SERVICE, world.url(), token, [german]]);
    world.client.must("agreeToTerms", accepts).await;
    let account = world.client.must("getIdentityAccount", own).await;

    for refused in [early, hashes] {
        assert_eq!(
            (refused.status, refused.errcode.as_str()),
            (Some(403), "M_TERMS_NOT_SIGNED")
        );
    }
    assert_eq!(account, json!({ "user_id": world.user_id }));
}

#[tokio::test]
async fn a_client_without_an_account_is_refused() {
    let mut world = World::logged_in("").await;

    let account = world
        .client
        .refused("getIdentityAccount", json!([""]))
        .await;
    let wrong = json!(["nobody's"]);
    let details = world.client.refused("getIdentityHashDetails", wrong).await;
    let terms = json!([SERVICE, world.url()]);
    let terms = world.client.must("getTerms", terms).await;

    for refused in [account, details] {
        assert_eq!(
            (refused.status, refused.errcode.as_str()),
            (Some(401), "M_UNAUTHORIZED")
        );
    }
    assert_eq!(terms, json!({ "policies": {} }));
}

#[tokio::test]
async fn a_client_binds_looks_up_and_unbinds_what_it_proved() {
    let mut world = World::registered("").await;
    let (user_id, token) = (world.user_id.clone(), world.id_token.clone());

    world.bind_email().await;
    let proved = world.bind_phone().await;
    let listed = world.client.must("getThreePids", json!([])).await;
    let details = json!([token]);
    let details = world.client.must("getIdentityHashDetails", details).await;
    let asked = json!([
        [
            [BOB, "email"],
            [MSISDN, "msisdn"],
            ["n@example.com", "email"]
        ],
        token
    ]);
    let mut found = world.client.must("identityHashedLookup", asked).await;
    let one = json!(["email", "Bob@example.com", token]);
    let one = world.client.must("lookupThreePid", one).await;
    let many = json!([[["msisdn", MSISDN], ["email", "n@example.com"]], token]);
    let many = world.client.must("bulkLookupThreePids", many).await;
    let unbound = json!(["email", BOB]);
    let unbound = world.client.must("unbindThreePid", unbound).await;
    let gone = json!(["email", BOB, token]);
    let gone = world.client.must("lookupThreePid", gone).await;

    assert_eq!(proved, json!({ "success": true }));
    assert_eq!(
        contacts(&listed),
        Vec::<String>::new(),
        "bound is not added"
    );
    let algorithms = details["algorithms"].as_array().expect("a list");
    assert!(algorithms.contains(&"sha256".into()), "{details}");
    let found = found.as_array_mut().expect("a list");
    found.sort_by_key(|one| one["address"].to_string());
    let both = [
        json!({ "address": MSISDN, "mxid": user_id }),
        json!({ "address": BOB, "mxid": user_id }),
    ];
    assert_eq!(*found, both);
    assert_eq!(one["mxid"], user_id.as_str());
    let known = json!({ "threepids": [["msisdn", MSISDN, user_id]] });
    assert_eq!(many, known);
    assert_eq!(unbound, json!({ "id_server_unbind_result": "success" }));
    assert_eq!(gone, json!({}));
}

#[tokio::test]
async fn a_client_invites_people_by_email() {
    let mut world = World::registered("").await;
    let room = json!([{ "preset": "private_chat", "name": "The library" }]);
    let room = world.client.must("createRoom", room).await["room_id"].take();

    let carol = json!([room, "carol@example.com"]);
    let invited = world.client.must("inviteByEmail", carol).await;

    assert_eq!(invited, json!({}));
    let identity = &world.neighbours.identity;
    let mail = identity.text_to("carol@example.com", 1).await;
    assert!(mail.contains("The library"), "{mail}");
}
