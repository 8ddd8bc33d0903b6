//! What is wrong with a configuration although each value by itself could be: nonsense is refused at start.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use lettre::message::Mailbox;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{Config, load::Problem};
use crate::{
    courier::email::Transport,
    http::{listen::ListenAddress, peer::TrustedProxies},
    loopback::is_loopback_url,
    next_link::NextLinkPolicy,
    policy::Lists,
    threepid::Medium,
};

mod homeserver;
mod identity;
mod kind;
mod others;
mod registration;
mod sms;

/// The most codes that may be tried in one session: more would make guessing worth while.
const MOST_CODE_TRIES: u32 = 20;
/// What to write where links would not work.
const PUBLIC_URL_FORM: &str = "write the URL that people reach this server by, as public_url = \"https://matrix.example.org\" \
                               (for tests: danger_allow_plain_public_url = true)";
/// The most mails that are handed over at once.
const MOST_WORKERS: usize = 64;

/// Finds what does not fit together.
pub(super) fn cross_check(config: &Config, problems: &mut Vec<Problem>) {
    let mut refuse = |key: &str, reason: String| problems.push(Problem::new(key, reason));
    check_addresses(config, &mut refuse);
    check_public_url(config, &mut refuse);
    check_proxies(config, &mut refuse);
    check_storage(config, &mut refuse);
    check_mail(config, &mut refuse);
    sms::check(config, &mut refuse);
    others::check(config, &mut refuse);
    identity::check(config, &mut refuse);
    kind::check(config, &mut refuse);
    homeserver::check(config, &mut refuse);
    registration::check(config, &mut refuse);
    check_sessions(config, &mut refuse);
    check_lists(config, &mut refuse);
    check_words(config, &mut refuse);
}

/// What works, but should be known.
pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    if config.server.danger_allow_plain_public_url {
        warnings.push(
            "server.danger_allow_plain_public_url is on: links in mails may be read on their way. For tests only."
                .to_owned(),
        );
    }
    if !config.limits.enabled {
        warnings.push(
            "limits.enabled is off: nothing stops floods of mail, a bill for text messages, or guessing of codes"
                .to_owned(),
        );
    }
    sms::warn(config, warnings);
    others::warn(config, warnings);
    identity::warn(config, warnings);
    homeserver::warn(config, warnings);
    registration::warn(config, warnings);
    warnings.extend(readable_by_others(
        "secrets.key_file",
        &config.secrets.key_file,
    ));
}

/// A warning, if a file with a secret in it can be read by anybody on this machine.
pub(super) fn readable_by_others(key: &str, path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let shown = path.display();
    (mode & 0o004 != 0).then(|| {
        format!("{key}: every user of this machine can read {shown}; run: chmod o-rwx {shown}")
    })
}

fn check_addresses(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let server = &config.server;
    if server.listen.0.is_empty() {
        refuse(
            "server.listen",
            "nobody could reach it; write for example [\"127.0.0.1:8090\"]".to_owned(),
        );
    }
    match server.internal_address() {
        Err(reason) => refuse("server.internal_listen", format!("{reason}; or \"off\"")),
        Ok(Some(address)) if !address.is_any_port() && server.listen.0.contains(&address) => {
            refuse(
                "server.internal_listen",
                format!(
                    "{address} stands in server.listen too; internal routes need an address of their own, or \"off\""
                ),
            );
        }
        Ok(_) => {}
    }
    if server.max_connections == 0 {
        refuse(
            "server.max_connections",
            "nobody could connect; write for example 1024".to_owned(),
        );
    }
    if let Some(name) = &server.server_name
        && !is_server_name(name)
    {
        refuse(
            "server.server_name",
            format!("{name:?} is not the name of a server; write for example \"example.org\""),
        );
    }
}

/// A host, perhaps with a port (Matrix appendices, "Server Name").
fn is_server_name(name: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".-:[]".contains(letter);
    name.chars().all(is_part) && Url::parse(&format!("https://{name}/")).is_ok()
}

/// A link that is really mailed must be one that its reader can open, and that nobody can read on its way.
fn check_public_url(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    if config.server.danger_allow_plain_public_url {
        return;
    }
    let mails = Transport::parse(&config.email.transport);
    let sends_mails = mails.is_ok_and(|transport| transport.really_sends());
    let what = if sends_mails && config.is_on(Medium::Email) {
        "mails are really sent, but their links"
    } else if sms::really_sends(config) {
        "text messages are really sent, but the URL where apps show their codes"
    } else {
        return;
    };
    let why = match &config.server.public_url {
        None => "would lead nowhere",
        Some(url) if is_loopback_url(&url.0) => "would lead to the reader's own machine",
        Some(url) if url.0.scheme() != "https" => "could be read by others on the way",
        Some(_) => return,
    };
    refuse(
        "server.public_url",
        format!("{what} {why}; {PUBLIC_URL_FORM}"),
    );
}

/// Behind a proxy all requests come from one address: a limit would lock everybody out at once.
fn check_proxies(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let server = &config.server;
    if let Err(reason) = TrustedProxies::new(&server.trusted_proxies.0) {
        refuse("server.trusted_proxies", reason);
    }
    let is_public = server
        .public_url
        .as_ref()
        .is_some_and(|url| !is_loopback_url(&url.0));
    if !is_public || !server.trusted_proxies.0.is_empty() {
        return;
    }
    let local = || server.listen.0.iter().filter(|address| address.is_local());
    let mut line = Vec::new();
    if local().any(|address| matches!(address, ListenAddress::Tcp(_))) {
        line.extend(["\"127.0.0.1\"", "\"::1\""]);
    }
    if local().any(|address| matches!(address, ListenAddress::Unix(_))) {
        line.push("\"unix\"");
    }
    if !line.is_empty() {
        let line = line.join(", ");
        refuse(
            "server.trusted_proxies",
            format!(
                "requests come through a proxy on this machine, and without its word all clients look like one; \
                 write trusted_proxies = [{line}] (and let the proxy set X-Forwarded-For)"
            ),
        );
    }
}

fn check_storage(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    if let Err(reason) = config.storage.path() {
        refuse("storage.url", reason);
    }
    if config.secrets.key_file.as_os_str().is_empty() {
        refuse(
            "secrets.key_file",
            "write the path of a file; it is made at first start".to_owned(),
        );
    }
}

fn check_mail(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let email = &config.email;
    if let Err(reason) = Transport::parse(&email.transport) {
        refuse("email.transport", reason);
    }
    let from = config.from();
    // A name that is refused above makes no sender either; one word about it is enough.
    let is_told = email.from.is_none() && !is_server_name(&config.server_name());
    if !is_told && from.parse::<Mailbox>().is_err() {
        refuse(
            "email.from",
            format!(
                "{from:?} is not a sender; write for example \"Example <no-reply@example.org>\""
            ),
        );
    }
    if let Some(name) = &email.hello_name
        && (name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        refuse(
            "email.hello_name",
            format!("{name:?} is not the name of a host; write for example \"mail.example.org\""),
        );
    }
    if !(1..=MOST_WORKERS).contains(&email.workers) {
        refuse(
            "email.workers",
            format!("{} is not a number from 1 to {MOST_WORKERS}", email.workers),
        );
    }
}

fn check_sessions(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let sessions = &config.sessions;
    let whole = sessions.session_lifetime;
    for (key, span) in [
        ("sessions.link_lifetime", sessions.link_lifetime),
        ("sessions.code_lifetime", sessions.code_lifetime),
    ] {
        if span > whole {
            refuse(
                key,
                format!(
                    "{span} is longer than sessions.session_lifetime, which is {whole}; shorten it to that at most"
                ),
            );
        }
    }
    if !(1..=MOST_CODE_TRIES).contains(&sessions.code_tries) {
        refuse(
            "sessions.code_tries",
            format!(
                "{} is not a number from 1 to {MOST_CODE_TRIES}",
                sessions.code_tries
            ),
        );
    }
}

fn check_lists(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    if let Err(reason) = NextLinkPolicy::new(config.next_links.allowed.0.iter().map(String::as_str))
    {
        refuse("next_links.allowed", reason);
    }
    let policy = &config.policy;
    let purposes = [
        ("register.", &policy.register),
        ("add.", &policy.add),
        ("password.", &policy.password),
    ];
    let general = [
        ("allowed".to_owned(), Some(&policy.allowed)),
        ("denied".to_owned(), Some(&policy.denied)),
    ];
    let own = purposes.iter().flat_map(|(name, lists)| {
        [
            (format!("{name}allowed"), lists.allowed.as_ref()),
            (format!("{name}denied"), lists.denied.as_ref()),
        ]
    });
    for (name, list) in general.into_iter().chain(own) {
        let entries = list.map_or(&[][..], |list| &list.0);
        if let Err(reason) = Lists::new(entries, &[]) {
            refuse(&format!("policy.{name}"), reason);
        }
    }
}

fn check_words(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let name = &config.pages.app_name;
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        refuse(
            "pages.app_name",
            "write the name that people know this service by, on one line".to_owned(),
        );
    }
    let level = &config.log.level;
    let is_word = !level.contains(['=', ',']);
    let is_level = ["off", "error", "warn", "info", "debug", "trace"].contains(&level.as_str());
    if (is_word && !is_level) || EnvFilter::try_new(level).is_err() {
        refuse(
            "log.level",
            format!(
                "{level:?} is not a level; write error, warn, info, debug or trace, or a filter such as \"info,threepid=debug\""
            ),
        );
    }
}
