//! Accounts of the identity server: whom a token stands for.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::IdentityRules;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    limits::Asker,
    secret::{AccessToken, random},
    server_name::ServerName,
    source::Source,
    store::{IdentityAccount, NewIdentityToken},
    user_id::server_of,
};

/// A token is renewed once this much of its life has passed, or half of a short life, so that not every request writes.
const RENEW_AFTER: Duration = Duration::from_hours(24);

impl IdentityRules {
    /// A token for the user whose homeserver knows `access_token`, one of its `POST …/openid/request_token`.
    ///
    /// # Errors
    /// [`Error::Limited`]; [`Error::Forbidden`] for homeservers that the operator does not admit, before they are asked;
    /// those of [`Federation::userinfo`](crate::federation::Federation).
    pub(crate) async fn register(
        &self,
        server: &ServerName,
        access_token: &AccessToken,
        source: Source,
    ) -> Result<AccessToken> {
        let now = self.validation.clock.now();
        self.validation.limiter.count_registration(source, now)?;
        if !self.admits(server) {
            let why = "The users of this homeserver can not register at this identity server.";
            return Err(Error::Forbidden(why.into()));
        }
        let _registering = self.validation.limiter.begin_registration(source)?;
        let user_id = self.federation.userinfo(server, access_token).await?;
        self.issue_token(&user_id).await
    }

    /// Ends a token.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] if it works no more, or never did; [`Error::Limited`] where too many such came from.
    pub(crate) async fn log_out(&self, token: &AccessToken, source: Source) -> Result<()> {
        let (hash, now) = (hash(token.reveal()), self.validation.clock.now());
        let store = &self.validation.store;
        if store.remove_identity_token(hash, now).await? {
            Ok(())
        } else {
            self.validation.limiter.count_refused_token(source, now)?;
            Err(Error::UnknownToken { soft_logout: false })
        }
    }

    /// A fresh token of a user. The store keeps its hash alone.
    pub(crate) async fn issue_token(&self, user_id: &str) -> Result<AccessToken> {
        let token = URL_SAFE_NO_PAD.encode(random::<32>());
        let now = self.validation.clock.now();
        let new = NewIdentityToken {
            hash: hash(&token),
            user_id: user_id.to_owned(),
            now,
            expires_at: now + self.settings.token_lifetime,
            most: self.settings.tokens_per_user,
        };
        self.validation.store.add_identity_token(new).await?;
        AccessToken::parse(&token)
    }

    /// The user of a token, who has accepted the terms. A token that is used lives on.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::TermsNotSigned`]; [`Error::Limited`].
    pub(crate) async fn account(&self, token: &AccessToken, source: Source) -> Result<String> {
        let account = self.account_before_terms(token, source).await?;
        self.check_terms(&account.accepted)?;
        Ok(account.user_id)
    }

    /// The account of a token, whatever its user has accepted.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], also for users of homeservers that the operator does not admit any more; [`Error::Limited`]
    /// where too many tokens that are not known came from. Those that are known work there all the same: all users of a
    /// homeserver may be behind its address.
    pub(crate) async fn account_before_terms(
        &self,
        token: &AccessToken,
        source: Source,
    ) -> Result<IdentityAccount> {
        let (hash, now) = (hash(token.reveal()), self.validation.clock.now());
        let found = self.validation.store.identity_account(hash, now).await?;
        // The operator may have changed their mind since it was given out.
        let admitted = found.filter(|account| {
            server_of(&account.user_id).is_some_and(|server| self.admits(&server))
        });
        let Some(account) = admitted else {
            self.validation.limiter.count_refused_token(source, now)?;
            return Err(Error::Unauthorized);
        };
        self.renew(hash, account.expires_at, now).await;
        Ok(account)
    }

    /// A user as limits see one. A homeserver that the operator names is not counted: its accounts are no stranger's to make,
    /// and none of them may use up what is all others'.
    pub(super) fn asker<'a>(&self, user_id: &'a str, source: Source) -> Asker<'a> {
        let server = server_of(user_id);
        let counted = server.filter(|server| !self.settings.homeservers.contains(server));
        Asker {
            user_id,
            homeserver: counted.map(|server| server.host().to_string()),
            source,
        }
    }

    /// Whether the operator admits the users of a homeserver.
    fn admits(&self, server: &ServerName) -> bool {
        let admitted = &self.settings.homeservers;
        admitted.is_empty() || admitted.contains(server)
    }

    async fn renew(&self, hash: [u8; 32], expires_at: Timestamp, now: Timestamp) {
        let lifetime = self.settings.token_lifetime;
        let renewed = now + lifetime;
        if expires_at + RENEW_AFTER.min(lifetime / 2) > renewed {
            return;
        }
        let store = &self.validation.store;
        if let Err(error) = store.renew_identity_token(hash, renewed).await {
            // The token works; the next use tries again.
            tracing::warn!(%error, "a token of the identity server could not be renewed");
        }
    }
}

/// What the store keeps of a token: it is random enough to need no key.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
