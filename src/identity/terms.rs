//! Terms: what users must accept before they are served.

use super::IdentityRules;
use crate::{
    error::{Error, Result},
    store::AcceptedPolicy,
};

impl IdentityRules {
    /// That the current version of each policy is among what was accepted.
    ///
    /// # Errors
    /// [`Error::TermsNotSigned`].
    pub(super) fn check_terms(&self, accepted: &[AcceptedPolicy]) -> Result<()> {
        let is_accepted = |name: &str, version: &str| {
            let mut accepted = accepted.iter();
            accepted.any(|one| one.policy == name && one.version == version)
        };
        let terms = &self.settings.terms;
        if terms
            .iter()
            .all(|(name, policy)| is_accepted(name, &policy.version))
        {
            Ok(())
        } else {
            Err(Error::TermsNotSigned)
        }
    }
}
