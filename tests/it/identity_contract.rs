//! What is written of the Identity Service API holds for what is answered: each operation, its success and each of its
//! errors that a client, a homeserver or the operator's settings can bring about.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use threepid::secret::AccessToken;

use crate::{
    identity_contract_ways as ways,
    support::{
        app::{Answer, IDENTITY, TestApp, refusal},
        openapi::{check, content, follow},
    },
};

pub(crate) const ALICE: &str = "@alice:example.org";
/// What no request brings about: overload, or a database that does not answer.
const OVERLOAD: &str = " 503 M_UNKNOWN";

/// What was answered: operation, status and, of errors, `errcode`.
pub(crate) type Seen = BTreeSet<String>;

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/identity.openapi.json")).expect("JSON")
}

/// The operation of a request: its path in the document, with names in braces.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        let is_as_long = template.clone().count() == path.clone().count();
        is_as_long
            && template
                .zip(path)
                .all(|(part, own)| part == own || part.starts_with('{'))
    };
    let paths = document["paths"].as_object().expect("paths");
    let exact = paths.get(path);
    let found = exact.or_else(|| paths.iter().find(|(path, _)| fits(path)).map(|(_, it)| it));
    let found = found.unwrap_or_else(|| panic!("{path} is not described"));
    &found[method.to_lowercase()]
}

/// All that the document says may be answered.
fn described(document: &Value) -> Seen {
    let paths = document["paths"].as_object().expect("paths").values();
    let operations = paths.flat_map(|path| path.as_object().expect("methods").values());
    let mut all = Seen::new();
    for operation in operations {
        let id = operation["operationId"].as_str().expect("it has a name");
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let schema = follow(document, &content(document, response)["schema"]);
            let errcodes = schema["properties"]["errcode"]["enum"].as_array();
            match errcodes {
                None => drop(all.insert(format!("{id} {status}"))),
                Some(errcodes) => all.extend(errcodes.iter().map(|errcode| {
                    let errcode = errcode.as_str().expect("a name");
                    format!("{id} {status} {errcode}")
                })),
            }
        }
    }
    all
}

/// Requests that are sent, and what the document says of their answers.
pub(crate) struct Caller<'a> {
    pub(crate) app: TestApp,
    /// What is sent to operations that ask for it.
    pub(crate) token: Option<AccessToken>,
    /// What is sent in its place where it is set.
    pub(crate) authorization: Option<String>,
    document: Value,
    seen: &'a mut Seen,
}

impl<'a> Caller<'a> {
    /// Calls as Alice.
    pub(crate) async fn new(app: TestApp, seen: &'a mut Seen) -> Self {
        let token = Some(app.identity_token(ALICE).await);
        Self {
            app,
            token,
            authorization: None,
            document: document(),
            seen,
        }
    }

    /// Sends a request, whose answer is one that is described: its status and `errcode`, and its body.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (String, Value) {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{IDENTITY}/{path}")
        };
        let mut request = Request::builder().method(method).uri(&path);
        let is_open = operation(&self.document, method, &path)["security"] == json!([]);
        let token = self.token.as_ref().filter(|_| !is_open);
        let bearer = token.map(|token| format!("Bearer {}", token.reveal()));
        if let Some(authorization) = self.authorization.clone().or(bearer) {
            request = request.header("authorization", authorization);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.app.send(request.body(body).expect("a request")).await;
        (self.look_at(method, &path, &answer), answer.json())
    }

    /// That the answer is one that is described; its status and `errcode`.
    fn look_at(&mut self, method: &str, path: &str, answer: &Answer) -> String {
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
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{id}");
        let outcome = match body["errcode"].as_str() {
            Some(errcode) => format!("{status} {errcode}"),
            None => status,
        };
        self.seen.insert(format!("{id} {outcome}"));
        outcome
    }

    /// Sends a request whose outcome is known; the body of its answer.
    async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        outcome: &str,
    ) -> Value {
        let (told, answer) = self.send(method, path, body).await;
        let sent = body.map(Value::to_string).unwrap_or_default();
        assert_eq!(told, outcome, "{method} {path} {sent}: {answer}");
        answer
    }

    pub(crate) async fn get(&mut self, path: &str, outcome: &str) -> Value {
        self.call("GET", path, None, outcome).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value, outcome: &str) -> Value {
        self.call("POST", path, Some(body), outcome).await
    }

    /// The body without each of its keys in turn, with one of another type, too large, no object, and no JSON.
    pub(crate) async fn break_body(&mut self, path: &str, body: &Value) {
        let required = {
            let operation = operation(&self.document, "POST", &format!("{IDENTITY}/{path}"));
            let schema = &content(&self.document, &operation["requestBody"])["schema"];
            schema["required"].as_array().cloned().unwrap_or_default()
        };
        for key in required.iter().filter_map(Value::as_str) {
            let mut less = body.clone();
            less.as_object_mut().expect("an object").remove(key);
            self.post(path, &less, "400 M_MISSING_PARAMS").await;
            less[key] = json!(true);
            self.post(path, &less, "400 M_BAD_JSON").await;
        }
        let mut large = body.clone();
        large["padding"] = json!("x".repeat(1_100_000));
        self.post(path, &large, "413 M_TOO_LARGE").await;
        self.post(path, &json!([1]), "400 M_BAD_JSON").await;
        self.call("POST", path, None, "400 M_NOT_JSON").await;
    }
}

#[tokio::test]
async fn every_endpoint_is_described_and_every_description_is_served() {
    let app = TestApp::identity(|_| {});
    let document = document();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{keyId}", "ed25519:0");
        for method in ["get", "post", "put", "delete", "patch"] {
            let answer = app.bare(&method.to_uppercase(), &path, &[]).await;
            let is_served = answer.status != 404 && answer.status != 405;
            let is_described = methods.get(method).is_some();
            assert_eq!(is_served, is_described, "{method} {path}");
            if !is_served {
                assert_eq!(answer.refusal(), refusal(405, "M_UNRECOGNIZED"));
            }
        }
    }
    let shown = app.get("/_threepid/openapi.json", &[]).await;
    assert_eq!(shown.json(), document);
    assert_eq!(shown.header("content-type"), "application/json");
}

#[tokio::test]
async fn all_that_is_described_is_answered_and_nothing_else() {
    let mut seen = Seen::new();

    ways::what_is_wrong(&mut seen).await;
    ways::without_a_token_or_with_terms_outstanding(&mut seen).await;
    ways::addresses(&mut seen).await;
    ways::lookups(&mut seen).await;
    ways::invitations(&mut seen).await;
    ways::sessions_that_have_run_out(&mut seen).await;
    ways::what_the_operator_does_not_admit(&mut seen).await;
    ways::messages_that_do_not_go(&mut seen).await;
    ways::homeservers(&mut seen).await;
    ways::homeservers_that_hang(&mut seen).await;
    ways::limits(&mut seen).await;

    let mut described = described(&document());
    described.retain(|outcome| !outcome.ends_with(OVERLOAD));
    let missing: Vec<_> = described.difference(&seen).collect();
    assert_eq!(missing, Vec::<&String>::new(), "described and never seen");
    let more: Vec<_> = seen.difference(&described).collect();
    assert_eq!(more, Vec::<&String>::new(), "seen and not described");
}
