//! Homeservers as an identity server meets them: found by their name, and asked over federation (Server-Server API).
//!
//! Whoever names a homeserver is a stranger: every call goes through [`Outbound`](crate::outbound::Outbound).

use std::{fmt, sync::Arc};

use crate::{
    clock::Clock, error::Result, outbound::Outbound, secret::AccessToken, server_name::ServerName,
    signing::PublicKey,
};

/// Asks homeservers.
#[derive(Clone)]
pub struct Federation {
    outbound: Outbound,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Federation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Federation").finish_non_exhaustive()
    }
}

/// What became of a homeserver being told of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It knows.
    Yes,
    /// It did not answer, or could not: it is worth another try. The cause is for the log.
    NotNow(String),
    /// It does not want to know. The cause is for the log.
    Refused(String),
}

impl Federation {
    /// Asks through `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        Self { outbound, clock }
    }

    /// `GET /_matrix/federation/v1/openid/userinfo`: the user that a token of `POST …/openid/request_token` stands for, a
    /// user of that very server (Server-Server API, "OpenID").
    ///
    /// # Errors
    /// [`Error::Unauthorized`](crate::Error::Unauthorized) if the homeserver does not know the token, or names a user who is not its own;
    /// [`Error::FederationFailed`](crate::Error::FederationFailed), [`Error::FederationTimeout`](crate::Error::FederationTimeout),
    /// [`Error::Unavailable`](crate::Error::Unavailable).
    pub(crate) async fn userinfo(
        &self,
        server: &ServerName,
        access_token: &AccessToken,
    ) -> Result<String> {
        let _ = (&self.outbound, &self.clock, server, access_token);
        Err(crate::Error::FederationFailed("not there yet".to_owned()))
    }

    /// A homeserver's signing key of this name, from `GET /_matrix/key/v2/server`, kept as long as it is valid; `None` if the
    /// homeserver has no such key that is valid now (Server-Server API, "Retrieving server keys").
    ///
    /// # Errors
    /// [`Error::FederationFailed`](crate::Error::FederationFailed), [`Error::FederationTimeout`](crate::Error::FederationTimeout),
    /// [`Error::Unavailable`](crate::Error::Unavailable).
    pub(crate) async fn public_key(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<Option<PublicKey>> {
        let _ = (server, key_id);
        Err(crate::Error::FederationFailed("not there yet".to_owned()))
    }

    /// Tells a homeserver that one of its users has an address now: `POST /_matrix/federation/v1/3pid/onbind`, and `PUT` where
    /// it does not take `POST` (the two specifications name one each).
    pub(crate) async fn onbind(&self, server: &ServerName, body: Vec<u8>) -> Told {
        let _ = (server, body);
        Told::NotNow("not there yet".to_owned())
    }
}
