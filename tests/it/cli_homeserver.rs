//! The program beside a homeserver, and as the delegate of one.

use std::{fs, process::Child, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    cli::{empty, run, serve, signal, told},
    support::homeserver::{ADMIN_TOKEN, Homeserver},
};

const SECRET: &str = "correct-horse-battery-staple";

/// A directory with a configuration.
pub(crate) fn with(file: &str) -> TempDir {
    let dir = empty();
    fs::write(dir.path().join("threepid.toml"), file).expect("a file for the test");
    dir
}

/// A directory with a configuration that asks `homeserver`.
fn beside(homeserver: &Homeserver) -> TempDir {
    let url = homeserver.url();
    with(&format!(
        "[homeserver]\nkind = 'synapse'\nurl = '{url}'\nadmin_token = '{ADMIN_TOKEN}'\n\
         registration = 'off'\n"
    ))
}

/// Stops a server; what it logged.
pub(crate) fn stopped(child: Child) -> String {
    signal(&child, "TERM");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    told(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_which_homeserver_it_asks() {
    let homeserver = Homeserver::start().await;

    let (child, text) = serve(&beside(&homeserver));

    let log = stopped(child);
    assert!(text.contains("Synapse, at http://127.0.0.1:"), "{text}");
    assert!(!log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_refuses_to_start_where_an_account_server_has_the_accounts() {
    let homeserver = Homeserver::start().await;
    homeserver.hand_accounts_over();

    let refused = run(&beside(&homeserver), &["serve"]);

    assert_eq!(refused.status.code(), Some(1));
    let told = told(&refused);
    assert!(told.contains("OAuth account server"), "{told}");
    assert!(told.contains("threepid can do nothing here"), "{told}");
    assert_eq!(refused.stdout, b"", "it does not say that it listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_although_the_homeserver_does_not_answer_yet() {
    let homeserver = Homeserver::start().await;
    homeserver.down().await;

    let (child, _) = serve(&beside(&homeserver));

    let log = stopped(child);
    assert!(log.contains("the homeserver does not answer"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_the_homeserver_step_by_step() {
    let homeserver = Homeserver::start().await;
    let dir = beside(&homeserver);

    let good = run(&dir, &["check"]);
    homeserver.hand_accounts_over();
    let bad = run(&dir, &["check"]);

    assert!(good.status.success(), "{good:?}");
    let good = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.contains("ok      homeserver: http://127.0.0.1:"),
        "{good}"
    );
    assert!(!good.contains(ADMIN_TOKEN), "{good}");
    assert_eq!(bad.status.code(), Some(1));
    let bad = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert!(bad.contains("FAILED  homeserver: "), "{bad}");
    assert!(bad.contains("OAuth account server"), "{bad}");
}

#[test]
fn check_says_who_may_call_and_not_by_which_secret() {
    let delegate = format!("[delegate]\nprefixes = ['{SECRET}']\n");
    let none = with(&format!("[homeserver]\nkind = 'none'\n{delegate}"));
    let public = with(&format!("{delegate}public = true"));

    let [none, public] = [none, public].map(|dir| run(&dir, &["check"]).stdout);
    let [none, public] = [none, public].map(|text| String::from_utf8_lossy(&text).into_owned());

    assert!(
        none.contains("ok      homeserver: No homeserver is asked"),
        "{none}"
    );
    let served = "ok      delegate: 1 prefix, served at 127.0.0.1:8091\n";
    assert!(none.contains(served), "{none}");
    let served = "ok      delegate: 1 prefix, served at 127.0.0.1:8091, 127.0.0.1:8090\n";
    assert!(public.contains(served), "{public}");
    assert!(!format!("{none}{public}").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_s_routes_are_there_if_it_has_a_token() {
    let mut statuses = Vec::new();
    for file in [format!("[server]\napi_token = '{SECRET}'"), String::new()] {
        let (child, text) = serve(&with(&file));
        let internal = text.lines().nth(1).expect("it says where");
        let (_, address) = internal.rsplit_once(' ').expect("it says where");
        let address = address.trim_end_matches('.');
        let url = format!("http://{address}/_threepid/homeserver/v1/owner");
        let asked = json!({ "medium": "email", "address": "alice@example.org" });
        let client = reqwest::Client::builder().no_proxy();
        let client = client.timeout(Duration::from_secs(30)).build();
        let request = client.expect("a client").post(url).bearer_auth(SECRET);

        let answer = request.body(asked.to_string()).send().await;

        statuses.push(answer.expect("it answers").status().as_u16());
        stopped(child);
    }
    assert_eq!(statuses, [200, 404]);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_not_given_where_nobody_would_look_for_them() {
    let homeserver = Homeserver::start().await;
    let given = [
        "addresses",
        "add",
        "@alice:example.org",
        "alice@example.org",
    ];

    let refused = run(&beside(&homeserver), &given);

    assert_eq!(refused.status.code(), Some(1));
    assert!(
        told(&refused).contains("homeserver.kind"),
        "{}",
        told(&refused)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_of_each_kind_of_homeserver() {
    let homeserver = Homeserver::start().await;
    let url = homeserver.url();
    let url = url.as_str().trim_end_matches('/');
    let mut told = Vec::new();
    for (kind, key) in [
        ("dendrite", String::new()),
        ("webhook", format!("webhook_keys = ['{SECRET}']")),
        (
            "synapse",
            format!("phone_numbers = 'here'\nadmin_token = '{ADMIN_TOKEN}'"),
        ),
    ] {
        let file = format!("[homeserver]\nkind = '{kind}'\nurl = '{url}'\n{key}\n");
        let (child, text) = serve(&with(&file));
        stopped(child);
        let line = text.lines().find(|line| line.contains(url));
        told.push(line.expect("it says which").replace(url, "URL"));
    }
    assert_eq!(
        told,
        [
            "Dendrite, at URL, knows the accounts; which one has which address is kept here.",
            "The webhook at URL knows the accounts, and which one has which address.",
            "Synapse, at URL, knows which account has which email address; phone numbers are kept here.",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_a_dendrite_whose_tokens_are_whose() {
    let homeserver = Homeserver::start().await;
    homeserver.user("@admin:example.org", "secret", "the-admin-s-token");
    let url = homeserver.url();
    let checked = |token: &str| {
        let keys = format!("admin_token = '{token}'\nregistration = 'off'");
        let file = format!("[homeserver]\nkind = 'dendrite'\nurl = '{url}'\n{keys}\n");
        let output = run(&with(&file), &["check"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    let [known, unknown] = [checked("the-admin-s-token"), checked("another-token")];

    let told = "ok      homeserver: the admin token is that of @admin:example.org\n";
    assert!(known.contains(told), "{known}");
    let told = "FAILED  homeserver: the homeserver does not know the admin token; log in";
    assert!(unknown.contains(told), "{unknown}");
}

#[test]
fn addresses_are_given_where_they_are_kept() {
    let url = "url = 'http://127.0.0.1:8008'";
    let synapse = format!(
        "[homeserver]\nkind = 'synapse'\n{url}\nadmin_token = 'tok'\nphone_numbers = 'here'"
    );
    let (dendrite, split) = (
        with(&format!("[homeserver]\nkind = 'dendrite'\n{url}")),
        with(&synapse),
    );
    let gives = |dir: &TempDir, address: &str| {
        let given = ["addresses", "add", "@alice:example.org", address];
        run(dir, &given).status.success()
    };
    assert!(gives(&dendrite, "alice@example.org"));
    assert!(gives(&split, "+447700900001"));
    assert!(!gives(&split, "alice@example.org"));
}
