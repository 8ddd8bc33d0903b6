//! What is wrong with `[identity_servers]` and `[outbound]`.

use std::{net::IpAddr, time::Duration};

use url::Host;

use super::Medium;
use crate::{
    config::{Config, values::Server},
    id_server::IdServer,
    outbound::Outbound,
    session::Purpose,
    validation::Validate,
};

/// The longest that a call may be waited for: a request stays reserved for it a little longer.
const LONGEST_CALL: Duration = Duration::from_secs(50);

pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    check_default_server(config, refuse);
    let has_files = !config.outbound.ca_files.0.is_empty();
    if let Some(reason) = has_files
        .then(|| Outbound::new(config.outbound.settings()).err())
        .flatten()
    {
        refuse("outbound.ca_files", reason);
    }
    let (call, request) = (config.outbound.timeout, config.server.request_timeout);
    if call.0 * 2 > request.0 {
        refuse(
            "outbound.timeout",
            format!(
                "{call} is more than half of server.request_timeout, which is {request}; one request may need two \
                 calls: shorten it, or lengthen that"
            ),
        );
    }
    if call.0 > LONGEST_CALL {
        let most = LONGEST_CALL.as_secs();
        refuse(
            "outbound.timeout",
            format!("{call} is too long to wait for anybody; write {most}s at most"),
        );
    }
}

fn check_default_server(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let servers = &config.identity_servers;
    let key = if servers.default_server_token_file.is_some() {
        "identity_servers.default_server_token_file"
    } else {
        "identity_servers.default_server_token"
    };
    let has_key =
        servers.default_server_token.is_some() || servers.default_server_token_file.is_some();
    match (&servers.default_server, servers.token()) {
        (None, _) if has_key => refuse(
            key,
            "there is no server that it is for; write default_server, or take it out".to_owned(),
        ),
        (Some(Server(server)), Ok(None)) if !has_key => refuse(
            "identity_servers.default_server",
            format!(
                "there is no token for {server}; write default_server_token_file = \"…\", a file that holds the \
                 access token of our account there"
            ),
        ),
        (Some(_), Err(why)) => refuse(
            key,
            format!("there is no token in it: {why}; write the token, and nothing else"),
        ),
        _ => {}
    }
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    let servers = &config.identity_servers;
    for (key, medium) in [("email", Medium::Email), ("sms", Medium::Msisdn)] {
        if passes_on(config, medium) && servers.is_empty() {
            warnings.push(format!(
                "{key}.validate passes requests on to identity servers, but identity_servers.trusted is empty: \
                 there is none to pass them on to"
            ));
        }
    }
    if servers.allow_password_reset {
        warnings.push(
            "identity_servers.allow_password_reset is on: every trusted identity server can take over every account"
                .to_owned(),
        );
    }
    let default = servers.default_server.iter();
    for Server(server) in servers.trusted.0.iter().chain(default) {
        if is_out_of_reach(config, server) {
            warnings.push(format!(
                "identity_servers.trusted: {server} is an address of a private network, and is not called unless \
                 outbound.allow has that network"
            ));
        }
    }
    if config.outbound.danger_accept_invalid_certs {
        warnings.push(
            "outbound.danger_accept_invalid_certs is on: anybody on the way can be an identity server. For tests only."
                .to_owned(),
        );
    }
}

/// Whether requests for addresses of a medium may be passed on.
fn passes_on(config: &Config, medium: Medium) -> bool {
    let validates = config.validates(medium);
    Purpose::ALL.iter().any(|purpose| {
        matches!(
            validates.of(*purpose),
            Validate::ClientChoice | Validate::IdentityServer
        )
    })
}

fn is_out_of_reach(config: &Config, server: &IdServer) -> bool {
    let (address, is_private) = match server.host() {
        Host::Domain(_) => return false,
        Host::Ipv4(v4) => (
            IpAddr::V4(*v4),
            v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        ),
        Host::Ipv6(v6) => (
            IpAddr::V6(*v6),
            v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
        ),
    };
    let mut allowed = config.outbound.allow.0.iter();
    is_private && !allowed.any(|network| network.0.contains(&address))
}
