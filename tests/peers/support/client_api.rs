//! The client-server API of a homeserver, or of what stands in front of one, for somebody with an access token.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::server::{client, client_that_trusts};

/// One base URL, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct ClientApi {
    /// Without a slash at its end.
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
}

impl ClientApi {
    /// The API at a plain URL.
    pub(crate) fn at(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            client: client(),
        }
    }

    /// The same at a URL whose certificate is of this authority.
    pub(crate) fn trusting(base: impl Into<String>, ca_file: &Path) -> Self {
        Self {
            base: base.into(),
            client: client_that_trusts(ca_file),
        }
    }

    /// Sends a request, with a token unless it is empty; status and answer, or `None` if no whole answer came.
    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.ok()?;
        let answer = serde_json::from_slice(&bytes);
        // A proxy speaks for itself when nobody answers it.
        let read = answer.unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Some((status, read))
    }

    /// Posts JSON, with a token unless it is empty.
    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let answer = self.try_call(Method::POST, path, token, Some(body)).await;
        answer.expect("the server answers")
    }

    /// Puts JSON.
    pub(crate) async fn put(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let answer = self.try_call(Method::PUT, path, token, Some(body)).await;
        answer.expect("the server answers")
    }

    /// Gets a path, with a token unless it is empty.
    pub(crate) async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let answer = self.try_call(Method::GET, path, token, None).await;
        answer.expect("the server answers")
    }

    /// Logs in; an access token of a device of its own.
    pub(crate) async fn login(&self, localpart: &str, password: &str) -> String {
        let (status, answer) = self.try_login(localpart, password).await;
        assert_eq!(status, 200, "{answer}");
        let token = answer["access_token"].as_str();
        token.expect("a login gives a token").to_owned()
    }

    /// The same, which may be refused.
    pub(crate) async fn try_login(&self, localpart: &str, password: &str) -> (u16, Value) {
        let user = json!({ "type": "m.id.user", "user": localpart });
        self.login_as(&user, password).await
    }

    /// Logs in by an address of the account.
    pub(crate) async fn login_by_email(&self, address: &str, password: &str) -> (u16, Value) {
        let user = json!({ "type": "m.id.thirdparty", "medium": "email", "address": address });
        self.login_as(&user, password).await
    }

    async fn login_as(&self, identifier: &Value, password: &str) -> (u16, Value) {
        let body =
            json!({ "type": "m.login.password", "identifier": identifier, "password": password });
        self.post("/_matrix/client/v3/login", "", &body).await
    }

    /// The addresses of an account, each as `medium:address`, in the order of the alphabet.
    pub(crate) async fn contacts(&self, token: &str) -> Vec<String> {
        let (status, answer) = self.get("/_matrix/client/v3/account/3pid", token).await;
        assert_eq!(status, 200, "{answer}");
        contacts(&answer)
    }
}

/// The addresses in an answer that lists them, each as `medium:address`, in the order of the alphabet.
pub(crate) fn contacts(answer: &Value) -> Vec<String> {
    let listed = answer["threepids"].as_array().expect("a list");
    let word = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let mut contacts: Vec<_> = listed
        .iter()
        .map(|one| format!("{}:{}", word(one, "medium"), word(one, "address")))
        .collect();
    contacts.sort();
    contacts
}
