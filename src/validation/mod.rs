//! Ask for a token, show it, use the proof.

mod asking;
mod claim;
mod proxied;
mod request;
mod settings;

use std::{fmt, sync::Arc};

use tokio::sync::Notify;
use url::Url;

pub use self::{
    claim::{Claim, ClaimRequest},
    request::{Number, Opened, TokenRequest},
    settings::{Contents, IdentityServers, MediumSettings, Settings, Validate, Validates},
};
use crate::{
    clock::{Clock, Timestamp},
    error::{Error, Result},
    homeserver::Directory,
    identity_client::IdentityClient,
    keys::{Key, Keyring},
    limits::{Limiter, limited},
    next_link::NextLink,
    proof::{self, Code, Link},
    rate::Rate,
    secret::{ClientSecret, SessionId, Sid},
    session::{Api, Session, Shown},
    source::Source,
    store::{Bucket, NewTry, Store},
    threepid::{Medium, Threepid},
};

/// What a page shows of a session.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) session: Session,
    pub(crate) next_link: Option<NextLink>,
    pub(crate) code: Option<Code>,
}

/// The rules of both steps, and what they ask.
pub struct Validation {
    pub(crate) settings: Settings,
    pub(crate) limiter: Limiter,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: IdentityClient,
    pub(crate) wakes: Wakes,
}

/// What wakes the workers of the outbox, for each medium.
#[derive(Debug)]
pub(crate) struct Wakes {
    pub(crate) email: Arc<Notify>,
    pub(crate) msisdn: Arc<Notify>,
}

impl Wakes {
    pub(crate) fn of(&self, medium: Medium) -> &Notify {
        match medium {
            Medium::Email => &self.email,
            Medium::Msisdn => &self.msisdn,
        }
    }
}

impl fmt::Debug for Validation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Validation")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Validation {
    /// Shows a token, which may be the code or the link's value: the rule behind every `submitToken`. A session of another
    /// API than the one that asks is none.
    ///
    /// # Errors
    /// [`Error::NoValidSession`] (never told apart for `sid` and `client_secret`), [`Error::TokenIncorrect`],
    /// [`Error::SessionExpired`], [`Error::Limited`]; for a session of an identity server [`Error::Relayed`],
    /// [`Error::UpstreamFailed`] and [`Error::UpstreamTimeout`].
    pub async fn submit_token(
        &self,
        api: Api,
        medium: Medium,
        (sid, client_secret): (&Sid, &ClientSecret),
        token: &str,
        source: Source,
    ) -> Result<Session> {
        let now = self.clock.now();
        self.limiter.count_submission(source, now)?;
        let choose = |found| proxied::for_code(found, medium, now);
        let session = self.find_pair(api, (sid, client_secret), choose).await?;
        if session.threepid.medium() != medium {
            return Err(Error::NoValidSession);
        }
        if let Some(proxied) = session.proxied.clone() {
            let relayed = self.relay_submission(session, &proxied, client_secret, token, now);
            return relayed.await;
        }
        if let Some(link) = Link::parse(token.trim()) {
            if link.verify(&self.keys) != Some(session.sid) {
                return Err(Error::TokenIncorrect);
            }
            let shown = session.check_link(now)?;
            return self.validate(session, shown, now).await;
        }
        session.check_code_open(now, self.settings.lifetimes.code_tries)?;
        let session = if session.validated_at.is_none() {
            self.try_code(&session, token, now).await?
        } else {
            session
        };
        let shown = session.check_code(self.code(&session)?.matches(token))?;
        self.validate(session, shown, now).await
    }

    /// Counted before it is compared, so that parallel guesses can not share one try; and both in one commit.
    async fn try_code(&self, session: &Session, token: &str, now: Timestamp) -> Result<Session> {
        let (keys, token) = (Arc::clone(&self.keys), token.to_owned());
        let shown = NewTry {
            sid: session.sid,
            is_right: Box::new(move |session| {
                let is_right = keys
                    .find(session.key_id)
                    .is_some_and(|key| code_of(key, session).matches(&token));
                session.check_code(is_right).is_ok()
            }),
            address_bucket: self.tries_bucket(&session.threepid),
            code_tries: self.settings.lifetimes.code_tries,
            now,
            validated_until: now + self.settings.lifetimes.session,
        };
        match self.store.try_code(shown).await? {
            Ok(Some(counted)) => Ok(counted),
            Ok(None) => self.find_validated(session.sid, now).await,
            Err(wait) => Err(limited(wait)),
        }
    }

    /// What codes tried at an address are counted on.
    fn tries_bucket(&self, threepid: &Threepid) -> Bucket {
        self.address_bucket(b't', threepid, self.settings.limits.code_tries_per_address)
    }

    /// What messages to a mailbox are counted on.
    pub(crate) fn messages_bucket(&self, threepid: &Threepid) -> Bucket {
        self.address_bucket(b'm', threepid, self.settings.limits.per_address)
    }

    /// The bucket of an address, for what is counted there.
    fn address_bucket(&self, what: u8, threepid: &Threepid, rate: Rate) -> Bucket {
        let what = [what, threepid.medium().tag()];
        let key = proof::bucket(self.keys.newest(), what, &threepid.mailbox());
        Bucket { key, rate }
    }

    /// The session as another request, which was faster, left it.
    async fn find_validated(&self, sid: SessionId, now: Timestamp) -> Result<Session> {
        match self.store.find(sid).await? {
            Some(session) if session.validated_at.is_some() && !session.is_over(now) => Ok(session),
            _ => Err(Error::SessionExpired),
        }
    }

    async fn validate(&self, session: Session, shown: Shown, now: Timestamp) -> Result<Session> {
        if shown == Shown::Again {
            return Ok(session);
        }
        let expires_at = now + self.settings.lifetimes.session;
        if self
            .store
            .mark_validated(session.sid, now, expires_at)
            .await?
        {
            return Ok(Session {
                validated_at: Some(now),
                expires_at,
                ..session
            });
        }
        // Another request was faster, or the session ran out in between.
        self.find_validated(session.sid, now).await
    }

    /// What a mailed link's page shows. Changes nothing.
    pub(crate) async fn look_at_link(&self, link: &str) -> Result<View> {
        let session = self.find_by_link(link).await?;
        session.check_link(self.clock.now())?;
        self.view(session)
    }

    /// What the button on a mailed link's page does.
    pub(crate) async fn submit_link(&self, link: &str, source: Source) -> Result<View> {
        let now = self.clock.now();
        self.limiter.count_submission(source, now)?;
        let session = self.find_by_link(link).await?;
        let shown = session.check_link(now)?;
        let session = self.validate(session, shown, now).await?;
        self.view(session)
    }

    /// A genuine link whose session was swept has run out; any other link is none.
    async fn find_by_link(&self, link: &str) -> Result<Session> {
        let sid = Link::parse(link)
            .and_then(|link| link.verify(&self.keys))
            .ok_or(Error::NoValidSession)?;
        self.store.find(sid).await?.ok_or(Error::SessionExpired)
    }

    /// The session with what only the server key opens.
    pub(crate) fn view(&self, session: Session) -> Result<View> {
        let next_link = match &session.next_link {
            Some(sealed) => {
                let plain = self.key(&session)?.open(&session.scope, sealed)?;
                // Checked again: the operator's list may have changed since.
                String::from_utf8(plain)
                    .ok()
                    .and_then(|text| NextLink::parse(&text, &self.settings.next_links).ok())
            }
            None => None,
        };
        let contents = self.settings.of(session.threepid.medium()).contents;
        // The code of an identity server's message is not known here.
        let code = if contents.has_code() && session.proxied.is_none() {
            Some(self.code(&session)?)
        } else {
            None
        };
        Ok(View {
            session,
            next_link,
            code,
        })
    }

    fn key(&self, session: &Session) -> Result<&Key> {
        self.keys.find(session.key_id).ok_or(Error::SessionExpired)
    }

    fn code(&self, session: &Session) -> Result<Code> {
        Ok(code_of(self.key(session)?, session))
    }

    /// The session of a pair, ours of this API or the one that `choose` takes among those of identity servers. An unknown
    /// `sid` and a wrong `client_secret` get one answer, after the same work.
    async fn find_pair(
        &self,
        api: Api,
        (sid, client_secret): (&Sid, &ClientSecret),
        choose: impl FnOnce(Vec<Session>) -> Option<Session> + Send,
    ) -> Result<Session> {
        let own = sid
            .ours()
            .unwrap_or_else(|| SessionId::generate(Timestamp(0)));
        let session = self.store.find(own).await?;
        let key = session
            .as_ref()
            .and_then(|session| self.keys.find(session.key_id));
        let hash = session
            .as_ref()
            .map_or(&[][..], |session| &session.secret_hash);
        let matches = proof::secret_matches(key.unwrap_or(self.keys.newest()), client_secret, hash);
        // What we call an identity server's session is nobody's name for it.
        let is_asked_for =
            |session: &Session| session.proxied.is_none() && session.purpose.api() == api;
        if let Some(session) = session.filter(|session| matches && is_asked_for(session)) {
            return Ok(session);
        }
        let mut found = self.find_proxied(sid, client_secret).await?;
        found.retain(|session| session.purpose.api() == api);
        choose(found).ok_or(Error::NoValidSession)
    }
}

/// The code of a session's newest message.
fn code_of(key: &Key, session: &Session) -> Code {
    Code::derive(
        key,
        session.sid,
        session.send_attempt,
        session.threepid.medium(),
    )
}

/// An absolute URL below the public one, whose own path may be a prefix.
pub(crate) fn below(public_url: &Url, path: &str) -> Url {
    let mut url = public_url.clone();
    let prefix = public_url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{prefix}/{path}"));
    url
}
