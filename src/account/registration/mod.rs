//! Registration in front of a homeserver: its own `/register`, with a proved address added (Client-Server API, "Account
//! registration").
//!
//! The homeserver's flows are offered without what ends them, and with our stage. Its stages are passed on; ours is
//! looked at here. Once nothing is left, the proof is claimed, the homeserver makes the account, and the address is bound
//! to it.

mod finish;
mod kept;
mod look_after;
mod page;
mod show;
mod stages;

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, OwnedMutexGuard};

pub(crate) use self::stages::stage_of;
use self::{
    kept::{Kept, KeptProof},
    stages::offered,
};
use super::{AccountRules, uia::LIFE};
use crate::{
    error::{Error, Result},
    homeserver::{
        Origin, PassedBack,
        registration::{NewAccount, Registering, Registrar, Requires},
    },
    secret::{ClientSecret, Sid, random},
    session::Purpose,
    source::Source,
    threepid::Medium,
    validation::{MediumSettings, Validate},
};

/// Who may register here, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether anybody may.
    pub(crate) open: bool,
    /// What they must prove.
    pub(crate) requires: Requires,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open: true,
            requires: Requires::default(),
        }
    }
}

/// The rules of registration, and what they ask.
pub(crate) struct RegistrationRules {
    pub(crate) settings: Settings,
    pub(crate) registrar: Arc<dyn Registrar>,
    pub(crate) account: Arc<AccountRules>,
    /// Wakes whoever looks after what is not finished.
    pub(crate) wake: Notify,
}

impl fmt::Debug for RegistrationRules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RegistrationRules")
            .field("settings", &self.settings)
            .field("registrar", &self.registrar)
            .finish_non_exhaustive()
    }
}

/// A request to register.
pub(crate) struct Wish {
    /// The body without `auth`.
    pub(crate) params: Map<String, Value>,
    /// The session that it names.
    pub(crate) session: Option<String>,
    /// The stage that it shows.
    pub(crate) stage: Option<Shown>,
    pub(crate) asker: Asker,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// As the homeserver is told.
    pub(crate) origin: Origin,
    /// As the limits count.
    pub(crate) source: Source,
}

/// A stage that a request shows.
pub(crate) enum Shown {
    /// One of ours; `None` for one that was shown before.
    Address(Medium, Option<(Sid, ClientSecret)>),
    /// Another: its name, and all of `auth`.
    Other(String, Map<String, Value>),
}

/// What a request to register is answered.
pub(crate) enum Answered {
    /// There is more to do: the body of a 401.
    Challenge(Map<String, Value>),
    /// The account is made: the homeserver's words.
    Done(Vec<u8>),
    /// The homeserver's refusal.
    Refused(PassedBack),
}

/// Why a stage is not done: `errcode` and `error`.
type Refusal = (String, String);

impl RegistrationRules {
    pub(crate) fn new(
        settings: Settings,
        registrar: Arc<dyn Registrar>,
        account: Arc<AccountRules>,
    ) -> Self {
        Self {
            settings,
            registrar,
            account,
            wake: Notify::new(),
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] if nobody may register.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.settings.open {
            Ok(())
        } else {
            let why = "Nobody can sign up here by themselves. Ask the people who run this server.";
            Err(Error::Forbidden(why.into()))
        }
    }

    /// Answers a request to register.
    ///
    /// A stage of ours that is not done costs one look at its session, since clients ask again and again.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for another name than before; [`Error::InUse`] and [`Error::ProofHeld`] at the end; what the
    /// homeserver, or an identity server, says.
    pub(crate) async fn register(self: &Arc<Self>, wish: Wish) -> Result<Answered> {
        self.check_open()?;
        let known = match &wish.session {
            Some(session) => self.kept(session).await?,
            None => None,
        };
        if let (Some(kept), Some(Shown::Address(medium, Some((sid, secret))))) =
            (&known, &wish.stage)
            && kept.finished.is_none()
            && let Some(refusal) = self.not_proved(*medium, sid, secret).await?
        {
            return Ok(self.challenge(kept, Some(refusal)));
        }
        let session = wish.session.clone().filter(|_| known.is_some());
        // Whoever goes away while they wait has asked for nothing.
        let turn = match &session {
            Some(session) => Some(self.turn(session).await),
            None => None,
        };
        let (this, account) = (Arc::clone(self), Arc::clone(&self.account));
        account
            .to_the_end(async move {
                let _turn = turn;
                let kept = match &session {
                    // Others of its requests may have come first.
                    Some(session) => this.kept(session).await?,
                    None => None,
                };
                match kept {
                    None => this.begin(wish).await,
                    Some(kept) if kept.finished.is_some() => this.repeat(&kept, wish).await,
                    Some(kept) => this.go_on(kept, wish).await,
                }
            })
            .await
    }

    /// Requests of one session go one after the other.
    async fn turn(&self, session: &str) -> OwnedMutexGuard<()> {
        let turns = &self.account.turns;
        turns.wait(&format!("register {session}")).await
    }

    /// # Errors
    /// [`Error::Limited`] if too many registrations are asked for from there.
    fn count(&self, asker: &Asker) -> Result<()> {
        let validation = &self.account.validation;
        let now = validation.clock.now();
        validation.limiter.count_registration(asker.source, now)
    }

    /// Begins a registration at the homeserver. A stage that is shown at once counts; one that was for a session which is
    /// no more does not.
    async fn begin(self: &Arc<Self>, wish: Wish) -> Result<Answered> {
        self.count(&wish.asker)?;
        let now = self.account.validation.clock.now();
        let started = self.registrar.start(&wish.params, &wish.asker.origin);
        let started = started.await?;
        let mut kept = Kept {
            name: fresh_name(),
            ends_at: (now + LIFE).0,
            ..Kept::default()
        };
        match started {
            Registering::Stages(stages) => {
                kept.params.clone_from(&wish.params);
                let refusal = kept.learn(stages);
                kept.network = self.network(&kept.session, wish.asker.source);
                if self.flows(&kept).is_empty() {
                    let cause = "the homeserver leaves no way to register that we could add an address to: it wants \
                                 addresses itself (Synapse's registrations_require_3pid), or none can be proved here";
                    return Err(Error::HomeserverFailed(cause.to_owned()));
                }
                if wish.session.is_some() || wish.stage.is_none() {
                    self.keep(&kept).await?;
                    return Ok(self.challenge(&kept, refusal));
                }
                self.show(kept, wish.stage, &wish.asker).await
            }
            other => without_us(other),
        }
    }

    /// Goes on with a registration that has begun.
    async fn go_on(self: &Arc<Self>, mut kept: Kept, wish: Wish) -> Result<Answered> {
        if kept.hear(&wish.params)? {
            self.count(&wish.asker)?;
            // In a session of its own: in that of the registration nothing may be left to do, and this would end it.
            let told = self.registrar.start(&kept.params, &wish.asker.origin);
            match told.await? {
                Registering::Stages(_) | Registering::Lost => self.keep(&kept).await?,
                other => return without_us(other),
            }
        }
        self.show(kept, wish.stage, &wish.asker).await
    }

    /// The homeserver knows a session no more: the client gets a fresh one, with what was said and proved before.
    async fn begin_anew(&self, kept: Kept, asker: &Asker) -> Result<Answered> {
        self.count(asker)?;
        let started = self.registrar.start(&kept.params, &asker.origin).await?;
        match started {
            Registering::Stages(stages) => {
                let mut fresh = kept;
                fresh.tried = false;
                fresh.learn(stages);
                self.keep(&fresh).await?;
                let why =
                    "The homeserver has forgotten this registration. Go on in this new session.";
                Ok(self.challenge(&fresh, Some(("M_UNAUTHORIZED".to_owned(), why.to_owned()))))
            }
            other => without_us(other),
        }
    }

    /// Answers a finished registration once more: the homeserver does.
    async fn repeat(self: &Arc<Self>, kept: &Kept, wish: Wish) -> Result<Answered> {
        self.check_repetition(kept, &wish.params)?;
        let op_id = op_id(self.registration_of(kept));
        let mut params = kept.params.clone();
        params.extend(wish.params.clone());
        let account = NewAccount {
            session: &kept.session,
            op_id: &op_id,
            params: &params,
            threepids: &[],
            last: None,
        };
        match self.registrar.repeat(account, &wish.asker.origin).await? {
            Registering::Stages(_) | Registering::Lost => {
                let session = Some(kept.session.clone());
                self.begin(Wish {
                    session,
                    stage: None,
                    ..wish
                })
                .await
            }
            other => without_us(other),
        }
    }

    fn flows(&self, kept: &Kept) -> Vec<stages::Flow> {
        let settings = &self.account.validation.settings;
        let can_prove = |medium| {
            let MediumSettings {
                validates,
                has_transport,
                ..
            } = settings.of(medium);
            match validates.of(Purpose::Register) {
                Validate::Here => *has_transport,
                Validate::ClientChoice => *has_transport || !settings.identity_servers.are_none(),
                Validate::IdentityServer => true,
                Validate::Off => false,
            }
        };
        offered(&kept.flows, self.settings.requires, can_prove)
    }

    /// The 401 that tells the flows; with a refusal it says why the stage that was shown is not done.
    fn challenge(&self, kept: &Kept, refusal: Option<Refusal>) -> Answered {
        let flows = self.flows(kept);
        let flows: Vec<Value> = flows
            .iter()
            .map(|flow| json!({ "stages": flow.stages }))
            .collect();
        let mut body = Map::new();
        body.insert("session".to_owned(), json!(kept.session));
        body.insert("flows".to_owned(), json!(flows));
        body.insert("params".to_owned(), json!(kept.stage_params));
        body.insert("completed".to_owned(), json!(done(kept, None)));
        if let Some((errcode, error)) = refusal {
            body.insert("errcode".to_owned(), json!(errcode));
            body.insert("error".to_owned(), json!(error));
        }
        Answered::Challenge(body)
    }
}

/// Names a registration to the homeserver and to the store.
fn op_id(id: [u8; 32]) -> String {
    format!("register-{}", URL_SAFE_NO_PAD.encode(id))
}

fn fresh_name() -> String {
    URL_SAFE_NO_PAD.encode(random::<16>())
}

/// The stages that are done, and the one that is shown.
fn done(kept: &Kept, shown: Option<&str>) -> Vec<String> {
    let ours = kept.proofs.iter().filter_map(KeptProof::medium);
    let ours = ours.map(|medium| stage_of(medium).to_owned());
    let shown = shown.map(str::to_owned);
    let theirs = kept.completed.iter().cloned();
    theirs.chain(ours).chain(shown).collect()
}

fn not_yet() -> Refusal {
    // Clients take any other code for the end of it, and this one for "not yet".
    (
        "M_UNAUTHORIZED".to_owned(),
        Error::SessionNotValidated.to_string(),
    )
}

/// What the homeserver answered that no stage of ours has to do with.
fn without_us(answer: Registering) -> Result<Answered> {
    match answer {
        Registering::Refused(answer) => Ok(Answered::Refused(answer)),
        Registering::Registered(registered) => {
            let user_id = &registered.user_id;
            tracing::debug!(user_id, "the homeserver answered a registration by itself");
            Ok(Answered::Done(registered.body))
        }
        Registering::Stages(_) | Registering::Lost => Err(Error::HomeserverFailed(
            "the homeserver forgot a registration that it had just begun".to_owned(),
        )),
    }
}
