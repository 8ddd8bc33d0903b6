//! What is wrong with how `[homeserver]` is called, with `[delegate]` and what serves them.

use std::{collections::HashSet, time::Duration};

use secrecy::ExposeSecret;
use url::{Host, Url};

use crate::{
    config::{
        Config,
        homeserver::{HomeserverKind, SecretPrefix},
        values::PublicUrl,
    },
    http::delegate::Prefix,
    loopback::is_loopback_url,
    outbound::roots,
};

/// How many calls one request may need, one after the other.
const CALLS: u32 = 6;
/// The longest that one call may be waited for: a proof stays claimed for all the calls of a request.
const LONGEST_CALL: Duration = Duration::from_secs(20);
/// A token must be at least that long to be no guess: 128 bits, in 64 letters.
pub(super) const LEAST_SECRET: usize = 22;
/// How to make such a secret.
pub(super) const MAKE: &str = "make one with: openssl rand -hex 32";

pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    check_loop(config, refuse);
    check_tokens(config, refuse);
    check_calls(config, refuse);
    check_delegate(config, refuse);
}

/// A homeserver's URL that leads back to us would have each question asked again and again.
fn check_loop(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let server = &config.server;
    let homeserver = &config.homeserver;
    let Some(url) = homeserver
        .url()
        .filter(|_| homeserver.kind != HomeserverKind::None)
    else {
        return;
    };
    let internal = server.internal_address().ok().flatten();
    let mut own = server.listen.0.iter().chain(&internal);
    let what = if let Some(address) = own.find(|address| address.is_reached_by(url)) {
        format!("{address} is threepid's own address")
    } else if let Some(PublicUrl(public)) = &server.public_url
        && homeserver.kind != HomeserverKind::Webhook
        && is_behind(public, url)
    {
        "it leads to the server of server.public_url".to_owned()
    } else {
        return;
    };
    refuse(
        "homeserver.url",
        format!(
            "{what}, and what threepid asks there would come back to threepid; write where the homeserver itself listens, \
             past the reverse proxy, as url = \"http://127.0.0.1:8008\""
        ),
    );
}

/// Whether clients who are told `public` call `url`. Another path of that server may well be the homeserver's.
fn is_behind(public: &Url, url: &Url) -> bool {
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    public.origin() == url.origin() && (path(url).is_empty() || path(url) == path(public))
}

/// The key that a secret was written under.
pub(super) fn written_key(key: &str, is_file: bool) -> String {
    format!("{key}{}", if is_file { "_file" } else { "" })
}

fn check_tokens(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    if let Err(why) = homeserver.admin_token() {
        refuse(
            &written_key(
                "homeserver.admin_token",
                homeserver.admin_token_file.is_some(),
            ),
            format!("there is no token in it: {why}; write the token, and nothing else"),
        );
    }
    let server = &config.server;
    let key = written_key("server.api_token", server.api_token_file.is_some());
    match config.api_token() {
        Err(why) => refuse(
            &key,
            format!("there is no token in it: {why}; write the token, and nothing else"),
        ),
        Ok(Some(token)) if token.reveal().len() < LEAST_SECRET => refuse(
            &key,
            format!("it is too short to be a secret; {MAKE}"),
        ),
        Ok(Some(_)) if server.internal_address() == Ok(None) => refuse(
            &key,
            "it opens internal routes, and server.internal_listen is \"off\"; write an address there, or take it out"
                .to_owned(),
        ),
        Ok(_) => {}
    }
}

fn check_calls(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    const FILES: &str = "homeserver.ca_files";
    let homeserver = &config.homeserver;
    if let Err(reason) = roots::read(&homeserver.ca_files.0, FILES) {
        refuse(FILES, reason);
    }
    if homeserver.url.is_none() {
        return;
    }
    let (call, request) = (homeserver.timeout, config.server.request_timeout);
    if call.0 > LONGEST_CALL {
        let most = LONGEST_CALL.as_secs();
        refuse(
            "homeserver.timeout",
            format!("{call} is too long for people to wait; write {most}s at most"),
        );
    } else if call.0 * CALLS > request.0 {
        refuse(
            "homeserver.timeout",
            format!(
                "one request may need {CALLS} calls, and {CALLS} times {call} is more than server.request_timeout, which \
                 is {request}; shorten it, or lengthen that"
            ),
        );
    }
}

fn check_delegate(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let delegate = &config.delegate;
    let key = if delegate.prefixes_file.is_some() {
        "delegate.prefixes_file"
    } else {
        "delegate.prefixes"
    };
    let mut seen = HashSet::new();
    for (at, SecretPrefix(secret)) in delegate.prefixes.0.iter().enumerate() {
        let (number, text) = (at + 1, secret.expose_secret());
        if let Err(why) = Prefix::parse(text) {
            refuse(key, format!("prefix {number} can not be: {why}"));
        } else if !seen.insert(text) {
            refuse(
                key,
                format!("prefix {number} stands there twice; take one out"),
            );
        }
    }
    if delegate.is_on() {
        if !delegate.public && config.server.internal_address() == Ok(None) {
            refuse(
                key,
                "homeservers call the internal listener, and server.internal_listen is \"off\"; write an address there"
                    .to_owned(),
            );
        }
        if delegate.networks.0.is_empty() {
            refuse(
                "delegate.networks",
                "nobody could call; write the homeserver's address, as [\"127.0.0.1\"]".to_owned(),
            );
        }
    } else if delegate.public {
        refuse(
            "delegate.public",
            format!(
                "there is no prefix that anybody could call; write prefixes_file = \"…\" ({MAKE}), or take it out"
            ),
        );
    }
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    if let Some(url) = config.homeserver.url()
        && config.homeserver.kind != HomeserverKind::Webhook
        && url.scheme() == "http"
        && !is_near(url)
    {
        warnings.push(format!(
            "homeserver.url: {url} is not https: whoever is on the way reads the tokens and passwords of your people, \
             and the administrator's"
        ));
    }
    let has_secrets = config.server.api_token.is_some() || config.delegate.is_on();
    let internal = config.server.internal_address().ok().flatten();
    if let Some(address) = internal.filter(|address| has_secrets && !address.is_local()) {
        warnings.push(format!(
            "server.internal_listen: {address} is open to other machines, and what homeservers call there is not \
             encrypted; let only the homeserver reach it"
        ));
    }
}

/// Whether a URL leads to this machine, or to one of a private network. Names without a dot are such in containers.
fn is_near(url: &Url) -> bool {
    is_loopback_url(url)
        || match url.host() {
            Some(Host::Domain(name)) => {
                !name.contains('.')
                    || [".localhost", ".local", ".internal"]
                        .iter()
                        .any(|end| name.ends_with(end))
            }
            Some(Host::Ipv4(v4)) => v4.is_private() || v4.is_link_local(),
            Some(Host::Ipv6(v6)) => v6.is_unique_local() || v6.is_unicast_link_local(),
            None => false,
        }
}
