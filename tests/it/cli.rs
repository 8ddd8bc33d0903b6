//! The program itself, run as an operator runs it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    closed_port,
    gateway::{Answer, SmsGateway},
};

/// The program in an empty directory, with nothing of our own environment that it reads.
pub(crate) fn threepid(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threepid"));
    command.current_dir(dir.path()).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THREEPID") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run(dir: &TempDir, arguments: &[&str]) -> Output {
    threepid(dir, arguments).output().expect("the program runs")
}

pub(crate) fn empty() -> TempDir {
    TempDir::new().expect("a directory for the test")
}

pub(crate) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server on ports that the system chooses, and its start text up to the mailbox's line.
pub(crate) fn serve(dir: &TempDir) -> (Child, String) {
    let mut child = threepid(dir, &["serve"])
        .env("THREEPID__SERVER__LISTEN", "127.0.0.1:0")
        .env("THREEPID__SERVER__INTERNAL_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("it is piped")).lines();
    let mut text = String::new();
    while !text.contains("Mails are not sent") {
        let line = lines.next().expect("the start text ends with the mailbox");
        text += &line.expect("the start text is text");
        text.push('\n');
    }
    (child, text)
}

pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn config_prints_the_example_and_it_works() {
    let dir = empty();

    let printed = run(&dir, &["config"]);
    fs::write(dir.path().join("threepid.toml"), &printed.stdout).unwrap();
    let checked = run(&dir, &["check"]);

    assert_eq!(printed.stdout, include_bytes!("../../examples/config.toml"));
    assert!(checked.status.success(), "{}", told(&checked));
    assert!(
        String::from_utf8_lossy(&checked.stdout).contains("ok      configuration: threepid.toml")
    );
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = threepid(&empty(), &["config"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let output = child.wait_with_output().unwrap();

    assert!(output.status.success());
    assert_eq!(told(&output), "");
}

#[test]
fn help_fits_on_one_screen() {
    let help = run(&empty(), &["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.lines().count() <= 30, "{text}");
    for command in [
        "serve",
        "config",
        "check",
        "migrate",
        "test-mail",
        "test-sms",
        "outbox",
        "invites",
        "addresses",
    ] {
        assert!(text.contains(command), "{command}");
    }
}

#[test]
fn what_is_not_understood_is_2_and_what_does_not_work_is_1() {
    let dir = empty();
    fs::write(dir.path().join("bad.toml"), "[email]\ntransprot = 'x'").unwrap();
    for (arguments, status, hint) in [
        (&["serv"][..], 2, "serve"),
        (&["outbox", "retry", "x"], 2, "invalid value"),
        (&["-c", "none.toml", "serve"], 1, "threepid config"),
        (
            &["-c", "bad.toml", "serve"],
            1,
            "did you mean email.transport?",
        ),
        (
            &["outbox", "list"],
            1,
            "there is no database at threepid-data/threepid.db yet",
        ),
        (&["test-mail", "nobody"], 1, "name@example.org"),
        (&["test-mail", "a@example.org"], 1, "nothing is sent"),
        (&["test-sms", "+447700900001"], 1, "nothing to try"),
        (&["test-sms", "07700900001"], 1, "--country GB"),
        (
            &["test-sms", "--country", "Britain", "07700900001"],
            1,
            "two upper-case letters",
        ),
        (
            &["addresses", "add", "alice", "a@example.org"],
            1,
            "@alice:example.org",
        ),
        (
            &["addresses", "add", "@alice:example.org", "a"],
            1,
            "name@example.org",
        ),
    ] {
        let output = run(&dir, arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(
            told(&output).contains(hint),
            "{arguments:?}: {}",
            told(&output)
        );
    }
}

#[test]
fn check_fails_with_json_for_scripts() {
    let dir = empty();
    fs::write(dir.path().join("threepid.toml"), "[email]\nworkers = 0").unwrap();

    let output = run(&dir, &["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["ok"], false);
    assert!(
        report["findings"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("email.workers")
    );
}

#[test]
fn a_server_tells_where_it_is_and_stops_when_told() {
    for name in ["TERM", "INT"] {
        let dir = empty();
        let (mut child, text) = serve(&dir);
        assert!(text.contains("listens on 127.0.0.1:"), "{text}");
        assert!(
            text.contains("/_threepid/mailbox") && !text.contains(":0/"),
            "{text}"
        );
        assert!(
            text.contains("Text messages are not sent. Read them at http://127.0.0.1:"),
            "{text}"
        );

        signal(&child, name);

        assert!(child.wait().unwrap().success());
        let mut log = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert!(log.contains("stopped"), "{log}");
    }
}

/// A directory with a configuration that sends text messages through `url`.
fn with_gateway(url: &str) -> TempDir {
    let dir = empty();
    let file = format!(
        "[server]\npublic_url = 'https://matrix.example.org'\ntrusted_proxies = ['127.0.0.1']\n\
         [sms]\ntransport = 'modem'\n[sms.senders]\nGB = 'Britain'\n\
         [sms.gateways.modem]\nurl = '{url}/send'\njson = {{ To = '{{to_plus}}', Body = '{{text}}' }}\n\
         [identity_servers]\ntrusted = ['id.example.org']\ndefault_server = 'ID.example.net:443'\n\
         default_server_token = 'tok'\n"
    );
    fs::write(dir.path().join("threepid.toml"), file).expect("a file for the test");
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sms_goes_through_the_gateway() {
    let gateway = SmsGateway::start([Answer::json(201, &json!({}))]).await;

    let sent = run(
        &with_gateway(&gateway.url()),
        &["test-sms", "--country", "GB", "07700 900001"],
    );

    assert!(sent.status.success(), "{}", told(&sent));
    let text = String::from_utf8_lossy(&sent.stdout);
    assert!(
        text.contains("for +447700900001 was taken: modem: 201"),
        "{text}"
    );
    assert_eq!(gateway.asked_once().json()["To"], "+447700900001");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sms_that_is_refused_is_told() {
    let gateway = SmsGateway::start([Answer::Say(422, String::new())]).await;

    let refused = run(
        &with_gateway(&gateway.url()),
        &["test-sms", "+447700900001"],
    );

    assert_eq!(refused.status.code(), Some(1));
    let told = told(&refused);
    assert!(
        told.contains("modem: 422") && told.contains("not pass by itself"),
        "{told}"
    );
}

#[test]
fn a_test_sms_tells_that_apps_are_refused_the_number() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gateway = runtime.block_on(SmsGateway::start([Answer::Say(200, String::new())]));

    let sent = threepid(
        &with_gateway(&gateway.url()),
        &["test-sms", "+447700900001"],
    )
    .env("THREEPID__SMS__DENIED_CALLING_CODES", "44")
    .output()
    .unwrap();

    let text = String::from_utf8_lossy(&sent.stdout);
    assert!(text.contains("denies this number"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_greets_gateways_and_names_identity_servers() {
    let gateway = SmsGateway::start([Answer::Hang]).await;
    let dir = with_gateway(&gateway.url());

    let checked = run(&dir, &["check"]);
    drop(gateway);

    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{text}");
    assert!(
        text.contains("ok      text messages: modem: connected to 127.0.0.1:"),
        "{text}"
    );
    let trusted = "ok      identity servers: trusted: id.example.org, id.example.net\n";
    assert!(text.contains(trusted), "{text}");
}

#[test]
fn check_fails_if_a_gateway_is_not_there() {
    let (_nobody, address) = closed_port();

    let checked = run(&with_gateway(&format!("http://{address}")), &["check"]);

    assert_eq!(checked.status.code(), Some(1));
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(
        text.contains("FAILED  text messages: modem: connect"),
        "{text}"
    );
}

#[test]
fn a_server_tells_where_messages_go_and_whom_it_trusts() {
    let dir = with_gateway("http://127.0.0.1:9");

    let (mut child, text) = serve(&dir);

    assert!(text.contains("Text messages go through modem.\n"), "{text}");
    let trusted = "Trusted identity servers: id.example.org, id.example.net.\n";
    assert!(text.contains(trusted), "{text}");
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn addresses_are_added_listed_and_removed() {
    let dir = empty();
    let alice = ["@alice:example.org", "Alice@Example.org"];
    let with = |verb: &str, [user_id, address]: [&str; 2]| {
        run(&dir, &["addresses", verb, user_id, address])
    };

    assert!(with("add", alice).status.success());
    assert!(
        told(&with("add", ["@bob:example.org", "alice@example.org"]))
            .contains("belongs to @alice:example.org")
    );
    let listed = run(&dir, &["addresses", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed[0]["user_id"], "@alice:example.org");
    assert_eq!(listed[0]["address"], "alice@example.org");
    assert!(run(&dir, &["check"]).status.success());
    assert!(with("remove", alice).status.success());
    assert_eq!(with("remove", alice).status.code(), Some(1));
    let phone = ["@alice:example.org", "+44 7700 900001"];
    let added = String::from_utf8(with("add", phone).stdout).unwrap();
    assert_eq!(added, "447700900001 belongs to @alice:example.org now.\n");
    assert!(
        !with("add", ["@alice:example.org", "07700900001"])
            .status
            .success()
    );
}

#[test]
fn beside_a_server_commands_work_and_a_second_server_does_not() {
    let dir = empty();
    let (mut child, _) = serve(&dir);

    assert!(run(&dir, &["check"]).status.success());
    assert!(run(&dir, &["outbox", "list"]).status.success());
    for command in ["serve", "migrate"] {
        let refused = run(&dir, &[command]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            told(&refused).contains(&format!("process {}", child.id())),
            "{}",
            told(&refused)
        );
    }

    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    assert!(run(&dir, &["migrate"]).status.success());
}

#[test]
fn check_misses_the_key_of_a_used_database() {
    let dir = empty();
    let (mut child, _) = serve(&dir);
    signal(&child, "TERM");
    child.wait().unwrap();
    fs::remove_file(dir.path().join("threepid-data/secret.key")).unwrap();

    let checked = run(&dir, &["check"]);

    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("FAILED  database and key"));
}

#[test]
fn an_address_in_use_is_told_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let output = threepid(&empty(), &[])
        .env("THREEPID__SERVER__LISTEN", &address)
        .env("THREEPID__SERVER__INTERNAL_LISTEN", "off")
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let told = told(&output);
    assert!(
        told.contains(&address) && told.contains("THREEPID__SERVER__LISTEN"),
        "{told}"
    );
}
