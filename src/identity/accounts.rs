//! Accounts of the identity server: whom a token stands for.

use super::IdentityRules;
use crate::{
    error::{Error, Result},
    secret::AccessToken,
};

impl IdentityRules {
    /// The user of a token, who has accepted the terms.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::TermsNotSigned`].
    pub(crate) async fn account(&self, token: &AccessToken) -> Result<String> {
        let _ = token;
        Err(Error::Unauthorized)
    }
}
