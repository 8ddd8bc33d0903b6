//! What an identity server validates: ask it, remember its session, relay the code, fetch the proof.

use http::StatusCode;

use super::{Validation, asking::Turn, request::TokenRequest};
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
    store::{Bucket, NewProxied, NewSession, NewTry, Remembered},
    threepid::Medium,
};

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
    /// Passes a `requestToken` on, and remembers the session that the server opened.
    pub(super) async fn ask_server(
        &self,
        request: &TokenRequest,
        session: NewSession,
        buckets: Vec<Bucket>,
        destination: (IdServer, Option<AccessToken>),
    ) -> Result<Sid> {
        let account = self.account(destination.0, destination.1)?;
        let turn = self.take_turn(session.scope, request.send_attempt, buckets);
        let asking = match turn.await? {
            Turn::Yours(asking) => asking,
            Turn::Answered(sid) => return self.sid_at_server(sid).await,
        };
        let answered = self.pass_on(request, session, account).await;
        if answered.is_ok() {
            asking.answered();
        } else {
            asking.give_up().await?;
        }
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
        if request.purpose == Purpose::Password {
            self.refuse_proof_of_before(request, &account, &sid).await?;
        }
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
        match self.store.remember(proxied).await? {
            Remembered::Yes => Ok(sid),
            Remembered::Spent => Err(spent()),
        }
    }

    /// Whoever holds a session that was proved before the reset was asked for need not own the address any more.
    async fn refuse_proof_of_before(
        &self,
        request: &TokenRequest,
        account: &Account,
        sid: &Sid,
    ) -> Result<()> {
        let client_secret = &request.client_secret;
        let pair = Pair { sid, client_secret };
        let proved = self
            .identity
            .validated(account.at(), pair, &request.threepid);
        match proved.await {
            Ok(_) => Err(spent()),
            Err(Error::SessionNotValidated) => Ok(()),
            Err(error) => Err(account.told(error)),
        }
    }

    /// What the identity server calls a session of ours.
    pub(super) async fn sid_at_server(&self, sid: SessionId) -> Result<Sid> {
        let session = self.store.find(sid).await?;
        let proxied = session.and_then(|session| session.proxied);
        Sid::parse(&proxied.ok_or(Error::NoValidSession)?.sid)
    }

    /// The sessions that identity servers know by this `sid`, those that stand first.
    pub(super) async fn find_proxied(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
    ) -> Result<Vec<Session>> {
        let servers = &self.settings.identity_servers;
        // Then none of them would count: whoever polls costs one look.
        if servers.are_none() {
            return Ok(Vec::new());
        }
        let pair = |key| proof::server_pair(key, sid, client_secret);
        let pairs = self.keys.iter().map(pair).collect();
        let mut found = self.store.find_proxied(pairs).await?;
        // The operator may have changed either since.
        found.retain(|session| {
            let is_allowed = session.purpose != Purpose::Password || servers.allow_password_reset;
            let server = session.server().and_then(|server| server.parse().ok());
            is_allowed && server.is_some_and(|server| servers.is_trusted(&server))
        });
        Ok(found)
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
        if session.validated_at.is_none() && !self.count_try(&session, now).await? {
            return self.find_validated(session.sid, now).await;
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
        if let Err(Error::UpstreamFailed(_) | Error::UpstreamTimeout(_)) = submitted {
            self.store.give_try_back(session.sid).await?;
        }
        submitted.map_err(|error| account.told(error))?;
        // Fetched while the server is there. If that fails, it is asked again when the proof is wanted.
        let fetched = self.fetch_proof(&session, proxied, client_secret).await;
        Ok(fetched.unwrap_or(session))
    }

    /// Counts a try; `false` if there is none left, or none needed.
    async fn count_try(&self, session: &Session, now: Timestamp) -> Result<bool> {
        let counted = NewTry {
            sid: session.sid,
            is_right: Box::new(|_| false),
            address_bucket: self.tries_bucket(&session.threepid),
            code_tries: self.settings.lifetimes.code_tries,
            now,
            validated_until: now,
        };
        let counted = self.store.try_code(counted).await?.map_err(limited)?;
        Ok(counted.is_some())
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
        validated.map_err(|error| as_a_stage(account.told(error)))?;
        if session.genuine {
            let now = self.clock.now();
            return self.validate(session.clone(), Shown::Now, now).await;
        }
        Err(match session.purpose {
            Purpose::Register | Purpose::Add | Purpose::Identity => Error::InUse,
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

/// Of several sessions that identity servers call alike, the one that a code is for. If they are at more than one server,
/// none: a server could choose the name of another's session, and be told the code.
pub(super) fn for_code(found: Vec<Session>, medium: Medium, now: Timestamp) -> Option<Session> {
    let is_asked_for = |session: &Session| session.threepid.medium() == medium;
    let mut standing = found
        .into_iter()
        .filter(|session| is_asked_for(session) && session.replaced_at.is_none());
    let first = standing.next()?;
    let is_alone = standing.all(|other| other.is_over(now) || other.server() == first.server());
    is_alone.then_some(first)
}

/// Of several sessions that identity servers call alike, one whose proof serves `wanted`, if there is one.
pub(super) fn for_proof(mut found: Vec<Session>, wanted: Purpose) -> Option<Session> {
    let serves = |session: &Session| session.purpose.serves(wanted);
    let best = found.iter().position(serves).unwrap_or(0);
    (best < found.len()).then(|| found.swap_remove(best))
}

/// The refusal of a session that was proved before it was asked for.
fn spent() -> Error {
    Error::invalid(
        "client_secret has proved an address before. Make up a new one for each request.",
    )
}

/// A client would take a 401 for the word that the address is not proved yet, and go on asking.
fn as_a_stage(error: Error) -> Error {
    match error {
        Error::Relayed {
            status: StatusCode::UNAUTHORIZED,
            errcode,
            error,
            retry_after,
        } => Error::Relayed {
            status: StatusCode::FORBIDDEN,
            errcode,
            error,
            retry_after,
        },
        other => other,
    }
}

/// What a token is sealed for: a session's, and nothing else of it.
fn token_row(scope: &[u8; 16]) -> [u8; 21] {
    let mut row = *b"................token";
    row[..16].copy_from_slice(scope);
    row
}
