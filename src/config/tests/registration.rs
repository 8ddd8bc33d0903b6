//! What is taken and refused of the kinds of homeserver, and of how people sign up.

use std::fs;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{problem, read, values};
use crate::{
    config::{HomeserverKind, RegistrationWay},
    homeserver::registration::Requires,
    threepid::Medium,
};

const SECRET: &str = "correct-horse-battery-staple";
const SYNAPSE: &str =
    "[homeserver]\nkind = 'synapse'\nurl = 'http://127.0.0.1:8008'\nadmin_token = 'tok'\n";
const DENDRITE: &str = "[homeserver]\nkind = 'dendrite'\nurl = 'http://127.0.0.1:8008'\n";
const WEBHOOK: &str = "[homeserver]\nkind = 'webhook'\nurl = 'https://matrix.example.org/_matrix/x'\n\
                       webhook_keys = ['correct-horse-battery-staple']\n";
const LOCAL: &str = "[homeserver]\nurl = 'http://127.0.0.1:8008'\n";
const NONE: &str = "[homeserver]\nkind = 'none'\n";

/// A section, what is added to it, and how the refusal begins.
const BAD: &[(&str, &str, &str)] = &[
    (
        "[homeserver]\nkind = 'dendrite'\n",
        "",
        "homeserver.url: Dendrite can not be asked without it; write",
    ),
    (
        DENDRITE,
        "id_server_name = 'https://x'",
        "homeserver.id_server_name: \"https://x\" names no server; write the host",
    ),
    (
        DENDRITE,
        "id_server_name = 'matrix.example.org'",
        "homeserver.id_server_name: Dendrite asks there whether an address was proved, and",
    ),
    (
        SYNAPSE,
        "id_server_name = 'matrix.example.org'",
        "homeserver.id_server_name: none but Dendrite asks for it; take it out",
    ),
    (
        "[homeserver]\nkind = 'webhook'\nwebhook_keys = ['correct-horse-battery-staple']\n",
        "",
        "homeserver.url: there is nobody to call; write",
    ),
    (
        "[homeserver]\nkind = 'webhook'\nurl = 'https://matrix.example.org'\n",
        "",
        "homeserver.webhook_keys_file: calls are signed, so that the homeserver knows them; write",
    ),
    (
        "[homeserver]\nkind = 'webhook'\nurl = 'http://10.0.0.7'\nwebhook_keys = ['correct-horse-battery-staple']\n",
        "",
        "homeserver.url: calls hold passwords and tokens, which others read on the way",
    ),
    (
        "[homeserver]\nkind = 'webhook'\nurl = 'http://127.0.0.1:8091'\nwebhook_keys = ['correct-horse-battery-staple']\n",
        "",
        "homeserver.url: 127.0.0.1:8091 is threepid's own address",
    ),
    (
        WEBHOOK,
        "admin_token = 'tok'",
        "homeserver.admin_token: a webhook knows us by webhook_keys",
    ),
    (
        WEBHOOK,
        "registration = 'overlay'",
        "homeserver.registration: \"overlay\": a webhook makes accounts in one way alone; take it out",
    ),
    (
        WEBHOOK,
        "phone_numbers = 'here'",
        "homeserver.phone_numbers: only with kind = \"synapse\" can some",
    ),
    (
        DENDRITE,
        "phone_numbers = 'here'",
        "homeserver.phone_numbers: threepid keeps all addresses of this kind",
    ),
    (
        SYNAPSE,
        "phone_numbers = 'there'",
        "homeserver.phone_numbers: unknown value `there`, write `homeserver` or `here`",
    ),
    (
        SYNAPSE,
        "webhook_keys = ['correct-horse-battery-staple']",
        "homeserver.webhook_keys: nothing is signed with it; take it out",
    ),
    (
        SYNAPSE,
        "registration = true",
        "homeserver.registration: unknown value `true`, write one of `overlay`, `token`, `shared-secret`, `off`",
    ),
    (
        SYNAPSE,
        "registration = 'token'",
        "homeserver.registration_token_file: registration = \"token\" needs one that nobody else knows; write",
    ),
    (
        SYNAPSE,
        "registration = 'shared-secret'",
        "homeserver.registration_shared_secret_file: registration = \"shared-secret\" needs it; write",
    ),
    (
        SYNAPSE,
        "registration = 'shared-secret'\nregistration_shared_secret = ' '",
        "homeserver.registration_shared_secret: there is no secret in it; write",
    ),
    (
        SYNAPSE,
        "registration_shared_secret = 'x'",
        "homeserver.registration_shared_secret: no account is made with it; take it out",
    ),
    (
        SYNAPSE,
        "registration = 'off'\nregistration_token = 'correct-horse-battery-staple'",
        "homeserver.registration_token: no account is made with it; take it out",
    ),
    (
        SYNAPSE,
        "registration_token = 'correct-horse-batterys'\nregistration = 'shared-secret'\n\
         registration_shared_secret = 'x'",
        "homeserver.registration_token: no account is made with it; take it out",
    ),
    (
        SYNAPSE,
        "registration_token = 'correct-horse-battery'",
        "homeserver.registration_token: it is too short to be a secret; make one with",
    ),
    (
        SYNAPSE,
        "registration_token = 'correct horse battery staple'",
        "homeserver.registration_token: there is no registration token in it: a registration token has letters",
    ),
    (
        SYNAPSE,
        "registration_token = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'",
        "homeserver.registration_token: there is no registration token in it: it is too long",
    ),
    (
        DENDRITE,
        "registration = 'shared-secret'\nregistration_shared_secret = 'x'",
        "homeserver.registration: \"shared-secret\": with kind = \"dendrite\" there is one way alone; take it out",
    ),
    (
        DENDRITE,
        "registration_token = 'correct-horse-battery-staple'",
        "homeserver.registration_token: no account of Dendrite's is made with it; take it out",
    ),
    (
        NONE,
        "registration = 'overlay'",
        "homeserver.registration: \"overlay\": kind = \"none\" asks no homeserver",
    ),
    (
        "[homeserver]\n",
        "registration = 'overlay'",
        "homeserver.registration: \"overlay\": there is no homeserver that could make an account; write url",
    ),
    (
        LOCAL,
        "registration = 'token'\nregistration_token = 'correct-horse-battery-staple'",
        "homeserver.registration: \"token\": with kind = \"local\" there is one way alone; write \"overlay\"",
    ),
];

#[test]
fn values_that_can_not_be_are_refused() {
    for (section, added, told) in BAD {
        let problem = problem(&format!("{section}{added}"));
        assert!(
            problem.starts_with(told),
            "{problem}\nshould begin with\n{told}"
        );
    }
}

/// What is required and what can be proved, and how the refusal begins.
const UNPROVABLE: &[(&str, &str, &str)] = &[
    (
        "msisdn",
        "[sms]\ntransport = 'off'",
        "no phone number for signing up can be proved here, see sms.transport; write \"email\"",
    ),
    (
        "both",
        "[sms]\nvalidate_register = 'off'",
        "no phone number for signing up can be proved here, see sms.validate_register; write \"email\"",
    ),
    (
        "both",
        "[email]\nvalidate_register = 'off'",
        "no email address for signing up can be proved here, see email.validate_register; write \"msisdn\"",
    ),
    (
        "email",
        "[email]\nvalidate = 'identity-server'",
        "no email address for signing up can be proved here, see identity_servers.trusted; write",
    ),
    (
        "any",
        "[sms]\ntransport = 'off'\n[email]\nvalidate_register = 'off'",
        "no address for signing up can be proved here, see email.validate_register and sms.transport; change",
    ),
];

#[test]
fn what_can_not_be_proved_here_is_not_required() {
    for (requires, rest, told) in UNPROVABLE {
        let file = format!("[accounts]\nregistration_requires = '{requires}'\n{rest}\n{SYNAPSE}");
        let problem = problem(&file);
        let told = format!("accounts.registration_requires: {told}");
        assert!(
            problem.starts_with(&told),
            "{problem}\nshould begin with\n{told}"
        );
        for closed in [
            file.replace("[accounts]", "[accounts]\nregistration = false"),
            format!("{file}registration = 'off'"),
        ] {
            assert!(read(&closed).is_ok(), "{closed}");
        }
    }
}

#[test]
fn what_can_be_proved_may_be_required() {
    for (requires, rest, meant) in [
        ("any", "[sms]\ntransport = 'off'", Requires::Any),
        ("any", "[email]\nvalidate_register = 'off'", Requires::Any),
        ("email", "[sms]\nvalidate = 'off'", Requires::Email),
        (
            "msisdn",
            "[email]\nvalidate_register = 'off'",
            Requires::Msisdn,
        ),
        ("both", "", Requires::Both),
        (
            "nothing",
            "[email]\nvalidate = 'off'\n[sms]\nvalidate = 'off'",
            Requires::Nothing,
        ),
        (
            "msisdn",
            "[sms]\ntransport = 'off'\nvalidate = 'client-choice'\n[identity_servers]\ntrusted = ['id.example.org']",
            Requires::Msisdn,
        ),
    ] {
        let file = format!("[accounts]\nregistration_requires = '{requires}'\n{rest}\n{SYNAPSE}");
        let config = read(&file).unwrap().config;
        assert_eq!(config.accounts.registration_requires, meant, "{file}");
    }
}

#[test]
fn each_kind_of_homeserver_has_its_way_to_sign_up() {
    for (file, way, registers) in [
        ("", RegistrationWay::Off, false),
        (LOCAL, RegistrationWay::Off, false),
        (
            &format!("{LOCAL}registration = 'overlay'"),
            RegistrationWay::Overlay,
            true,
        ),
        (NONE, RegistrationWay::Off, false),
        (SYNAPSE, RegistrationWay::Overlay, true),
        (
            &format!("{SYNAPSE}registration = 'off'"),
            RegistrationWay::Off,
            false,
        ),
        (DENDRITE, RegistrationWay::Overlay, true),
        (WEBHOOK, RegistrationWay::Off, true),
        (
            &format!("{WEBHOOK}registration = 'off'"),
            RegistrationWay::Off,
            false,
        ),
    ] {
        let homeserver = read(file).unwrap().config.homeserver;
        assert_eq!(
            (homeserver.registration(), homeserver.registers()),
            (way, registers),
            "{file}"
        );
    }
}

#[test]
fn a_dendrite_is_described() {
    let file = format!(
        "{DENDRITE}id_server_name = 'Matrix.example.org'\n\
         [delegate]\nprefixes = ['{SECRET}']"
    );

    let homeserver = read(&file).unwrap().config.homeserver;

    assert_eq!(homeserver.kind, HomeserverKind::Dendrite);
    assert_eq!(
        homeserver.id_server_name.as_deref(),
        Some("Matrix.example.org")
    );
}

#[test]
fn who_keeps_an_address_goes_by_the_kind() {
    let split = format!("{SYNAPSE}phone_numbers = 'here'");
    for (file, here) in [
        ("", [true, true]),
        (DENDRITE, [true, true]),
        (SYNAPSE, [false, false]),
        (&split, [false, true]),
        (WEBHOOK, [false, false]),
        (NONE, [false, false]),
    ] {
        let homeserver = read(file).unwrap().config.homeserver;
        let media = [Medium::Email, Medium::Msisdn];
        assert_eq!(
            media.map(|medium| homeserver.keeps_here(medium)),
            here,
            "{file}"
        );
    }
}

#[test]
fn a_webhook_s_keys_are_the_lines_of_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    let file = WEBHOOK.replace(
        "webhook_keys = ['correct-horse-battery-staple']",
        &format!("webhook_keys_file = {path:?}"),
    );
    fs::write(&path, format!("{SECRET}-1\r\n\n {SECRET}-2/ \n")).unwrap();

    let keys = read(&file).unwrap().config.homeserver.webhook_keys;

    let keys: Vec<_> = keys.0.iter().map(|key| key.0.expose_secret()).collect();
    assert_eq!(keys, [format!("{SECRET}-1"), format!("{SECRET}-2/")]);
    for (lines, told) in [
        ("\n", "there is no key in it; write one on each line"),
        (
            "hunter2",
            "key 1 is too short to be a secret; make one with",
        ),
        ("correct horse battery staple", "key 1 has blanks"),
        (
            &format!("{SECRET}\n{SECRET}"),
            "key 2 stands there twice; take one out",
        ),
    ] {
        fs::write(&path, lines).unwrap();
        let problem = problem(&file);
        let told = format!("homeserver.webhook_keys_file: {told}");
        assert!(
            problem.starts_with(&told) && !problem.contains("hunter2"),
            "{problem}"
        );
    }
}

#[test]
fn secrets_stand_in_files_too() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, format!(" {SECRET}\nnothing else\n")).unwrap();

    let token = format!("{SYNAPSE}registration_token_file = {path:?}");
    let token = read(&token).unwrap().config.homeserver.registration_token();
    let shared = format!(
        "{SYNAPSE}registration = 'shared-secret'\nregistration_shared_secret_file = {path:?}"
    );
    let shared = read(&shared).unwrap().config.homeserver;

    assert_eq!(token.unwrap().unwrap().reveal(), SECRET);
    let shared = shared.registration_shared_secret.unwrap();
    assert_eq!(shared.expose_secret(), SECRET);
    let told = problem(&format!(
        "{SYNAPSE}registration_token_file = '/nowhere/at/all'"
    ));
    let start = "homeserver.registration_token_file: cannot read /nowhere/at/all";
    assert!(told.starts_with(start), "{told}");
}

#[test]
fn no_error_shows_a_secret_for_signing_up() {
    for file in [
        format!("{SYNAPSE}registration_token = ['hunter2']"),
        format!("{SYNAPSE}registration_token = 'hunter2'"),
        format!("{SYNAPSE}registration_token = 'hunter2 hunter2 hunter2 hunter2'"),
        format!("{SYNAPSE}registration_shared_secret = ['hunter2']"),
        format!("{SYNAPSE}registration_shared_secret = 'hunter2'"),
        "[homeserver]\nkind = 'webhook'\nwebhook_keys = ['hunter2']".to_owned(),
        "[homeserver]\nwebhook_keys = { a = 'hunter2' }".to_owned(),
    ] {
        let refusal = read(&file).unwrap_err();
        let told = format!("{refusal} {refusal:?}");
        assert!(!told.contains("hunter2"), "{refusal}");
    }
    for file in [
        format!("{SYNAPSE}registration_token = '{SECRET}-hunter2'"),
        format!("{SYNAPSE}registration = 'shared-secret'\nregistration_shared_secret = 'hunter2'"),
        WEBHOOK.replace("staple", "hunter2"),
    ] {
        let loaded = read(&file).unwrap();
        assert!(!format!("{:?} {}", loaded, values(&loaded.config)).contains("hunter2"));
    }
}

#[test]
fn what_does_nothing_is_warned_of() {
    for (keys, told) in [
        (
            "registration_requires = 'email'",
            "accounts.registration_requires: nobody signs up through threepid",
        ),
        (
            "registration = false",
            "accounts.registration: nobody signs up through threepid",
        ),
    ] {
        let file = format!("[accounts]\n{keys}\n");
        let warnings = read(&file).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with(told), "{warnings:?}");
        let beside = read(&format!("{file}{SYNAPSE}")).unwrap();
        assert_eq!(beside.warnings, Vec::<String>::new());
    }
}

#[test]
fn an_unencrypted_webhook_leads_to_this_machine_alone() {
    for url in [
        "http://127.0.0.1:9000/x",
        "http://localhost:9000",
        "http://[::1]:9000",
    ] {
        let file = WEBHOOK.replace("https://matrix.example.org/_matrix/x", url);
        assert_eq!(read(&file).unwrap().warnings, Vec::<String>::new(), "{url}");
    }
}
