//! What `[homeserver]`, `[delegate]` and the routes for homeservers take and refuse.

use std::fs;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{problem, read, read_with, values};
use crate::{config::HomeserverKind, session::Purpose, threepid::Medium, validation::Validate};

const SECRET: &str = "correct-horse-battery-staple";
const SYNAPSE: &str =
    "[homeserver]\nkind = 'synapse'\nurl = 'http://127.0.0.1:8008/'\nadmin_token = ' tok '\n";

/// Files with something that can not be, and how its refusal begins.
const BAD: &[(&str, &str)] = &[
    (
        "[homeserver]\nkind = 'synapse'\nadmin_token = 'tok'",
        "homeserver.url: Synapse can not be asked without it; write",
    ),
    (
        "[homeserver]\nkind = 'synapse'\nurl = 'http://127.0.0.1:8008'",
        "homeserver.admin_token_file: Synapse tells only its administrators",
    ),
    (
        "[homeserver]\nadmin_token = 'tok'",
        "homeserver.admin_token: there is no homeserver that it is for",
    ),
    (
        "[homeserver]\nkind = 'none'\nadmin_token = 'tok'",
        "homeserver.admin_token: there is no homeserver that it is for",
    ),
    (
        "[homeserver]\nkind = 'none'\nurl = 'http://127.0.0.1:8008'",
        "homeserver.url: kind = \"none\" asks no homeserver",
    ),
    (
        "[homeserver]\nkind = 'none'\n[email]\nvalidate_password = 'here'",
        "email.validate_password: with homeserver.kind = \"none\" no account is known",
    ),
    (
        "[homeserver]\nkind = 'none'\n[sms]\nvalidate_password = 'here'",
        "sms.validate_password: with homeserver.kind = \"none\" no account is known",
    ),
    (
        "[homeserver]\nurl = 'unix:/run/synapse.sock'",
        "homeserver.url: it must begin with https://",
    ),
    (
        "[homeserver]\nurl = '127.0.0.1:8008'",
        "homeserver.url: it is not a whole URL; write it as \"http://127.0.0.1:8008\"",
    ),
    (
        "[homeserver]\nurl = 'http://127.0.0.1:8008/?x'",
        "homeserver.url: it must not hold a ? or #",
    ),
    (
        "[homeserver]\nurl = 'http://127.0.0.1:8008/_matrix/client'",
        "homeserver.url: it ends before /_matrix and /_synapse",
    ),
    (
        "[homeserver]\nurl = 'http://localhost:8090'",
        "homeserver.url: 127.0.0.1:8090 is threepid's own address, and what threepid asks there would come back to \
         threepid; write where the homeserver itself listens, past the reverse proxy, as url = \"http://127.0.0.1:8008\"",
    ),
    (
        "[homeserver]\nurl = 'http://127.0.0.1:8091/x'",
        "homeserver.url: 127.0.0.1:8091 is threepid's own",
    ),
    (
        "[homeserver]\nurl = 'https://matrix.example.org:443'\n\
         [server]\npublic_url = 'https://matrix.example.org'\ntrusted_proxies = ['127.0.0.1']",
        "homeserver.url: it leads to the server of server.public_url, and what threepid asks there would come back",
    ),
    (
        "[homeserver]\nurl = 'https://example.org'\n\
         [server]\npublic_url = 'https://example.org/x/'\ntrusted_proxies = ['127.0.0.1']",
        "homeserver.url: it leads to the server of server.public_url",
    ),
    (
        "[homeserver]\nurl = 'https://example.org/x'\n\
         [server]\npublic_url = 'https://example.org/x/'\ntrusted_proxies = ['127.0.0.1']",
        "homeserver.url: it leads to the server of server.public_url",
    ),
    (
        "[homeserver]\nurl = 'http://127.0.0.1:8008'\ntimeout = '6s'",
        "homeserver.timeout: one request may need 6 calls, and 6 times 6s is more than server.request_timeout",
    ),
    (
        "[server]\nrequest_timeout = '1h'\n[homeserver]\nurl = 'http://127.0.0.1:8008'\ntimeout = '21s'",
        "homeserver.timeout: 21s is too long for people to wait; write 20s at most",
    ),
    (
        "[homeserver]\nca_files = ['/nowhere/at/all.pem']",
        "homeserver.ca_files: the CA file /nowhere/at/all.pem can not be read",
    ),
    (
        "[server]\napi_token = 'guess'",
        "server.api_token: it is too short to be a secret; make one with",
    ),
    (
        "[server]\napi_token = 'correct-horse-battery-staple'\ninternal_listen = 'off'",
        "server.api_token: it opens internal routes, and server.internal_listen is \"off\"",
    ),
    (
        "[delegate]\nprefixes = ['correct-horse-battery-staple', 'correct/horse/bat/staple']",
        "delegate.prefixes: prefix 2 can not be: a prefix is a secret that nobody may guess",
    ),
    (
        "[delegate]\nprefixes = ['correct horse battery staple']",
        "delegate.prefixes: prefix 1 can not be: a prefix has letters",
    ),
    (
        "[delegate]\nprefixes = ['correct-horse/../battery-staple']",
        "delegate.prefixes: prefix 1 can not be: a prefix has letters",
    ),
    (
        "[delegate]\nprefixes = ['/correct-horse-battery-staple', 'correct-horse-battery-staple/']",
        "delegate.prefixes: prefix 2 stands there twice",
    ),
    (
        "[delegate]\nprefixes = ['correct-horse-battery-staple']\n[server]\ninternal_listen = 'off'",
        "delegate.prefixes: homeservers call the internal listener, and",
    ),
    (
        "[delegate]\nprefixes = ['correct-horse-battery-staple']\nnetworks = []",
        "delegate.networks: nobody could call",
    ),
    (
        "[delegate]\nnetworks = ['home']",
        "delegate.networks: \"home\" is no network",
    ),
    (
        "[delegate]\npublic = true",
        "delegate.public: there is no prefix that anybody could call",
    ),
];

#[test]
fn values_that_can_not_be_are_refused() {
    for (file, told) in BAD {
        let problem = problem(file);
        assert!(
            problem.starts_with(told),
            "{problem}\nshould begin with\n{told}"
        );
    }
}

#[test]
fn a_synapse_is_described() {
    let homeserver = read(SYNAPSE).unwrap().config.homeserver;

    assert_eq!(homeserver.kind, HomeserverKind::Synapse);
    assert_eq!(
        homeserver.url.as_ref().unwrap().0.as_str(),
        "http://127.0.0.1:8008/"
    );
    assert_eq!(homeserver.admin_token().unwrap().unwrap().reveal(), "tok");
}

#[test]
fn a_homeserver_may_tell_whose_tokens_are_while_we_keep_the_addresses() {
    let file = "[homeserver]\nurl = 'https://matrix.example.org/behind/'";

    let loaded = read(file).unwrap();

    let homeserver = loaded.config.homeserver;
    assert_eq!(homeserver.kind, HomeserverKind::Local);
    assert!(homeserver.admin_token().unwrap().is_none());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn a_homeserver_beside_us_is_not_taken_for_us() {
    const PUBLIC: &str =
        "public_url = 'https://matrix.example.org'\ntrusted_proxies = ['127.0.0.1']";
    for url in [
        "http://127.0.0.1:8008",
        "http://127.0.0.2:8090",
        "http://[::1]:8091",
        "http://matrix.example.org:8008",
        "https://synapse.example.org",
        "https://matrix.example.org/behind/",
    ] {
        let file = format!("[server]\n{PUBLIC}\n[homeserver]\nurl = '{url}'");
        assert!(read(&file).is_ok(), "{url}");
    }
}

#[test]
fn without_a_homeserver_no_password_is_reset() {
    let config = read("[homeserver]\nkind = 'none'\n[email]\nvalidate_password = 'off'");
    let config = config.unwrap().config;
    for medium in [Medium::Email, Medium::Msisdn] {
        let validates = config.validates(medium);
        assert_eq!(validates.of(Purpose::Password), Validate::Off);
        assert_eq!(validates.of(Purpose::Add), Validate::Here);
    }
}

#[test]
fn prefixes_are_the_lines_of_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("prefixes");
    let file = format!("[delegate]\nprefixes_file = {path:?}\nnetworks = ['10.0.0.7', '::1']");
    let lines = format!("{SECRET}-1\n\n  hs/{SECRET}-2\r\n");
    fs::write(&path, lines).unwrap();

    let delegate = read(&file).unwrap().config.delegate;

    let prefixes = delegate.prefixes.0.iter();
    let prefixes: Vec<_> = prefixes.map(|prefix| prefix.0.expose_secret()).collect();
    assert_eq!(prefixes, [format!("{SECRET}-1"), format!("hs/{SECRET}-2")]);
    fs::write(&path, "\n").unwrap();
    let told = problem(&file);
    assert!(
        told.starts_with("delegate.prefixes_file: there is no prefix in it"),
        "{told}"
    );
    fs::write(&path, SECRET).unwrap();
    let told = problem(&format!("{file}\nprefixes = ['{SECRET}']"));
    assert!(
        told.starts_with("delegate.prefixes: delegate.prefixes_file is written too"),
        "{told}"
    );
}

#[test]
fn prefixes_come_from_the_environment_too() {
    let list = format!("{SECRET}-1, {SECRET}-2");
    let loaded = read_with("", &[("THREEPID__DELEGATE__PREFIXES", &list)]).unwrap();
    assert_eq!(loaded.config.delegate.prefixes.0.len(), 2);
}

#[test]
fn no_error_shows_a_secret_of_a_homeserver() {
    for file in [
        "[homeserver]\nadmin_token = ['hunter2']",
        "[homeserver]\nadmin_token = 'hunter2'",
        "[homeserver]\nurl = 'http://me:hunter2@127.0.0.1'",
        "[homeserver]\nurl = 'http://127.0.0.1'\nadmin_token = 'hunter2 x'",
        "[server]\napi_token = ['hunter2']",
        "[server]\napi_token = 'hunter2'",
        "[delegate]\nprefixes = 'hunter2'",
        "[delegate]\nprefixes = [['hunter2']]",
        "[delegate]\nprefixes = { a = 'hunter2' }",
    ] {
        let refusal = read(file).unwrap_err();
        assert!(
            !format!("{refusal} {refusal:?}").contains("hunter2"),
            "{refusal}"
        );
    }
    let file = format!(
        "{SYNAPSE}[delegate]\nprefixes = ['{SECRET}-hunter2']\n[server]\napi_token = '{SECRET}-hunter2'"
    );
    let loaded = read(&file.replace("' tok '", "'hunter2'")).unwrap();
    assert!(!format!("{:?} {}", loaded, values(&loaded.config)).contains("hunter2"));
}

#[test]
fn what_others_could_read_is_warned_of() {
    let told = "homeserver.url: http://synapse.example.org/ is not https";
    for (url, is_warned) in [
        ("http://synapse.example.org", true),
        ("http://9.9.9.9:8008", true),
        ("https://synapse.example.org", false),
        ("http://localhost:8008", false),
        ("http://synapse:8008", false),
        ("http://synapse.internal", false),
        ("http://192.168.1.7:8008", false),
        ("http://[fd00::7]:8008", false),
    ] {
        let warnings = read(&SYNAPSE.replace("http://127.0.0.1:8008/", url))
            .unwrap()
            .warnings;
        assert_eq!(
            warnings.len(),
            usize::from(is_warned),
            "{url}: {warnings:?}"
        );
    }
    let warnings = read(&SYNAPSE.replace("127.0.0.1:8008", "synapse.example.org"))
        .unwrap()
        .warnings;
    assert!(warnings[0].starts_with(told), "{warnings:?}");
    for secret in [
        format!("api_token = '{SECRET}'"),
        format!("[delegate]\nprefixes = ['{SECRET}']"),
    ] {
        let file = format!("[server]\ninternal_listen = '10.0.0.1:8091'\n{secret}");
        let warnings = read(&file).unwrap().warnings;
        assert!(
            warnings[0].starts_with("server.internal_listen: 10.0.0.1:8091 is open"),
            "{warnings:?}"
        );
        assert!(
            read(&file.replace("10.0.0.1", "127.0.0.1"))
                .unwrap()
                .warnings
                .is_empty()
        );
    }
}
