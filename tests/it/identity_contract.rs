//! What is written of the Identity Service API holds for what is answered: each operation, its success and each of its
//! errors that a client can bring about.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use threepid::secret::AccessToken;

use crate::support::{
    app::{Answer, IDENTITY, TestApp},
    openapi::{check, content, follow},
};

const ALICE: &str = "@alice:example.org";

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/identity.openapi.json")).expect("JSON")
}

/// The operation of a request: its path in the document, with names in braces.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (mut template, mut path) = (template.split('/'), path.split('/'));
        loop {
            match (template.next(), path.next()) {
                (None, None) => return true,
                (Some(part), Some(own)) if part == own || part.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    let paths = document["paths"].as_object().expect("paths");
    let exact = paths.get(path);
    let found = exact.or_else(|| paths.iter().find(|(path, _)| fits(path)).map(|(_, it)| it));
    let found = found.unwrap_or_else(|| panic!("{path} is not described"));
    &found[method.to_lowercase()]
}

/// Requests that were sent, and what the document says of their answers.
struct Caller {
    app: TestApp,
    document: Value,
    /// What was answered so far: operation, status and `errcode`.
    seen: BTreeSet<String>,
}

impl Caller {
    async fn call(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&AccessToken>,
        body: Option<&Value>,
    ) -> Value {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{IDENTITY}/{path}")
        };
        let mut request = Request::builder().method(method).uri(&path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.app.send(request.body(body).expect("a request")).await;
        self.look_at(method, &path, &answer);
        answer.json()
    }

    /// That the answer is one that is described.
    fn look_at(&mut self, method: &str, path: &str, answer: &Answer) {
        let operation = operation(&self.document, method, path);
        let status = answer.status.as_u16().to_string();
        let id = operation["operationId"].as_str().expect("it has a name");
        let described = operation["responses"].get(&status);
        let described = described.unwrap_or_else(|| panic!("{id}: {status} {}", answer.text));
        let body = answer.json();
        let schema = &content(&self.document, described)["schema"];
        if follow(&self.document, described)["content"]["text/html"].is_null() {
            let told = check(&self.document, schema, &body);
            told.unwrap_or_else(|why| panic!("{id}: {status}: {why}"));
        } else {
            assert!(
                answer.header("content-type").starts_with("text/html"),
                "{id}"
            );
        }
        let errcode = body["errcode"].as_str().unwrap_or_default();
        self.seen.insert(format!("{id} {status} {errcode}"));
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{id}");
    }

    /// The body without each of its keys in turn, with one of another type, no object, and no JSON.
    async fn break_body(&mut self, path: &str, token: Option<&AccessToken>, body: &Value) {
        let (id, required) = {
            let operation = operation(&self.document, "POST", &format!("{IDENTITY}/{path}"));
            let schema = &content(&self.document, &operation["requestBody"])["schema"];
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            (operation["operationId"].clone(), required)
        };
        for key in required.iter().filter_map(Value::as_str) {
            let mut less = body.clone();
            less.as_object_mut().expect("an object").remove(key);
            let answer = self.call("POST", path, token, Some(&less)).await;
            assert_eq!(answer["errcode"], "M_MISSING_PARAMS", "{id} without {key}");
            less[key] = json!(true);
            let answer = self.call("POST", path, token, Some(&less)).await;
            assert_eq!(answer["errcode"], "M_BAD_JSON", "{id} with a wrong {key}");
        }
        let answer = self.call("POST", path, token, Some(&json!([1]))).await;
        assert_eq!(answer["errcode"], "M_BAD_JSON", "{id}");
        let answer = self.call("POST", path, token, None).await;
        assert_eq!(answer["errcode"], "M_NOT_JSON", "{id}");
    }

    /// The code, or link, of the newest message.
    async fn code(&self) -> String {
        let message = self.app.mail().await;
        let digits =
            |word: &&str| word.len() >= 6 && word.bytes().all(|byte| byte.is_ascii_digit());
        let words = message.text.split_whitespace();
        words.clone().find(digits).expect("a code").to_owned()
    }
}

fn caller(terms: bool) -> Caller {
    let app = TestApp::identity(|settings| {
        settings.lookup_addresses = 3;
        if terms {
            let text = threepid::identity::PolicyText {
                name: "Privacy".to_owned(),
                url: "https://example.org/privacy-1".to_owned(),
            };
            let policy = threepid::identity::Policy {
                version: "1".to_owned(),
                texts: [("en".to_owned(), text)].into(),
            };
            settings.terms = [("privacy".to_owned(), policy)].into();
        }
    });
    Caller {
        app,
        document: document(),
        seen: BTreeSet::new(),
    }
}

/// Bodies that are as they should be, for every endpoint that takes one with a token.
fn bodies() -> Vec<(&'static str, Value)> {
    let pair = json!({ "sid": "AbCd", "client_secret": "s", "token": "1" });
    vec![
        ("terms", json!({ "user_accepts": [] })),
        (
            "lookup",
            json!({ "algorithm": "sha256", "pepper": "p", "addresses": [] }),
        ),
        (
            "validate/email/requestToken",
            json!({ "client_secret": "s", "email": "a@b.org", "send_attempt": 1 }),
        ),
        (
            "validate/msisdn/requestToken",
            json!({ "client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1 }),
        ),
        ("validate/email/submitToken", pair.clone()),
        ("validate/msisdn/submitToken", pair),
        (
            "3pid/bind",
            json!({ "sid": "AbCd", "client_secret": "s", "mxid": ALICE }),
        ),
        (
            "store-invite",
            json!({ "medium": "email", "address": "a@b.org", "room_id": "!r:b.org", "sender": ALICE }),
        ),
        (
            "sign-ed25519",
            json!({ "mxid": ALICE, "token": "t", "private_key": "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1" }),
        ),
    ]
}

#[tokio::test]
async fn every_endpoint_is_described_and_every_description_is_served() {
    let mut caller = caller(false);
    let paths = caller.document["paths"].as_object().unwrap().clone();
    for (path, methods) in &paths {
        let path = path.replace("{keyId}", "ed25519:0");
        let methods: Vec<_> = methods.as_object().unwrap().keys().cloned().collect();
        for method in ["get", "post", "put", "delete", "patch"] {
            let answer = caller.app.bare(&method.to_uppercase(), &path, &[]).await;
            let is_served = answer.status != 404 && answer.status != 405;
            assert_eq!(
                is_served,
                methods.contains(&method.to_owned()),
                "{method} {path}"
            );
            if !is_served {
                assert_eq!(
                    (answer.status.as_u16(), answer.errcode().as_str()),
                    (405, "M_UNRECOGNIZED")
                );
            }
        }
    }
    let shown = caller.app.get("/_threepid/openapi.json", &[]).await;
    assert_eq!(shown.json(), caller.document);
    assert_eq!(shown.header("content-type"), "application/json");
    caller
        .call("GET", "/_matrix/identity/versions", None, None)
        .await;
    caller.call("GET", IDENTITY, None, None).await;
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_told_apart() {
    let mut caller = caller(false);
    let alice = caller.app.identity_token(ALICE).await;
    for (path, body) in bodies() {
        caller.break_body(path, Some(&alice), &body).await;
    }
    let register = json!({ "access_token": "t", "matrix_server_name": "example.org" });
    caller.break_body("account/register", None, &register).await;
    let unbind = json!({ "mxid": ALICE, "threepid": { "medium": "email", "address": "a@b.org" } });
    caller.break_body("3pid/unbind", None, &unbind).await;
    assert!(caller.app.mails().await.is_empty());
}

#[tokio::test]
async fn nobody_is_served_without_a_token_or_with_terms_outstanding() {
    let mut caller = caller(true);
    let alice = caller.app.identity_token(ALICE).await;
    let stranger = AccessToken::parse("stranger").unwrap();
    let pair = "3pid/getValidated3pid?sid=AbCd&client_secret=s";
    let mut calls: Vec<(&str, &str, Option<Value>)> = vec![
        ("GET", "account", None),
        ("GET", "hash_details", None),
        ("GET", pair, None),
    ];
    calls.extend(
        bodies()
            .into_iter()
            .map(|(path, body)| ("POST", path, Some(body))),
    );
    for (method, path, body) in &calls {
        for token in [None, Some(&stranger)] {
            let answer = caller.call(method, path, token, body.as_ref()).await;
            assert_eq!(answer["errcode"], "M_UNAUTHORIZED", "{path}");
        }
        let answer = caller.call(method, path, Some(&alice), body.as_ref()).await;
        let wanted = if *path == "terms" {
            Value::Null
        } else {
            json!("M_TERMS_NOT_SIGNED")
        };
        assert_eq!(answer["errcode"], wanted, "{path}");
    }
    caller.call("GET", "terms", None, None).await;
    let accepts = json!({ "user_accepts": ["https://example.org/privacy-1"] });
    caller
        .call("POST", "terms", Some(&alice), Some(&accepts))
        .await;
    let answer = caller.call("GET", "account", Some(&alice), None).await;
    assert_eq!(answer, json!({ "user_id": ALICE }));
    caller
        .call("POST", "account/logout", Some(&alice), None)
        .await;
    let answer = caller
        .call("POST", "account/logout", Some(&alice), None)
        .await;
    assert_eq!(answer["errcode"], "M_UNKNOWN_TOKEN");
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "it is one way, from beginning to end"
)]
async fn an_address_is_validated_bound_found_and_ended_as_it_is_described() {
    let mut caller = caller(false);
    let alice = caller.app.identity_token(ALICE).await;
    let request = json!({ "client_secret": "s", "email": "alice@example.com", "send_attempt": 1 });
    let path = "validate/email/requestToken";
    let sid = caller
        .call("POST", path, Some(&alice), Some(&request))
        .await["sid"]
        .clone();
    let pair = format!("sid={}&client_secret=s", sid.as_str().unwrap());
    let validated = format!("3pid/getValidated3pid?{pair}");
    let bind = json!({ "sid": sid, "client_secret": "s", "mxid": ALICE });

    let answer = caller.call("GET", &validated, Some(&alice), None).await;
    assert_eq!(answer["errcode"], "M_SESSION_NOT_VALIDATED");
    let answer = caller
        .call("POST", "3pid/bind", Some(&alice), Some(&bind))
        .await;
    assert_eq!(answer["errcode"], "M_SESSION_NOT_VALIDATED");
    let code = caller.code().await;
    let page = format!("validate/email/submitToken?{pair}&token=");
    caller
        .call("GET", &format!("{page}00000000"), None, None)
        .await;
    let mut shown = json!({ "sid": sid, "client_secret": "s", "token": "00000000" });
    let submit = "validate/email/submitToken";
    let answer = caller
        .call("POST", submit, Some(&alice), Some(&shown))
        .await;
    assert_eq!(answer["errcode"], "M_TOKEN_INCORRECT");
    shown["token"] = json!(code);
    caller
        .call("POST", submit, Some(&alice), Some(&shown))
        .await;
    caller
        .call("GET", &format!("{page}{code}"), None, None)
        .await;
    caller.call("GET", &validated, Some(&alice), None).await;
    let unknown = json!({ "sid": "AbCd", "client_secret": "s", "mxid": ALICE });
    let answer = caller
        .call("POST", "3pid/bind", Some(&alice), Some(&unknown))
        .await;
    assert_eq!(answer["errcode"], "M_NO_VALID_SESSION");
    let foreign = json!({ "sid": sid, "client_secret": "s", "mxid": "@mallory:example.org" });
    let answer = caller
        .call("POST", "3pid/bind", Some(&alice), Some(&foreign))
        .await;
    assert_eq!(answer["errcode"], "M_UNAUTHORIZED");
    caller
        .call("POST", "3pid/bind", Some(&alice), Some(&bind))
        .await;

    let details = caller.call("GET", "hash_details", Some(&alice), None).await;
    let pepper = details["lookup_pepper"].as_str().unwrap();
    let hash = crate::support::openapi::lookup_hash("alice@example.com", "email", pepper);
    let lookup = |algorithm, pepper, addresses: Value| json!({ "algorithm": algorithm, "pepper": pepper, "addresses": addresses });
    let answer = caller
        .call(
            "POST",
            "lookup",
            Some(&alice),
            Some(&lookup("sha256", pepper, json!([hash]))),
        )
        .await;
    assert_eq!(answer, json!({ "mappings": { &hash: ALICE } }));
    for (body, errcode) in [
        (lookup("sha256", "other", json!([hash])), "M_INVALID_PEPPER"),
        (lookup("md5", pepper, json!([hash])), "M_INVALID_PARAM"),
        (lookup("none", pepper, json!([hash])), "M_INVALID_PARAM"),
        (
            lookup("sha256", pepper, json!(["1", "2", "3", "4"])),
            "M_TOO_LARGE",
        ),
        (lookup("sha256", pepper, json!([1])), "M_BAD_JSON"),
    ] {
        let answer = caller
            .call("POST", "lookup", Some(&alice), Some(&body))
            .await;
        assert_eq!(answer["errcode"], errcode, "{body}");
    }

    let invite = json!({ "medium": "email", "address": "alice@example.com", "room_id": "!r:b.org", "sender": ALICE });
    let answer = caller
        .call("POST", "store-invite", Some(&alice), Some(&invite))
        .await;
    assert_eq!(
        (&answer["errcode"], &answer["mxid"]),
        (&json!("M_THREEPID_IN_USE"), &json!(ALICE))
    );
    let threepid = json!({ "medium": "email", "address": "alice@example.com" });
    let bare = json!({ "mxid": ALICE, "threepid": threepid });
    let answer = caller.call("POST", "3pid/unbind", None, Some(&bare)).await;
    assert_eq!(answer["errcode"], "M_FORBIDDEN");
    let unbind = json!({ "mxid": ALICE, "threepid": threepid, "sid": sid, "client_secret": "s" });
    caller
        .call("POST", "3pid/unbind", None, Some(&unbind))
        .await;
    let answer = caller
        .call(
            "POST",
            "lookup",
            Some(&alice),
            Some(&lookup("sha256", pepper, json!([hash]))),
        )
        .await;
    assert_eq!(answer, json!({ "mappings": {} }));
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "it is one way, from beginning to end"
)]
async fn an_invitation_is_stored_signed_and_checked_as_it_is_described() {
    let mut caller = caller(false);
    let alice = caller.app.identity_token(ALICE).await;
    let mut invite = json!({ "medium": "email", "address": "foo@bar.com", "room_id": "!r:b.org", "sender": ALICE });
    let stored = caller
        .call("POST", "store-invite", Some(&alice), Some(&invite))
        .await;
    for (key, value, errcode) in [
        ("medium", "msisdn", "M_UNRECOGNIZED"),
        ("address", "foo", "M_INVALID_EMAIL"),
        ("sender", "@mallory:example.org", "M_UNAUTHORIZED"),
    ] {
        let before = invite[key].take();
        invite[key] = json!(value);
        let answer = caller
            .call("POST", "store-invite", Some(&alice), Some(&invite))
            .await;
        assert_eq!(answer["errcode"], errcode);
        invite[key] = before;
    }
    for key in stored["public_keys"].as_array().unwrap() {
        let url = key["key_validity_url"].as_str().unwrap();
        let path = url.strip_prefix("https://matrix.example.org").unwrap();
        let public_key = key["public_key"].as_str().unwrap();
        let asked = format!("{path}?public_key={}", public_key.replace('+', "%2B"));
        assert_eq!(
            caller.call("GET", &asked, None, None).await,
            json!({ "valid": true })
        );
        let answer = caller.call("GET", path, None, None).await;
        assert_eq!(answer["errcode"], "M_MISSING_PARAMS");
    }
    caller.call("GET", "pubkey/ed25519:0", None, None).await;
    let answer = caller.call("GET", "pubkey/ed25519:9", None, None).await;
    assert_eq!(answer["errcode"], "M_NOT_FOUND");

    let private_key = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
    let sign = |token: &Value, key: &str| json!({ "mxid": "@foo:bar.com", "token": token, "private_key": key });
    let signed = caller
        .call(
            "POST",
            "sign-ed25519",
            Some(&alice),
            Some(&sign(&stored["token"], private_key)),
        )
        .await;
    assert_eq!(
        (&signed["sender"], &signed["token"]),
        (&json!(ALICE), &stored["token"])
    );
    let answer = caller
        .call(
            "POST",
            "sign-ed25519",
            Some(&alice),
            Some(&sign(&json!("nothing"), private_key)),
        )
        .await;
    assert_eq!(answer["errcode"], "M_UNRECOGNIZED");
    let answer = caller
        .call(
            "POST",
            "sign-ed25519",
            Some(&alice),
            Some(&sign(&stored["token"], "short")),
        )
        .await;
    assert_eq!(answer["errcode"], "M_INVALID_PARAM");
}
