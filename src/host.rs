//! What a host homeserver mounts for its accounts, and what it tells of them.

use axum::Router;
use serde_json::Value;

use crate::{
    Threepid,
    error::{Error, Result},
    http,
    id_server::Unbound,
    lookup_hash::generate_pepper,
    loopback::is_loopback_url,
    secret::AccessToken,
    store::{Association, Dissociated},
    user_id::server_of,
};

impl Threepid {
    /// The endpoints that prove email addresses, for a host to merge into its own router: `requestToken` for the three
    /// purposes, `submitToken`, and the page of the mailed link. The host serves it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, or puts a [`http::peer::Peer`] into each request's
    /// extensions; else all requests count as one source.
    pub fn email_router(&self) -> Router {
        http::email(&self.app)
    }

    /// The same for phone numbers; both may be merged into one router.
    pub fn msisdn_router(&self) -> Router {
        http::msisdn(&self.app)
    }

    /// The endpoint that sets a password, and the pages that do its stages; see [`Builder::accounts`](crate::Builder::accounts). It may be merged
    /// into one router with the others.
    pub fn password_router(&self) -> Router {
        http::password(&self.app)
    }

    /// The Identity Service API, for a host that is an identity server too; empty without
    /// [`Builder::identity`](crate::Builder::identity). It may be merged into one router with the others.
    pub fn identity_router(&self) -> Router {
        http::identity::routes(&self.app)
    }

    /// A fresh token of the identity server for a user, for a host that knows by itself who they are: what the exchange of
    /// OpenID tokens gives others (Identity Service API, `POST account/register`).
    ///
    /// # Errors
    /// [`Error::Unrecognized`] without [`Builder::identity`](crate::Builder::identity); [`Error::InvalidParam`] if it is no
    /// user id; the store's.
    pub async fn identity_token(&self, user_id: &str) -> Result<AccessToken> {
        let rules = self.app.identity.as_ref().ok_or(Error::Unrecognized)?;
        if server_of(user_id).is_none() {
            return Err(no_user_id());
        }
        rules.issue_token(user_id).await
    }

    /// Lets a user be found by an address, for a host that knows by itself that the user owns it: what `POST 3pid/bind`
    /// does for others. The address is the user's alone from then on, and the user's homeserver is told. Existing
    /// associations are imported so.
    ///
    /// # Errors
    /// [`Error::Unrecognized`] without [`Builder::identity`](crate::Builder::identity); [`Error::InvalidParam`] if it is no
    /// user id; the store's.
    pub async fn associate(
        &self,
        user_id: &str,
        threepid: &crate::threepid::Threepid,
    ) -> Result<()> {
        let rules = self.app.identity.as_ref().ok_or(Error::Unrecognized)?;
        if server_of(user_id).is_none() {
            return Err(no_user_id());
        }
        let validation = &self.app.validation;
        let association = Association {
            threepid: threepid.clone(),
            user_id: user_id.to_owned(),
            at: validation.clock.now(),
        };
        let store = &validation.store;
        let first_pepper = generate_pepper();
        store.associate(association, None, &first_pepper).await?;
        rules.onbind_wake.notify_one();
        Ok(())
    }

    /// Ends what [`Threepid::associate`] or `POST 3pid/bind` did; `false` if the address was not this user's.
    ///
    /// # Errors
    /// [`Error::Unrecognized`] without [`Builder::identity`](crate::Builder::identity); the store's.
    pub async fn dissociate(
        &self,
        user_id: &str,
        threepid: &crate::threepid::Threepid,
    ) -> Result<bool> {
        if self.app.identity.is_none() {
            return Err(Error::Unrecognized);
        }
        let validation = &self.app.validation;
        let now = validation.clock.now();
        let dissociating = validation.store.dissociate(threepid, user_id, None, now);
        Ok(dissociating.await? == Dissociated::Yes)
    }

    /// The mailbox page, for a host that captures messages while it is being developed; see [`Builder::mailbox`](crate::Builder::mailbox).
    pub fn mailbox_router(&self) -> Router {
        http::mailbox(&self.app)
    }

    /// All that is served to the public. The mailbox page is on it only while the public URL is this machine's own.
    pub fn router(&self) -> Router {
        let is_for_this_machine = is_loopback_url(&self.app.validation.settings.public_url);
        http::public(&self.app, self.app.mailbox.is_some() && is_for_this_machine)
    }

    /// What is served on the internal listener alone.
    pub fn internal_router(&self) -> Router {
        http::internal(&self.app)
    }

    /// The endpoints for the addresses of an account, for a host to merge into its own router: list, add, delete, bind and
    /// unbind. They ask [`Accounts`](crate::homeserver::Accounts) whose token a request has.
    pub fn contacts_router(&self) -> Router {
        http::contacts(&self.app)
    }

    /// Gives a new account the addresses that were proved when it was made (Client-Server API, `POST register`). The call
    /// may be repeated; all addresses that can be given are, whatever becomes of the others.
    ///
    /// # Errors
    /// [`Error::InUse`](crate::Error::InUse) if another account has one of them, and what the directory says.
    pub async fn account_registered(
        &self,
        user_id: &str,
        threepids: &[crate::threepid::Threepid],
    ) -> Result<()> {
        self.app.account.registered(user_id, threepids).await
    }

    /// Follows the end of an account: its password resets end, and what was bound through us at identity servers is
    /// undone; with `erase` its addresses go (Client-Server API, `POST account/deactivate`; MSC4025).
    ///
    /// [`Unbound::Success`] if nothing was bound, [`Unbound::NoSupport`] if a server did not undo it: the value of
    /// `id_server_unbind_result`. The call may be repeated.
    ///
    /// # Errors
    /// Those of the store and, with `erase`, of the directory.
    pub async fn account_deactivated(&self, user_id: &str, erase: bool) -> Result<Unbound> {
        self.app.account.deactivated(user_id, erase).await
    }

    /// Which account the `identifier` of a login, or of `m.login.password`, means: an `m.id.thirdparty` or an `m.id.phone`
    /// (Client-Server API, "Identifier types"). `None` if no account has the address, or if it is none at all: a login
    /// answers both as it answers a wrong password, and takes as long for it.
    ///
    /// # Errors
    /// [`Error::BadJson`](crate::Error::BadJson), [`Error::MissingParam`](crate::Error::MissingParam) and
    /// [`Error::InvalidParam`](crate::Error::InvalidParam) for what is neither of the two, such as the host's own
    /// `m.id.user`; and what the directory says.
    pub async fn find_account(&self, identifier: &Value) -> Result<Option<String>> {
        match http::identified(identifier)? {
            Some(threepid) => self.directory().owner(&threepid).await,
            None => Ok(None),
        }
    }
}

fn no_user_id() -> Error {
    Error::invalid("user_id must be one like @alice:example.org")
}
