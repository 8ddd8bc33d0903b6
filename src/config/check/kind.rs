//! What is wrong with `[homeserver]` for the kind that it is: keys that are missing, and keys of another kind.

use std::collections::HashSet;

use secrecy::ExposeSecret;
use url::Url;

use super::homeserver::{LEAST_SECRET, MAKE, written_key};
use crate::{
    config::{
        Config,
        homeserver::{HomeserverKind, PhoneNumbers, SecretKey},
    },
    id_server::IdServer,
    loopback::is_loopback_url,
    validation::Validate,
};

/// The most characters that a webhook's key has.
const LONGEST_KEY: usize = 512;

pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    match config.homeserver.kind {
        HomeserverKind::Local => {}
        HomeserverKind::None => check_none(config, refuse),
        HomeserverKind::Synapse => check_synapse(config, refuse),
        HomeserverKind::Dendrite => check_dendrite(config, refuse),
        HomeserverKind::Webhook => check_webhook(config, refuse),
    }
    check_end(config, refuse);
    check_admin_token(config, refuse);
    check_other_kinds(config, refuse);
}

fn check_none(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    if config.homeserver.url.is_some() {
        refuse(
            "homeserver.url",
            "kind = \"none\" asks no homeserver; take it out, or write kind = \"synapse\" or \"local\"".to_owned(),
        );
    }
    let resets = [
        ("email.validate_password", config.email.validate_password),
        ("sms.validate_password", Some(config.sms.validate_password)),
    ];
    for (key, validate) in resets {
        if validate.is_some_and(|validate| validate != Validate::Off) {
            refuse(
                key,
                "with homeserver.kind = \"none\" no account is known whose password could be reset; take it out"
                    .to_owned(),
            );
        }
    }
}

fn check_synapse(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    require_url("Synapse", config, refuse);
    if homeserver.admin_token.is_none() && homeserver.admin_token_file.is_none() {
        refuse(
            "homeserver.admin_token_file",
            "Synapse tells only its administrators who has which address; write a file that holds the access token of \
             an administrator's account, or kind = \"none\" if there is to be none"
                .to_owned(),
        );
    }
}

fn check_dendrite(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    require_url("Dendrite", config, refuse);
    let Some(name) = &config.homeserver.id_server_name else {
        return;
    };
    if let Err(why) = name.parse::<IdServer>() {
        refuse(
            "homeserver.id_server_name",
            format!("{name:?} names no server; {why}"),
        );
    } else if !config.delegate.is_on() && config.delegate.prefixes_file.is_none() {
        refuse(
            "homeserver.id_server_name",
            format!(
                "Dendrite asks there whether an address was proved, and threepid answers nobody; write [delegate] with \
                 prefixes_file = \"…\" ({MAKE}), or take it out"
            ),
        );
    }
}

fn check_webhook(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    match homeserver.url() {
        None => refuse(
            "homeserver.url",
            "there is nobody to call; write what stands before the paths of the webhook, as \
             url = \"https://matrix.example.org/webhook\""
                .to_owned(),
        ),
        Some(url) if url.scheme() == "http" && !is_loopback_url(url) => refuse(
            "homeserver.url",
            "calls hold passwords and tokens, which others read on the way where it is not https; write https://, or \
             http:// to this machine alone"
                .to_owned(),
        ),
        Some(_) => {}
    }
    let keys = &homeserver.webhook_keys.0;
    if keys.is_empty() && homeserver.webhook_keys_file.is_none() {
        refuse(
            "homeserver.webhook_keys_file",
            format!(
                "calls are signed, so that the homeserver knows them; write a file that holds a key ({MAKE})"
            ),
        );
    }
    let key = written_key(
        "homeserver.webhook_keys",
        homeserver.webhook_keys_file.is_some(),
    );
    let mut seen = HashSet::new();
    for (at, SecretKey(secret)) in keys.iter().enumerate() {
        let (number, text) = (at + 1, secret.expose_secret());
        if text.len() < LEAST_SECRET {
            refuse(
                &key,
                format!("key {number} is too short to be a secret; {MAKE}"),
            );
        } else if text.len() > LONGEST_KEY {
            refuse(
                &key,
                format!("key {number} is longer than {LONGEST_KEY} characters; {MAKE}"),
            );
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            refuse(
                &key,
                format!("key {number} has blanks, or letters that are not ASCII, in it; {MAKE}"),
            );
        } else if !seen.insert(text) {
            refuse(
                &key,
                format!("key {number} stands there twice; take one out"),
            );
        }
    }
}

fn require_url(who: &str, config: &Config, refuse: &mut impl FnMut(&str, String)) {
    if config.homeserver.url.is_none() {
        refuse(
            "homeserver.url",
            format!(
                "{who} can not be asked without it; write where it listens, as url = \"http://127.0.0.1:8008\""
            ),
        );
    }
}

/// A homeserver's paths begin with names that we add; those of a webhook are whatever its maker likes.
fn check_end(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let ours = |segment: &str| matches!(segment, "_matrix" | "_synapse" | "_dendrite");
    let has_ours = |url: &Url| url.path().split('/').any(ours);
    let homeserver = &config.homeserver;
    if homeserver.kind != HomeserverKind::Webhook && homeserver.url().is_some_and(has_ours) {
        refuse(
            "homeserver.url",
            "it ends before /_matrix and /_synapse; write it as \"http://127.0.0.1:8008\""
                .to_owned(),
        );
    }
}

fn check_admin_token(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    let is_file = homeserver.admin_token_file.is_some();
    if homeserver.admin_token.is_none() && !is_file {
        return;
    }
    let why = match homeserver.kind {
        HomeserverKind::Webhook => {
            "a webhook knows us by webhook_keys, and has no administrator; take it out"
        }
        HomeserverKind::Local | HomeserverKind::None if homeserver.url.is_none() => {
            "there is no homeserver that it is for; write url and kind = \"synapse\", or take it out"
        }
        _ => return,
    };
    refuse(
        &written_key("homeserver.admin_token", is_file),
        why.to_owned(),
    );
}

fn check_other_kinds(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    let kind = homeserver.kind;
    if kind != HomeserverKind::Synapse && homeserver.phone_numbers == PhoneNumbers::Here {
        let why = match kind {
            HomeserverKind::Local | HomeserverKind::Dendrite => {
                "threepid keeps all addresses of this kind of homeserver anyway"
            }
            _ => "only with kind = \"synapse\" can some addresses be kept there and some here",
        };
        refuse("homeserver.phone_numbers", format!("{why}; take it out"));
    }
    if kind != HomeserverKind::Dendrite && homeserver.id_server_name.is_some() {
        refuse(
            "homeserver.id_server_name",
            "none but Dendrite asks for it; take it out, or write kind = \"dendrite\"".to_owned(),
        );
    }
    let (keys, is_file) = (
        &homeserver.webhook_keys.0,
        homeserver.webhook_keys_file.is_some(),
    );
    if kind != HomeserverKind::Webhook && (is_file || !keys.is_empty()) {
        refuse(
            &written_key("homeserver.webhook_keys", is_file),
            "nothing is signed with it; take it out, or write kind = \"webhook\"".to_owned(),
        );
    }
}
