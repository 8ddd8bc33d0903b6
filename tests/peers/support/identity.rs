//! Our program as an identity server, behind TLS, and the people who use it from a Synapse that it can call.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{
    certificates::authority_in,
    client_api::ClientApi,
    mails::code,
    server::{Server, Site, sid, until},
    synapse::{Options, Synapse},
    tls_front::{ServingFront, TlsFront},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// What the identity server asks people to accept, if it asks at all.
pub(crate) const TERMS: &str = r#"
[identity.terms.privacy_policy]
version = "1.0"
en = { name = "Privacy policy", url = "https://example.org/privacy-1.0-en.html" }
de = { name = "Datenschutz", url = "https://example.org/privacy-1.0-de.html" }
"#;

/// The running identity server.
pub(crate) struct IdentityServer {
    /// Its API, by the name that everybody calls it.
    pub(crate) api: ClientApi,
    /// Its name: `localhost` and a port.
    pub(crate) name: String,
    pub(crate) server: Server,
    /// The certificate of the authority that everybody trusts here.
    pub(crate) ca_file: std::path::PathBuf,
    _site: Site,
    _front: ServingFront,
}

impl IdentityServer {
    /// Starts one, with more of its configuration file.
    pub(crate) async fn start(settings: &str) -> Self {
        let front = TlsFront::bind().await;
        let name = front.name();
        let site = Site::new()
            .set("server.public_url", format!("https://{name}"))
            .set("server.trusted_proxies", "127.0.0.1")
            .set("sms.transport", "capture");
        let ca_file = authority_in(&site.path(""));
        let file = format!(
            "[identity]\nenabled = true\nsigning_key_file = \"signing.key\"\n{settings}\n\
             [outbound]\nallow = [\"127.0.0.0/8\", \"::1/128\"]\nca_files = [\"ca.pem\"]\n"
        );
        fs::write(site.path("threepid.toml"), file).expect("the folder can be written");
        let server = site.start().await;
        Self {
            api: ClientApi::trusting(format!("https://{name}"), &ca_file),
            _front: front.before(&server.base),
            _site: site,
            ca_file,
            server,
            name,
        }
    }

    /// Posts JSON to a path of its API, with a token unless it is empty; status and answer.
    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let path = format!("/_matrix/identity/v2/{path}");
        self.api.post(&path, token, body).await
    }

    /// Gets a path of its API, with a token unless it is empty; status and answer.
    pub(crate) async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let path = format!("/_matrix/identity/v2/{path}");
        self.api.get(&path, token).await
    }

    /// Asks for a mail, and shows the code in it; what shows the session.
    pub(crate) async fn prove(&self, token: &str, email: &str) -> Value {
        let secret = format!("{}.secret", email.replace('@', "_at_"));
        let before = self.texts_to(email).await.len();
        let asked = json!({ "client_secret": secret, "email": email, "send_attempt": "1" });
        let (status, answer) = self
            .post("validate/email/requestToken", token, &asked)
            .await;
        assert_eq!(status, 200, "{answer}");
        let text = self.text_to(email, before + 1).await;
        let mut creds = json!({ "sid": sid(&answer), "client_secret": secret });
        creds["token"] = code(&text).into();
        let shown = self.post("validate/email/submitToken", token, &creds).await;
        assert_eq!(shown, (200, json!({ "success": true })));
        json!({ "sid": creds["sid"], "client_secret": creds["client_secret"] })
    }

    /// The newest of the texts to an address, once there are so many.
    pub(crate) async fn text_to(&self, address: &str, count: usize) -> String {
        let mut texts = Vec::new();
        until("the message is there", async || {
            texts = self.texts_to(address).await;
            texts.len() >= count
        })
        .await;
        texts.swap_remove(0)
    }

    /// All texts to an address so far, newest first.
    async fn texts_to(&self, address: &str) -> Vec<String> {
        let messages = self.server.mailbox().await;
        let to = messages.iter().filter(|one| one["to"] == address);
        to.map(|one| one["text"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Who has an email address, as everybody may ask who has an account.
    pub(crate) async fn look_up(&self, token: &str, email: &str) -> Option<String> {
        let (status, details) = self.get("hash_details", token).await;
        assert_eq!(status, 200, "{details}");
        let pepper = details["lookup_pepper"].as_str().expect("a pepper");
        let hash = Sha256::digest(format!("{email} email {pepper}"));
        let hash = URL_SAFE_NO_PAD.encode(hash);
        let asked = json!({ "algorithm": "sha256", "pepper": pepper, "addresses": [hash] });
        let (status, answer) = self.post("lookup", token, &asked).await;
        assert_eq!(status, 200, "{answer}");
        answer["mappings"][&hash].as_str().map(str::to_owned)
    }
}

/// A Synapse and an identity server that reach and trust each other.
pub(crate) struct Neighbours {
    pub(crate) synapse: Synapse,
    pub(crate) identity: IdentityServer,
    _dir: TempDir,
}

/// Somebody with an account at both.
pub(crate) struct Neighbour {
    pub(crate) user_id: String,
    /// Their access token at Synapse.
    pub(crate) token: String,
    /// Their access token at the identity server.
    pub(crate) id_token: String,
}

impl Neighbours {
    /// Starts both, with more of the identity server's configuration file.
    pub(crate) async fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let options = Options::default().federating();
        Self {
            identity: IdentityServer::start(settings).await,
            synapse: Synapse::start(dir.path(), options).await,
            _dir: dir,
        }
    }

    /// Makes an account at Synapse, whose password is the name and `'s`, and one at the identity server with it.
    pub(crate) async fn join(&self, localpart: &str) -> Neighbour {
        let password = format!("{localpart}'s");
        let token = self.synapse.register(localpart, &password, false).await;
        let user_id = self.user_id(localpart);
        let openid = self.openid(&user_id, &token).await;
        let (status, answer) = self.identity.post("account/register", "", &openid).await;
        assert_eq!(status, 200, "{answer}");
        let id_token = answer["token"].as_str().expect("a token").to_owned();
        Neighbour {
            user_id,
            token,
            id_token,
        }
    }

    /// The whole id of a user of Synapse's.
    pub(crate) fn user_id(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.synapse.server_name)
    }

    /// What shows others who somebody is: an `OpenID` token of Synapse's.
    pub(crate) async fn openid(&self, user_id: &str, token: &str) -> Value {
        let path = format!("/_matrix/client/v3/user/{user_id}/openid/request_token");
        let (status, answer) = self.synapse.api.post(&path, token, &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Posts to Synapse what it passes on to the identity server, in somebody's name, and demands that both take it.
    pub(crate) async fn through_synapse(
        &self,
        who: &Neighbour,
        endpoint: &str,
        mut body: Value,
    ) -> Value {
        body["id_server"] = self.identity.name.as_str().into();
        body["id_access_token"] = who.id_token.as_str().into();
        let path = format!("/_matrix/client/v3/{endpoint}");
        let (status, answer) = self.synapse.api.post(&path, &who.token, &body).await;
        assert_eq!(
            status,
            200,
            "{answer}; Synapse: {}",
            self.synapse.complaints()
        );
        answer
    }

    /// Proves an address and binds it to somebody, through Synapse as clients do; what showed the session.
    pub(crate) async fn bind(&self, who: &Neighbour, email: &str) -> Value {
        let creds = self.identity.prove(&who.id_token, email).await;
        let answer = self
            .through_synapse(who, "account/3pid/bind", creds.clone())
            .await;
        assert_eq!(answer, json!({}));
        creds
    }
}
