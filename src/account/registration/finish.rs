//! The end of a registration: claim the proofs, let the homeserver make the account, take the proofs, bind the addresses.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Answered, Asker, Refusal, RegistrationRules, kept::Kept, not_yet, op_id, without_us};
use crate::{
    account::{LEASE, password::is_not_yet},
    clock::Timestamp,
    error::{Error, Result},
    homeserver::{
        PassedBack,
        registration::{NewAccount, Registering},
    },
    session::Purpose,
    store::{NewClaim, NewRegistration, RegistrationBegun, RegistrationProof},
    threepid::{Medium, Threepid},
};

/// How long a client waits for its addresses to be bound: they are, later on, if it does not.
const PATIENCE: Duration = Duration::from_secs(3);
/// When somebody else looks after addresses that this very request should have bound.
const HEAD_START: Duration = Duration::from_secs(30);

/// An address, and when it was proved.
pub(super) type Proved = (Threepid, Timestamp);

/// What the claims of a registration came to.
enum Claimed {
    /// They are the registration's; whether what came of an earlier try is not known.
    Yes(Vec<Proved>, bool),
    /// A proof is none any more.
    NotYet,
}

impl RegistrationRules {
    /// Ends a registration with the addresses of `media`.
    pub(super) async fn finish(
        self: &Arc<Self>,
        mut kept: Kept,
        media: &[Medium],
        last: Option<&Map<String, Value>>,
        asker: &Asker,
    ) -> Result<Answered> {
        if kept.is_unsaid {
            self.keep(&kept).await?;
            return Ok(self.challenge(&kept, Some(unsaid())));
        }
        if kept.tried {
            self.count(asker)?;
        }
        // Put down with the claims, or without them: whatever becomes of this call, it counts as made.
        kept.tried = true;
        let (proved, again) = match self.claim(&kept, media).await {
            Ok(Claimed::Yes(proved, again)) => (proved, again),
            Ok(Claimed::NotYet) => {
                kept.proofs.clear();
                self.keep(&kept).await?;
                return Ok(self.challenge(&kept, Some(not_yet())));
            }
            Err(error) => {
                self.keep(&kept).await?;
                return Err(error);
            }
        };
        let threepids: Vec<Threepid> = proved
            .iter()
            .map(|(threepid, _)| threepid.clone())
            .collect();
        let op_id = op_id(self.registration_of(&kept));
        let account = NewAccount {
            session: &kept.session,
            op_id: &op_id,
            params: &kept.params,
            threepids: &threepids,
            last,
        };
        let made = self.registrar.finish(account, &asker.origin).await;
        match made {
            Ok(Registering::Registered(registered)) => {
                self.put_down(&kept, &registered.user_id, &proved).await?;
                Ok(Answered::Done(registered.body))
            }
            Ok(other) if proved.is_empty() || is_certain(&other, &kept.session, again) => {
                self.give_back(&kept, !proved.is_empty()).await?;
                self.refused(kept, other, asker).await
            }
            Ok(other) => self.find_out(kept, &proved, other, asker).await,
            Err(error) => {
                self.leave(&kept, &proved, &error).await;
                Err(error)
            }
        }
    }

    /// Asks at once what came of a registration that was not ended as it should: there are refusals that come after the
    /// account was made, and those that a second try gets because the first one made it.
    async fn find_out(
        self: &Arc<Self>,
        kept: Kept,
        proved: &[Proved],
        answer: Registering,
        asker: &Asker,
    ) -> Result<Answered> {
        let op_id = op_id(self.registration_of(&kept));
        let account = NewAccount {
            session: &kept.session,
            op_id: &op_id,
            params: &kept.params,
            threepids: &[],
            last: None,
        };
        match self.registrar.made(account).await {
            Ok(Some(user_id)) => {
                self.put_down(&kept, &user_id, proved).await?;
                // The last that the homeserver was told is our question, which wanted no login.
                let mut params = kept.params.clone();
                params.entry("inhibit_login").or_insert(Value::Bool(false));
                let account = NewAccount {
                    params: &params,
                    ..account
                };
                match self.registrar.repeat(account, &asker.origin).await {
                    Ok(Registering::Registered(registered)) => Ok(Answered::Done(registered.body)),
                    _ => without_us(answer),
                }
            }
            Ok(None) => {
                self.give_back(&kept, true).await?;
                self.refused(kept, answer, asker).await
            }
            Err(error) => {
                let open = Error::HomeserverTimeout(error.cause().unwrap_or("429").to_owned());
                self.leave(&kept, proved, &open).await;
                match answer {
                    Registering::Refused(answer) => Ok(Answered::Refused(answer)),
                    _ => Err(open),
                }
            }
        }
    }

    /// Claims the proofs, and puts down what is about to be done.
    async fn claim(&self, kept: &Kept, media: &[Medium]) -> Result<Claimed> {
        let validation = &self.account.validation;
        let now = validation.clock.now();
        let mut proofs = Vec::new();
        for medium in media {
            let Some(proof) = kept.proof_of(*medium) else {
                return Ok(Claimed::NotYet);
            };
            let (sid, client_secret) = proof.pair()?;
            let proof = validation.proof_of(&sid, &client_secret, Purpose::Register);
            let (sid, proof) = match proof.await {
                Ok(proved) => proved,
                Err(error) if is_not_yet(&error) => return Ok(Claimed::NotYet),
                Err(error) => return Err(error),
            };
            if validation.directory.owner(&proof.threepid).await?.is_some() {
                return Err(Error::InUse);
            }
            let claim = NewClaim {
                sid,
                op_id: format!("{} {sid}", op_id(self.registration_of(kept))),
                digest: self.account.digest(&["register", "claim", &kept.session]),
                lease: LEASE,
                now,
            };
            proofs.push(RegistrationProof {
                claim,
                threepid: proof.threepid,
                validated_at: proof.validated_at,
            });
        }
        let proved = proofs
            .iter()
            .map(|proof| (proof.threepid.clone(), proof.validated_at));
        let proved: Vec<Proved> = proved.collect();
        if proved.is_empty() {
            self.keep(kept).await?;
            return Ok(Claimed::Yes(proved, false));
        }
        let begun = validation
            .store
            .begin_registration(self.intent(kept, proofs, now)?);
        match begun.await? {
            RegistrationBegun::Yes => Ok(Claimed::Yes(proved, false)),
            RegistrationBegun::Again => Ok(Claimed::Yes(proved, true)),
            RegistrationBegun::Held => Err(Error::ProofHeld),
            RegistrationBegun::InUse => Err(Error::InUse),
            RegistrationBegun::Taken { .. } | RegistrationBegun::No(_) => Ok(Claimed::NotYet),
        }
    }

    /// What is put down: enough to ask the homeserver what became of it. The password is not in it.
    fn intent(
        &self,
        kept: &Kept,
        proofs: Vec<RegistrationProof>,
        now: Timestamp,
    ) -> Result<NewRegistration> {
        let id = self.registration_of(kept);
        let mut params = kept.params.clone();
        params.remove("password");
        let plain = json!({ "session": kept.session, "params": params }).to_string();
        let key = self.account.validation.keys.newest();
        Ok(NewRegistration {
            id,
            proofs,
            key_id: key.id(),
            sealed: key.seal(&id, plain.as_bytes())?,
            session: self.row_of(kept)?,
            now,
            due_at: now + LEASE,
        })
    }

    /// Puts down that the account is made, and gives it its addresses.
    async fn put_down(
        self: &Arc<Self>,
        kept: &Kept,
        user_id: &str,
        proved: &[Proved],
    ) -> Result<()> {
        let validation = &self.account.validation;
        let now = validation.clock.now();
        let row = self.row_of(&self.tombstone(kept))?;
        let id = self.registration_of(kept);
        if proved.is_empty() {
            return Ok(validation.store.remember_uia(row).await?);
        }
        let due_at = now + HEAD_START;
        validation
            .store
            .registered(id, user_id, row, now, due_at)
            .await?;
        self.wake.notify_one();
        let (this, user_id, proved) = (Arc::clone(self), user_id.to_owned(), proved.to_vec());
        let binding = self.account.tasks.spawn(async move {
            this.bind_all(id, &user_id, &proved).await;
        });
        // It goes on, and if it fails it is tried again.
        let _ = tokio::time::timeout(PATIENCE, binding).await;
        Ok(())
    }

    /// Gives an account the addresses of its registration. Whether nothing is left to be done.
    pub(super) async fn bind_all(&self, id: [u8; 32], user_id: &str, proved: &[Proved]) -> bool {
        let mut is_done = true;
        for (threepid, validated_at) in proved {
            let given = self
                .account
                .give_address(user_id, threepid, Some(*validated_at));
            let given = match given.await {
                Err(error @ (Error::InUse | Error::Forbidden(_))) => {
                    let address = threepid.masked();
                    tracing::warn!(user_id, address, %error, "a new account does not get its address");
                    Ok(())
                }
                given => given,
            };
            let forgotten = match given {
                Ok(()) => {
                    let store = &self.account.validation.store;
                    store
                        .forget_registration(id, threepid)
                        .await
                        .map_err(Error::from)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = forgotten {
                let cause = error.cause().unwrap_or("429");
                tracing::warn!(
                    user_id,
                    cause,
                    "a new account's address could not be bound yet"
                );
                is_done = false;
            }
        }
        is_done
    }

    async fn give_back(&self, kept: &Kept, has_claims: bool) -> Result<()> {
        if has_claims {
            let store = &self.account.validation.store;
            store
                .abandon_registration(self.registration_of(kept))
                .await?;
        }
        Ok(())
    }

    /// What the homeserver has not ended.
    async fn refused(
        self: &Arc<Self>,
        mut kept: Kept,
        answer: Registering,
        asker: &Asker,
    ) -> Result<Answered> {
        match answer {
            Registering::Stages(stages) if stages.session == kept.session => {
                let refusal = kept.learn(stages);
                self.keep(&kept).await?;
                Ok(self.challenge(&kept, refusal))
            }
            Registering::Stages(_) | Registering::Lost => self.begin_anew(kept, asker).await,
            other => {
                if let Registering::Refused(answer) = &other
                    && answer.status == StatusCode::BAD_REQUEST
                {
                    kept.unsay();
                }
                self.keep(&kept).await?;
                without_us(other)
            }
        }
    }

    /// Leaves a registration whose end was not seen: the homeserver may have made the account. The same registration may
    /// end it at once, and if it does not, we ask.
    async fn leave(&self, kept: &Kept, proved: &[Proved], error: &Error) {
        if let Err(error) = self.keep(kept).await {
            let cause = error.cause();
            tracing::warn!(cause, "what a registration proved could not be kept");
        }
        if proved.is_empty() {
            return;
        }
        let validation = &self.account.validation;
        let id = self.registration_of(kept);
        let now = validation.clock.now();
        let left = if error.leaves_open() {
            let due_at = now + HEAD_START;
            validation.store.pause_registration(id, now, due_at).await
        } else {
            validation.store.abandon_registration(id).await.map(drop)
        };
        if let Err(error) = left {
            tracing::warn!(%error, "claims of a registration could not be given back; they run out by themselves");
        }
        self.wake.notify_one();
    }
}

/// Whether an answer says for certain that no account was made; `again` if an earlier try may have made it.
fn is_certain(answer: &Registering, session: &str, again: bool) -> bool {
    match answer {
        Registering::Registered(_) => false,
        Registering::Stages(stages) => stages.session == session || !again,
        Registering::Lost => !again,
        Registering::Refused(answer) => !again && comes_before(answer),
    }
}

/// Whether a refusal is one that homeservers give before they make the account: after it, there are others.
fn comes_before(answer: &PassedBack) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body["errcode"].as_str().unwrap_or_default();
    let is_of_names = matches!(
        code,
        "M_USER_IN_USE" | "M_INVALID_USERNAME" | "M_EXCLUSIVE" | "M_MISSING_PARAM"
    );
    let is_weak = code == "M_WEAK_PASSWORD" || code.starts_with("M_PASSWORD_");
    answer.status == StatusCode::TOO_MANY_REQUESTS
        || answer.status == StatusCode::BAD_REQUEST && (is_of_names || is_weak)
}

fn unsaid() -> Refusal {
    let why = "The homeserver refused the user name or the password. Say others.";
    ("M_UNAUTHORIZED".to_owned(), why.to_owned())
}
