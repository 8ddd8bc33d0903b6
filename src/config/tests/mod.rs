//! What the configuration takes and refuses.

use std::fs;

use config::Map;
use tempfile::TempDir;

use super::{
    Config,
    load::{LoadError, Loaded, Problem, load},
    values::Span,
};

mod example;
mod homeserver;
mod identity;
mod others;
mod registration;
mod secrets;
mod sms;

const EXAMPLE: &str = include_str!("../../../examples/config.toml");

fn environment(variables: &[(&str, &str)]) -> Map<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

fn read_with(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let dir = TempDir::new().expect("a directory for the test");
    let path = dir.path().join("threepid.toml");
    fs::write(&path, file).expect("a file for the test");
    load(Some(&path), Some(environment(variables)))
}

fn read(file: &str) -> Result<Loaded, LoadError> {
    read_with(file, &[])
}

fn problems(file: &str) -> Vec<Problem> {
    match read(file) {
        Err(LoadError::Refused(problems)) => problems,
        other => panic!("{file}\nis not refused by key: {other:?}"),
    }
}

/// The one problem of a file, as `key: reason`.
fn problem(file: &str) -> String {
    let problems = problems(file);
    assert_eq!(problems.len(), 1, "{problems:?}");
    format!("{}: {}", problems[0].key, problems[0].reason)
}

fn values(config: &Config) -> serde_json::Value {
    serde_json::to_value(config).unwrap()
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    let loaded = load(None, Some(environment(&[]))).unwrap();
    assert_eq!(values(&loaded.config), values(&Config::default()));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(
        loaded.config.server.public_url().as_str(),
        "http://127.0.0.1:8090/"
    );
    assert_eq!(loaded.config.from(), "threepid <no-reply@localhost>");
}

#[test]
fn unknown_keys_are_refused_with_the_name_that_was_meant() {
    for (file, told) in [
        (
            "[email]\ntransprot = 'capture'",
            "email.transprot: there is no such key; did you mean email.transport?",
        ),
        (
            "[emial]\ntransport = 'capture'",
            "emial: there is no such section; did you mean email?",
        ),
        (
            "listen = ['127.0.0.1:1']",
            "listen: there is no such key; did you mean server.listen?",
        ),
        (
            "[server]\nfrom = 'a@b.org'",
            "server.from: there is no such key; did you mean email.from?",
        ),
        (
            "[policy.regsiter]\nallowed = []",
            "policy.regsiter: there is no such section; did you mean policy.register?",
        ),
        (
            "[synapse]\nurl = 'x'",
            "synapse: there is no such section; \"threepid config\" prints all there are",
        ),
        (
            "email = 'smtp://x'",
            "email: this is a section: write [email], and its keys below",
        ),
    ] {
        assert_eq!(problem(file), told);
    }
}

/// Files with one bad value, and what is told of it.
const BAD_VALUES: &[(&str, &str)] = &[
    (
        "[homeserver]\nkind = 'conduit'",
        "homeserver.kind: \"conduit\" is not known; write \"local\"",
    ),
    (
        "[email]\nvalidate = 'there'",
        "email.validate: unknown value `there`, write one of `here`, `client-choice`, `identity-server`, `off`",
    ),
    (
        "[email]\nvalidate_password = true",
        "email.validate_password: unknown value `true`, write one of `here`",
    ),
    ("[email]\ntransport = 'pigeon'", "email.transport: "),
    (
        "[email]\nfrom = 'nobody'",
        "email.from: \"nobody\" is not a sender",
    ),
    ("[email]\nhello_name = 'a b'", "email.hello_name: "),
    (
        "[email]\nworkers = 0",
        "email.workers: 0 is not a number from 1 to 64",
    ),
    (
        "[email]\nworkers = 'many'",
        "email.workers: string \"many\" can not stand here; write an integer",
    ),
    (
        "[email]\nbody_timeout = '0s'",
        "email.body_timeout: \"0s\" must be more than nothing; write a time",
    ),
    (
        "[email]\nphase_timeout = '0s'",
        "email.phase_timeout: \"0s\" must be more than nothing; write a time",
    ),
    (
        "[sessions]\nlink_lifetime = '-1h'",
        "sessions.link_lifetime: \"-1h\" must not be negative",
    ),
    (
        "[sessions]\nlink_lifetime = 60",
        "sessions.link_lifetime: \"60\" is no time",
    ),
    (
        "[sessions]\nlink_lifetime = '25h'",
        "sessions.link_lifetime: 25h is longer than sessions.session_lifetime, which is 24h",
    ),
    (
        "[sessions]\ncode_tries = 21",
        "sessions.code_tries: 21 is not a number from 1 to 20",
    ),
    (
        "[limits]\nper_source = '0/1h'",
        "limits.per_source: a limit of nothing would refuse everybody",
    ),
    (
        "[limits]\nenabled = 'maybe'",
        "limits.enabled: string \"maybe\" can not stand here; write a boolean",
    ),
    (
        "[server]\npublic_url = 'example.org'",
        "server.public_url: it is not a whole URL; write it as \"https://",
    ),
    (
        "[server]\nlisten = []",
        "server.listen: nobody could reach it",
    ),
    (
        "[server]\nlisten = ['localhost:8090']",
        "server.listen: \"localhost:8090\" is not an address to listen on",
    ),
    ("[server]\nlisten = 8090", "server.listen: "),
    (
        "[server]\ninternal_listen = '8091'",
        "server.internal_listen: \"8091\" is not an address",
    ),
    (
        "[server]\ninternal_listen = '127.0.0.1:8090'",
        "server.internal_listen: 127.0.0.1:8090 stands in server.listen too",
    ),
    ("[server]\nmax_connections = 0", "server.max_connections: "),
    (
        "[server]\nserver_name = 'https://example.org'",
        "server.server_name: ",
    ),
    (
        "[server]\ntrusted_proxies = ['nginx']",
        "server.trusted_proxies: \"nginx\" is no network",
    ),
    (
        "[storage]\nurl = 'postgres://x'",
        "storage.url: write \"sqlite:\" and the path",
    ),
    (
        "[storage]\nurl = 'sqlite::memory:'",
        "storage.url: a database in memory would forget",
    ),
    (
        "[policy]\nallowed = ['a@b@example.org']",
        "policy.allowed: \"a@b@example.org\" is neither",
    ),
    (
        "[policy.add]\ndenied = ['a b']",
        "policy.add.denied: \"a b\" is neither",
    ),
    (
        "[next_links]\nallowed = ['javascript:']",
        "next_links.allowed: \"javascript:\" is not the scheme",
    ),
    ("[pages]\napp_name = ' '", "pages.app_name: "),
    (
        "[log]\nlevel = 'inof'",
        "log.level: \"inof\" is not a level",
    ),
    (
        "[log]\nformat = 'xml'",
        "log.format: unknown value `xml`, write `text` or `json`",
    ),
];

#[test]
fn values_that_can_not_be_are_refused() {
    for (file, told) in BAD_VALUES {
        let problem = problem(file);
        assert!(
            problem.starts_with(told),
            "{problem}\nshould begin with\n{told}"
        );
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let told = problems(
        "[server]\nlisten = 'x'\n[email]\ntransprot = 'x'\nworkers = []\n[nonsense]\na = 1",
    );
    let keys: Vec<_> = told.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "email.transprot",
            "email.workers",
            "nonsense",
            "server.listen"
        ]
    );
    assert_eq!(
        problems("[email]\nworkers = 0\n[sessions]\ncode_tries = 0").len(),
        2
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = read_with(
        "[email]\nworkers = 2\n[server]\nlisten = ['127.0.0.1:1', '127.0.0.1:2']",
        &[
            ("THREEPID__EMAIL__WORKERS", "8"),
            ("THREEPID__ACCOUNTS__REVEAL", "true"),
            (
                "THREEPID__SERVER__LISTEN",
                "127.0.0.1:3, [::1]:3,unix:/tmp/x.sock",
            ),
            ("THREEPID__POLICY__REGISTER__ALLOWED", "example.org"),
            ("THREEPID_CONFIG", "elsewhere.toml"),
        ],
    );
    let config = config.unwrap().config;
    assert_eq!((config.email.workers, config.accounts.reveal), (8, true));
    let listen: Vec<_> = config
        .server
        .listen
        .0
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["127.0.0.1:3", "[::1]:3", "unix:/tmp/x.sock"]);
    assert_eq!(config.policy.register.allowed.unwrap().0, ["example.org"]);
}

#[test]
fn a_fault_in_the_environment_names_the_variable() {
    let refusal = read_with("", &[("THREEPID__EMAIL__TRANSPROT", "x")])
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("THREEPID__EMAIL__TRANSPROT"), "{refusal}");
}

#[test]
fn links_that_are_really_mailed_must_be_https() {
    let file = |transport: &str, server: &str| {
        format!(
            "[email]\ntransport = '{transport}'\n[server]\ntrusted_proxies = ['127.0.0.1']\n{server}"
        )
    };
    for transport in ["smtp://u@h:587", "smtps://h", "sendmail:"] {
        for server in [
            "",
            "public_url = 'https://localhost'",
            "public_url = 'http://example.org'",
        ] {
            let told = problem(&file(transport, server));
            assert!(
                told.starts_with("server.public_url: mails are really sent, but"),
                "{told}"
            );
            let danger = format!("{server}\ndanger_allow_plain_public_url = true");
            assert_eq!(read(&file(transport, &danger)).unwrap().warnings.len(), 1);
            assert!(read(&file("capture", server)).is_ok());
        }
        assert!(read(&file(transport, "public_url = 'https://example.org'")).is_ok());
    }
}

#[test]
fn behind_a_proxy_the_line_that_trusts_it_is_told() {
    for (listen, line) in [
        (
            "127.0.0.1:1",
            "write trusted_proxies = [\"127.0.0.1\", \"::1\"]",
        ),
        ("unix:/tmp/x", "write trusted_proxies = [\"unix\"]"),
        (
            "0.0.0.0:1,unix:/tmp/x",
            "write trusted_proxies = [\"unix\"]",
        ),
    ] {
        let file = format!("[server]\nlisten = '{listen}'\npublic_url = 'https://example.org'\n");
        let told = problem(&file);
        assert!(
            told.starts_with("server.trusted_proxies: ") && told.contains(line),
            "{told}"
        );
        assert!(
            read(&format!(
                "{file}trusted_proxies = ['unix', '10.0.0.0/8', '::1']"
            ))
            .is_ok()
        );
        assert!(read(&file.replace("https://example.org", "http://localhost:1")).is_ok());
    }
    assert!(read("[server]\nlisten = '0.0.0.0:1'\npublic_url = 'https://example.org'").is_ok());
}

#[test]
fn names_come_from_the_public_url() {
    let file = "[server]\nlisten = '0.0.0.0:1'\npublic_url = 'https://matrix.example.org:444/x/'";
    let config = read(file).unwrap().config;
    assert_eq!(config.server_name(), "matrix.example.org");
    assert_eq!(
        config.server.public_url().as_str(),
        "https://matrix.example.org:444/x"
    );
    let config = read(&format!("{file}\nserver_name = 'example.org:8448'"))
        .unwrap()
        .config;
    assert_eq!(config.from(), "threepid <no-reply@example.org>");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_told_by_line() {
    let refusal = load(Some("nowhere.toml".as_ref()), Some(environment(&[])))
        .unwrap_err()
        .to_string();
    assert!(
        refusal.starts_with("cannot read the configuration file nowhere.toml"),
        "{refusal}"
    );
    let refusal = read("[server]\n\nlisten = [").unwrap_err().to_string();
    assert!(
        refusal.contains("threepid.toml, line 3: this is not TOML"),
        "{refusal}"
    );
}

#[test]
fn times_are_read_as_written() {
    let config = read("[sessions]\nlink_lifetime = '1h 30m'").unwrap().config;
    assert_eq!(
        config.sessions.link_lifetime,
        Span(std::time::Duration::from_mins(90))
    );
}
