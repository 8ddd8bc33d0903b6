//! Terms: what users must accept before they are served.

use super::{IdentityRules, Policy};
use crate::{
    error::{Error, Result},
    store::AcceptedPolicy,
};

impl IdentityRules {
    /// Adds the current versions of the policies that `urls` name to what a user has accepted. The URL of one language
    /// counts for the whole policy; one that is no policy's is ignored.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn accept_terms(&self, user_id: &str, urls: &[String]) -> Result<()> {
        let policies = self.named_by(urls);
        if policies.is_empty() {
            return Ok(());
        }
        let (store, now) = (&self.validation.store, self.validation.clock.now());
        Ok(store.accept_policies(user_id, policies, now).await?)
    }

    fn named_by(&self, urls: &[String]) -> Vec<AcceptedPolicy> {
        let is_named = |policy: &Policy| {
            let mut texts = policy.texts.values();
            texts.any(|text| urls.contains(&text.url))
        };
        let terms = self.settings.terms.iter();
        let named = terms.filter(|(_, policy)| is_named(policy));
        let accepted = named.map(|(name, policy)| AcceptedPolicy {
            policy: name.clone(),
            version: policy.version.clone(),
        });
        accepted.collect()
    }

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
