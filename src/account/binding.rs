//! Bindings at identity servers: made for an account, remembered, and undone (MSC1915, MSC2140, MSC2290).

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    AccountRules,
    addresses::{Named, Removal},
};
use crate::{
    error::{Error, Result},
    homeserver::Requester,
    id_server::{IdServer, Unbound},
    identity_client::{At, Authority, Pair},
    secret::{AccessToken, ClientSecret, Sid},
    store::Binding,
    threepid::{Medium, Threepid},
};

/// How many identity servers are asked side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long identity servers that nobody named may take, all together.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session at an identity server, and the account's token there.
pub(crate) struct SessionThere {
    pub(crate) server: IdServer,
    pub(crate) sid: Sid,
    pub(crate) client_secret: ClientSecret,
    pub(crate) access_token: AccessToken,
}

impl SessionThere {
    fn pair(&self) -> Pair<'_> {
        Pair {
            sid: &self.sid,
            client_secret: &self.client_secret,
        }
    }
}

/// With what a binding can be undone, as it is sealed.
#[derive(Deserialize, Serialize)]
struct Kept<'a> {
    sid: &'a str,
    client_secret: &'a str,
    id_access_token: &'a str,
}

impl AccountRules {
    /// Binds the address that a session of an identity server proves to the account, and remembers where. Both end even
    /// if the client goes away.
    ///
    /// # Errors
    /// What the identity server says: [`Error::Relayed`], [`Error::UpstreamFailed`], [`Error::UpstreamTimeout`].
    pub(crate) async fn bind(
        self: &Arc<Self>,
        requester: Requester,
        session: SessionThere,
    ) -> Result<()> {
        let this = Arc::clone(self);
        self.to_the_end(async move {
            let at = At {
                server: &session.server,
                access_token: &session.access_token,
            };
            let user_id = &requester.user_id;
            let identity = &this.validation.identity;
            let threepid = identity.bind(at, session.pair(), user_id).await?;
            this.remember(user_id, threepid, &session).await
        })
        .await
    }

    async fn remember(
        &self,
        user_id: &str,
        threepid: Threepid,
        session: &SessionThere,
    ) -> Result<()> {
        let kept = Kept {
            sid: session.sid.as_str(),
            client_secret: session.client_secret.as_str(),
            id_access_token: session.access_token.reveal(),
        };
        let kept = zeroize::Zeroizing::new(
            serde_json::to_vec(&kept).expect("texts under fixed names are JSON"),
        );
        let server = session.server.to_string();
        let key = self.validation.keys.newest();
        let binding = Binding {
            sealed: key.seal(&row(user_id, &threepid, &server), &kept)?,
            user_id: user_id.to_owned(),
            threepid,
            server,
            key_id: key.id(),
            bound_at: self.validation.clock.now(),
        };
        Ok(self.validation.store.remember_binding(binding).await?)
    }

    /// Undoes the bindings of an address: at the server that a removal names, else at all that are remembered. Of an
    /// address that is not the account's only what was bound through us; no other server hears of it.
    pub(super) async fn unbind_named(&self, removal: &Removal, named: &Named) -> Result<Unbound> {
        let user_id = &removal.requester.user_id;
        let store = &self.validation.store;
        let known = store.bindings(user_id, Some(&named.threepid)).await?;
        let servers: Vec<(IdServer, Option<Binding>)> = match &removal.id_server {
            Some(server) => {
                let name = server.to_string();
                let known = known.into_iter().find(|known| known.server == name);
                let is_asked = named.listed.is_some() || known.is_some();
                is_asked
                    .then(|| (server.clone(), known))
                    .into_iter()
                    .collect()
            }
            None => known.into_iter().filter_map(with_server).collect(),
        };
        let mut unbound = (!servers.is_empty()).then_some(Unbound::Success);
        for (server, known) in servers {
            let at_server = self.unbind_at(removal, &named.threepid, &server, known.as_ref());
            if at_server.await? == Unbound::NoSupport {
                unbound = Some(Unbound::NoSupport);
            }
        }
        Ok(unbound.unwrap_or(Unbound::NoSupport))
    }

    /// Undoes all bindings of an address that are remembered, as far as their servers let us, and for no longer than
    /// somebody may wait for it. What a server does not undo stays remembered.
    pub(super) async fn unbind_remembered(
        &self,
        removal: &Removal,
        named: &Named,
    ) -> Result<Unbound> {
        let user_id = &removal.requester.user_id;
        let store = &self.validation.store;
        let known = store.bindings(user_id, Some(&named.threepid)).await?;
        let undoing: Vec<_> = known
            .iter()
            .map(|known| async {
                let server = known.server.parse().map_err(|_| Error::ServerNotTrusted)?;
                self.unbind_at(removal, &named.threepid, &server, Some(known))
                    .await
            })
            .collect();
        Ok(match side_by_side(undoing).await {
            Some(true) if !known.is_empty() => Unbound::Success,
            _ => Unbound::NoSupport,
        })
    }

    /// Undoes one binding: by the homeserver's signature, or else by the session that made it.
    async fn unbind_at(
        &self,
        removal: &Removal,
        threepid: &Threepid,
        server: &IdServer,
        known: Option<&Binding>,
    ) -> Result<Unbound> {
        let Removal {
            requester, origin, ..
        } = removal;
        let signed = self.accounts.unbind(requester, threepid, server, origin);
        let unbound = match (signed.await?, known) {
            (Some(unbound), _) => unbound,
            (None, Some(known)) => self.unbind_by_session(server, known).await?,
            (None, None) => Unbound::NoSupport,
        };
        if let (Unbound::Success, Some(known)) = (unbound, known) {
            self.forget(known).await?;
        }
        Ok(unbound)
    }

    /// Undoes a binding by the session that made it. Identity servers keep sessions for a day: one that is over, like a
    /// token that is, is no fault of whoever asks, who has no other.
    async fn unbind_by_session(&self, server: &IdServer, known: &Binding) -> Result<Unbound> {
        let Some(session) = self.open(server, known) else {
            return Ok(Unbound::NoSupport);
        };
        let authority = Authority::Session(session.pair(), Some(&session.access_token));
        let identity = &self.validation.identity;
        let unbound = identity.unbind(server, authority, &known.user_id, &known.threepid);
        match unbound.await {
            Err(Error::Relayed { errcode, .. }) if is_over(&errcode) => Ok(Unbound::NoSupport),
            other => other,
        }
    }

    /// With what a binding can be undone; `None` if the key that sealed it is gone.
    fn open(&self, server: &IdServer, known: &Binding) -> Option<SessionThere> {
        let key = self.validation.keys.find(known.key_id)?;
        let row = row(&known.user_id, &known.threepid, &known.server);
        let plain = zeroize::Zeroizing::new(key.open(&row, &known.sealed).ok()?);
        let kept: Kept<'_> = serde_json::from_slice(&plain).ok()?;
        Some(SessionThere {
            server: server.clone(),
            sid: Sid::parse(kept.sid).ok()?,
            client_secret: ClientSecret::parse(kept.client_secret).ok()?,
            access_token: AccessToken::parse(kept.id_access_token).ok()?,
        })
    }

    async fn forget(&self, known: &Binding) -> Result<()> {
        let store = &self.validation.store;
        let forgotten = store.forget_binding(&known.user_id, &known.threepid, &known.server);
        Ok(forgotten.await?)
    }

    /// Gives a new account the addresses that were proved when it was made. The call may be repeated. All that can be
    /// given are, whatever becomes of the others.
    ///
    /// # Errors
    /// [`Error::InUse`] if another account has one of them, and what the directory says.
    pub(crate) async fn registered(
        self: &Arc<Self>,
        user_id: &str,
        threepids: &[Threepid],
    ) -> Result<()> {
        let (this, user_id) = (Arc::clone(self), user_id.to_owned());
        let threepids = threepids.to_vec();
        self.to_the_end(async move {
            let now = this.validation.clock.now();
            let mut given = Ok(());
            for threepid in &threepids {
                let one = this.give_address(&user_id, threepid, Some(now)).await;
                given = given.and(one);
            }
            given
        })
        .await
    }

    /// Follows the end of an account: its resets end, with `erase` its addresses go, and its bindings at identity servers
    /// are undone (Client-Server API, `POST account/deactivate`; MSC4025). `Success` if nothing had to be undone.
    ///
    /// # Errors
    /// Those of the store and, with `erase`, of the directory. The call may be repeated.
    pub(crate) async fn deactivated(
        self: &Arc<Self>,
        user_id: &str,
        erase: bool,
    ) -> Result<Unbound> {
        let (this, user_id) = (Arc::clone(self), user_id.to_owned());
        self.to_the_end(async move {
            let store = &this.validation.store;
            store.end_resets(&user_id).await?;
            if erase {
                this.erase(&user_id).await?;
            }
            let known = store.bindings(&user_id, None).await?;
            let undoing: Vec<_> = known.iter().map(|known| this.undo(known)).collect();
            let is_undone = side_by_side(undoing).await == Some(true);
            if erase {
                for known in &known {
                    this.forget(known).await?;
                }
            }
            Ok(if is_undone {
                Unbound::Success
            } else {
                Unbound::NoSupport
            })
        })
        .await
    }

    async fn erase(&self, user_id: &str) -> Result<()> {
        let directory = &self.validation.directory;
        for own in directory.list(user_id).await? {
            if let Some(medium) = Medium::parse(&own.medium) {
                let threepid = Threepid::stored(medium, own.address);
                directory.unbind(user_id, &threepid).await?;
            }
        }
        Ok(())
    }

    /// Undoes one binding of an account that has ended, by the session that made it.
    async fn undo(&self, known: &Binding) -> Result<Unbound> {
        let server = known.server.parse().map_err(|_| Error::ServerNotTrusted)?;
        let unbound = self.unbind_by_session(&server, known).await?;
        if unbound == Unbound::Success {
            self.forget(known).await?;
        }
        Ok(unbound)
    }
}

/// Whether all of it ended in success; `None` if not all of it ended in time.
async fn side_by_side(undoing: Vec<impl Future<Output = Result<Unbound>> + Send>) -> Option<bool> {
    let all = stream::iter(undoing).buffer_unordered(SIDE_BY_SIDE);
    let all = all.map(|unbound| {
        if let Err(error) = &unbound {
            let cause = error
                .cause()
                .map_or_else(|| error.to_string(), str::to_owned);
            tracing::warn!(cause, "an address stays bound at an identity server");
        }
        matches!(unbound, Ok(Unbound::Success))
    });
    let ended = tokio::time::timeout(PATIENCE, all.collect::<Vec<_>>()).await;
    ended
        .ok()
        .map(|undone| undone.into_iter().all(|is_undone| is_undone))
}

fn with_server(known: Binding) -> Option<(IdServer, Option<Binding>)> {
    let server = known.server.parse().ok()?;
    Some((server, Some(known)))
}

/// Whether an identity server says that a session, or a token, is none any more.
fn is_over(errcode: &str) -> bool {
    matches!(
        errcode,
        "M_SESSION_EXPIRED" | "M_NO_VALID_SESSION" | "M_SESSION_NOT_VALIDATED" | "M_UNAUTHORIZED"
    )
}

/// What is sealed is sealed for: one binding, and nothing else.
fn row(user_id: &str, threepid: &Threepid, server: &str) -> Vec<u8> {
    let medium = threepid.medium().as_str();
    let mut row = b"binding".to_vec();
    for part in [user_id, medium, threepid.address(), server] {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        row.extend_from_slice(&length.to_be_bytes());
        row.extend_from_slice(part.as_bytes());
    }
    row
}
