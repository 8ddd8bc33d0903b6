//! What is wrong with `[identity]`.

use url::Url;

use super::readable_by_others;
use crate::{
    config::{Config, identity::Terms},
    validation::Validate,
};

/// The most addresses of one lookup: its body is 1 MiB at most.
const MOST_ADDRESSES: usize = 20_000;

pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    check_validates(config, refuse);
    let identity = &config.identity;
    if !identity.enabled {
        return;
    }
    if config.identity_name().is_none() {
        refuse(
            "identity.name",
            "the public URL gives it none that others can call; write name = \"id.example.org\", and an HTTPS port of \
             443 or above 1023"
                .to_owned(),
        );
    }
    if identity.signing_key_file.as_os_str().is_empty() {
        refuse(
            "identity.signing_key_file",
            "write the path of a file; it is made at first start".to_owned(),
        );
    }
    for (key, found) in [
        ("identity.homeservers", identity.homeservers().map(drop)),
        (
            "identity.lookup_algorithms",
            identity.plain_lookups().map(drop),
        ),
        (
            "identity.pepper_lifetime",
            identity.pepper_lifetime().map(drop),
        ),
    ] {
        if let Err(reason) = found {
            refuse(key, reason);
        }
    }
    if !(1..=MOST_ADDRESSES).contains(&identity.lookup_addresses) {
        refuse(
            "identity.lookup_addresses",
            format!("write a number from 1 to {MOST_ADDRESSES}"),
        );
    }
    for (key, number) in [
        ("identity.tokens_per_user", identity.tokens_per_user),
        ("identity.invites_per_address", identity.invites_per_address),
    ] {
        if number == 0 {
            refuse(key, "nobody could use it; write 1 at least".to_owned());
        }
    }
    for (name, terms) in &identity.terms {
        check_terms(config, name, terms, refuse);
    }
}

/// That nothing is passed on: we are whom others pass on to.
fn check_validates(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    for (key, validate) in [
        ("email.validate_identity", config.email.validate_identity),
        ("sms.validate_identity", config.sms.validate_identity),
    ] {
        if !matches!(validate, Validate::Here | Validate::Off) {
            refuse(
                key,
                "whoever asks an identity server asks nobody else; write \"here\" or \"off\""
                    .to_owned(),
            );
        }
    }
}

/// That a policy can be shown, and told from the others by its address.
fn check_terms(config: &Config, name: &str, terms: &Terms, refuse: &mut impl FnMut(&str, String)) {
    const FORM: &str =
        "en = { name = \"Privacy policy\", url = \"https://example.org/privacy-1.0-en.html\" }";
    let key = |below: &str| format!("identity.terms.{name}.{below}");
    if terms.version.is_empty() {
        refuse(
            &key("version"),
            "write one, as version = \"1.0\"; a new one makes everybody accept the policy again"
                .to_owned(),
        );
    }
    if terms.texts.is_empty() {
        refuse(
            &key("en"),
            format!("there is nothing to accept; write for each language a line such as {FORM}"),
        );
    }
    for (language, text) in &terms.texts {
        let is_web =
            Url::parse(&text.url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !is_web {
            let reason = format!("{:?} is no web page; write for example {FORM}", text.url);
            refuse(&key(language), reason);
        }
        let others = config
            .identity
            .terms
            .iter()
            .filter(|(other, _)| *other != name);
        let is_shared = others
            .flat_map(|(_, terms)| terms.texts.values())
            .any(|other| other.url == text.url);
        if is_shared {
            refuse(
                &key(language),
                "another policy has this url too; whoever accepts it must say which one they mean"
                    .to_owned(),
            );
        }
    }
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    let identity = &config.identity;
    if !identity.enabled {
        return;
    }
    let public_url = config.server.public_url();
    if public_url.scheme() != "https" && !config.server.is_for_this_machine() {
        warnings.push(format!(
            "identity.enabled is on, but {public_url} is not HTTPS: no app and no homeserver calls such an identity server"
        ));
    }
    if public_url.path() != "/" {
        warnings.push(format!(
            "identity.enabled is on, and {public_url} has a path: homeservers look for an identity server at the root of its host"
        ));
    }
    if identity.legacy {
        warnings.push(
            "identity.legacy is on: access tokens are taken from URLs, where logs of proxies keep them".to_owned(),
        );
    }
    if identity.plain_lookups() == Ok(true) {
        warnings.push(
            "identity.lookup_algorithms has \"none\": clients may send the addresses in people's address books as they are"
                .to_owned(),
        );
    }
    warnings.extend(readable_by_others(
        "identity.signing_key_file",
        &identity.signing_key_file,
    ));
}
