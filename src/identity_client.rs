//! The identity servers that we call: Identity Service API v2.

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id_server::IdServer,
    outbound::Outbound,
    secret::{AccessToken, ClientSecret, Sid},
    threepid::{Medium, Threepid},
};

/// An identity server, and the account there that a call is made with.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The server.
    pub server: &'a IdServer,
    /// The account's token.
    pub access_token: &'a AccessToken,
}

/// A session at an identity server.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Its name there.
    pub sid: &'a Sid,
    /// The client's secret.
    pub client_secret: &'a ClientSecret,
}

/// One `requestToken` to pass on.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'a> {
    /// The address.
    pub threepid: &'a Threepid,
    /// The client's secret.
    pub client_secret: &'a ClientSecret,
    /// The client's count of attempts.
    pub send_attempt: i64,
    /// Where the browser is sent afterwards.
    pub next_link: Option<&'a str>,
}

/// Who asks for an association to go.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// An account of the identity server's, by its token.
    Bearer(&'a AccessToken),
    /// The homeserver of the user: the whole `Authorization: X-Matrix …` header over the request.
    Signed(&'a str),
    /// Whoever proved the address in this session, with the account that asks.
    Session(Pair<'a>, Option<&'a AccessToken>),
}

/// What became of an `unbind` (Client-Server API, `id_server_unbind_result`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// The association is gone.
    Success,
    /// The identity server does not do this.
    NoSupport,
}

/// Calls identity servers.
#[derive(Clone, Debug)]
pub struct IdentityClient {
    outbound: Outbound,
}

impl IdentityClient {
    /// A client that calls through `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }

    /// `POST /_matrix/identity/v2/validate/{email,msisdn}/requestToken`: the session there.
    ///
    /// # Errors
    /// [`Error::Relayed`], [`Error::UpstreamFailed`], [`Error::UpstreamTimeout`], [`Error::Unavailable`].
    pub async fn request_token(&self, at: At<'_>, request: TokenRequest<'_>) -> Result<Sid> {
        let _ = (at, request, &self.outbound);
        Err(Error::UpstreamFailed("not built".to_owned()))
    }

    /// `POST /_matrix/identity/v2/validate/{email,msisdn}/submitToken`. Succeeds if the server says that the token is
    /// right.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`]; [`Error::TokenIncorrect`] for an old server's 200 with `success: false`.
    pub async fn submit_token(
        &self,
        at: At<'_>,
        medium: Medium,
        pair: Pair<'_>,
        token: &str,
    ) -> Result<()> {
        let _ = (at, medium, pair, token);
        Err(Error::UpstreamFailed("not built".to_owned()))
    }

    /// `GET /_matrix/identity/v2/3pid/getValidated3pid`: when the session proved `wanted`, as the server says.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`]; [`Error::SessionNotValidated`], [`Error::SessionExpired`] and
    /// [`Error::NoValidSession`] where the server says so (also inside a 200); [`Error::UpstreamFailed`] if it names
    /// another address.
    pub async fn validated(
        &self,
        at: At<'_>,
        pair: Pair<'_>,
        wanted: &Threepid,
    ) -> Result<Timestamp> {
        let _ = (at, pair, wanted);
        Err(Error::UpstreamFailed("not built".to_owned()))
    }

    /// `POST /_matrix/identity/v2/3pid/bind`: the address that is `user_id`'s there from now on.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`].
    pub async fn bind(&self, at: At<'_>, pair: Pair<'_>, user_id: &str) -> Result<Threepid> {
        let _ = (at, pair, user_id);
        Err(Error::UpstreamFailed("not built".to_owned()))
    }

    /// `POST /_matrix/identity/v2/3pid/unbind`.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`].
    pub async fn unbind(
        &self,
        server: &IdServer,
        authority: Authority<'_>,
        user_id: &str,
        threepid: &Threepid,
    ) -> Result<Unbound> {
        let _ = (server, authority, user_id, threepid);
        Err(Error::UpstreamFailed("not built".to_owned()))
    }
}
