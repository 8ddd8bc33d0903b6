//! What is kept of a registration between its requests: sealed, under a key that only the name of its session gives.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::RegistrationRules;
use crate::{
    account::uia::LIFE,
    clock::Timestamp,
    error::{Error, Result},
    homeserver::registration::Stages,
    secret::{ClientSecret, Sid},
    store::NewUia,
    threepid::Medium,
};

/// What a registration must not change on its way.
const FIXED: [&str; 2] = ["username", PASSWORD];
const PASSWORD: &str = "password";
/// What the homeserver's answer depends on, besides the account: kept so that it can be given once more.
const REPEATED: [&str; 4] = [
    "device_id",
    "initial_device_display_name",
    "refresh_token",
    "inhibit_login",
];

/// A registration that has begun.
#[derive(Clone, Default, Deserialize, Serialize)]
pub(super) struct Kept {
    /// The name of its session, which is the homeserver's.
    pub(super) session: String,
    /// Tells it from others, should a homeserver give its sessions the same name again.
    pub(super) name: String,
    /// What the client wants: the body without `auth`.
    pub(super) params: Map<String, Value>,
    /// What the homeserver offers.
    pub(super) flows: Vec<Vec<String>>,
    /// What of it is done.
    pub(super) completed: Vec<String>,
    /// What clients need for it.
    pub(super) stage_params: Map<String, Value>,
    /// The sessions that prove addresses, one of a medium.
    pub(super) proofs: Vec<KeptProof>,
    /// Whether the homeserver was asked to end it: there, nothing may be left to do but, say, another name, and any further
    /// request may make the account. It is made with the proofs claimed, or not at all.
    pub(super) tried: bool,
    /// Whether the homeserver has refused what may not change: first it must be said anew.
    pub(super) is_unsaid: bool,
    /// Tells where it was begun from elsewhere: a MAC.
    pub(super) network: Vec<u8>,
    /// Until when it may be finished, or repeated.
    pub(super) ends_at: i64,
    /// Digests of what may not change, once the account is made; all but what [`REPEATED`] names is erased then.
    pub(super) finished: Option<[Option<Vec<u8>>; FIXED.len()]>,
    /// A digest of all this as it was kept last.
    #[serde(skip)]
    pub(super) known: Option<[u8; 32]>,
}

/// A session that proves an address, as the client showed it.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct KeptProof {
    pub(super) medium: String,
    pub(super) sid: String,
    pub(super) client_secret: String,
}

impl KeptProof {
    pub(super) fn medium(&self) -> Option<Medium> {
        Medium::parse(&self.medium)
    }

    pub(super) fn pair(&self) -> Result<(Sid, ClientSecret)> {
        Ok((
            Sid::parse(&self.sid)?,
            ClientSecret::parse(&self.client_secret)?,
        ))
    }
}

impl Kept {
    /// Takes over what the homeserver tells; why the stage that was shown is not done, if it is not.
    pub(super) fn learn(&mut self, stages: Stages) -> Option<(String, String)> {
        self.session = stages.session;
        self.flows = stages.flows;
        self.completed = stages.completed;
        self.stage_params = stages.params;
        stages.refusal
    }

    /// Takes over what a further request says. Whether the homeserver must be told.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if it is another registration.
    pub(super) fn hear(&mut self, params: &Map<String, Value>) -> Result<bool> {
        let mut is_news = false;
        for (key, value) in params {
            let known = self.params.get(key);
            if FIXED.contains(&key.as_str()) && known != Some(value) {
                if known.is_some() {
                    return Err(other_registration());
                }
                is_news = true;
            }
        }
        self.is_unsaid &= !is_news;
        self.params.extend(params.clone());
        Ok(is_news)
    }

    /// Forgets what the homeserver has refused, so that it can be said anew.
    pub(super) fn unsay(&mut self) {
        for key in FIXED {
            self.params.remove(key);
        }
        self.is_unsaid = true;
    }

    pub(super) fn proof_of(&self, medium: Medium) -> Option<&KeptProof> {
        self.proofs
            .iter()
            .find(|proof| proof.medium == medium.as_str())
    }
}

fn unreadable(error: &serde_json::Error) -> Error {
    // Its words may quote what it read.
    Error::Internal(format!(
        "a registration is not as it was kept, at {}",
        error.column()
    ))
}

fn other_registration() -> Error {
    Error::Forbidden(
        "This is not the user name or the password that this registration began with. Begin a new one.".into(),
    )
}

impl RegistrationRules {
    /// Names a session's row.
    pub(super) fn id_of(&self, session: &str) -> [u8; 32] {
        self.account.digest(&["register", session])
    }

    /// Names the registration in a session.
    pub(super) fn registration_of(&self, kept: &Kept) -> [u8; 32] {
        let parts = ["register", "registration", &kept.session, &kept.name];
        self.account.digest(&parts)
    }

    /// The registration of a session; `None` if it is none of ours, or is over.
    pub(super) async fn kept(&self, session: &str) -> Result<Option<Kept>> {
        let validation = &self.account.validation;
        let id = self.id_of(session);
        let row = validation
            .store
            .find_uia(id, validation.clock.now())
            .await?;
        let Some(sealed) = row.and_then(|row| row.sealed) else {
            return Ok(None);
        };
        let key = validation.keys.newest().sealing_of(session.as_bytes());
        let plain = Zeroizing::new(key.open(&id, &sealed)?);
        let mut kept: Kept = serde_json::from_slice(&plain).map_err(|error| unreadable(&error))?;
        kept.known = Some(Sha256::digest(&plain).into());
        Ok(Some(kept))
    }

    /// Keeps what has changed: whoever asks again and again how far it is writes nothing.
    pub(super) async fn keep(&self, kept: &Kept) -> Result<()> {
        let plain = Zeroizing::new(serde_json::to_vec(kept).map_err(|error| unreadable(&error))?);
        if kept.known == Some(Sha256::digest(&plain).into()) {
            return Ok(());
        }
        let row = self.row_of(kept)?;
        Ok(self.account.validation.store.remember_uia(row).await?)
    }

    /// How it is kept.
    pub(super) fn row_of(&self, kept: &Kept) -> Result<NewUia> {
        let validation = &self.account.validation;
        let id = self.id_of(&kept.session);
        let plain = Zeroizing::new(serde_json::to_vec(kept).map_err(|error| unreadable(&error))?);
        let key = validation.keys.newest().sealing_of(kept.session.as_bytes());
        Ok(NewUia {
            id,
            sealed: Some(key.seal(&id, &plain)?),
            expires_at: Timestamp(kept.ends_at),
        })
    }

    /// What is left of a registration once its account is made.
    pub(super) fn tombstone(&self, kept: &Kept) -> Kept {
        let digest = |key: &str| {
            let value = kept.params.get(key)?;
            Some(self.fixed(&kept.session, key, value))
        };
        let mut params = kept.params.clone();
        params.retain(|key, _| REPEATED.contains(&key.as_str()));
        Kept {
            session: kept.session.clone(),
            name: kept.name.clone(),
            params,
            ends_at: (self.account.validation.clock.now() + LIFE).0,
            finished: Some(FIXED.map(digest)),
            ..Kept::default()
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] if a request is not that of the account that was made.
    pub(super) fn check_repetition(&self, kept: &Kept, params: &Map<String, Value>) -> Result<()> {
        let known = kept.finished.iter().flatten();
        for (key, known) in FIXED.iter().zip(known) {
            let given = params.get(*key);
            let given = given.map(|value| self.fixed(&kept.session, key, value));
            // A password that was told to the homeserver alone is known to it alone.
            let is_known = known.is_some() || *key != PASSWORD;
            if given.is_some() && is_known && given != *known {
                return Err(other_registration());
            }
        }
        Ok(())
    }

    fn fixed(&self, session: &str, key: &str, value: &Value) -> Vec<u8> {
        let parts = ["register", session, key, &value.to_string()];
        self.account.digest(&parts).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_name_is_said_once() {
        let mut kept = Kept::default();

        assert_eq!(kept.hear(&map(&json!({}))), Ok(false));
        let named = map(&json!({ "username": "alice", "password": "p" }));
        assert_eq!(kept.hear(&named), Ok(true));
        assert_eq!(kept.hear(&named), Ok(false));
        assert_eq!(kept.hear(&map(&json!({ "device_id": "D" }))), Ok(false));
        assert!(kept.hear(&map(&json!({ "username": "mallory" }))).is_err());
        assert_eq!(kept.params["username"], "alice");
        kept.unsay();
        assert_eq!(kept.hear(&map(&json!({ "username": "alice2" }))), Ok(true));
    }
}
