//! Putting a service together.

mod build;

use std::{fmt, sync::Arc, time::Duration};

use url::Url;

use crate::{
    account::{self, registration},
    clock::{Clock, SystemClock, Timestamp},
    courier::{Courier, capture::Capture},
    homeserver::{
        Accounts, Directory,
        local::LocalDirectory,
        none::NoHomeserver,
        registration::{Registrar, Requires},
    },
    http::{App, delegate::Settings as Delegate, peer::TrustedProxies},
    identity,
    keys::Keyring,
    limits,
    next_link::NextLinkPolicy,
    outbound::Outbound,
    policy,
    secret::AccessToken,
    session::Lifetimes,
    signing::SigningKeys,
    store::Store,
    threepid::Medium,
    validation::{
        Contents, IdentityServers, MediumSettings, Settings, Validate, Validates, Validation,
    },
};

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
    pub(crate) app: App,
    pub(crate) workers: Workers,
}

/// How many messages of each medium are delivered side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workers {
    email: usize,
    msisdn: usize,
}

impl Workers {
    pub(crate) fn of(self, medium: Medium) -> usize {
        match medium {
            Medium::Email => self.email,
            Medium::Msisdn => self.msisdn,
        }
    }
}

/// Settings of a [`Threepid`], each with a default that works.
#[must_use]
pub struct Builder {
    store: Arc<dyn Store>,
    keys: Keyring,
    directory: Arc<dyn Directory>,
    accounts: Arc<dyn Accounts>,
    account: account::Settings,
    registrar: Option<Arc<dyn Registrar>>,
    registration: registration::Settings,
    clock: Arc<dyn Clock>,
    email: Option<Arc<dyn Courier>>,
    sms: Option<Arc<dyn Courier>>,
    outbound: Outbound,
    identity: Option<(identity::Settings, SigningKeys)>,
    mailbox: Option<Arc<Capture>>,
    delegate: Option<Arc<Delegate>>,
    api_token: Option<Arc<AccessToken>>,
    settings: Settings,
    server_name: Option<String>,
    app_name: String,
    trusted_proxies: TrustedProxies,
    request_timeout: Duration,
    workers: Workers,
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
        self.email = Some(courier);
        self
    }

    /// The courier of text messages. Without one, phone numbers can not be proved here.
    pub fn sms(mut self, courier: Arc<dyn Courier>) -> Self {
        self.sms = Some(courier);
        self
    }

    /// Who validates addresses of a medium. By default we do, but that a phone number opens no password reset.
    pub fn validates(mut self, medium: Medium, validates: Validates) -> Self {
        match medium {
            Medium::Email => self.settings.email.validates = validates,
            Medium::Msisdn => self.settings.msisdn.validates = validates,
        }
        self
    }

    /// The identity servers that requests may be proxied to; by default none.
    pub fn identity_servers(mut self, servers: IdentityServers) -> Self {
        self.settings.identity_servers = servers;
        self
    }

    /// How servers are called that strangers name; by default only those of the public internet are.
    pub fn outbound(mut self, outbound: Outbound) -> Self {
        self.outbound = outbound;
        self
    }

    /// Serves the Identity Service API too, signing with these keys; by default it is not there.
    pub fn identity(mut self, settings: identity::Settings, signing: SigningKeys) -> Self {
        self.identity = Some((settings, signing));
        self
    }

    /// Shows what this courier captured on the mailbox page.
    pub fn mailbox(mut self, mailbox: Arc<Capture>) -> Self {
        self.mailbox = Some(mailbox);
        self
    }

    /// Which homeservers have us for the identity server that validates their users' addresses; by default none.
    pub fn delegate(mut self, settings: Delegate) -> Self {
        self.delegate = Some(Arc::new(settings));
        self
    }

    /// What a homeserver shows when it calls us in operations of its own, on the internal listener; by default none can.
    pub fn api_token(mut self, token: AccessToken) -> Self {
        self.api_token = Some(Arc::new(token));
        self
    }

    /// Who owns which address; by default the store's own table.
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = directory;
        self
    }

    /// The account side of the homeserver; by default there is none, and no access token is known.
    pub fn accounts(mut self, accounts: Arc<dyn Accounts>) -> Self {
        self.accounts = accounts;
        self
    }

    /// The homeserver's registration, for a service that stands before its `/register`; by default there is none, and no
    /// such path.
    pub fn registrar(mut self, registrar: Arc<dyn Registrar>) -> Self {
        self.registrar = Some(registrar);
        self
    }

    /// Whether anybody may register; by default they may.
    pub fn registration(mut self, open: bool) -> Self {
        self.registration.open = open;
        self
    }

    /// What a new account must have proved; by default one address.
    pub fn registration_requires(mut self, requires: Requires) -> Self {
        self.registration.requires = requires;
        self
    }

    /// Whether accounts may add and delete addresses; by default they may.
    pub fn allow_changes(mut self, allow: bool) -> Self {
        self.account.allow_changes = allow;
        self
    }

    /// Whether passwords may be changed and reset; by default they may.
    pub fn password_change(mut self, allow: bool) -> Self {
        self.account.password_change = allow;
        self
    }

    /// Whether the page of a mailed link sets the new password itself, if the homeserver can set one; by default it does.
    pub fn finish_password_reset(mut self, finish: bool) -> Self {
        self.account.finish_password_reset = finish;
        self
    }

    /// The time; by default the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What mails hold; by default link and code.
    pub fn contents(mut self, contents: Contents) -> Self {
        self.settings.email.contents = contents;
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

    /// How many mails are delivered side by side.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers.email = workers.max(1);
        self
    }

    /// How many text messages are delivered side by side.
    pub fn sms_workers(mut self, workers: usize) -> Self {
        self.workers.msisdn = workers.max(1);
        self
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
            accounts: Arc::new(NoHomeserver),
            account: account::Settings::default(),
            registrar: None,
            registration: registration::Settings::default(),
            clock: Arc::new(SystemClock),
            email: None,
            sms: None,
            outbound: Outbound::default(),
            identity: None,
            mailbox: None,
            delegate: None,
            api_token: None,
            settings: Settings {
                email: MediumSettings {
                    validates: Validates::all(Validate::Here),
                    has_transport: false,
                    contents: Contents::Both,
                },
                msisdn: MediumSettings {
                    validates: Validates::all_but_password(Validate::Here),
                    has_transport: false,
                    contents: Contents::Code,
                },
                identity_servers: IdentityServers::default(),
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
            workers: Workers {
                email: 4,
                msisdn: 4,
            },
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

    /// The time, as this service reads it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.app.validation.clock.now()
    }
}
