//! Homeservers as an identity server meets them: found by their name, and asked over federation (Server-Server API).
//!
//! Whoever names a homeserver is a stranger: every call goes through [`Outbound`].

mod discovery;
mod keys;
mod onbind;
mod openid;
mod remembered;
mod services;
mod well_known;

use std::{fmt, sync::Arc};

use http::Method;

pub use self::onbind::Told;
use self::{keys::Known, remembered::Remembered};
use crate::{
    clock::Clock,
    error::{Error, Result},
    outbound::{Call, CallError, ChosenBy, Outbound, Reply},
    server_name::ServerName,
    turns::Turns,
};

/// Asks homeservers. Clones share what they remember of them.
#[derive(Clone)]
pub struct Federation {
    outbound: Outbound,
    /// Who names the homeservers.
    chosen_by: ChosenBy,
    clock: Arc<dyn Clock>,
    memory: Arc<Memory>,
}

/// What is remembered of homeservers, all of it bounded: strangers choose the names.
#[derive(Default)]
struct Memory {
    /// For each host, the name that it delegates to; `None` if there is no such name, or it could not be learnt.
    delegations: Remembered<String, Option<ServerName>>,
    keys: Remembered<ServerName, Known>,
    /// One fetch of keys at a time for each homeserver, so that whoever waits finds what it brought.
    fetches: Turns,
}

impl fmt::Debug for Federation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Federation").finish_non_exhaustive()
    }
}

impl Federation {
    /// Asks through `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        Self {
            outbound,
            chosen_by: ChosenBy::Stranger,
            clock,
            memory: Arc::default(),
        }
    }

    /// The same for what nobody waits for: strangers who keep it busy do not keep this from its work.
    fn in_background(&self) -> Self {
        Self {
            chosen_by: ChosenBy::Background,
            ..self.clone()
        }
    }

    /// The same for the keys of whoever is said to have signed something: strangers who keep that busy do not keep others
    /// from registering.
    fn for_signers(&self) -> Self {
        Self {
            chosen_by: ChosenBy::Signer,
            ..self.clone()
        }
    }

    /// Finds a homeserver and asks it. `path` is percent-encoded, and may have a query.
    async fn ask(
        &self,
        server: &ServerName,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
    ) -> Result<Reply> {
        let to = self.find(server).await?;
        let call = Call {
            chosen_by: self.chosen_by,
            method,
            to,
            path,
            bearer: None,
            authorization: None,
            body,
        };
        self.outbound.call(call).await.map_err(fault)
    }
}

fn fault(why: CallError) -> Error {
    match why {
        CallError::TimedOut(cause) => Error::FederationTimeout(cause),
        CallError::Busy(cause) => Error::Unavailable(cause),
        CallError::Failed(cause) => Error::FederationFailed(cause),
    }
}

/// An answer that can not be made use of.
fn nonsense(server: &ServerName, path: &str, what: impl fmt::Display) -> Error {
    Error::FederationFailed(format!("{server} answered {path} with {what}"))
}
