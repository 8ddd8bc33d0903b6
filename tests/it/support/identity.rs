//! What tests of the identity server share: addresses that are proved and bound, and who is found by them.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma_common::CanonicalJsonValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use threepid::{
    identity::{Policy, PolicyText, Settings},
    limits,
    outbound::Outbound,
    secret::AccessToken,
};

use super::app::{Answer, IDENTITY, IDENTITY_NAME, TestApp, code, with_identity};

/// An identity server that asks homeservers over `outbound`, with settings of the test's own.
pub(crate) fn asking(
    outbound: Outbound,
    limits: limits::Settings,
    set: impl FnOnce(&mut Settings),
) -> TestApp {
    TestApp::with(|builder| with_identity(builder.limits(limits).outbound(outbound), set))
}

/// A policy of this version: its texts are a language, a name and a URL each.
pub(crate) fn policy(version: &str, texts: &[(&str, &str, &str)]) -> Policy {
    let texts = texts.iter().map(|(language, name, url)| {
        let (name, url) = ((*name).to_owned(), (*url).to_owned());
        ((*language).to_owned(), PolicyText { name, url })
    });
    Policy {
        version: version.to_owned(),
        texts: texts.collect(),
    }
}

/// The `client_secret` of the sessions here.
pub(crate) const SECRET: &str = "monkeys_are_GREAT";

/// Asks for a token for an email address, or for a phone number of Great Britain; the session's pair.
pub(crate) async fn asked(app: &TestApp, token: &AccessToken, address: &str) -> Value {
    let (medium, mut body) = if address.contains('@') {
        ("email", json!({ "email": address }))
    } else {
        (
            "msisdn",
            json!({ "country": "GB", "phone_number": address }),
        )
    };
    body["client_secret"] = json!(SECRET);
    body["send_attempt"] = json!(1);
    let path = format!("validate/{medium}/requestToken");
    let sid = app.post_as(token, &path, &body).await.sid();
    json!({ "sid": sid, "client_secret": SECRET })
}

/// Has an address proved; the session's pair.
pub(crate) async fn proved(app: &TestApp, token: &AccessToken, address: &str) -> Value {
    let pair = asked(app, token, address).await;
    let message = app.mail().await;
    let mut body = pair.clone();
    body["token"] = json!(code(&message));
    let path = format!("validate/{}/submitToken", message.medium);
    let answer = app.post_as(token, &path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    pair
}

/// Has an address proved and bound; the association.
pub(crate) async fn bound(app: &TestApp, user_id: &str, address: &str) -> Value {
    let token = app.identity_token(user_id).await;
    let mut body = proved(app, &token, address).await;
    body["mxid"] = json!(user_id);
    let answer = app.post_as(&token, "3pid/bind", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// The query of a pair.
pub(crate) fn query(pair: &Value) -> String {
    let (sid, secret) = (&pair["sid"], &pair["client_secret"]);
    let text = |value: &Value| value.as_str().expect("it is a string").to_owned();
    format!("sid={}&client_secret={}", text(sid), text(secret))
}

/// The hash that a lookup asks for (Identity Service API, "Supported algorithms").
pub(crate) fn lookup_hash(address: &str, medium: &str, pepper: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{address} {medium} {pepper}")))
}

/// Who is found by an address.
pub(crate) async fn found(app: &TestApp, medium: &str, address: &str) -> Option<String> {
    let token = app.identity_token("@looker:example.org").await;
    let details = app.get_as(&token, "hash_details").await.json();
    let pepper = details["lookup_pepper"].as_str().expect("a pepper");
    let hash = lookup_hash(address, medium, pepper);
    let body = json!({ "addresses": [hash], "algorithm": "sha256", "pepper": pepper });
    let answer = app.post_as(&token, "lookup", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["mappings"][&hash].as_str().map(str::to_owned)
}

/// Whether an object is signed by a key that the identity server publishes, in its name and by nobody else.
pub(crate) async fn is_signed(app: &TestApp, object: &Value) -> bool {
    let by = object["signatures"].as_object().expect("signatures");
    let ours = by[IDENTITY_NAME].as_object().expect("ours");
    assert_eq!((by.len(), ours.len()), (1, 1), "{object}");
    let (key_id, signature) = ours.iter().next().expect("one signature");
    let published: Answer = app.get(&format!("{IDENTITY}/pubkey/{key_id}"), &[]).await;
    let published = published.json();
    let public_key = published["public_key"].as_str().expect("a key");
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).expect("unpadded base64");
    let mut bare = object.clone();
    let fields = bare.as_object_mut().expect("an object");
    fields.remove("signatures");
    let canonical = CanonicalJsonValue::try_from(bare).expect("integers alone");
    let key = UnparsedPublicKey::new(&ED25519, decode(public_key));
    let signature = decode(signature.as_str().expect("a signature"));
    key.verify(canonical.to_string().as_bytes(), &signature)
        .is_ok()
}
