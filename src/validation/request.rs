//! The first step: ask for a token. It is handled here, or proxied to an identity server.

use std::fmt;

use url::Url;

use super::{Validation, below};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id_server::IdServer,
    keys::Key,
    limits::limited,
    next_link::NextLink,
    phone::{self, Facts},
    proof,
    routing::{self, Named, Question, Route},
    secret::{AccessToken, ClientSecret, SessionId, Sid},
    session::{self, Answer, Purpose},
    source::Source,
    store::{Bucket, Details, NewRequest, NewSession, Requested},
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
    /// The identity server that the client names, as it wrote it. It counts only where the operator lets clients choose.
    pub id_server: Option<String>,
    /// The client's token there.
    pub id_access_token: Option<AccessToken>,
    /// Where the request came from.
    pub source: Source,
    /// The account that asks, if it is known: ties an `add` session to it.
    pub user_id: Option<String>,
}

/// The answer to an accepted `requestToken`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session: ours, or that of the identity server.
    pub sid: Sid,
    /// Where the client submits the code; `None` if messages hold none.
    pub submit_url: Option<Url>,
    /// For a phone number: how it was understood.
    pub number: Option<Number>,
}

/// A phone number as it was understood. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Number {
    /// The digits of E.164.
    pub msisdn: String,
    /// As people write it: `+44 7700 900001`.
    pub intl_fmt: String,
}

impl fmt::Debug for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Number(…)")
    }
}

/// Where one request goes.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    Here,
    /// An identity server; the client's token there, `None` for our own account.
    Server(IdServer, Option<AccessToken>),
}

/// What a request is counted on.
struct Counted<'a> {
    /// The key that names were made with.
    key: &'a Key,
    /// Its count of attempts.
    scope: [u8; 16],
    /// The buckets of its address, and of what its message costs.
    buckets: Vec<Bucket>,
    /// The phone number, as it was understood.
    number: Option<Number>,
}

impl Validation {
    /// Asks for a token: the rule behind every `requestToken`.
    ///
    /// When it returns, session and message are on the disk, or the identity server has answered and its session is. Nobody
    /// is told whether an account has the address, unless `reveal` is set: the address's owner gets another message
    /// instead, or is told once the identity server has the proof.
    ///
    /// # Errors
    /// [`Error::Limited`], [`Error::Denied`], [`Error::MediumNotSupported`], [`Error::MissingParam`],
    /// [`Error::ServerNotTrusted`]; with `reveal` also [`Error::InUse`] and [`Error::NoAccount`]; where it is proxied
    /// [`Error::Relayed`], [`Error::UpstreamFailed`] and [`Error::UpstreamTimeout`].
    pub async fn request_token(&self, request: TokenRequest) -> Result<Opened> {
        self.request_token_if(request, || Ok(())).await
    }

    /// The same, if `may_send` has nothing against it, which is asked when there is a message to send.
    ///
    /// # Errors
    /// The same, and what `may_send` says.
    pub(crate) async fn request_token_if(
        &self,
        request: TokenRequest,
        may_send: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Opened> {
        let now = self.clock.now();
        let destination = match self.destination(&request) {
            Err(Error::MediumNotSupported) => return Err(Error::MediumNotSupported),
            destination => destination,
        };
        self.limiter.count_request(request.source, now)?;
        let facts = (request.threepid.medium() == Medium::Msisdn)
            .then(|| phone::facts(request.threepid.address()));
        self.settings
            .policy
            .check(request.purpose, &request.threepid, facts.as_ref())?;
        let counted = self.counted(&request, destination.as_ref().ok(), facts);
        let tries = self.settings.lifetimes.code_tries;
        let (scope, buckets) = (counted.scope, counted.buckets.clone());
        let met = self
            .store
            .peek(scope, request.send_attempt, buckets, tries, now)
            .await?;
        match (met, &destination) {
            (Some(Requested::Limited(wait)), _) => return Err(limited(wait)),
            (Some(Requested::Repeated(sid)), Ok(destination)) => {
                self.limiter.give_request_back(request.source);
                let medium = request.threepid.medium();
                return match destination {
                    Destination::Here => Ok(self.opened_here(sid, medium, counted.number)),
                    Destination::Server(..) => {
                        let sid = self.sid_at_server(sid).await?;
                        Ok(self.opened_at_server(sid, medium, counted.number))
                    }
                };
            }
            _ => {}
        }
        let owner = match request.purpose {
            Purpose::Identity => None,
            _ => self.directory.owner(&request.threepid).await?,
        };
        let asker = request.user_id.clone();
        let answer = session::answer(request.purpose, owner, asker, self.settings.reveal)?;
        let destination = destination?;
        may_send()?;
        match destination {
            Destination::Here => self.ask_here(request, counted, answer, now).await,
            Destination::Server(server, token) => {
                let session = self.new_session(&request, &counted, &answer, now)?;
                let sid = self
                    .ask_server(&request, session, counted.buckets, (server, token))
                    .await?;
                let medium = request.threepid.medium();
                Ok(self.opened_at_server(sid, medium, counted.number))
            }
        }
    }

    /// Where a request goes, or why nowhere.
    fn destination(&self, request: &TokenRequest) -> Result<Destination> {
        let medium = self.settings.of(request.threepid.medium());
        let servers = &self.settings.identity_servers;
        let (named, server) = self.named(request.id_server.as_deref());
        let route = routing::decide(Question {
            validate: medium.validates.of(request.purpose),
            purpose: request.purpose,
            named,
            has_token: request.id_access_token.is_some(),
            has_transport: medium.has_transport,
            has_default_server: servers.default_server.is_some(),
            allow_password_reset: servers.allow_password_reset,
        })?;
        match (route, server, &servers.default_server) {
            (Route::ToNamed, Some(server), _) => {
                let token = request.id_access_token.clone();
                token.as_ref().map_or(Ok(()), AccessToken::check)?;
                Ok(Destination::Server(server, token))
            }
            (Route::ToDefault, _, Some((server, _))) => {
                Ok(Destination::Server(server.clone(), None))
            }
            _ => Ok(Destination::Here),
        }
    }

    /// What `id_server` names. Whatever is no server's name is on no list.
    fn named(&self, id_server: Option<&str>) -> (Named, Option<IdServer>) {
        let servers = &self.settings.identity_servers;
        match id_server.map(str::parse::<IdServer>) {
            None => (Named::Nobody, None),
            Some(Ok(server)) if servers.ours.contains(&server) => (Named::Nobody, None),
            Some(Ok(server)) if servers.is_trusted(&server) => (Named::Trusted, Some(server)),
            Some(_) => (Named::Other, None),
        }
    }

    fn counted(
        &self,
        request: &TokenRequest,
        destination: Option<&Destination>,
        facts: Option<Facts>,
    ) -> Counted<'_> {
        let key = self.keys.newest();
        let scope = proof::scope(
            key,
            request.purpose,
            &request.threepid,
            &request.client_secret,
        );
        let mut buckets = match &facts {
            Some(facts) => {
                let number = request.threepid.address();
                self.ceilings(number, facts.calling_code, request.source)
            }
            None => Vec::new(),
        };
        // A ceiling per number says the same in other words.
        let is_counted = facts.is_some() && !self.settings.limits.sms.per_number.is_empty();
        if !is_counted {
            buckets.push(self.messages_bucket(&request.threepid));
        }
        let scope = match &request.user_id {
            Some(user_id) => proof::user_scope(key, scope, user_id),
            None => scope,
        };
        let scope = match destination {
            Some(Destination::Server(server, _)) => proof::server_scope(key, scope, server),
            Some(Destination::Here) | None => scope,
        };
        Counted {
            key,
            scope,
            buckets,
            number: facts.map(|facts| Number {
                msisdn: request.threepid.address().to_owned(),
                intl_fmt: facts.international,
            }),
        }
    }

    /// What a text message is counted on, whoever sends it: each one costs somebody money.
    fn ceilings(&self, number: &str, calling_code: u16, source: Source) -> Vec<Bucket> {
        let ceilings = &self.settings.limits.sms;
        let per_source = match source {
            // All its users would share the ceiling of one.
            Source::Homeserver => &[][..],
            Source::Address(_) | Source::Unknown => &ceilings.per_source,
        };
        let (calling_code, source) = (calling_code.to_string(), source.to_string());
        let mut buckets = Vec::new();
        for (what, rates, whom) in [
            (b's', per_source, source.as_str()),
            (b'n', &ceilings.per_number, number),
            (b'c', &ceilings.per_calling_code, &calling_code),
            (b'a', &ceilings.total, ""),
        ] {
            for (rate, place) in rates.iter().zip(b'0'..) {
                let key = proof::bucket(self.keys.newest(), [what, place], whom);
                buckets.push(Bucket { key, rate: *rate });
            }
        }
        buckets
    }

    async fn ask_here(
        &self,
        request: TokenRequest,
        counted: Counted<'_>,
        answer: Answer,
        now: Timestamp,
    ) -> Result<Opened> {
        let medium = request.threepid.medium();
        let request = NewRequest {
            session: self.new_session(&request, &counted, &answer, now)?,
            message: answer.message,
            details: Details {
                network: request.source.network(),
                // A notice goes to somebody else: it names nobody.
                user_id: answer.user_id.filter(|_| answer.genuine),
            },
            buckets: counted.buckets,
            session_rate: self.settings.limits.per_session,
            useful_for: self.settings.useful_for(medium),
        };
        match self.store.request(request).await? {
            Requested::Limited(wait) => Err(limited(wait)),
            Requested::Repeated(sid) => Ok(self.opened_here(sid, medium, counted.number)),
            Requested::Accepted(sid) => {
                self.wakes.of(medium).notify_one();
                Ok(self.opened_here(sid, medium, counted.number))
            }
        }
    }

    fn new_session(
        &self,
        request: &TokenRequest,
        counted: &Counted<'_>,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<NewSession> {
        let Counted { key, scope, .. } = counted;
        let next_link = request.next_link.as_ref();
        let next_link = next_link.map(|link| key.seal(scope, link.as_str().as_bytes()));
        Ok(NewSession {
            sid: SessionId::generate(now),
            key_id: key.id(),
            scope: *scope,
            secret_hash: proof::secret_hash(key, &request.client_secret),
            purpose: request.purpose,
            threepid: request.threepid.clone(),
            user_id: answer.user_id.clone(),
            genuine: answer.genuine,
            send_attempt: request.send_attempt,
            next_link: next_link.transpose()?,
            lifetimes: self.settings.lifetimes,
            now,
        })
    }

    fn opened_here(&self, sid: SessionId, medium: Medium, number: Option<Number>) -> Opened {
        let has_code = self.settings.of(medium).contents.has_code();
        Opened {
            sid: sid.into(),
            submit_url: has_code.then(|| self.submit_url(medium)),
            number,
        }
    }

    /// A link of an identity server's leads to that server. A code of theirs is relayed, for the phones that need it.
    fn opened_at_server(&self, sid: Sid, medium: Medium, number: Option<Number>) -> Opened {
        let submit_url = (medium == Medium::Msisdn).then(|| self.submit_url(medium));
        Opened {
            sid,
            submit_url,
            number,
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
}
