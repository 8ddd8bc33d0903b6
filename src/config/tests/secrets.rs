//! Secrets: where they may stand, and that no error shows them.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{problem, read, read_with, values};

#[test]
fn a_password_is_what_was_written() {
    for text in ["007", "1e3", "true", "a,b"] {
        let loaded = read_with("", &[("THREEPID__EMAIL__PASSWORD", text)]).unwrap();
        assert_eq!(loaded.config.email.password.unwrap().expose_secret(), text);
    }
}

#[test]
fn no_error_shows_a_password() {
    for file in [
        "[email]\npassword = \"hunter2",
        "[email]\npassword = hunter2",
        "[email]\npassword = ['hunter2']",
    ] {
        let refusal = read(file).unwrap_err();
        assert!(
            !format!("{refusal} {refusal:?}").contains("hunter2"),
            "{refusal}"
        );
    }
    let loaded = read("[email]\npassword = 'hunter2'").unwrap();
    assert!(!format!("{:?} {}", loaded, values(&loaded.config)).contains("hunter2"));
}

fn password_file(mode: u32) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("password");
    fs::write(&path, "007 \n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (dir, path)
}

#[test]
fn a_password_file_is_read_without_its_line_end() {
    let (_dir, path) = password_file(0o600);
    let loaded = read(&format!("[email]\npassword_file = {path:?}")).unwrap();
    assert_eq!(
        loaded.config.email.password.unwrap().expose_secret(),
        "007 "
    );
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn a_password_file_that_others_can_read_gives_a_warning() {
    let (_dir, path) = password_file(0o644);
    let loaded = read(&format!("[email]\npassword_file = {path:?}")).unwrap();
    assert!(
        loaded.warnings[0].starts_with("email.password_file: every user"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn a_password_is_written_in_one_place() {
    let (_dir, path) = password_file(0o600);
    let told = problem(&format!(
        "[email]\npassword = 'x'\npassword_file = {path:?}"
    ));
    assert!(
        told.starts_with("email.password: email.password_file is written too"),
        "{told}"
    );
    let told = problem("[email]\npassword_file = '/nowhere/at/all'");
    assert!(
        told.starts_with("email.password_file: cannot read /nowhere/at/all"),
        "{told}"
    );
}

#[test]
fn the_token_of_a_file_is_its_first_line() {
    let (_dir, path) = password_file(0o600);
    fs::write(&path, "  tok-1  \r\nnothing else\n").unwrap();
    let file = format!(
        "[identity_servers]\ndefault_server = 'id.example.org'\ndefault_server_token_file = {path:?}"
    );

    let servers = read(&file).unwrap().config.identity_servers().unwrap();

    let (server, token) = servers.default_server.unwrap();
    assert_eq!(
        (server.to_string().as_str(), token.reveal()),
        ("id.example.org", "tok-1")
    );
}

#[test]
fn a_file_without_a_token_is_refused_and_not_shown() {
    let (_dir, path) = password_file(0o600);
    for text in ["", "\n", " \nhunter2", "hunter2 and more", "h\u{fc}nter2"] {
        fs::write(&path, text).unwrap();
        let told = problem(&format!(
            "[identity_servers]\ndefault_server = 'id.example.org'\ndefault_server_token_file = {path:?}"
        ));
        let start = "identity_servers.default_server_token_file: there is no token in it";
        assert!(
            told.starts_with(start) && !told.contains("nter2"),
            "{text:?}: {told}"
        );
    }
    let told = problem(
        "[identity_servers]\ndefault_server = 'id.example.org'\ndefault_server_token_file = '/nowhere/at/all'",
    );
    let start = "identity_servers.default_server_token_file: cannot read /nowhere/at/all";
    assert!(told.starts_with(start), "{told}");
}

#[test]
fn a_gateway_s_password_stands_in_one_place() {
    let (_dir, path) = password_file(0o644);
    let file = |password: &str| {
        format!(
            "[server]\ndanger_allow_plain_public_url = true\n[sms]\ntransport = 'twilio'\nsender = 'Me'\n\
             [sms.gateways.twilio]\nusername = 'AC1'\npassword_file = {path:?}\n{password}"
        )
    };

    let loaded = read(&file("")).unwrap();

    let gateway = &loaded.config.sms.gateways["twilio"].settings;
    assert_eq!(gateway.password.as_ref().unwrap().expose_secret(), "007 ");
    let warned = &loaded.warnings[0];
    assert!(
        warned.starts_with("sms.gateways.twilio.password_file: every user"),
        "{warned}"
    );
    let told = problem(&file("password = 'x'"));
    let start = "sms.gateways.twilio.password: sms.gateways.twilio.password_file is written too";
    assert!(told.starts_with(start), "{told}");
}

#[test]
fn no_error_shows_what_a_gateway_or_server_is_told() {
    for file in [
        "[identity_servers]\ndefault_server_token = ['hunter2']",
        "[identity_servers]\ndefault_server_token = 'hunter2'",
        "[sms.gateways]\ntwilio = 'hunter2'",
        "[sms.gateways.twilio]\npassword = ['hunter2']",
        "[sms.gateways.x]\nurl = ['https://me:hunter2@example.org']",
        "[sms.gateways.x]\nheaders = 'Authorization: hunter2'",
        "[sms.gateways.x]\nheaders = ['hunter2']",
        "[sms.gateways.x]\nform = 'key=hunter2'",
        "[sms.gateways.x]\nform = { key = ['hunter2'] }",
        "[sms]\ntransport = 'x'\n[sms.gateways.x]\nurl = 'https://example.org:hunter2'\nform = { key = '{hunter2}' }",
        "[sms]\ntransport = 'x'\n[sms.gateways.x]\nurl = 'https://example.org'\npassword = 'hunter2'",
    ] {
        let refusal = read(file).unwrap_err();
        assert!(
            !format!("{refusal} {refusal:?}").contains("hunter2"),
            "{refusal}"
        );
    }
    let loaded = read("[sms]\ntransport = 'off'\n[sms.gateways.x]\npassword = 'hunter2'").unwrap();
    assert!(!format!("{:?} {}", loaded, values(&loaded.config)).contains("hunter2"));
}
