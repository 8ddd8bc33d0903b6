//! From the configuration to the parts it describes: the one place that knows both.

use std::sync::Arc;

use super::homeserver::{Asked, beside};
use crate::{
    Builder, Keyring, Threepid,
    config::{Config, PurposePolicy, SmsTransport},
    courier::{
        Courier,
        capture::Capture,
        email::{self, EmailSettings, Transport},
        sms::SmsCourier,
    },
    http::peer::TrustedProxies,
    limits,
    next_link::NextLinkPolicy,
    outbound::Outbound,
    policy::{self, Lists},
    session::Lifetimes,
    store::sqlite::SqliteStore,
    threepid::Medium,
};

/// The file beside the database that keeps captured messages.
const MAILBOX_FILE: &str = "mailbox.jsonl";

/// Where mails go.
pub(super) fn transport(config: &Config) -> Result<Transport, String> {
    Transport::parse(&config.email.transport)
}

/// The courier of mails that the configuration describes; `capture` keeps those that are not to be sent.
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

/// The courier of text messages that the configuration describes, if one does; `capture` keeps what is not to be sent.
pub(super) fn sms_courier(
    config: &Config,
    capture: &Capture,
) -> Result<Option<Arc<dyn Courier>>, String> {
    Ok(match config.sms_transport()? {
        SmsTransport::Off => None,
        SmsTransport::Capture => Some(Arc::new(capture.clone())),
        SmsTransport::Gateways(settings) => Some(Arc::new(SmsCourier::new(&settings)?)),
    })
}

/// The service that the configuration describes, beside the `homeserver` that it names.
pub(super) fn builder(
    config: &Config,
    store: &Arc<SqliteStore>,
    keys: Keyring,
    homeserver: Option<Asked>,
) -> Result<Builder, String> {
    let next_links = config.next_links.allowed.0.iter().map(String::as_str);
    let outbound = Outbound::new(config.outbound.settings())?;
    let mut builder = Threepid::builder(config.server.public_url(), Arc::clone(store), keys)
        .server_name(config.server_name())
        .app_name(config.pages.app_name.clone())
        .lifetimes(lifetimes(config))
        .limits(limits(config))
        .policy(policy(config)?)
        .next_links(NextLinkPolicy::new(next_links)?)
        .trusted_proxies(TrustedProxies::new(&config.server.trusted_proxies.0)?)
        .reveal(config.accounts.reveal)
        .allow_changes(config.accounts.allow_changes)
        .password_change(config.accounts.password_change)
        .registration(config.accounts.registration)
        .registration_requires(config.accounts.registration_requires)
        .finish_password_reset(config.pages.finish_password_reset)
        .request_timeout(config.server.request_timeout.0)
        .identity_servers(config.identity_servers()?)
        .outbound(outbound)
        .contents(config.email.contents)
        .workers(config.email.workers)
        .sms_workers(config.sms.workers);
    for medium in [Medium::Email, Medium::Msisdn] {
        builder = builder.validates(medium, config.validates(medium));
    }
    builder = beside(
        builder,
        config,
        homeserver,
        Arc::<SqliteStore>::clone(store),
    );
    if let Some(delegate) = config.delegate.settings()? {
        builder = builder.delegate(delegate);
    }
    if let Some(token) = config.api_token()? {
        builder = builder.api_token(token);
    }
    with_couriers(builder, config)
}

/// Gives `builder` what carries messages, or keeps them for the mailbox page.
fn with_couriers(mut builder: Builder, config: &Config) -> Result<Builder, String> {
    let is_captured = captures_mails(config) || captures_texts(config);
    let capture = if is_captured {
        capture(config)?
    } else {
        Capture::in_memory()
    };
    if is_captured {
        builder = builder.mailbox(Arc::new(capture.clone()));
    }
    if config.is_on(Medium::Email) {
        builder = builder.email(courier(config, &capture)?);
    }
    if config.is_on(Medium::Msisdn)
        && let Some(courier) = sms_courier(config, &capture)?
    {
        builder = builder.sms(courier);
    }
    Ok(builder)
}

/// Whether mails are shown on the mailbox page.
pub(super) fn captures_mails(config: &Config) -> bool {
    config.is_on(Medium::Email) && transport(config) == Ok(Transport::Capture)
}

/// Whether text messages are shown on the mailbox page.
pub(super) fn captures_texts(config: &Config) -> bool {
    let transport = config.sms_transport();
    config.is_on(Medium::Msisdn) && matches!(transport, Ok(SmsTransport::Capture))
}

/// Keeps captured messages beside the database, so that they are still there after a restart.
fn capture(config: &Config) -> Result<Capture, String> {
    let path = config.storage.path()?.with_file_name(MAILBOX_FILE);
    let shown = path.display().to_string();
    Capture::in_file(path).map_err(|error| format!("cannot keep messages in {shown}: {error}"))
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

fn limits(config: &Config) -> limits::Settings {
    let limits = &config.limits;
    if !limits.enabled {
        return limits::Settings::OFF;
    }
    limits::Settings {
        per_source: limits.per_source,
        per_source_submit: limits.per_source_submit,
        per_source_register: limits.per_source_register,
        per_account: limits.per_account,
        lookups_per_account: limits.lookups_per_account,
        lookups_per_homeserver: limits.lookups_per_homeserver,
        invites_per_account: limits.invites_per_account,
        invites_per_homeserver: limits.invites_per_homeserver,
        global: limits.global,
        per_address: limits.per_address,
        per_session: limits.per_session,
        code_tries_per_address: limits.code_tries_per_address,
        sms: config.sms.ceilings.settings(),
    }
}

/// Which addresses are admitted.
pub(super) fn policy(config: &Config) -> Result<policy::Settings, String> {
    let policy = &config.policy;
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
        numbers: config.numbers()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::{Validate, Validates};

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let config = Config::default();
        assert_eq!(limits(&config), limits::Settings::default());
        assert_eq!(lifetimes(&config), Lifetimes::default());
        assert_eq!(policy(&config).unwrap(), policy::Settings::default());
        let passwords = Validates::all_but_password(Validate::Here);
        assert_eq!(config.validates(Medium::Msisdn), passwords);
        assert_eq!(
            config.validates(Medium::Email),
            Validates::all(Validate::Here)
        );
    }
    #[test]
    fn without_limits_there_are_no_ceilings_either() {
        let mut config = Config::default();
        config.limits.enabled = false;
        assert_eq!(limits(&config), limits::Settings::OFF);
    }
}
