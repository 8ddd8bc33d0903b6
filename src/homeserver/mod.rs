//! The homeserver as we need it: who owns which address, and the account side of a request.

use std::{fmt, net::IpAddr};

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    error::Result,
    id_server::{IdServer, Unbound},
    password::{NewPassword, PasswordPolicy},
    secret::{AccessToken, ClientSecret, Sid},
    store::{Bound, Contact},
    threepid::Threepid,
};

mod api;
pub mod dendrite;
pub mod local;
pub mod none;
pub mod registration;
pub mod split;
pub mod synapse;
pub mod webhook;

/// Who owns which address. An error is never "free".
#[async_trait]
pub trait Directory: fmt::Debug + Send + Sync {
    /// The user id of the account that has the address; `None` if no account has it.
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>>;

    /// Gives the address to an account, unless another has it. Of parallel callers for one address one binds.
    ///
    /// # Errors
    /// [`Error::Forbidden`](crate::error::Error::Forbidden) if the account is none that can have addresses; [`Error::HomeserverFailed`](crate::error::Error::HomeserverFailed) if nothing was
    /// changed; [`Error::HomeserverTimeout`](crate::error::Error::HomeserverTimeout) if that is not known: then the same call may be made again.
    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Bound>;

    /// Takes the address from an account; `false` if it was not the account's.
    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool>;

    /// The addresses of an account.
    async fn list(&self, user_id: &str) -> Result<Vec<Contact>>;
}

/// Where a request came from, for the limits and logs of the homeserver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, as far as trusted proxies tell.
    pub address: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// Whoever sent a request, as the homeserver knows them by their access token.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The account.
    pub user_id: String,
    /// The device, if the token has one.
    pub device_id: Option<String>,
    /// The token, for further calls in their name.
    pub access_token: AccessToken,
}

/// Whether someone has proved again who they are.
#[derive(Clone, PartialEq)]
pub enum Reauth {
    /// They have.
    Done,
    /// Not yet: the homeserver's own words, a 401 with `flows`, `params` and `session`.
    Challenge(Map<String, Value>),
}

impl fmt::Debug for Reauth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Done => "Done",
            Self::Challenge(_) => "Challenge(…)",
        })
    }
}

/// A request that goes to the homeserver as it came.
#[derive(Clone)]
pub struct PassedOn {
    /// Its method.
    pub method: http::Method,
    /// Its path and query, below the homeserver's base.
    pub path_and_query: String,
    /// The access token that it came with, if it did.
    pub access_token: Option<AccessToken>,
    /// Its body.
    pub body: Vec<u8>,
}

impl fmt::Debug for PassedOn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PassedOn({})", self.method)
    }
}

/// The homeserver's answer to a request that was passed on.
#[derive(Clone)]
pub struct PassedBack {
    /// Its status.
    pub status: StatusCode,
    /// Its JSON body.
    pub body: Vec<u8>,
    /// Its `Retry-After`.
    pub retry_after: Option<String>,
}

impl fmt::Debug for PassedBack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "PassedBack({}, {} bytes)",
            self.status,
            self.body.len()
        )
    }
}

/// The account side of a homeserver.
///
/// All methods may fail with [`Error::HomeserverFailed`](crate::error::Error::HomeserverFailed), [`Error::HomeserverTimeout`](crate::error::Error::HomeserverTimeout) and [`Error::Limited`](crate::error::Error::Limited).
#[async_trait]
pub trait Accounts: fmt::Debug + Send + Sync {
    /// Whether the homeserver is asked at all; if not, no access token is known here.
    fn is_there(&self) -> bool {
        true
    }

    /// Who has this access token (Client-Server API, `GET /_matrix/client/v3/account/whoami`).
    ///
    /// # Errors
    /// [`Error::UnknownToken`](crate::error::Error::UnknownToken), [`Error::UserLocked`](crate::error::Error::UserLocked), [`Error::GuestForbidden`](crate::error::Error::GuestForbidden).
    async fn whoami(&self, access_token: &AccessToken, origin: &Origin) -> Result<Requester>;

    /// Lets the homeserver ask the requester for their password, or whatever it wants; `auth` is the key of the request,
    /// `None` at first.
    async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        origin: &Origin,
    ) -> Result<Reauth>;

    /// Whether an account is suspended: it may then add addresses, and remove none.
    async fn is_suspended(&self, user_id: &str) -> Result<bool>;

    /// Whether [`Accounts::reset_password`] can work at all.
    fn sets_passwords(&self) -> bool;

    /// What the homeserver demands of a password.
    async fn password_policy(&self) -> Result<PasswordPolicy>;

    /// Sets a password; with `logout_devices` all devices of the account are logged out.
    ///
    /// # Errors
    /// [`Error::AccountGone`](crate::error::Error::AccountGone) if there is no such account, [`Error::WeakPassword`](crate::error::Error::WeakPassword) if the homeserver refuses it, and
    /// [`Error::HomeserverFailed`](crate::error::Error::HomeserverFailed): nothing was changed. [`Error::HomeserverTimeout`](crate::error::Error::HomeserverTimeout): that is not known, and the same
    /// call may be made again.
    async fn reset_password(
        &self,
        user_id: &str,
        new: &NewPassword,
        logout_devices: bool,
    ) -> Result<()>;

    /// Unbinds an address of the requester's at an identity server, with a request that the homeserver signs (Identity
    /// Service API, `POST /_matrix/identity/v2/3pid/unbind`); `None` if the homeserver does not do this for us.
    async fn unbind(
        &self,
        requester: &Requester,
        threepid: &Threepid,
        id_server: &IdServer,
        origin: &Origin,
    ) -> Result<Option<Unbound>>;

    /// Lets the homeserver keep a copy of an address that the requester is about to get, where the [`Directory`] is not
    /// the homeserver's own. Nobody owns it yet, and the pair still proves it to a homeserver that asks us. `false` if no
    /// copy is kept, which is the default.
    async fn copy_address(
        &self,
        _requester: &Requester,
        _sid: &Sid,
        _client_secret: &ClientSecret,
        _origin: &Origin,
    ) -> Result<bool> {
        Ok(false)
    }

    /// Takes the copy of an address of the requester's away again; by default there is none.
    async fn forget_copy(
        &self,
        _requester: &Requester,
        _threepid: &Threepid,
        _origin: &Origin,
    ) -> Result<()> {
        Ok(())
    }

    /// Passes a request of the homeserver's own on.
    async fn pass_on(&self, request: PassedOn, origin: &Origin) -> Result<PassedBack>;
}
