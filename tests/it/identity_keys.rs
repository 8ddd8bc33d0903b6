//! The identity server's keys, as those ask for them who check its signatures.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::http::Uri;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use threepid::{SigningKeys, identity::Settings, limits};
use url::form_urlencoded::byte_serialize;

use crate::support::app::*;

/// Two keys, and their public halves: that of the specification (Matrix appendices, "Test Vectors"), and one of nothing but
/// zeros.
const FILE: &str = "ed25519 new YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n\
                    ed25519 0 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
const NEW: &str = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI";
const OLD: &str = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik";

fn over(file: &str) -> TestApp {
    let keys = SigningKeys::parse(file).expect("a key file");
    let settings = Settings::new(IDENTITY_NAME.parse().expect("a name"));
    TestApp::with(|builder| {
        builder
            .limits(limits::Settings::OFF)
            .identity(settings, keys)
    })
}

async fn get(app: &TestApp, path: &str) -> (u16, Value) {
    let answer = app.get(&format!("{IDENTITY}/{path}"), &[]).await;
    (answer.status.as_u16(), answer.json())
}

async fn is_valid(app: &TestApp, query: &str) -> bool {
    let (status, body) = get(app, &format!("pubkey/isvalid?{query}")).await;
    assert_eq!(status, 200, "{query}");
    body["valid"].as_bool().expect("a truth value")
}

fn escaped(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn a_key_is_found_by_its_name_and_so_is_an_older_one() {
    let app = over(FILE);
    for (path, key) in [
        ("pubkey/ed25519:new", NEW),
        ("pubkey/ed25519%3Anew", NEW),
        ("pubkey/ed25519%3anew", NEW),
        ("pubkey/ed25519:0", OLD),
    ] {
        assert_eq!(
            get(&app, path).await,
            (200, json!({ "public_key": key })),
            "{path}"
        );
    }
}

#[tokio::test]
async fn another_name_is_no_key_s() {
    let app = over(FILE);
    for name in [
        "ed25519:1",
        "ed25519",
        "ed25519:",
        "new",
        ":new",
        "curve25519:new",
        "ED25519:new",
        "ed25519:NEW",
        "ed25519:new%00",
        "ed25519%253Anew",
        "%FF",
        "ed25519:new%2F..",
        "%20ed25519:new",
    ] {
        let answer = app.get(&format!("{IDENTITY}/pubkey/{name}"), &[]).await;
        assert_eq!(answer.refusal(), refusal(404, "M_NOT_FOUND"), "{name}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn a_key_that_is_found_is_valid() {
    let app = TestApp::identity(|_| {});
    let (_, found) = get(&app, "pubkey/ed25519:0").await;
    let key = found["public_key"].as_str().expect("a string");

    assert!(is_valid(&app, &format!("public_key={}", escaped(key))).await);
    assert!(
        !is_valid(&app, &format!("public_key={}", escaped(NEW))).await,
        "another server's"
    );
}

#[tokio::test]
async fn keys_older_than_the_newest_stay_valid_and_those_that_were_taken_out_do_not() {
    let both = over(FILE);
    assert!(is_valid(&both, &format!("public_key={NEW}")).await);
    assert!(is_valid(&both, &format!("public_key={OLD}")).await);

    let newest = over(FILE.lines().next().expect("a line"));

    assert!(is_valid(&newest, &format!("public_key={NEW}")).await);
    assert!(!is_valid(&newest, &format!("public_key={OLD}")).await);
}

/// A key file of one key whose public half has letters of its own in each alphabet of base64, and that half.
fn odd_key() -> (String, Vec<u8>) {
    let keys = (0..=u8::MAX).map(|number| {
        let seed = [number; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed");
        let file = format!("ed25519 0 {}", STANDARD_NO_PAD.encode(seed));
        (file, pair.public_key().as_ref().to_vec())
    });
    let is_odd = |public: &[u8]| {
        let text = STANDARD_NO_PAD.encode(public);
        text.contains('+') && text.contains('/')
    };
    let mut keys = keys.filter(|(_, public)| is_odd(public));
    keys.next().expect("one of so many")
}

#[tokio::test]
async fn a_key_is_known_in_both_alphabets_padded_or_not_escaped_or_not() {
    let (file, public) = odd_key();
    let app = over(&file);
    for text in [
        STANDARD.encode(&public),
        STANDARD_NO_PAD.encode(&public),
        URL_SAFE.encode(&public),
        URL_SAFE_NO_PAD.encode(&public),
    ] {
        for query in [
            text.clone(),
            escaped(&text),
            text.replace('+', "%20"),
            text.replace('=', "%3D"),
        ] {
            assert!(
                is_valid(&app, &format!("x=1&public_key={query}")).await,
                "{query}"
            );
        }
    }
    let (_, found) = get(&app, "pubkey/ed25519:0").await;
    assert_eq!(
        found,
        json!({ "public_key": STANDARD_NO_PAD.encode(&public) })
    );
}

#[tokio::test]
async fn what_is_no_key_is_not_valid_and_no_error() {
    let app = over(FILE);
    for garbage in [
        "",
        "x",
        "nonsense",
        "*",
        "%FF",
        "%00",
        "%",
        "ed25519:new",
        "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2i",
        "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ikA",
        "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik%0A",
        &"A".repeat(10_000),
    ] {
        let uri = format!("public_key={garbage}");
        assert!(format!("/?{uri}").parse::<Uri>().is_ok(), "{garbage}");
        assert!(!is_valid(&app, &uri).await, "{garbage}");
        let (status, body) = get(&app, &format!("pubkey/ephemeral/isvalid?{uri}")).await;
        assert_eq!(
            (status, body),
            (200, json!({ "valid": false })),
            "{garbage}"
        );
    }
}

#[tokio::test]
async fn a_question_without_a_key_or_with_two_is_refused() {
    let app = over(FILE);
    let twice = format!("public_key={NEW}&public_key={OLD}");
    for path in ["pubkey/isvalid", "pubkey/ephemeral/isvalid"] {
        for (query, errcode) in [
            ("", "M_MISSING_PARAMS"),
            ("?", "M_MISSING_PARAMS"),
            ("?public_keys=x", "M_MISSING_PARAMS"),
            (&format!("?{twice}"), "M_INVALID_PARAM"),
        ] {
            let answer = app.get(&format!("{IDENTITY}/{path}{query}"), &[]).await;
            assert_eq!(answer.refusal(), refusal(400, errcode), "{path}{query}");
        }
    }
}
