//! What is wrong with how people are to sign up.

use secrecy::{ExposeSecret, SecretString};

use super::homeserver::{LEAST_SECRET, MAKE, written_key};
use crate::{
    config::{Config, homeserver::HomeserverKind, registration::RegistrationWay},
    homeserver::registration::Requires,
    threepid::Medium,
};

const WAY: &str = "homeserver.registration";
const REQUIRES: &str = "accounts.registration_requires";

pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    check_way(config, refuse);
    check_token(config, refuse);
    check_shared_secret(config, refuse);
    if config.homeserver.registers() && config.accounts.registration {
        check_requires(config, refuse);
    }
}

/// Which ways a kind of homeserver has.
fn check_way(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    let Some(way) = homeserver.registration else {
        return;
    };
    let why = match (homeserver.kind, way) {
        (_, RegistrationWay::Off)
        | (HomeserverKind::Synapse, _)
        | (HomeserverKind::Dendrite, RegistrationWay::Overlay) => return,
        (HomeserverKind::Dendrite, _) => {
            "with kind = \"dendrite\" there is one way alone; take it out, or write \"off\""
        }
        (HomeserverKind::Webhook, _) => {
            "a webhook makes accounts in one way alone; take it out, or write \"off\""
        }
        (HomeserverKind::None, _) => {
            "kind = \"none\" asks no homeserver, so that none could make an account; take it out, or write \"off\""
        }
        (HomeserverKind::Local, _) if homeserver.url.is_none() => {
            "there is no homeserver that could make an account; write url, or take it out"
        }
        (HomeserverKind::Local, way) => {
            if way == RegistrationWay::Overlay {
                return;
            }
            "with kind = \"local\" there is one way alone; write \"overlay\", or take it out"
        }
    };
    refuse(WAY, format!("{:?}: {why}", way.name()));
}

/// The registration token that nobody else may know: whoever does signs up without an address.
fn check_token(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    let way = homeserver.registration();
    let is_file = homeserver.registration_token_file.is_some();
    let key = written_key("homeserver.registration_token", is_file);
    if homeserver.registration_token.is_none() && !is_file {
        if way == RegistrationWay::Token {
            refuse(
                "homeserver.registration_token_file",
                format!(
                    "registration = \"token\" needs one that nobody else knows; write a file that holds it ({MAKE}), \
                     and tell it to the homeserver"
                ),
            );
        }
        return;
    }
    if homeserver.kind == HomeserverKind::Dendrite {
        refuse(
            &key,
            "no account of Dendrite's is made with it; take it out".to_owned(),
        );
        return;
    }
    if !matches!(way, RegistrationWay::Overlay | RegistrationWay::Token) {
        refuse(
            &key,
            "no account is made with it; take it out, or write registration = \"overlay\" or \"token\"".to_owned(),
        );
        return;
    }
    match homeserver.registration_token() {
        Err(why) => refuse(
            &key,
            format!("there is no registration token in it: {why}; {MAKE}"),
        ),
        Ok(Some(token)) if token.reveal().len() < LEAST_SECRET => {
            refuse(&key, format!("it is too short to be a secret; {MAKE}"));
        }
        Ok(_) => {}
    }
}

fn check_shared_secret(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let homeserver = &config.homeserver;
    let is_shared = homeserver.registration() == RegistrationWay::SharedSecret;
    let is_file = homeserver.registration_shared_secret_file.is_some();
    match &homeserver.registration_shared_secret {
        None if is_shared && !is_file => refuse(
            "homeserver.registration_shared_secret_file",
            "registration = \"shared-secret\" needs it; write a file that holds registration_shared_secret of \
             homeserver.yaml"
                .to_owned(),
        ),
        Some(_) if !is_shared => refuse(
            &written_key("homeserver.registration_shared_secret", is_file),
            "no account is made with it; take it out, or write registration = \"shared-secret\"".to_owned(),
        ),
        Some(secret) if is_empty(secret) => refuse(
            &written_key("homeserver.registration_shared_secret", is_file),
            "there is no secret in it; write registration_shared_secret of homeserver.yaml, and nothing else".to_owned(),
        ),
        _ => {}
    }
}

fn is_empty(secret: &SecretString) -> bool {
    secret.expose_secret().is_empty()
}

/// Nobody could sign up where what is required can not be proved.
fn check_requires(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let [email, msisdn] = [Medium::Email, Medium::Msisdn].map(|medium| config.unprovable(medium));
    let told = |what: &str, key: &str, instead: &str| {
        format!("{what} for signing up can be proved here, see {key}; write {instead}")
    };
    let reason = match (config.accounts.registration_requires, email, msisdn) {
        (Requires::Any, Some(email), Some(msisdn)) => format!(
            "no address for signing up can be proved here, see {email} and {msisdn}; change one of them, or write \
             \"nothing\""
        ),
        (Requires::Email, Some(key), _) => told(
            "no email address",
            key,
            "\"msisdn\" or \"nothing\", or change that",
        ),
        (Requires::Both, Some(key), _) => {
            told("no email address", key, "\"msisdn\", or change that")
        }
        (Requires::Msisdn, _, Some(key)) => told(
            "no phone number",
            key,
            "\"email\" or \"nothing\", or change that",
        ),
        (Requires::Both, _, Some(key)) => told("no phone number", key, "\"email\", or change that"),
        _ => return,
    };
    refuse(REQUIRES, reason);
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    if config.homeserver.registers() {
        return;
    }
    let told =
        "nobody signs up through threepid (see homeserver.registration), so that it does nothing";
    if config.accounts.registration_requires != Requires::Any {
        warnings.push(format!("{REQUIRES}: {told}"));
    }
    if !config.accounts.registration {
        warnings.push(format!("accounts.registration: {told}"));
    }
}
