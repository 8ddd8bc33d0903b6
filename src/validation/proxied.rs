//! What an identity server validates: ask it, remember its session, relay the code, fetch the proof.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{Validation, request::TokenRequest};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id_server::IdServer,
    identity_client::{self, At, Pair},
    limits::limited,
    next_link::NextLink,
    proof,
    secret::{AccessToken, ClientSecret, SessionId, Sid},
    session::{Proxied, Purpose, Session, Shown},
    store::{Bucket, NewProxied, NewSession, NewTry, Reservation, Reserved, Store},
};

/// The longest that one request keeps its scope reserved: longer than any call to an identity server may take.
const LONGEST_CALL: Duration = Duration::from_mins(1);
/// How often the same request, sent twice at once, looks for the answer to the first.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A scope that is reserved. It is given free also if the client goes away in the middle.
struct Asking {
    store: Arc<dyn Store>,
    /// `None` once it is free.
    scope: Option<[u8; 16]>,
}

impl Asking {
    /// What was answered is remembered, and the scope is free with it; else it is given free here.
    async fn end(mut self, is_answered: bool) -> Result<()> {
        match self.scope.take() {
            Some(scope) if !is_answered => Ok(self.store.remove(scope).await?),
            _ => Ok(()),
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let (Some(scope), Ok(runtime)) = (self.scope, Handle::try_current()) else {
            return;
        };
        let store = Arc::clone(&self.store);
        runtime.spawn(async move {
            if let Err(error) = store.remove(scope).await {
                tracing::warn!(%error, "a reservation could not be given back; it runs out by itself");
            }
        });
    }
}

/// Who asks at an identity server.
struct Account {
    server: IdServer,
    access_token: AccessToken,
    /// Whether it is our own account there: what is wrong with it is not the client's business.
    is_ours: bool,
}

impl Account {
    fn at(&self) -> At<'_> {
        At {
            server: &self.server,
            access_token: &self.access_token,
        }
    }

    /// The error as the client may know it.
    fn told(&self, error: Error) -> Error {
        match error {
            Error::Relayed {
                status, errcode, ..
            } if self.is_ours && matches!(status.as_u16(), 401 | 403) => {
                Error::UpstreamFailed(format!(
                    "{} refuses our own account: {status} {errcode}; see identity_servers.default_server_token_file",
                    self.server
                ))
            }
            other => other,
        }
    }
}

impl Validation {
    /// Passes a `requestToken` on, and remembers the session that the server opened. Of several at once for one scope,
    /// one is passed on; the others wait for its answer: identity servers are known to send a repeated attempt twice.
    pub(super) async fn ask_server(
        &self,
        request: &TokenRequest,
        session: NewSession,
        buckets: Vec<Bucket>,
        destination: (IdServer, Option<AccessToken>),
    ) -> Result<Sid> {
        let account = self.account(destination.0, destination.1)?;
        let (scope, mut waited) = (session.scope, Duration::ZERO);
        loop {
            let now = self.clock.now();
            let reservation = Reservation {
                scope,
                send_attempt: request.send_attempt,
                buckets: buckets.clone(),
                code_tries: self.settings.lifetimes.code_tries,
                now,
                until: now + LONGEST_CALL,
            };
            match self.store.reserve(reservation).await? {
                Reserved::Yes => break,
                Reserved::Limited(wait) => return Err(limited(wait)),
                Reserved::Answered(sid) => return self.sid_at_server(sid).await,
                Reserved::Taken if waited >= LONGEST_CALL => {
                    let cause = "the same request was under way for too long";
                    return Err(Error::UpstreamTimeout(cause.to_owned()));
                }
                Reserved::Taken => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
        let asking = Asking {
            store: Arc::clone(&self.store),
            scope: Some(scope),
        };
        let answered = self.pass_on(request, session, account).await;
        asking.end(answered.is_ok()).await?;
        answered
    }

    async fn pass_on(
        &self,
        request: &TokenRequest,
        session: NewSession,
        account: Account,
    ) -> Result<Sid> {
        let passed_on = identity_client::TokenRequest {
            threepid: &request.threepid,
            client_secret: &request.client_secret,
            send_attempt: request.send_attempt,
            next_link: request.next_link.as_ref().map(NextLink::as_str),
        };
        let asked = self.identity.request_token(account.at(), passed_on).await;
        let sid = asked.map_err(|error| account.told(error))?;
        let key = self.keys.newest();
        let access_token = if account.is_ours {
            None
        } else {
            let plain = account.access_token.reveal().as_bytes();
            Some(key.seal(&token_row(&session.scope), plain)?)
        };
        let proxied = NewProxied {
            session,
            server: account.server.to_string(),
            server_sid: sid.to_string(),
            server_pair: proof::server_pair(key, &sid, &request.client_secret),
            access_token,
        };
        self.store.remember(proxied).await?;
        Ok(sid)
    }

    /// What the identity server calls a session of ours.
    pub(super) async fn sid_at_server(&self, sid: SessionId) -> Result<Sid> {
        let session = self.store.find(sid).await?;
        let proxied = session.and_then(|session| session.proxied);
        Sid::parse(&proxied.ok_or(Error::NoValidSession)?.sid)
    }

    /// The session that an identity server knows by this `sid`, and that serves `wanted` if one does.
    pub(super) async fn find_proxied(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        wanted: Option<Purpose>,
    ) -> Result<Option<Session>> {
        let pair = |key| proof::server_pair(key, sid, client_secret);
        let pairs = self.keys.iter().map(pair).collect();
        let mut found = self.store.find_proxied(pairs).await?;
        if !self.settings.identity_servers.allow_password_reset {
            // The operator may have taken it back since.
            found.retain(|session| session.purpose != Purpose::Password);
        }
        let serves = |session: &Session| wanted.is_none_or(|wanted| session.purpose.serves(wanted));
        let best = found.iter().position(serves).unwrap_or(0);
        Ok((best < found.len()).then(|| found.swap_remove(best)))
    }

    /// Relays a code. The tries are counted here too: not every identity server does.
    pub(super) async fn relay_submission(
        &self,
        session: Session,
        proxied: &Proxied,
        client_secret: &ClientSecret,
        token: &str,
        now: Timestamp,
    ) -> Result<Session> {
        if session.is_over(now) {
            return Err(Error::SessionExpired);
        }
        let account = self.account_of(&session, proxied)?;
        if session.validated_at.is_none() {
            self.count_try(&session, now).await?;
        }
        let (sid, medium) = (Sid::parse(&proxied.sid)?, session.threepid.medium());
        let pair = Pair {
            sid: &sid,
            client_secret,
        };
        let submitted = self
            .identity
            .submit_token(account.at(), medium, pair, token.trim())
            .await;
        submitted.map_err(|error| account.told(error))?;
        // Fetched while the server is there. If that fails, it is asked again when the proof is wanted.
        match self.fetch_proof(&session, proxied, client_secret).await {
            Ok(session) => Ok(session),
            Err(_) => Ok(session),
        }
    }

    async fn count_try(&self, session: &Session, now: Timestamp) -> Result<()> {
        let counted = NewTry {
            sid: session.sid,
            is_right: Box::new(|_| false),
            address_bucket: self.tries_bucket(&session.threepid),
            code_tries: self.settings.lifetimes.code_tries,
            now,
            validated_until: now,
        };
        match self.store.try_code(counted).await?.map_err(limited)? {
            Some(_) => Ok(()),
            None => Err(Error::SessionExpired),
        }
    }

    /// Asks the identity server whether the address is proved, and remembers it.
    ///
    /// Of an address that is somebody's already, or nobody's, only this is told, to whoever proved it.
    pub(super) async fn fetch_proof(
        &self,
        session: &Session,
        proxied: &Proxied,
        client_secret: &ClientSecret,
    ) -> Result<Session> {
        let account = self.account_of(session, proxied)?;
        let sid = Sid::parse(&proxied.sid)?;
        let pair = Pair {
            sid: &sid,
            client_secret,
        };
        let validated = self
            .identity
            .validated(account.at(), pair, &session.threepid)
            .await;
        validated.map_err(|error| account.told(error))?;
        if session.genuine {
            let now = self.clock.now();
            return self.validate(session.clone(), Shown::Now, now).await;
        }
        Err(match session.purpose {
            Purpose::Register | Purpose::Add => Error::InUse,
            Purpose::Password => Error::NoAccount,
        })
    }

    fn account_of(&self, session: &Session, proxied: &Proxied) -> Result<Account> {
        // The operator may have changed the list since.
        let server = proxied
            .server
            .parse()
            .map_err(|_| Error::ServerNotTrusted)?;
        let token = match &proxied.access_token {
            Some(sealed) => Some(self.open_token(session, sealed)?),
            None => None,
        };
        self.account(server, token)
    }

    fn open_token(&self, session: &Session, sealed: &[u8]) -> Result<AccessToken> {
        let plain = self
            .key(session)?
            .open(&token_row(&session.scope), sealed)?;
        AccessToken::parse(&String::from_utf8_lossy(&plain))
    }

    /// The client's account at a server, or without a token ours at the default server.
    fn account(&self, server: IdServer, token: Option<AccessToken>) -> Result<Account> {
        let servers = &self.settings.identity_servers;
        if !servers.is_trusted(&server) {
            return Err(Error::ServerNotTrusted);
        }
        let is_ours = token.is_none();
        let own = servers.default_server.as_ref();
        let own = own.filter(|(default, _)| *default == server);
        let access_token = token
            .or_else(|| own.map(|(_, token)| token.clone()))
            .ok_or(Error::ServerNotTrusted)?;
        Ok(Account {
            server,
            access_token,
            is_ours,
        })
    }
}

/// What a token is sealed for: a session's, and nothing else of it.
fn token_row(scope: &[u8; 16]) -> [u8; 21] {
    let mut row = *b"................token";
    row[..16].copy_from_slice(scope);
    row
}
