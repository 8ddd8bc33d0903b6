//! A stand-in for a homeserver as federation sees it: HTTPS on loopback, with a signing key.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ruma_common::CanonicalJsonValue;
use serde_json::{Value, json};
use threepid::{
    outbound::{Outbound, Settings},
    server_name::ServerName,
};

use super::upstream::{Answer, Request, Upstream};

// Where an answer is put with [`FederationServer::answer`].

/// Its keys.
pub(crate) const KEYS: &str = "GET /_matrix/key/v2/server";
/// Whose an OpenID token is.
pub(crate) const USERINFO: &str = "GET /_matrix/federation/v1/openid/userinfo";
/// What its users have bound, as the Identity Service API has it.
pub(crate) const POST_ONBIND: &str = "POST /_matrix/federation/v1/3pid/onbind";
/// The same, as the Server-Server API has it.
pub(crate) const PUT_ONBIND: &str = "PUT /_matrix/federation/v1/3pid/onbind";
/// Where it says that it is elsewhere.
pub(crate) const WELL_KNOWN: &str = "GET /.well-known/matrix/server";

/// Until when keys are valid unless a test says otherwise: in the year 2096.
pub(crate) const VALID_UNTIL: i64 = 4_000_000_000_000;

/// An Ed25519 key pair.
pub(crate) struct Key {
    /// Its name: `ed25519:1`.
    pub(crate) id: String,
    pair: Ed25519KeyPair,
}

impl Key {
    /// A fresh one of this name.
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            pair: Ed25519KeyPair::generate().expect("chance is there"),
        }
    }

    /// Its public half.
    pub(crate) fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The same in base64, as Matrix writes it.
    pub(crate) fn public_base64(&self) -> String {
        STANDARD_NO_PAD.encode(self.public())
    }

    /// Its signature of an object, in base64 (Matrix appendices, "Signing JSON").
    pub(crate) fn signature(&self, object: &Value) -> String {
        let mut bare = object.clone();
        if let Some(fields) = bare.as_object_mut() {
            fields.remove("signatures");
            fields.remove("unsigned");
        }
        let canonical = CanonicalJsonValue::try_from(bare).expect("it has a canonical form");
        let signature = self.pair.sign(canonical.to_string().as_bytes());
        STANDARD_NO_PAD.encode(signature.as_ref())
    }

    /// Adds its signature in the name of `entity`.
    pub(crate) fn sign(&self, entity: &str, object: &mut Value) {
        let signature = self.signature(object);
        object["signatures"][entity][&*self.id] = json!(signature);
    }
}

/// Under which name the receiver of a request is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    /// `destination`, as the Server-Server API has it.
    Destination(&'a str),
    /// `destination_is`, as Synapse signs towards identity servers.
    DestinationIs(&'a str),
}

/// The running homeserver; it ends when it is dropped.
pub(crate) struct FederationServer {
    upstream: Upstream,
    name: String,
    key: Key,
}

impl FederationServer {
    /// Starts it as `localhost:PORT`. It publishes its key, knows no token, and takes `POST …/3pid/onbind` alone.
    pub(crate) async fn start() -> Self {
        let upstream = Upstream::start().await;
        let name = upstream.name();
        Self::around(upstream, name)
    }

    /// Starts it as `127.0.0.1:PORT`.
    pub(crate) async fn start_by_address() -> Self {
        let upstream = Upstream::start().await;
        let name = format!("127.0.0.1:{}", upstream.port());
        Self::around(upstream, name)
    }

    /// The homeserver of this name behind a server that runs already.
    pub(crate) fn around(upstream: Upstream, name: String) -> Self {
        let key = Key::new("ed25519:1");
        let server = Self {
            upstream,
            name,
            key,
        };
        server.publish(server.keys());
        server.answer(USERINFO, Answer::error(401, "M_UNKNOWN_TOKEN"));
        server.answer(POST_ONBIND, Answer::json(200, json!({})));
        server.answer(PUT_ONBIND, Answer::error(405, "M_UNRECOGNIZED"));
        server
    }

    /// Its name, as it stands in user ids.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The same, parsed.
    pub(crate) fn server_name(&self) -> ServerName {
        self.name.parse().expect("it is a server's name")
    }

    /// A user of it: `@alice:localhost:PORT`.
    pub(crate) fn user(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.name)
    }

    /// Its newest key.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// What it publishes of its key unless a test says otherwise, not signed yet: to be changed and given to
    /// [`FederationServer::publish`].
    pub(crate) fn keys(&self) -> Value {
        json!({
            "server_name": self.name,
            "valid_until_ts": VALID_UNTIL,
            "verify_keys": { &*self.key.id: { "key": self.key.public_base64() } },
            "old_verify_keys": {},
        })
    }

    /// Publishes this, signed by its key, from now on.
    pub(crate) fn publish(&self, mut keys: Value) {
        self.key.sign(&self.name, &mut keys);
        self.answer(KEYS, Answer::json(200, keys));
    }

    /// Knows this token of `POST …/openid/request_token` from now on, as one of the user `sub`. Without letters in it that a
    /// query would have to escape.
    pub(crate) fn knows(&self, access_token: &str, sub: &str) {
        let place = format!("{USERINFO}?access_token={access_token}");
        self.answer(&place, Answer::json(200, json!({ "sub": sub })));
    }

    /// Answers so from now on, at one of the constants of this module.
    pub(crate) fn answer(&self, place: &str, answer: Answer) {
        self.upstream.answer(place, answer);
    }

    /// All requests to one of the constants of this module, in their order.
    pub(crate) fn requests(&self, place: &str) -> Vec<Request> {
        let mut requests = self.upstream.requests();
        requests.retain(|request| format!("{} {}", request.method, request.path) == place);
        requests
    }

    /// How many there were.
    pub(crate) fn count(&self, place: &str) -> usize {
        self.requests(place).len()
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.upstream.port()
    }

    /// The server beneath.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// How to call it: its authority is trusted, loopback is allowed.
    pub(crate) fn settings(&self) -> Settings {
        self.upstream.settings()
    }

    /// What calls it so.
    pub(crate) fn outbound(&self) -> Outbound {
        Outbound::new(self.settings()).expect("its authority is a certificate")
    }

    /// The value of an `Authorization` header, `X-Matrix …`, over this request of its own (Server-Server API, "Request
    /// Authentication"). `uri` is path and query.
    pub(crate) fn authorization(
        &self,
        (method, uri): (&str, &str),
        content: &Value,
        destination: Destination<'_>,
    ) -> String {
        let (field, to) = match destination {
            Destination::Destination(to) => ("destination", to),
            Destination::DestinationIs(to) => ("destination_is", to),
        };
        let signed = json!({
            "method": method, "uri": uri, "origin": self.name, field: to, "content": content,
        });
        format!(
            r#"X-Matrix origin="{}",destination="{to}",key="{}",sig="{}""#,
            self.name,
            self.key.id,
            self.key.signature(&signed)
        )
    }
}
