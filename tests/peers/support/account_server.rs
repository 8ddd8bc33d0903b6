//! An OAuth account server that a Synapse has handed its accounts to; it knows everybody as one administrator.

use serde_json::json;

use super::{
    gateway::{Answer, SmsGateway},
    synapse::{Options, Synapse},
};

/// What it shares with Synapse.
const SECRET: &str = "shared-with-Synapse";
/// Who it says that it is.
pub(crate) const ISSUER: &str = "https://account.example.org/";
/// Whose every token is.
pub(crate) const LOCALPART: &str = "operator";

/// The running stand-in; it ends when it is dropped.
pub(crate) struct AccountServer(SmsGateway);

impl AccountServer {
    /// Starts one that answers each request at once as metadata and as the look at a token.
    pub(crate) async fn start() -> Self {
        let answer = json!({
            "issuer": ISSUER, "account_management_uri": ISSUER,
            "active": true, "username": LOCALPART,
            "scope": "urn:matrix:client:api:* urn:synapse:admin:*",
        });
        Self(SmsGateway::start([Answer::json(200, &answer)]).await)
    }

    /// What makes a Synapse hand its accounts to it.
    pub(crate) fn options(&self) -> Options {
        Options::default().accounts_of(&self.0.url(), SECRET)
    }

    /// Tells Synapse of the administrator's account.
    pub(crate) async fn open_account(&self, synapse: &Synapse) {
        let path = "/_synapse/mas/provision_user";
        let account = json!({ "localpart": LOCALPART });
        let (status, answer) = synapse.api.post(path, SECRET, &account).await;
        assert_eq!(status, 201, "{answer}");
    }
}
