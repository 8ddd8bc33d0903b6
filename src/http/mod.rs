//! Every route on one screen.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    routing::{MethodRouter, any, get, post},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any, CorsLayer},
    set_header::SetResponseHeaderLayer,
};

pub use self::client::request_token::{read_email_request, read_msisdn_request};
pub(crate) use self::homeserver::identified;
use self::{
    client::contacts as addresses, client::discovery, client::fallback, client::link,
    client::password as passwords, client::register, client::request_token, client::submit_token,
    client::uia,
};
use crate::{
    account::{AccountRules, registration::RegistrationRules},
    courier::capture::Capture,
    error::{Dialect, Error},
    identity::IdentityRules,
    outbox::Deliveries,
    secret::AccessToken,
    threepid::Medium,
    validation::Validation,
};

mod client;
pub mod delegate;
pub(crate) mod extract;
mod form;
mod homeserver;
pub(crate) mod identity;
pub mod listen;
mod mailbox;
mod monitoring;
pub(crate) mod pages;
pub mod peer;
mod respond;
#[cfg(feature = "server")]
pub(crate) mod serve;
#[cfg(feature = "server")]
mod stall;

/// What handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) validation: Arc<Validation>,
    pub(crate) account: Arc<AccountRules>,
    pub(crate) registration: Option<Arc<RegistrationRules>>,
    pub(crate) identity: Option<Arc<IdentityRules>>,
    pub(crate) deliveries: Arc<[Arc<Deliveries>]>,
    pub(crate) trusted_proxies: Arc<peer::TrustedProxies>,
    pub(crate) mailbox: Option<Arc<Capture>>,
    pub(crate) delegate: Option<Arc<delegate::Settings>>,
    pub(crate) api_token: Option<Arc<AccessToken>>,
    pub(crate) name: Arc<str>,
    pub(crate) request_timeout: Duration,
}

/// The prefixes of the Client-Server API that clients use, the newest first.
const PREFIXES: [&str; 4] = [
    "/_matrix/client/v3",
    "/_matrix/client/r0",
    "/_matrix/client/unstable",
    "/_matrix/client/api/v1",
];

/// The endpoints that prove email addresses, for a host to merge into its own router.
pub(crate) fn email(app: &App) -> Router {
    let client = client(
        Medium::Email,
        &[
            post(request_token::register_email),
            post(request_token::password_email),
            post(request_token::add_email),
        ],
    );
    let submit = post(submit_token::post_email);
    let shown = get(submit_token::get_email).head(submit_token::head);
    let link = Router::new()
        .route(
            "/_threepid/link/{link}",
            get(link::show).post(link::confirm),
        )
        .method_not_allowed_fallback(method_not_allowed);
    api(app, client, Medium::Email, submit, shown)
        .merge(guarded(link, app, Dialect::Page))
        .with_state(app.clone())
}

/// The endpoints that prove phone numbers, for a host to merge into its own router.
pub(crate) fn msisdn(app: &App) -> Router {
    let client = client(
        Medium::Msisdn,
        &[
            post(request_token::register_msisdn),
            post(request_token::password_msisdn),
            post(request_token::add_msisdn),
        ],
    );
    let client = client.route(
        "/_matrix/client/unstable/add_threepid/msisdn/submit_token",
        post(submit_token::post_add_threepid),
    );
    let submit = post(submit_token::post_msisdn);
    let shown = get(submit_token::get_msisdn).head(submit_token::head);
    api(app, client, Medium::Msisdn, submit, shown).with_state(app.clone())
}

/// The endpoints for the addresses of an account, for a host to merge into its own router.
pub(crate) fn contacts(app: &App) -> Router {
    let mut contacts = Router::new();
    for prefix in PREFIXES {
        let path = format!("{prefix}/account/3pid");
        contacts = contacts
            .route(&path, get(addresses::list).post(addresses::add_deprecated))
            .route(&format!("{path}/add"), post(addresses::add))
            .route(&format!("{path}/bind"), post(addresses::bind))
            .route(&format!("{path}/delete"), post(addresses::delete))
            .route(&format!("{path}/unbind"), post(addresses::unbind));
    }
    let contacts = contacts.method_not_allowed_fallback(method_not_allowed);
    with_cors(guarded(contacts, app, Dialect::Client)).with_state(app.clone())
}

/// The endpoint that sets a password, and the pages that do its stages, for a host to merge into its own router.
pub(crate) fn password(app: &App) -> Router {
    let (mut client, mut pages) = (Router::new(), Router::new());
    for prefix in PREFIXES {
        client = client.route(&format!("{prefix}/account/password"), post(passwords::post));
        for (medium, handlers) in [
            (
                Medium::Email,
                get(fallback::show_email).post(fallback::post_email),
            ),
            (
                Medium::Msisdn,
                get(fallback::show_msisdn).post(fallback::post_msisdn),
            ),
        ] {
            let stage = uia::stage_of(medium);
            pages = pages.route(&format!("{prefix}/auth/{stage}/fallback/web"), handlers);
        }
    }
    let client = client.method_not_allowed_fallback(method_not_allowed);
    let pages = pages.method_not_allowed_fallback(method_not_allowed);
    let api = guarded(client, app, Dialect::Client).merge(guarded(pages, app, Dialect::Page));
    with_cors(api).with_state(app.clone())
}

/// The endpoint that makes accounts, for a service that stands before a homeserver's.
pub(crate) fn registration(app: &App) -> Router {
    let mut client = Router::new();
    if app.registration.is_some() {
        for prefix in PREFIXES {
            client = client
                .route(&format!("{prefix}/register"), post(register::post))
                .route(
                    &format!("{prefix}/register/available"),
                    get(register::available),
                );
        }
    }
    let client = client.method_not_allowed_fallback(method_not_allowed);
    with_cors(guarded(client, app, Dialect::Client)).with_state(app.clone())
}

/// What clients are told of the server, for a service that stands before a homeserver.
fn discovery(app: &App) -> Router {
    let mut client = Router::new().route("/_matrix/client/versions", get(discovery::versions));
    for prefix in PREFIXES {
        let path = format!("{prefix}/capabilities");
        client = client.route(&path, get(discovery::capabilities));
    }
    let client = client.method_not_allowed_fallback(method_not_allowed);
    with_cors(guarded(client, app, Dialect::Client)).with_state(app.clone())
}

/// The three `requestToken` endpoints of a medium: to register, to reset a password, to add to an account.
fn client(medium: Medium, handlers: &[MethodRouter<App>; 3]) -> Router<App> {
    let mut client = Router::new();
    for prefix in PREFIXES {
        for (group, handler) in ["register", "account/password", "account/3pid"]
            .iter()
            .zip(handlers)
        {
            let path = format!("{prefix}/{group}/{medium}/requestToken");
            client = client.route(&path, handler.clone());
        }
    }
    client
}

/// What a medium has under `/_matrix`, and where its tokens are shown: what `submit_url` ends in.
fn api(
    app: &App,
    client: Router<App>,
    medium: Medium,
    submit: MethodRouter<App>,
    shown: MethodRouter<App>,
) -> Router<App> {
    let path = format!("/_threepid/{medium}/submitToken");
    let fallback = |router: Router<App>| router.method_not_allowed_fallback(method_not_allowed);
    let submit = Router::new().route(&path, submit);
    // "shown" has the path of "submit", and its fallback.
    let shown = Router::new().route(&path, shown);
    let api = guarded(fallback(client), app, Dialect::Client)
        .merge(guarded(fallback(submit), app, Dialect::Identity))
        .merge(guarded(shown, app, Dialect::Page));
    with_cors(api)
}

/// The mailbox page, for a host that captures mails.
pub(crate) fn mailbox(app: &App) -> Router {
    guarded(mailbox::routes(), app, Dialect::Client).with_state(app.clone())
}

/// All that is served to the public.
pub(crate) fn public(app: &App, with_mailbox: bool) -> Router {
    let unknown = Router::new()
        .route("/_matrix", any(unrecognized))
        .route("/_matrix/{*rest}", any(unrecognized));
    let unknown = with_cors(guarded(unknown, app, Dialect::Client));
    let mut own = monitoring::public_routes();
    if with_mailbox {
        own = own.merge(mailbox::routes());
    }
    let public = email(app)
        .merge(msisdn(app))
        .merge(contacts(app))
        .merge(password(app))
        .merge(registration(app))
        .merge(discovery(app))
        .merge(identity::routes(app))
        .merge(unknown.merge(rest(own, app)).with_state(app.clone()));
    let is_delegate = app.delegate.as_ref().is_some_and(|known| known.public);
    if is_delegate {
        delegate::in_front_of(public, app)
    } else {
        public
    }
}

/// What is served on the internal listener alone.
pub(crate) fn internal(app: &App) -> Router {
    let own = monitoring::internal_routes().merge(mailbox::routes());
    let mut internal = rest(own, app);
    if app.api_token.is_some() {
        let calls = homeserver::routes(app).method_not_allowed_fallback(method_not_allowed);
        internal = internal.merge(guarded(calls, app, Dialect::Identity));
    }
    delegate::in_front_of(internal.with_state(app.clone()), app)
}

/// Routes of a listener, and what it answers where it has none.
fn rest(own: Router<App>, app: &App) -> Router<App> {
    let own = own
        .fallback(unrecognized)
        .method_not_allowed_fallback(method_not_allowed);
    guarded(own, app, Dialect::Client)
}

/// No request runs for ever, and no panic reaches a client: both end in an error, and all errors are told in `dialect`.
fn guarded(router: Router<App>, app: &App, dialect: Dialect) -> Router<App> {
    router
        .layer(middleware::from_fn_with_state(
            app.request_timeout,
            respond::in_time,
        ))
        .layer(CatchPanicLayer::custom(respond::after_panic))
        .layer(middleware::map_response_with_state(
            (dialect, app.name.clone()),
            respond::worded,
        ))
        .layer(middleware::from_fn(respond::log))
}

/// The headers that web clients of other origins need on every answer (Client-Server API, "Web Browser Clients").
/// An `OPTIONS` request is answered here, and never acted on.
fn with_cors<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    const METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";
    const HEADERS: &str = "X-Requested-With, Content-Type, Authorization, Origin, Accept";
    let always = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
    };
    router
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([
                    Method::GET,
                    Method::POST,
                    Method::PUT,
                    Method::DELETE,
                    Method::OPTIONS,
                ])
                .expose_headers([header::RETRY_AFTER])
                .max_age(Duration::from_hours(24)),
        )
        .layer(always(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
        .layer(always(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS))
}

async fn unrecognized() -> Error {
    Error::Unrecognized
}

async fn method_not_allowed() -> Error {
    Error::MethodNotAllowed
}
