//! Somebody who signs up, in the plain words of the Client-Server API.

use serde_json::{Value, json};

use super::{homeserver::Homeserver, server::sid};

/// Where people sign up.
pub(crate) const SIGN_UP: &str = "/_matrix/client/v3/register";
/// Where they ask for a mail before.
pub(crate) const SIGN_UP_EMAIL: &str = "/_matrix/client/v3/register/email/requestToken";
/// A password that every policy likes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// What they call their device.
pub(crate) const DEVICE: &str = "The library's computer";

/// One of them, at one homeserver.
#[derive(Clone, Copy)]
pub(crate) struct Newcomer<'a> {
    pub(crate) homeserver: &'a Homeserver,
    pub(crate) localpart: &'a str,
}

impl<'a> Newcomer<'a> {
    pub(crate) fn at(homeserver: &'a Homeserver, localpart: &'a str) -> Self {
        Self {
            homeserver,
            localpart,
        }
    }

    pub(crate) fn email(&self) -> String {
        format!("{}@example.org", self.localpart)
    }

    fn client_secret(&self) -> String {
        format!("{}.secret", self.localpart)
    }

    /// Posts to `/register`.
    pub(crate) async fn post(&self, body: &Value) -> (u16, Value) {
        self.homeserver.front.post(SIGN_UP, "", body).await
    }

    /// What they want, and how they authenticate.
    pub(crate) fn request(&self, auth: Option<&Value>) -> Value {
        let mut request = json!({
            "username": self.localpart, "password": PASSWORD,
            "initial_device_display_name": DEVICE, "refresh_token": true,
        });
        if let Some(auth) = auth {
            request["auth"] = auth.clone();
        }
        request
    }

    /// Begins; the name of the session.
    pub(crate) async fn session(&self) -> String {
        let (status, answer) = self.post(&self.request(None)).await;
        assert_eq!(status, 401, "{answer}");
        answer["session"].as_str().expect("a session").to_owned()
    }

    /// Asks for a mail; what shows the session once its link is pressed.
    pub(crate) async fn ask(&self) -> Value {
        self.ask_with(&self.client_secret()).await
    }

    async fn ask_with(&self, secret: &str) -> Value {
        let body = json!({ "client_secret": secret, "email": self.email(), "send_attempt": 1 });
        let asked = self.homeserver.front.post(SIGN_UP_EMAIL, "", &body).await;
        assert_eq!(asked.0, 200, "{}", asked.1);
        json!({ "sid": sid(&asked.1), "client_secret": secret })
    }

    /// Asks for a mail as somebody else would; what would show the session.
    pub(crate) async fn ask_again(&self) -> Value {
        self.ask_with(&format!("{}.other", self.client_secret()))
            .await
    }

    /// Proves the address; what shows it.
    pub(crate) async fn prove(&self) -> Value {
        let (email, secret) = (self.email(), self.client_secret());
        let homeserver = self.homeserver;
        homeserver.prove_at(SIGN_UP_EMAIL, &email, &secret).await
    }

    /// Shows what was proved, with name and password.
    pub(crate) async fn show(&self, session: &str, creds: &Value) -> (u16, Value) {
        self.post(&self.request(Some(&stage(session, creds)))).await
    }

    /// The same in the background; whatever becomes of it.
    pub(crate) fn show_somehow(&self, session: &str, creds: &Value) -> tokio::task::JoinHandle<()> {
        let front = self.homeserver.front.clone();
        let request = self.request(Some(&stage(session, creds)));
        tokio::spawn(async move {
            let _ = front.post(SIGN_UP, "", &request).await;
        })
    }

    /// All of it; status and answer.
    pub(crate) async fn sign_up(&self) -> (u16, Value) {
        let session = self.session().await;
        let creds = self.prove().await;
        self.show(&session, &creds).await
    }
}

/// The stage of an email.
pub(crate) fn stage(session: &str, creds: &Value) -> Value {
    json!({ "type": "m.login.email.identity", "session": session, "threepid_creds": creds })
}

/// The stages of each flow of an answer.
pub(crate) fn flows(answer: &Value) -> Vec<Vec<&str>> {
    let flows = answer["flows"].as_array().expect("a list").iter();
    let stages = flows.map(|flow| flow["stages"].as_array().expect("a list").iter());
    let words = stages.map(|stages| stages.map(|stage| stage.as_str().expect("a text")));
    words.map(Iterator::collect).collect()
}
