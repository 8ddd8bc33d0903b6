//! Our stages on a page of ours, for clients that do not know them (Client-Server API, "Fallback").

use super::{
    RegistrationRules,
    kept::{Kept, KeptProof},
};
use crate::{
    account::fallback::PageOf,
    error::{Error, Result},
    session::Purpose,
    source::Source,
    threepid::Medium,
};

impl RegistrationRules {
    /// The page of a registration, and whether it may take codes: only where the app that began it is. `None` if there is
    /// no such registration, or it is finished.
    ///
    /// # Errors
    /// [`Error::MediumNotSupported`] if the stage is not one of its flows.
    pub(crate) async fn page_of(
        &self,
        session: &str,
        medium: Medium,
        source: Source,
    ) -> Result<Option<(PageOf, bool)>> {
        let kept = self.kept(session).await?;
        let Some(kept) = kept.filter(|kept| kept.finished.is_none()) else {
            return Ok(None);
        };
        let flows = self.flows(&kept);
        if !flows.iter().any(|flow| flow.media.contains(&medium)) {
            return Err(Error::MediumNotSupported);
        }
        let takes_codes = kept.network == self.network(session, source);
        Ok(Some((page(session), takes_codes)))
    }

    /// Keeps the stages that were done on pages.
    pub(super) async fn take_from_pages(&self, kept: &mut Kept) -> Result<()> {
        let page = page(&kept.session);
        for medium in Medium::ALL {
            if kept.proof_of(medium).is_some() {
                continue;
            }
            let Some(stage) = self.account.kept_stage(&page, medium).await? else {
                continue;
            };
            let proved = self.not_proved(medium, &stage.sid, &stage.client_secret);
            if proved.await?.is_none() {
                kept.proofs.push(KeptProof {
                    medium: medium.as_str().to_owned(),
                    sid: stage.sid.to_string(),
                    client_secret: stage.client_secret.as_str().to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Tells where a registration was begun from elsewhere.
    pub(super) fn network(&self, session: &str, source: Source) -> Vec<u8> {
        let parts = ["register", "source", session, &source.to_string()];
        self.account.digest(&parts)[..16].to_vec()
    }
}

fn page(session: &str) -> PageOf {
    PageOf {
        session: session.to_owned(),
        purpose: Purpose::Register,
    }
}
