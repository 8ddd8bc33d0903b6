//! Ask for a token, show it, use the proof.

mod claim;
mod settings;

use std::{fmt, sync::Arc};

use tokio::sync::Notify;
use url::Url;

pub use self::{
    claim::{Claim, ClaimRequest},
    settings::{Contents, Settings},
};
use crate::{
    clock::{Clock, Timestamp},
    error::{Error, Result},
    homeserver::Directory,
    keys::{Key, Keyring},
    limits::{Limiter, limited},
    next_link::NextLink,
    proof::{self, Code, Link},
    secret::{ClientSecret, SessionId, Sid},
    session::{self, Purpose, Session, Shown},
    source::Source,
    store::{Bucket, Details, NewRequest, NewTry, Requested, Store},
    threepid::{Medium, Threepid},
};

/// One `requestToken`, its values parsed.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// What the address is to be proved for.
    pub purpose: Purpose,
    /// The address.
    pub threepid: Threepid,
    /// The client's secret.
    pub client_secret: ClientSecret,
    /// The client's count of attempts, from 0 to 2^53 − 1: only a greater one sends again.
    pub send_attempt: i64,
    /// Where the browser is sent afterwards.
    pub next_link: Option<NextLink>,
    /// Where the request came from.
    pub source: Source,
    /// The account that asks, if it is known: ties an `add` session to it.
    pub user_id: Option<String>,
}

/// The answer to an accepted `requestToken`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session.
    pub sid: Sid,
    /// Where the client submits the code; `None` if mails hold none.
    pub submit_url: Option<Url>,
}

/// What a request is counted on.
struct Counted<'a> {
    /// The key that names were made with.
    key: &'a Key,
    /// Its count of attempts.
    scope: [u8; 16],
    /// Its address's bucket.
    bucket: Bucket,
}

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
    /// Wakes a worker of the outbox.
    pub(crate) wake: Arc<Notify>,
}

impl fmt::Debug for Validation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Validation")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Validation {
    /// Asks for a token: the rule behind every `requestToken`.
    ///
    /// When it returns, session and message are on the disk. Nobody is told whether an account has the address, unless
    /// `reveal` is set: the mailbox's owner gets another message instead.
    ///
    /// # Errors
    /// [`Error::Limited`], [`Error::Denied`], [`Error::MediumNotSupported`]; with `reveal` also [`Error::InUse`] and
    /// [`Error::NoAccount`].
    pub async fn request_token(&self, request: TokenRequest) -> Result<Opened> {
        let now = self.clock.now();
        if !self.settings.email {
            return Err(Error::MediumNotSupported);
        }
        self.limiter.count_request(request.source, now)?;
        self.settings
            .policy
            .check(request.purpose, &request.threepid)?;
        let counted = self.counted(&request);
        let tries = self.settings.lifetimes.code_tries;
        let met = self
            .store
            .peek(
                counted.scope,
                request.send_attempt,
                counted.bucket,
                tries,
                now,
            )
            .await?;
        if let Some(met) = met {
            if matches!(met, Requested::Repeated(_)) {
                self.limiter.give_request_back(request.source);
            }
            return self.opened(met);
        }
        let owner = self.directory.owner(&request.threepid).await?;
        let request = self.new_request(request, &counted, owner, now)?;
        let met = self.store.request(request).await?;
        if matches!(met, Requested::Accepted(_)) {
            self.wake.notify_one();
        }
        self.opened(met)
    }

    fn counted(&self, request: &TokenRequest) -> Counted<'_> {
        let key = self.keys.newest();
        let bucket = Bucket {
            key: proof::bucket(key, b'm', &request.threepid),
            rate: self.settings.limits.per_address,
        };
        let scope = proof::scope(
            key,
            request.purpose,
            &request.threepid,
            &request.client_secret,
        );
        Counted { key, scope, bucket }
    }

    fn new_request(
        &self,
        request: TokenRequest,
        counted: &Counted<'_>,
        owner: Option<String>,
        now: Timestamp,
    ) -> Result<NewRequest> {
        let Counted { key, scope, bucket } = *counted;
        let answer = session::answer(
            request.purpose,
            owner,
            request.user_id,
            self.settings.reveal,
        )?;
        let seal = |link: NextLink| key.seal(&scope, link.as_str().as_bytes());
        let next_link = request
            .next_link
            .map(seal)
            .transpose()
            .map_err(|error| Error::Internal(error.to_string()))?;
        Ok(NewRequest {
            sid: SessionId::generate(now),
            key_id: key.id(),
            scope,
            secret_hash: proof::secret_hash(key, &request.client_secret),
            purpose: request.purpose,
            threepid: request.threepid,
            details: Details {
                network: request.source.network(),
                // A notice goes to somebody else: it names nobody.
                user_id: answer.user_id.clone().filter(|_| answer.genuine),
            },
            user_id: answer.user_id,
            genuine: answer.genuine,
            send_attempt: request.send_attempt,
            next_link,
            message: answer.message,
            address_bucket: bucket,
            session_rate: self.settings.limits.per_session,
            lifetimes: self.settings.lifetimes,
            useful_for: self.settings.useful_for(),
            now,
        })
    }

    fn opened(&self, met: Requested) -> Result<Opened> {
        match met {
            Requested::Limited(wait) => Err(limited(wait)),
            Requested::Accepted(sid) | Requested::Repeated(sid) => {
                let submit_url = self
                    .settings
                    .contents
                    .has_code()
                    .then(|| self.submit_url(Medium::Email));
                Ok(Opened {
                    sid: sid.into(),
                    submit_url,
                })
            }
        }
    }

    /// The absolute URL that takes codes of a medium.
    #[must_use]
    pub fn submit_url(&self, medium: Medium) -> Url {
        below(
            &self.settings.public_url,
            &format!("_threepid/{medium}/submitToken"),
        )
    }

    /// Shows a token, which may be the code or the link's value: the rule behind every `submitToken`.
    ///
    /// # Errors
    /// [`Error::NoValidSession`] (never told apart for `sid` and `client_secret`), [`Error::TokenIncorrect`],
    /// [`Error::SessionExpired`], [`Error::Limited`].
    pub async fn submit_token(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        token: &str,
        source: Source,
    ) -> Result<Session> {
        let now = self.clock.now();
        self.limiter.count_submission(source, now)?;
        let session = self.find_pair(sid, client_secret).await?;
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
                let code = |key| Code::derive(key, session.sid, session.send_attempt);
                let is_right = keys
                    .find(session.key_id)
                    .is_some_and(|key| code(key).matches(&token));
                session.check_code(is_right).is_ok()
            }),
            address_bucket: Bucket {
                key: proof::bucket(self.keys.newest(), b't', &session.threepid),
                rate: self.settings.limits.code_tries_per_address,
            },
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
                let plain = self.key(&session)?.open(&session.scope, sealed);
                let plain = plain.map_err(|error| Error::Internal(error.to_string()))?;
                // Checked again: the operator's list may have changed since.
                String::from_utf8(plain)
                    .ok()
                    .and_then(|text| NextLink::parse(&text, &self.settings.next_links).ok())
            }
            None => None,
        };
        let code = if self.settings.contents.has_code() {
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
        Ok(Code::derive(
            self.key(session)?,
            session.sid,
            session.send_attempt,
        ))
    }

    /// The session of a pair. An unknown `sid` and a wrong `client_secret` get one answer, after the same work.
    async fn find_pair(&self, sid: &Sid, client_secret: &ClientSecret) -> Result<Session> {
        let sid = sid
            .ours()
            .unwrap_or_else(|| SessionId::generate(Timestamp(0)));
        let session = self.store.find(sid).await?;
        let key = session
            .as_ref()
            .and_then(|session| self.keys.find(session.key_id));
        let hash = session
            .as_ref()
            .map_or(&[][..], |session| &session.secret_hash);
        let matches = proof::secret_matches(key.unwrap_or(self.keys.newest()), client_secret, hash);
        session.filter(|_| matches).ok_or(Error::NoValidSession)
    }
}

/// An absolute URL below the public one, whose own path may be a prefix.
pub(crate) fn below(public_url: &Url, path: &str) -> Url {
    let mut url = public_url.clone();
    let prefix = public_url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{prefix}/{path}"));
    url
}
