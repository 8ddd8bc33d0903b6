//! The example: it has every key there is, with its default, and what is commented out works too.

use std::{collections::BTreeSet, fs};

use tempfile::TempDir;

use super::{EXAMPLE, read, values};
use crate::{
    config::{
        Config,
        known::{known_keys, list_names},
    },
    courier::sms::PRESETS,
};

/// A line without the "#" that keeps it out, if what is behind it is a key or a section.
fn uncommented(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let is_section = line.starts_with('[') && line.ends_with(']');
    let key = line.split_once(" = ").map(|(key, _)| key);
    let is_key = key.is_some_and(|key| !key.contains(' '));
    (is_section || is_key).then_some(line)
}

/// The key's full name, or the section's, as the tree of known keys has it.
fn known_name(name: &str) -> String {
    let parts: Vec<_> = name.split('.').collect();
    match parts.as_slice() {
        ["sms", "senders", _] => "sms.senders.*".to_owned(),
        ["sms", "gateways", _, rest @ ..] => [&["sms", "gateways", "*"], rest].concat().join("."),
        ["identity", "terms", _] => "identity.terms.*".to_owned(),
        ["identity", "terms", _, "version"] => "identity.terms.*.version".to_owned(),
        ["identity", "terms", _, _] => "identity.terms.*.*".to_owned(),
        _ => name.to_owned(),
    }
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(
        values(&read(EXAMPLE).unwrap().config),
        values(&Config::default())
    );
}

#[test]
fn the_example_has_every_key_and_no_other() {
    let (known, mut names) = (known_keys(), Vec::new());
    list_names(&mut Vec::new(), &known, &mut names);
    let (mut section, mut written) = (String::new(), BTreeSet::new());
    for line in EXAMPLE.lines().filter_map(uncommented) {
        if let Some((key, _)) = line.split_once(" = ") {
            written.insert(known_name(&format!("{section}.{key}")));
        } else {
            line.trim_matches(['[', ']']).clone_into(&mut section);
            written.insert(known_name(&section));
        }
    }
    // Written as the sections below it.
    written.insert("sms.gateways".to_owned());
    written.insert("identity.terms".to_owned());
    assert_eq!(written, names.into_iter().collect());
}

/// Keys that do not go together with Synapse and the overlay.
const OTHER_KINDS: [&str; 3] = [
    "id_server_name",
    "webhook_keys",
    "registration_shared_secret",
];

#[test]
fn the_keys_that_are_commented_out_work_too() {
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "correct-horse-battery-staple").unwrap();
    let lines: Vec<_> = EXAMPLE.lines().filter_map(uncommented).collect();
    let names = lines
        .iter()
        .filter_map(|line| line.strip_prefix("[sms.gateways."));
    let names: Vec<_> = names.map(|line| line.trim_end_matches(']')).collect();
    let mut file = String::new();
    for line in lines {
        let line = match line.split_once(" = ") {
            Some(("transport", value)) if value.starts_with('[') => {
                format!("transport = {names:?}")
            }
            Some(("trusted_proxies", _)) => "trusted_proxies = ['127.0.0.1']".to_owned(),
            // One of the two is enough; the gateway that has no file needs its own.
            Some(("password", _)) if !file.contains("[sms.gateways.backup]") => continue,
            Some((
                "default_server_token"
                | "admin_token"
                | "api_token"
                | "prefixes"
                | "registration_token",
                _,
            )) => {
                continue;
            }
            // Of other kinds of homeserver, or of other ways to sign up, than the rest of the file.
            Some((key, _)) if OTHER_KINDS.contains(&key.trim_end_matches("_file")) => continue,
            Some(("kind", _)) => "kind = 'synapse'".to_owned(),
            Some((key, _))
                if key.ends_with("_file") && !["key_file", "signing_key_file"].contains(&key) =>
            {
                format!("{key} = {secret:?}")
            }
            _ => line.to_owned(),
        };
        file += &line;
        file.push('\n');
    }

    let config = read(&file).unwrap().config;

    assert_eq!(config.server_name(), "example.org");
    assert_eq!(
        config.policy.register.denied.as_ref().unwrap().0,
        ["mailinator.com"]
    );
    assert_eq!(config.sms_transport().unwrap().names(), names);
    for preset in PRESETS {
        assert!(names.contains(&preset), "{preset} has no example");
    }
    assert!(config.identity_servers().unwrap().default_server.is_some());
    assert!(config.homeserver.admin_token().unwrap().is_some());
    assert!(config.homeserver.registration_token().unwrap().is_some());
    assert!(config.api_token().unwrap().is_some() && config.delegate.is_on());
}
