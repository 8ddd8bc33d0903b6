//! What `[identity_servers]` and `[outbound]` take and refuse.

use super::{problem, read};
use crate::validation::IdentityServers;

const DEFAULT: &str = "[identity_servers]\ndefault_server = 'ID.example.org:443'\n";

fn servers(file: &str) -> IdentityServers {
    read(file).unwrap().config.identity_servers().unwrap()
}

#[test]
fn identity_servers_are_read() {
    let file = format!(
        "{DEFAULT}default_server_token = ' tok '\ntrusted = ['id.example.net:8448', 'ID.Example.com']"
    );
    let config = read(&file).unwrap().config;

    let names = ["id.example.net:8448", "id.example.com", "id.example.org"];
    assert_eq!(config.identity_servers.names(), names);
    let servers = config.identity_servers().unwrap();
    assert_eq!(servers.default_server.unwrap().1.reveal(), "tok");
    assert!(!servers.allow_password_reset);
}

#[test]
fn our_own_names_are_known() {
    let ours = |server: &str| {
        let ours = servers(&format!("[server]\nlisten = '0.0.0.0:1'\n{server}")).ours;
        ours.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        ours("public_url = 'https://matrix.example.org/x'\nserver_name = 'example.org:8448'"),
        ["matrix.example.org", "example.org:8448"]
    );
    assert_eq!(
        ours("public_url = 'https://example.org:8443'\nserver_name = 'example.org:8443'"),
        ["example.org:8443"]
    );
    assert_eq!(
        ours("public_url = 'http://127.0.0.1:8090'"),
        ["127.0.0.1:8090", "localhost"]
    );
    // No identity server may have port 80, and so none of that name is us.
    assert_eq!(
        ours("public_url = 'https://example.org:80'"),
        ["example.org"]
    );
}

#[test]
fn values_that_can_not_be_are_refused() {
    for (file, told) in [
        (
            DEFAULT,
            "identity_servers.default_server: there is no token for id.example.org; write default_server_token_file",
        ),
        (
            "[identity_servers]\ndefault_server_token = 'tok'",
            "identity_servers.default_server_token: there is no server that it is for; write default_server",
        ),
        (
            "[identity_servers]\ntrusted = ['https://id.example.org']",
            "identity_servers.trusted: \"https://id.example.org\" names no server; write the host",
        ),
        (
            "[identity_servers]\ndefault_server = 'id.example.org/x'",
            "identity_servers.default_server: \"id.example.org/x\" names no server; write the host",
        ),
        (
            "[outbound]\nallow = ['home']",
            "outbound.allow: \"home\" is no network; write for example",
        ),
        (
            "[outbound]\nca_files = ['/nowhere/at/all.pem']",
            "outbound.ca_files: ",
        ),
        (
            "[outbound]\ntimeout = '0s'",
            "outbound.timeout: \"0s\" must be more than nothing",
        ),
    ] {
        let problem = problem(file);
        assert!(
            problem.starts_with(told),
            "{problem}\nshould begin with\n{told}"
        );
    }
}

#[test]
fn what_can_not_work_or_is_dangerous_is_warned_of() {
    for (file, told) in [
        (
            "[email]\nvalidate_add = 'client-choice'",
            "email.validate passes requests on to identity servers, but identity_servers.trusted is empty",
        ),
        (
            "[sms]\nvalidate = 'identity-server'",
            "sms.validate passes requests on to identity servers, but identity_servers.trusted is empty",
        ),
        (
            "[identity_servers]\nallow_password_reset = true",
            "identity_servers.allow_password_reset is on",
        ),
        (
            "[outbound]\ndanger_accept_invalid_certs = true",
            "outbound.danger_accept_invalid_certs is on",
        ),
        (
            "[identity_servers]\ntrusted = ['192.168.1.7:8448']",
            "identity_servers.trusted: 192.168.1.7:8448 is an address of a private network",
        ),
        (
            "[identity_servers]\ntrusted = ['[::1]:8448']\n[outbound]\nallow = ['127.0.0.1']",
            "identity_servers.trusted: [::1]:8448 is an address of a private network",
        ),
    ] {
        let warnings = read(file).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with(told), "{warnings:?}");
    }
}

#[test]
fn what_is_allowed_is_not_warned_of() {
    for file in [
        "[email]\nvalidate = 'client-choice'\n[identity_servers]\ntrusted = ['id.example.org', '9.9.9.9']",
        "[identity_servers]\ntrusted = ['192.168.1.7:8448']\n[outbound]\nallow = ['192.168.0.0/16']",
        &format!("[sms]\nvalidate = 'identity-server'\n{DEFAULT}default_server_token = 'tok'"),
    ] {
        assert_eq!(read(file).unwrap().warnings, Vec::<String>::new());
    }
}
