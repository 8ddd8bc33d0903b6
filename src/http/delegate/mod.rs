//! The identity server that a homeserver has its users' addresses validated by: its delegate.
//!
//! Such homeservers call a few paths of the Identity Service API v1, below a base URL to which they only append. So a
//! secret prefix in that URL is the one thing that shows who calls.

mod body;
mod handlers;
mod prefix;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::Uri,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use ipnet::IpNet;
use tower::ServiceExt;

pub use self::prefix::Prefix;
use super::{
    App, guarded, method_not_allowed,
    peer::{Peer, TrustedProxies},
    unrecognized,
};
use crate::error::Dialect;

/// What stands between the prefix and the endpoint.
const BASE: &str = "/_matrix/identity/api/v1/";

/// Which homeservers have us for their delegate: `[delegate]`.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Each shows a homeserver; several, so that one can be exchanged for another.
    pub prefixes: Vec<Prefix>,
    /// Where homeservers call from. To all others the prefixes are unknown paths.
    pub networks: Vec<IpNet>,
    /// Whether the public listener serves it too, not the internal one alone.
    pub public: bool,
}

/// Tells homeservers from everybody else.
#[derive(Clone)]
struct Gate {
    settings: Arc<Settings>,
    trusted_proxies: Arc<TrustedProxies>,
    /// What homeservers call, without the prefix.
    inside: Router,
}

/// Puts the delegate in front of a listener's routes, if there is one. It is no route itself, because routes are logged,
/// and compared letter by letter.
pub(super) fn in_front_of(router: Router, app: &App) -> Router {
    let Some(settings) = &app.delegate else {
        return router;
    };
    let gate = Gate {
        settings: Arc::clone(settings),
        trusted_proxies: Arc::clone(&app.trusted_proxies),
        inside: inside(app),
    };
    router.layer(middleware::from_fn_with_state(gate, admit))
}

/// What homeservers call, on one screen.
fn inside(app: &App) -> Router {
    let path = |endpoint: &str| format!("{BASE}{endpoint}");
    let routes = Router::new()
        .route(
            &path("validate/email/requestToken"),
            post(handlers::request_token_email),
        )
        .route(
            &path("validate/msisdn/requestToken"),
            post(handlers::request_token_msisdn),
        )
        .route(
            &path("validate/email/submitToken"),
            post(handlers::submit_token_email)
                .get(handlers::get_submit_token_email)
                .head(method_not_allowed),
        )
        .route(
            &path("validate/msisdn/submitToken"),
            post(handlers::submit_token_msisdn)
                .get(handlers::get_submit_token_msisdn)
                .head(method_not_allowed),
        )
        .route(
            &path("3pid/getValidated3pid"),
            get(handlers::get_validated_3pid),
        )
        .fallback(unrecognized)
        .method_not_allowed_fallback(method_not_allowed);
    guarded(routes, app, Dialect::Identity).with_state(app.clone())
}

/// Lets homeservers in. Whoever is none goes on to the listener's own routes, which know no such path.
async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let Some(uri) = gate.uri_inside(&request) else {
        return next.run(request).await;
    };
    *request.uri_mut() = uri;
    match gate.inside.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl Gate {
    /// The URI without the prefix, so that nothing further inside can log it; `None` if the request is no homeserver's.
    fn uri_inside(&self, request: &Request) -> Option<Uri> {
        let uri = request.uri();
        let at = uri.path().find(BASE)?;
        let given = uri.path().get(..at)?.strip_prefix('/')?;
        if !Prefix::is_one_of(&self.settings.prefixes, given) {
            return None;
        }
        let peer = Peer::of(request.extensions());
        let networks = &self.settings.networks;
        if !self
            .trusted_proxies
            .is_from(networks, peer, request.headers())
        {
            let source = self.trusted_proxies.source(peer, request.headers());
            let network = source.network();
            tracing::warn!(
                network,
                "a delegate's prefix was shown from outside of delegate.networks"
            );
            return None;
        }
        uri.path_and_query()?.as_str().get(at..)?.parse().ok()
    }
}
