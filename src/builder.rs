//! Putting a service together, and what runs beside its requests.

use std::{fmt, sync::Arc, time::Duration};

use axum::Router;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    clock::{Clock, SystemClock},
    courier::{Courier, capture::Capture},
    error::Result,
    homeserver::{Directory, local::LocalDirectory},
    http::{self, App, peer::TrustedProxies},
    keys::Keyring,
    limits::{self, Limiter},
    loopback::is_loopback_url,
    next_link::NextLinkPolicy,
    outbox::{Deliveries, Letterhead},
    policy,
    session::Lifetimes,
    store::Store,
    validation::{Contents, Settings, Validation},
};

/// How often the sweeper looks.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How long it rests between two steps while there is more to do.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// A service that proves addresses: rules, routers, and background work.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{path::Path, sync::Arc};
/// use threepid::{Keyring, Threepid, courier::capture::Capture, store::sqlite::{Role, SqliteStore}};
///
/// let store = SqliteStore::open(Path::new("threepid.db"), Role::Server)?;
/// let threepid = Threepid::builder("http://localhost:8008".parse()?, store, Keyring::generate()?)
///     .email(Arc::new(Capture::in_memory()))
///     .build()?;
/// let background = threepid.start();
/// let router: axum::Router = threepid.email_router();
/// # drop((background, router)); Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Threepid {
    app: App,
    workers: usize,
}

/// Settings of a [`Threepid`], each with a default that works.
#[must_use]
pub struct Builder {
    store: Arc<dyn Store>,
    keys: Keyring,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    courier: Option<Arc<dyn Courier>>,
    mailbox: Option<Arc<Capture>>,
    settings: Settings,
    server_name: Option<String>,
    app_name: String,
    trusted_proxies: TrustedProxies,
    request_timeout: Duration,
    workers: usize,
}

impl fmt::Debug for Builder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Builder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The courier of mails. Without one, email addresses can not be proved here.
    pub fn email(mut self, courier: Arc<dyn Courier>) -> Self {
        self.courier = Some(courier);
        self
    }

    /// Shows what this courier captured on the mailbox page.
    pub fn mailbox(mut self, mailbox: Arc<Capture>) -> Self {
        self.mailbox = Some(mailbox);
        self
    }

    /// Who owns which address; by default the store's own table.
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = directory;
        self
    }

    /// The time; by default the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What mails hold; by default link and code.
    pub fn contents(mut self, contents: Contents) -> Self {
        self.settings.contents = contents;
        self
    }

    /// How long sessions, links and codes live.
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.settings.lifetimes = lifetimes;
        self
    }

    /// How often things may happen.
    pub fn limits(mut self, limits: limits::Settings) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Which addresses are admitted; by default all.
    pub fn policy(mut self, policy: policy::Settings) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Which `next_link`s are accepted; by default every web page, which is named and not gone to by itself.
    pub fn next_links(mut self, next_links: NextLinkPolicy) -> Self {
        self.settings.next_links = next_links;
        self
    }

    /// Whether whoever asks is told who has an account; by default not.
    pub fn reveal(mut self, reveal: bool) -> Self {
        self.settings.reveal = reveal;
        self
    }

    /// The homeserver's name, as mails tell it; by default the host of the public URL.
    pub fn server_name(mut self, server_name: impl Into<String>) -> Self {
        self.server_name = Some(server_name.into());
        self
    }

    /// What people call the service, in mails and on pages.
    pub fn app_name(mut self, app_name: impl Into<String>) -> Self {
        self.app_name = app_name.into();
        self
    }

    /// The reverse proxies whose word on a client's address is taken; by default none's.
    pub fn trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.trusted_proxies = trusted;
        self
    }

    /// The longest that a request may take.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// How many messages are delivered side by side.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Puts the service together. Nothing runs yet: see [`Threepid::start`].
    ///
    /// # Errors
    /// A sentence that says which settings do not fit together.
    pub fn build(self) -> Result<Threepid, String> {
        let mut settings = self.settings;
        let public_url = settings.public_url.clone();
        if public_url.cannot_be_a_base() || !matches!(public_url.scheme(), "http" | "https") {
            return Err(format!(
                "the public URL must be an http or https URL, not {public_url}"
            ));
        }
        let sends = self.courier.is_some();
        settings.email = sends;
        let letterhead = Letterhead {
            app_name: self.app_name.clone(),
            server_name: self
                .server_name
                .unwrap_or_else(|| public_url.host_str().unwrap_or("localhost").to_owned()),
            public_url,
            contents: settings.contents,
            lifetimes: settings.lifetimes,
        };
        let (keys, wake) = (Arc::new(self.keys), Arc::new(Notify::new()));
        let courier = self
            .courier
            .unwrap_or_else(|| Arc::new(Capture::in_memory()));
        let deliveries = Deliveries::new(
            Arc::clone(&self.store),
            courier,
            Arc::clone(&keys),
            Arc::clone(&self.clock),
            Arc::clone(&wake),
            letterhead,
        );
        let validation = Validation {
            limiter: Limiter::new(settings.limits),
            settings,
            keys,
            store: self.store,
            directory: self.directory,
            clock: self.clock,
            wake,
        };
        let app = App {
            validation: Arc::new(validation),
            deliveries: Arc::new(deliveries),
            trusted_proxies: Arc::new(self.trusted_proxies),
            mailbox: self.mailbox,
            name: self.app_name.into(),
            request_timeout: self.request_timeout,
        };
        Ok(Threepid {
            app,
            // Without a courier what is queued waits for a start with one.
            workers: if sends { self.workers } else { 0 },
        })
    }
}

impl Threepid {
    /// Begins a service: `public_url` is the base of every URL that it tells to anybody.
    pub fn builder<S: Store + 'static>(public_url: Url, store: Arc<S>, keys: Keyring) -> Builder {
        let contacts: Arc<dyn crate::store::Contacts> = Arc::<S>::clone(&store);
        Builder {
            directory: Arc::new(LocalDirectory::new(contacts)),
            store,
            keys,
            clock: Arc::new(SystemClock),
            courier: None,
            mailbox: None,
            settings: Settings {
                contents: Contents::Both,
                email: false,
                lifetimes: Lifetimes::default(),
                limits: limits::Settings::default(),
                policy: policy::Settings::default(),
                next_links: NextLinkPolicy::default(),
                reveal: false,
                public_url,
            },
            server_name: None,
            app_name: "threepid".to_owned(),
            trusted_proxies: TrustedProxies::default(),
            request_timeout: Duration::from_secs(30),
            workers: 4,
        }
    }

    /// The rules below HTTP: ask for a token, show it, check, claim and take a proof.
    #[must_use]
    pub fn validation(&self) -> &Validation {
        &self.app.validation
    }

    /// Who owns which address, as this service sees it.
    #[must_use]
    pub fn directory(&self) -> &dyn Directory {
        self.app.validation.directory.as_ref()
    }

    /// The endpoints that prove email addresses, for a host to merge into its own router: `requestToken` for the three
    /// purposes, `submitToken`, and the page of the mailed link. The host serves it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, or puts a [`http::peer::Peer`] into each request's
    /// extensions; else all requests count as one source.
    pub fn email_router(&self) -> Router {
        http::email(&self.app)
    }

    /// The mailbox page, for a host that captures mails while it is being developed; see [`Builder::mailbox`].
    pub fn mailbox_router(&self) -> Router {
        http::mailbox(&self.app)
    }

    /// All that is served to the public. The mailbox page is on it only while the public URL is this machine's own.
    pub fn router(&self) -> Router {
        let is_for_this_machine = is_loopback_url(&self.app.validation.settings.public_url);
        http::public(&self.app, self.app.mailbox.is_some() && is_for_this_machine)
    }

    /// What is served on the internal listener alone.
    pub fn internal_router(&self) -> Router {
        http::internal(&self.app)
    }

    /// Delivers all messages that are due now, once; how many were tried. For tests, and for hosts that run no
    /// background work.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn deliver_due(&self) -> Result<usize> {
        if self.workers == 0 {
            return Ok(0);
        }
        self.app.deliveries.deliver_due().await
    }

    /// Deletes what is over, once; how many rows went.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn sweep(&self) -> Result<usize> {
        let mut gone = 0;
        loop {
            let step = self.sweep_step().await?;
            gone += step;
            if step == 0 {
                return Ok(gone);
            }
        }
    }

    async fn sweep_step(&self) -> Result<usize> {
        let validation = &self.app.validation;
        let now = validation.clock.now();
        // A session that is over is kept as long again, to tell "run out" from "never was".
        let before = now.before(validation.settings.lifetimes.session);
        validation.limiter.forget_full(now);
        Ok(validation.store.sweep(before, now).await?)
    }

    /// Starts what runs beside requests: the outbox's workers and the sweeper. Leases of a process that died are given
    /// back first, so it is only for the one server of a store.
    #[must_use = "the work ends when this is stopped"]
    pub fn start(&self) -> Background {
        let background = Background {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let freed = CancellationToken::new();
        let (this, stop, freed_now) = (self.clone(), background.stop.clone(), freed.clone());
        background.tasks.spawn(async move {
            let validation = &this.app.validation;
            if let Err(error) = validation.store.free_leases(validation.clock.now()).await {
                tracing::warn!(%error, "leases of an earlier process could not be given back; they run out by themselves");
            }
            freed_now.cancel();
            this.sweep_until(stop).await;
        });
        for _ in 0..self.workers {
            let (deliveries, stop, freed) = (
                Arc::clone(&self.app.deliveries),
                background.stop.clone(),
                freed.clone(),
            );
            background.tasks.spawn(async move {
                freed.cancelled().await;
                deliveries.work(stop).await;
            });
        }
        background.tasks.close();
        background
    }

    async fn sweep_until(&self, stop: CancellationToken) {
        let mut rest = SWEEP_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
            rest = match self.sweep_step().await {
                Ok(0) => SWEEP_EVERY,
                Ok(_) => SWEEP_PAUSE,
                Err(error) => {
                    tracing::warn!(
                        cause = error.cause(),
                        "the sweeper could not work; trying again"
                    );
                    SWEEP_EVERY
                }
            };
        }
    }
}

/// Work beside requests. It ends when it is stopped; dropped, it goes on.
#[derive(Debug)]
pub struct Background {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Background {
    /// Begins nothing new, finishes and records what is being sent; gives up after `deadline`. Whether all finished.
    pub async fn stop(self, deadline: Duration) -> bool {
        self.stop.cancel();
        tokio::time::timeout(deadline, self.tasks.wait())
            .await
            .is_ok()
    }
}
