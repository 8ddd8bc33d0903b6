//! The addresses of an account: listed, added, deleted.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{AccountRules, LEASE};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::{Origin, Reauth, Requester},
    id_server::{IdServer, Unbound},
    secret::{ClientSecret, Sid},
    session::{Proof, Purpose},
    store::{Bound, Contact},
    threepid::{Medium, Threepid},
    validation::{Claim, ClaimRequest},
};

/// Which endpoint adds. What one of them has used is used for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `account/3pid/add`.
    Add,
    /// `account/3pid`, deprecated.
    Deprecated,
}

impl Endpoint {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "account/3pid/add",
            Self::Deprecated => "account/3pid",
        }
    }
}

/// A request to add the address of a validation session.
pub(crate) struct Addition {
    pub(crate) endpoint: Endpoint,
    pub(crate) requester: Requester,
    pub(crate) sid: Sid,
    pub(crate) client_secret: ClientSecret,
    pub(crate) origin: Origin,
}

impl Addition {
    /// What a session of user-interactive authentication is for.
    fn operation(&self) -> [&str; 3] {
        [
            self.endpoint.as_str(),
            &self.requester.user_id,
            self.sid.as_str(),
        ]
    }
}

/// What came of a request to add an address.
pub(crate) enum Added {
    /// It is the account's.
    Done,
    /// First they must prove again who they are: the homeserver's own words.
    Challenge(Map<String, Value>),
}

/// A request to take an address from an account, or from identity servers.
pub(crate) struct Removal {
    pub(crate) requester: Requester,
    pub(crate) medium: Medium,
    /// As it was written.
    pub(crate) address: String,
    /// Where it is to be unbound; `None` for wherever it was bound.
    pub(crate) id_server: Option<IdServer>,
    pub(crate) origin: Origin,
}

impl AccountRules {
    /// Whether accounts may add and delete addresses here.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(crate) fn check_changes(&self) -> Result<()> {
        if self.settings.allow_changes {
            Ok(())
        } else {
            let why = "On this server, accounts do not change their addresses themselves.";
            Err(Error::Forbidden(why.into()))
        }
    }

    /// The addresses of whoever asks.
    pub(crate) async fn addresses(&self, requester: &Requester) -> Result<Vec<Contact>> {
        let directory = &self.validation.directory;
        directory.list(&requester.user_id).await
    }

    /// Adds the address that a validation session proves, once whoever asks has proved again who they are. `auth` is that
    /// key of the request, an object.
    ///
    /// The address is looked at before the homeserver's stage is spent: a person who types a password should not have to
    /// do so again because a link was not open yet.
    ///
    /// # Errors
    /// [`Error::ThreepidAuthFailed`], [`Error::ProofHeld`], [`Error::InUse`]; what [`Accounts::reauth`] and
    /// [`Directory::bind`] say; for a session of an identity server also [`Error::Relayed`], [`Error::UpstreamFailed`] and
    /// [`Error::UpstreamTimeout`].
    ///
    /// [`Accounts::reauth`]: crate::homeserver::Accounts::reauth
    /// [`Directory::bind`]: crate::homeserver::Directory::bind
    pub(crate) async fn add(
        self: &Arc<Self>,
        addition: Addition,
        auth: Option<Value>,
    ) -> Result<Added> {
        let auth = self.auth_of(&addition, auth).await?;
        if auth.is_some() {
            self.check_proof(&addition).await?;
        }
        let (requester, origin) = (&addition.requester, &addition.origin);
        let asked = self.accounts.reauth(requester, auth.as_ref(), origin);
        match asked.await? {
            Reauth::Challenge(body) => {
                if let Some(session) = body.get("session").and_then(Value::as_str) {
                    let operation = addition.operation();
                    self.remember_challenge(session, &operation).await?;
                }
                Ok(Added::Challenge(body))
            }
            Reauth::Done => {
                self.add_once(addition).await?;
                Ok(Added::Done)
            }
        }
    }

    /// What of `auth` is this operation's. A session that was begun for another is not even shown to the homeserver, to
    /// whom all our operations look alike.
    async fn auth_of(&self, addition: &Addition, auth: Option<Value>) -> Result<Option<Value>> {
        let Some(auth) = auth else {
            return Ok(None);
        };
        let is_ours = match auth.get("session") {
            None => true,
            Some(Value::String(session)) => {
                let operation = addition.operation();
                self.was_challenged(session, &operation).await?
            }
            Some(_) => {
                let why = "The key session of auth must be a string.";
                return Err(Error::BadJson(why.into()));
            }
        };
        Ok(is_ours.then_some(auth))
    }

    async fn check_proof(&self, addition: &Addition) -> Result<()> {
        let digest = self.digest_of(addition);
        let user_id = Some(addition.requester.user_id.as_str());
        let Addition {
            sid, client_secret, ..
        } = addition;
        let proof = self
            .validation
            .proof_for(sid, client_secret, Purpose::Add, user_id, &digest);
        proof.await.map(drop).map_err(unproved)
    }

    /// Tells this request from any other that shows the same proof.
    fn digest_of(&self, addition: &Addition) -> [u8; 32] {
        let [endpoint, user_id, sid] = addition.operation();
        let client_secret = addition.client_secret.as_str();
        self.digest(&["add", endpoint, user_id, sid, client_secret])
    }

    /// Claims the proof, gives the address to the account, and takes the proof. It goes on if the client goes away, and
    /// a repetition of the request waits for it.
    async fn add_once(self: &Arc<Self>, addition: Addition) -> Result<()> {
        let this = Arc::clone(self);
        self.to_the_end(async move {
            let digest = this.digest_of(&addition);
            let op_id = format!("add {}", URL_SAFE_NO_PAD.encode(digest));
            let _turn = this.turns.wait(&op_id).await;
            let claim = ClaimRequest {
                purpose: Purpose::Add,
                user_id: Some(addition.requester.user_id.clone()),
                op_id: op_id.clone(),
                digest,
                lease: LEASE,
            };
            let (sid, client_secret) = (&addition.sid, &addition.client_secret);
            let claimed = this.validation.claim(sid, client_secret, claim).await;
            match claimed.map_err(unproved)? {
                Claim::DoneBefore => Ok(()),
                Claim::Yours(proof) => {
                    let give = this.give(&addition, &proof, &op_id);
                    this.settle(&op_id, give).await
                }
            }
        })
        .await
    }

    /// What stands between claim and take, and the take. The homeserver copies the address before anybody owns it: it asks
    /// us whether it is proved, and of an address that has an owner we say nothing.
    async fn give(&self, addition: &Addition, proof: &Proof, op_id: &str) -> Result<()> {
        let (requester, threepid) = (&addition.requester, &proof.threepid);
        let is_copied = self.copy_address(addition, threepid).await;
        let validated_at = Some(proof.validated_at);
        let given = self.give_address(&requester.user_id, threepid, validated_at);
        if let Err(error) = given.await {
            // Only a copy of ours: that of the new owner must stay.
            if is_copied && error == Error::InUse {
                self.forget_copy(requester, threepid, &addition.origin)
                    .await;
            }
            return Err(error);
        }
        // A claim that is gone was continued, and ended, by the same operation elsewhere.
        self.validation.take(op_id).await?;
        Ok(())
    }

    /// Whether the homeserver keeps a copy. That it could not is no matter of the user's: the directory is the truth.
    async fn copy_address(&self, addition: &Addition, threepid: &Threepid) -> bool {
        let Addition {
            requester,
            sid,
            client_secret,
            origin,
            ..
        } = addition;
        let copied = self
            .accounts
            .copy_address(requester, sid, client_secret, origin);
        copied.await.unwrap_or_else(|error| {
            tracing::warn!(
                user_id = requester.user_id,
                address = threepid.masked(),
                why = why(&error),
                "the homeserver keeps no copy of an address"
            );
            false
        })
    }

    /// Takes the homeserver's copy away. It looks for no owner itself, so this is for addresses that were the requester's.
    async fn forget_copy(&self, requester: &Requester, threepid: &Threepid, origin: &Origin) {
        let forgotten = self.accounts.forget_copy(requester, threepid, origin);
        if let Err(error) = forgotten.await {
            tracing::warn!(
                user_id = requester.user_id,
                address = threepid.masked(),
                why = why(&error),
                "the homeserver still keeps its copy of an address that was taken from the account"
            );
        }
    }

    /// Gives an address to an account.
    ///
    /// # Errors
    /// [`Error::InUse`] if another has it, and what the directory says.
    pub(super) async fn give_address(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
    ) -> Result<()> {
        let now = self.validation.clock.now();
        let directory = &self.validation.directory;
        let bound = directory.bind(user_id, threepid, validated_at, now);
        match bound.await? {
            Bound::Bound | Bound::AlreadyYours => Ok(()),
            Bound::OwnedByOther => Err(Error::InUse),
        }
    }

    /// Takes an address from the account that asks, and makes identity servers forget it. An address that is not the
    /// account's is answered as one that is bound nowhere.
    ///
    /// Whoever names a server wants to know what it says: unless it has forgotten the address, or does not do such a thing,
    /// nothing is deleted. A server that is only remembered keeps nobody from deleting: it may have been chosen by someone
    /// who had the password for a while.
    ///
    /// # Errors
    /// [`Error::UserSuspended`], [`Error::InvalidAddress`]; what the homeserver says, and the identity server that was
    /// named.
    pub(crate) async fn delete(self: &Arc<Self>, removal: Removal) -> Result<Unbound> {
        let this = Arc::clone(self);
        self.to_the_end(async move {
            let named = this.named(&removal).await?;
            if removal.id_server.is_some() {
                let unbound = this.unbind_named(&removal, &named).await?;
                this.take_away(&removal, &named).await?;
                return Ok(unbound);
            }
            this.take_away(&removal, &named).await?;
            this.unbind_remembered(&removal, &named).await
        })
        .await
    }

    async fn take_away(&self, removal: &Removal, named: &Named) -> Result<()> {
        let Some(listed) = &named.listed else {
            return Ok(());
        };
        let Removal {
            requester, origin, ..
        } = removal;
        let directory = &self.validation.directory;
        for threepid in [&named.threepid, listed] {
            if directory.unbind(&requester.user_id, threepid).await? {
                self.forget_copy(requester, threepid, origin).await;
                break;
            }
        }
        Ok(())
    }

    /// Makes identity servers forget an address of the account that asks, which it keeps.
    ///
    /// # Errors
    /// As [`AccountRules::delete`].
    pub(crate) async fn unbind(&self, removal: &Removal) -> Result<Unbound> {
        let named = self.named(removal).await?;
        self.unbind_named(removal, &named).await
    }

    /// The address that a removal names: the account's own as its list shows it, or what else it may be.
    async fn named(&self, removal: &Removal) -> Result<Named> {
        let user_id = &removal.requester.user_id;
        if self.accounts.is_suspended(user_id).await? {
            return Err(Error::UserSuspended);
        }
        let Removal {
            medium, address, ..
        } = removal;
        let parsed = Threepid::parse(*medium, address);
        let written = Threepid::stored(*medium, address.clone());
        let list = self.validation.directory.list(user_id).await?;
        let of_medium = list
            .into_iter()
            .filter(|own| own.medium == medium.as_str())
            .map(|own| Threepid::stored(*medium, own.address));
        // A homeserver may hold addresses that were let in by other rules than ours.
        let is_meant = |own: &Threepid| {
            *own == written || parsed.is_ok() && Threepid::parse(*medium, own.address()) == parsed
        };
        let listed = of_medium.into_iter().find(is_meant);
        let threepid = match (parsed, &listed) {
            (Err(_), Some(listed)) => listed.clone(),
            (parsed, _) => parsed?,
        };
        Ok(Named { threepid, listed })
    }
}

/// An address that a removal names.
pub(super) struct Named {
    /// In canonical form, if it has one.
    pub(super) threepid: Threepid,
    /// As the list of the account that asks has it; `None` if it is not theirs.
    pub(super) listed: Option<Threepid>,
}

/// What the log is to know of a failure.
fn why(error: &Error) -> String {
    error
        .cause()
        .map_or_else(|| error.to_string(), str::to_owned)
}

/// Why a session proves nothing for a request. Clients would take a 401 for the word that a password is asked for.
fn unproved(error: Error) -> Error {
    match error {
        Error::NoValidSession
        | Error::SessionNotValidated
        | Error::SessionExpired
        | Error::ProofSpent => Error::ThreepidAuthFailed(error.to_string()),
        other => other,
    }
}
