//! The use of a proof: look at it, claim it, take it once.

use std::time::Duration;

use super::{Validation, proxied::for_proof};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    secret::{ClientSecret, SessionId, Sid},
    session::{Proof, Purpose, Session},
    store::{Claimed, NewClaim},
};

/// A claim on a proof.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// What the proof is wanted for.
    pub purpose: Purpose,
    /// The account that asks, if there is one yet.
    pub user_id: Option<String>,
    /// Names the operation: only a repetition of it continues the claim once the lease ran out.
    pub op_id: String,
    /// A digest (SHA-256, say) of endpoint, user and body without `auth`: tells a repeated request from another.
    pub digest: [u8; 32],
    /// How long the operation may take.
    pub lease: Duration,
}

/// What a claim gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The proof is the caller's: finish with [`Validation::take`] or, after a certain refusal, [`Validation::release`].
    Yours(Proof),
    /// The very same request took the proof before: answer it as it was answered.
    DoneBefore,
}

/// For whom a proof is looked at.
#[derive(Clone, Copy)]
enum Asker<'a> {
    /// An account, or nobody that has one yet.
    Account(Option<&'a str>),
    /// Whoever knows the pair: a homeserver, which knows itself who asked for the proof, or a user of an identity server.
    WhoeverHasThePair,
}

impl Validation {
    /// Whether the pair's address is proved for `wanted`, as a stage of user-interactive authentication asks
    /// (Client-Server API, "Email-based (identity / homeserver)"). Cheap enough to be polled; but as long as an identity
    /// server has no proof, each look is a call to it. What it says is remembered, else nothing changes.
    ///
    /// # Errors
    /// [`Error::NoValidSession`], [`Error::SessionNotValidated`], [`Error::SessionExpired`]; [`Error::ProofSpent`] once
    /// the proof was taken. For a session of an identity server also [`Error::Relayed`], [`Error::UpstreamFailed`] and
    /// [`Error::UpstreamTimeout`], and to whoever proved it [`Error::InUse`] or [`Error::NoAccount`].
    pub async fn proof(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        wanted: Purpose,
        user_id: Option<&str>,
    ) -> Result<Proof> {
        let (session, proof) = self.prove(sid, client_secret, wanted, user_id).await?;
        if session.taken_at.is_some() {
            Err(Error::ProofSpent)
        } else {
            Ok(proof)
        }
    }

    /// As [`Validation::proof`], with the name of the session here.
    pub(crate) async fn proof_of(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        wanted: Purpose,
    ) -> Result<(SessionId, Proof)> {
        let (session, proof) = self.prove(sid, client_secret, wanted, None).await?;
        Ok((session.sid, proof))
    }

    /// As [`Validation::proof`], for the request of a digest: a proof that the same request took before is still its own.
    pub(crate) async fn proof_for(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        wanted: Purpose,
        user_id: Option<&str>,
        digest: &[u8; 32],
    ) -> Result<Proof> {
        let (session, proof) = self.prove(sid, client_secret, wanted, user_id).await?;
        let is_same_request = session.claim_digest.as_deref() == Some(digest.as_slice());
        if session.taken_at.is_some() && !is_same_request {
            Err(Error::ProofSpent)
        } else {
            Ok(proof)
        }
    }

    /// Claims the pair's proof for one operation: of parallel callers exactly one gets it.
    ///
    /// # Errors
    /// As [`Validation::proof`]; [`Error::ProofHeld`] while another operation holds it, [`Error::ProofSpent`] if another
    /// request took it.
    pub async fn claim(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        request: ClaimRequest,
    ) -> Result<Claim> {
        let (proof, done_before) = self.claim_proof(sid, client_secret, request).await?;
        Ok(if done_before {
            Claim::DoneBefore
        } else {
            Claim::Yours(proof)
        })
    }

    /// As [`Validation::claim`]: the proof, and whether the very same request took it before.
    pub(crate) async fn claim_proof(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        request: ClaimRequest,
    ) -> Result<(Proof, bool)> {
        let now = self.clock.now();
        let user_id = request.user_id.as_deref();
        let proved = self.prove(sid, client_secret, request.purpose, user_id);
        let (session, proof) = proved.await?;
        let ClaimRequest {
            op_id,
            digest,
            lease,
            ..
        } = request;
        let claim = NewClaim {
            sid: session.sid,
            op_id,
            digest,
            lease,
            now,
        };
        match self.store.claim(claim).await? {
            Claimed::Yes(_) => Ok((proof, false)),
            Claimed::Taken { same_request: true } => Ok((proof, true)),
            Claimed::Taken {
                same_request: false,
            } => Err(Error::ProofSpent),
            Claimed::Held => Err(Error::ProofHeld),
            Claimed::No(_) => Err(Error::SessionExpired),
        }
    }

    /// What the pair proves to a homeserver that has its users validate here (Identity Service API,
    /// `GET 3pid/getValidated3pid`). The same as long as the session lives, and refused once an account has the address:
    /// homeservers are known to move an address from one account to another without a look.
    ///
    /// # Errors
    /// As [`Validation::proof`]; [`Error::InUse`]; what the directory says. A proof for a password is
    /// [`Error::NoValidSession`].
    pub async fn validated_for_homeserver(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
    ) -> Result<Proof> {
        // A proof for signing up is one for adding too.
        let asked = self.prove_to(sid, client_secret, Purpose::Add, Asker::WhoeverHasThePair);
        let (session, proof) = asked.await?;
        if self.directory.owner(&proof.threepid).await?.is_some() {
            return Err(Error::InUse);
        }
        if session.taken_at.is_some() {
            return Err(Error::ProofSpent);
        }
        Ok(proof)
    }

    /// What the pair proves to an identity server's caller: `user_id`, or whoever knows the pair.
    ///
    /// # Errors
    /// As [`Validation::proof`].
    pub(crate) async fn identity_proof(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        user_id: Option<&str>,
    ) -> Result<Proof> {
        let proving = self.identity_session(sid, client_secret, user_id);
        proving.await.map(|(_, proof)| proof)
    }

    /// The same, with the session's own name.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn identity_session(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        user_id: Option<&str>,
    ) -> Result<(SessionId, Proof)> {
        let asker = match user_id {
            Some(user_id) => Asker::Account(Some(user_id)),
            None => Asker::WhoeverHasThePair,
        };
        let proving = self.prove_to(sid, client_secret, Purpose::Identity, asker);
        proving.await.map(|(session, proof)| (session.sid, proof))
    }

    /// The pair's session with its proof, fetched from the identity server that has it if need be.
    async fn prove(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        wanted: Purpose,
        user_id: Option<&str>,
    ) -> Result<(Session, Proof)> {
        self.prove_to(sid, client_secret, wanted, Asker::Account(user_id))
            .await
    }

    async fn prove_to(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        wanted: Purpose,
        asker: Asker<'_>,
    ) -> Result<(Session, Proof)> {
        let choose = |found| for_proof(found, wanted);
        let finding = self.find_pair(wanted.api(), (sid, client_secret), choose);
        let mut session = finding.await?;
        let mut proof = prove_to(&session, wanted, asker, self.clock.now());
        if let (Err(Error::SessionNotValidated), Some(proxied)) = (&proof, &session.proxied) {
            session = self.fetch_proof(&session, proxied, client_secret).await?;
            proof = prove_to(&session, wanted, asker, self.clock.now());
        }
        Ok((session, proof?))
    }

    /// Uses up the proof that `op_id` claimed. `false` if `op_id` holds no claim.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn take(&self, op_id: &str) -> Result<bool> {
        Ok(self.store.take(op_id, self.clock.now()).await?)
    }

    /// Gives the proof that `op_id` claimed back, after a certain refusal. `false` if `op_id` holds no claim.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn release(&self, op_id: &str) -> Result<bool> {
        Ok(self.store.release(op_id).await?)
    }
}

fn prove_to(session: &Session, wanted: Purpose, asker: Asker<'_>, now: Timestamp) -> Result<Proof> {
    let user_id = match asker {
        Asker::Account(user_id) => user_id,
        Asker::WhoeverHasThePair => session.user_id.as_deref(),
    };
    session.prove(wanted, user_id, now)
}
