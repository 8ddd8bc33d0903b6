//! From the configuration to the parts it describes: the one place that knows both.

use std::sync::Arc;

use crate::{
    Keyring, Threepid,
    config::{Config, Limits, Policy, PurposePolicy, Validate},
    courier::{
        Courier,
        capture::Capture,
        email::{self, EmailSettings, Transport},
    },
    http::peer::TrustedProxies,
    limits,
    next_link::NextLinkPolicy,
    policy::{self, Lists},
    session::Lifetimes,
    store::sqlite::SqliteStore,
};

/// The file beside the database that keeps captured mails.
const MAILBOX_FILE: &str = "mailbox.jsonl";

/// Where mails go.
pub(super) fn transport(config: &Config) -> Result<Transport, String> {
    Transport::parse(&config.email.transport)
}

/// The courier that the configuration describes; `capture` keeps mails that are not to be sent.
pub(super) fn courier(config: &Config, capture: &Capture) -> Result<Arc<dyn Courier>, String> {
    let email = &config.email;
    let mut settings = EmailSettings::new(&config.from(), &email.transport);
    settings.password.clone_from(&email.password);
    settings.auth = email.auth;
    settings.ca_files.clone_from(&email.ca_files.0);
    settings.hello_name.clone_from(&email.hello_name);
    settings.phase_timeout = email.phase_timeout.0;
    settings.body_timeout = email.body_timeout.0;
    email::courier(&settings, capture)
}

/// The service that the configuration describes.
pub(super) fn service(
    config: &Config,
    store: &Arc<SqliteStore>,
    keys: Keyring,
) -> Result<Threepid, String> {
    let next_links = config.next_links.allowed.0.iter().map(String::as_str);
    let mut builder = Threepid::builder(config.server.public_url(), Arc::clone(store), keys)
        .server_name(config.server_name())
        .app_name(config.pages.app_name.clone())
        .lifetimes(lifetimes(config))
        .limits(limits(&config.limits))
        .policy(policy(&config.policy)?)
        .next_links(NextLinkPolicy::new(next_links)?)
        .trusted_proxies(TrustedProxies::new(&config.server.trusted_proxies.0)?)
        .reveal(config.accounts.reveal)
        .request_timeout(config.server.request_timeout.0);
    if config.email.validate == Validate::Here {
        let capture = capture(config)?;
        if transport(config)? == Transport::Capture {
            builder = builder.mailbox(Arc::new(capture.clone()));
        }
        builder = builder
            .email(courier(config, &capture)?)
            .contents(config.email.contents)
            .workers(config.email.workers);
    }
    builder.build()
}

/// Keeps captured mails beside the database, so that they are still there after a restart.
fn capture(config: &Config) -> Result<Capture, String> {
    if transport(config)? != Transport::Capture {
        return Ok(Capture::in_memory());
    }
    let path = config.storage.path()?.with_file_name(MAILBOX_FILE);
    let shown = path.display().to_string();
    Capture::in_file(path).map_err(|error| format!("cannot keep mails in {shown}: {error}"))
}

fn lifetimes(config: &Config) -> Lifetimes {
    let sessions = &config.sessions;
    Lifetimes {
        link: sessions.link_lifetime.0,
        code: sessions.code_lifetime.0,
        session: sessions.session_lifetime.0,
        code_tries: sessions.code_tries,
    }
}

fn limits(limits: &Limits) -> limits::Settings {
    if !limits.enabled {
        return limits::Settings::OFF;
    }
    limits::Settings {
        per_source: limits.per_source,
        per_source_submit: limits.per_source_submit,
        global: limits.global,
        per_address: limits.per_address,
        per_session: limits.per_session,
        code_tries_per_address: limits.code_tries_per_address,
    }
}

fn policy(policy: &Policy) -> Result<policy::Settings, String> {
    // A list that a purpose does not have is the general one.
    let own = |purpose: &PurposePolicy| {
        if purpose.allowed.is_none() && purpose.denied.is_none() {
            return Ok(None);
        }
        let allowed = purpose.allowed.as_ref().unwrap_or(&policy.allowed);
        let denied = purpose.denied.as_ref().unwrap_or(&policy.denied);
        Lists::new(&allowed.0, &denied.0).map(Some)
    };
    Ok(policy::Settings {
        general: Lists::new(&policy.allowed.0, &policy.denied.0)?,
        register: own(&policy.register)?,
        add: own(&policy.add)?,
        password: own(&policy.password)?,
        numbers: policy::Numbers::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let config = Config::default();
        assert_eq!(limits(&config.limits), limits::Settings::default());
        assert_eq!(lifetimes(&config), Lifetimes::default());
        assert_eq!(policy(&config.policy).unwrap(), policy::Settings::default());
    }
}
