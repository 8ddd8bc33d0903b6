//! What a homeserver does with a proof in operations of its own: claim it once, then take it or give it back.

use super::{AccountRules, LEASE};
use crate::{
    error::{Error, Result},
    secret::{ClientSecret, Sid},
    session::{Proof, Purpose},
    validation::ClaimRequest,
};

/// The longest name of an operation, in bytes.
const LONGEST: usize = 255;

/// Names an operation of a homeserver's. It can never be one of ours, whatever the homeserver calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostOperation(String);

impl HostOperation {
    /// Takes an `op_id`.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] unless it is 1 to 255 visible ASCII characters.
    pub(crate) fn parse(op_id: &str) -> Result<Self> {
        let is_visible = op_id.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible && (1..=LONGEST).contains(&op_id.len()) {
            Ok(Self(format!("host {op_id}")))
        } else {
            Err(Error::invalid(
                "op_id must be 1 to 255 visible ASCII characters; make up one for each operation",
            ))
        }
    }
}

/// A homeserver's claim on a proof.
#[derive(Debug)]
pub(crate) struct HostClaim {
    pub(crate) sid: Sid,
    pub(crate) client_secret: ClientSecret,
    pub(crate) purpose: Purpose,
    /// The account that asks, if there is one yet.
    pub(crate) user_id: Option<String>,
    pub(crate) operation: HostOperation,
    /// Tells a repeated request from another, if the homeserver cares.
    pub(crate) digest: Option<String>,
}

impl AccountRules {
    /// Claims a proof for an operation of the homeserver's: of parallel callers exactly one gets it. The proof, and
    /// whether the same operation, with the same digest, took it before.
    ///
    /// # Errors
    /// As [`Validation::claim`](crate::validation::Validation::claim).
    pub(crate) async fn claim_for_host(&self, claim: HostClaim) -> Result<(Proof, bool)> {
        let HostOperation(op_id) = claim.operation;
        let user_id = claim.user_id.as_deref().unwrap_or_default();
        let told = claim.digest.as_deref().unwrap_or_default();
        let digest = self.digest(&["host", &op_id, claim.purpose.as_str(), user_id, told]);
        let request = ClaimRequest {
            purpose: claim.purpose,
            user_id: claim.user_id,
            op_id,
            digest,
            lease: LEASE,
        };
        let (sid, client_secret) = (&claim.sid, &claim.client_secret);
        self.validation
            .claim_proof(sid, client_secret, request)
            .await
    }

    /// Uses up the proof that the operation claimed.
    ///
    /// # Errors
    /// [`Error::NoClaim`] if it holds none.
    pub(crate) async fn take_for_host(&self, operation: &HostOperation) -> Result<()> {
        held(self.validation.take(&operation.0).await?)
    }

    /// Gives the proof that the operation claimed back.
    ///
    /// # Errors
    /// [`Error::NoClaim`] if it holds none.
    pub(crate) async fn release_for_host(&self, operation: &HostOperation) -> Result<()> {
        held(self.validation.release(&operation.0).await?)
    }
}

fn held(there_was_one: bool) -> Result<()> {
    if there_was_one {
        Ok(())
    } else {
        Err(Error::NoClaim)
    }
}
