//! What a host homeserver mounts for its accounts, and what it tells of them.

use axum::Router;

use crate::{Threepid, error::Result, http, id_server::Unbound};

impl Threepid {
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
}
