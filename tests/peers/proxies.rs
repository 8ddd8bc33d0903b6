//! nginx and Caddy with the configurations that `deploy/` offers: what comes through, what does not, and what is logged.

use serde_json::json;

use self::proxied::{HOST, Site};

#[path = "support/proxied.rs"]
mod proxied;

const ADD: &str = "/_matrix/client/v3/account/3pid/email/requestToken";
const SUBMIT: &str = "/_threepid/email/submitToken";
const A: &str = "127.0.0.2";
const B: &str = "127.0.0.3";
const PREFIXES: [&str; 4] = ["v3", "r0", "unstable", "api/v1"];

/// What a sidecar has to itself below each prefix.
const ACCOUNTS: [&str; 14] = [
    "register/email/requestToken",
    "register/msisdn/requestToken",
    "account/password/email/requestToken",
    "account/password/msisdn/requestToken",
    "account/3pid/email/requestToken",
    "account/3pid/msisdn/requestToken",
    "account/password",
    "account/3pid",
    "account/3pid/add",
    "account/3pid/delete",
    "account/3pid/bind",
    "account/3pid/unbind",
    "auth/m.login.email.identity/fallback/web",
    "auth/m.login.msisdn/fallback/web",
];
const SUBMIT_OF_SYNAPSE: &str = "/_matrix/client/unstable/add_threepid/msisdn/submit_token";

#[test]
fn tokens_are_asked_for_under_every_prefix() {
    for site in Site::all() {
        for (client, prefix) in PREFIXES.iter().enumerate() {
            let from = format!("127.0.1.{}", client + 1);
            let path = format!("/_matrix/client/{prefix}/account/3pid/email/requestToken");
            let email = format!("alice{client}@example.org");

            let answer = site.request_token(&from, &path, &email);

            assert_eq!(answer.status, 200, "{:?} {path}: {answer:?}", site.proxy);
            let submit_url = format!("https://{HOST}{SUBMIT}");
            assert_eq!(answer.json()["submit_url"], submit_url, "{path}");
        }
    }
}

#[test]
fn beside_a_homeserver_all_addresses_and_passwords_are_threepid_s() {
    for site in Site::sidecars() {
        let prefixed = PREFIXES
            .iter()
            .flat_map(|prefix| ACCOUNTS.map(|path| format!("/_matrix/client/{prefix}/{path}")));
        for path in prefixed.chain([SUBMIT_OF_SYNAPSE.to_owned()]) {
            let answer = site.ask(A, &format!("{path}?session=x"), &["--data", "{}"]);
            let preflight = site.ask(A, &path, &["--request", "OPTIONS"]);

            let told = format!("{:?} {path}: {answer:?} {preflight:?}", site.proxy);
            assert!(answer.is_threepid_s(), "{told}");
            assert_ne!(answer.json()["errcode"], "M_UNRECOGNIZED", "{told}");
            assert!(!preflight.body.contains("homeserver"), "{told}");
        }
    }
}

#[test]
fn as_a_delegate_threepid_has_what_synapse_lacks_and_no_more() {
    let site = Site::delegate();
    for prefix in PREFIXES {
        for path in ACCOUNTS {
            let path = format!("/_matrix/client/{prefix}/{path}");

            let answer = site.ask(A, &path, &["--data", "{}"]);
            let preflight = site.ask(A, &path, &["--request", "OPTIONS"]);

            let is_ours = path.ends_with("account/3pid/email/requestToken");
            assert_eq!(answer.is_threepid_s(), is_ours, "{path}: {answer:?}");
            let is_homeserver_s = preflight.body.starts_with("homeserver:");
            assert_eq!(is_homeserver_s, !is_ours, "{path}: {preflight:?}");
        }
    }
    let submitted = site.ask(A, SUBMIT_OF_SYNAPSE, &["--data", "{}"]);
    assert!(submitted.body.starts_with("homeserver:"), "{submitted:?}");
}

#[test]
fn codes_for_phone_numbers_are_threepid_s_too() {
    for site in Site::all() {
        let submitted = site.ask(A, "/_threepid/msisdn/submitToken", &["--data", "{}"]);
        assert!(submitted.json()["errcode"].is_string(), "{submitted:?}");
    }
}

#[test]
fn links_and_codes_come_through() {
    for site in Site::all() {
        let sid = site.request_token(A, ADD, "alice@example.org").json()["sid"].clone();
        let (link, code) = site.mail("alice@example.org");
        let shown = json!({ "sid": sid, "client_secret": "monkeys", "token": code });
        let wrong = format!("{SUBMIT}?sid=S&client_secret=monkeys&token=1");

        let landing = site.ask(A, &link, &[]);
        let page = site.ask(A, &wrong, &[]);
        let submitted = site.ask(A, SUBMIT, &["--data", &shown.to_string()]);
        let done = site.ask(A, &link, &["--data", ""]);

        assert!(landing.status == 200 && landing.body.contains("<button"));
        assert!(page.status == 404 && page.body.contains("<h1>"), "{page:?}");
        assert_eq!(submitted.json(), json!({ "success": true }));
        assert!(done.status == 200 && done.body.contains("Done"), "{done:?}");
    }
}

#[test]
fn nothing_else_of_threepid_is_reached() {
    for site in Site::all() {
        for path in [
            "/_threepid",
            "/_threepid/",
            "/_threepid/mailbox",
            "/_threepid/mailbox/messages",
            "/_threepid/health/live",
            "/_threepid/health/ready",
            "/_threepid/admin/v1/x",
            "/_threepid/homeserver/v1/session",
            "/_threepid/link",
            "/_threepid/link/",
            "/_threepid/link/../health/live",
            "/_threepid/link/%2e%2e/health/live",
            "/_threepid/link/..%2fhealth%2flive",
            "/_threepid/link/a/../../health/live",
            "/_threepid/link/%252e%252e/health/live",
            "/_threepid/link/..;/health/live",
            "/_threepid/link/a%0ab",
            "/_threepid//link/../health/live",
            "/_threepid//health/live",
            "//_threepid/health/live",
            "/%5fthreepid/health/live",
            "/_matrix/../_threepid/health/live",
            "/_matrix/%2e%2e/_threepid/health/live",
            "/_matrix/client/v3/register/email/requestToken/../../../../../../_threepid/health/live",
            "/_threepid/email/submitToken/../../health/live",
            "/_THREEPID/health/live",
            "/metrics",
            "/",
        ] {
            let answer = site.ask(A, path, &[]);

            let told = format!("{:?} {path}: {answer:?}", site.proxy);
            assert!([400, 404].contains(&answer.status), "{told}");
            assert!(!answer.body.contains("errcode"), "{told}");
        }
    }
}

#[test]
fn a_path_with_a_line_break_behind_it_is_not_threepid_s() {
    for site in Site::all() {
        for path in ACCOUNTS {
            let path = format!("/_matrix/client/v3/{path}%0a");

            let answer = site.ask(A, &path, &[]);

            let told = format!("homeserver: {path}");
            assert_eq!(
                (answer.status, answer.body),
                (200, told),
                "{:?}",
                site.proxy
            );
        }
    }
}

#[test]
fn what_administrators_and_homeservers_use_is_not_reached() {
    for site in Site::all() {
        for path in [
            "/_synapse/admin/v1/server_version",
            "/_synapse/client/../admin/v1/server_version",
            "/_synapse/client/..%2fadmin/v1/server_version",
            "/_synapse%2fadmin/v1/server_version",
            "/_matrix/../_synapse/admin/v1/server_version",
            "/_matrix/..%2f_synapse/admin/v1/server_version",
            "/_matrix/%2e%2e/_synapse/admin/v1/server_version",
            // Below /_matrix for whoever resolves it, and not for whoever reads it as it stands.
            "/_synapse/admin/v2/users/..%2f..%2f..%2f..%2f_matrix%2fx",
            "/_synapse/admin/v2/users/../../../../_matrix/x",
            "/_matrix/identity/api/v1",
            "/_matrix/identity/api/v1/3pid/getValidated3pid?sid=1&client_secret=x",
            "/_matrix/identity/api/v1/validate/email/requestToken",
            "/_matrix/client/../identity/api/v1/validate/email/requestToken",
            "/_matrix/identity/api%2fv1/validate/email/requestToken",
        ] {
            let answer = site.ask(A, path, &[]);

            let told = format!("{:?} {path}: {answer:?}", site.proxy);
            assert!([400, 404].contains(&answer.status), "{told}");
        }
    }
}

#[test]
fn a_link_that_is_written_otherwise_opens_nothing() {
    for site in Site::all() {
        site.request_token(A, ADD, "alice@example.org");
        let (link, _) = site.mail("alice@example.org");
        for path in [
            link.replace("/link", "//link"),
            link.replace("/link/", "/link//"),
            format!("/{link}"),
            format!("{link}/"),
            format!("{link}/x"),
            format!("{link}%00"),
            format!("/_threepid/mailbox/..{link}"),
            format!("{SUBMIT}/{link}"),
        ] {
            let answer = site.ask(A, &path, &["--data", ""]);

            assert!(answer.status >= 400, "{:?} {path}: {answer:?}", site.proxy);
        }
        assert!(site.ask(A, &link, &[]).body.contains("<button"), "pending");
    }
}

#[test]
fn the_rest_of_matrix_reaches_the_homeserver_as_it_was_sent() {
    for site in Site::all() {
        for path in [
            "/_matrix/client/versions",
            "/_matrix/client/v3/register",
            "/_matrix/client/v3/register/msisdn/requestTokens",
            "/_matrix/client/v3/account/whoami?access_token=x",
            "/_matrix/client/v3/account/3pid/",
            "/_matrix/client/v3/account/3pids",
            "/_matrix/client/v3/account/password_policy",
            "/_matrix/client/v3/auth/m.login.terms/fallback/web?session=x",
            "/_matrix/client/v3/add_threepid/msisdn/submit_token",
            "/_synapse/client/saml2/metadata.xml",
            "/.well-known/matrix/client",
            "/_matrix/client/v3/rooms/!a%2Fb:example.org/state/m.room.member/@x:y",
            "/_matrix/federation/v1/version",
        ] {
            let answer = site.ask(A, path, &[]);

            let told = format!("homeserver: {path}");
            assert_eq!((answer.status, answer.body), (200, told));
        }
    }
}

#[test]
fn a_limit_holds_for_the_client_and_not_for_all_behind_the_proxy() {
    for site in Site::all() {
        let mut asked = 0;
        let mut ask = |from, forged: &[&str]| {
            asked += 1;
            let email = format!("alice{asked}@example.org");
            let body = json!({ "client_secret": "monkeys", "email": email, "send_attempt": 1 });
            let body = body.to_string();
            let options = [&["--data", &body][..], forged].concat();
            site.ask(from, ADD, &options).status
        };
        let forged = ["--header", "X-Forwarded-For: 198.51.100.7"];
        let also_forged = ["--header", "Forwarded: for=198.51.100.8"];

        let statuses = [
            ask(A, &[]),
            ask(A, &forged),
            ask(A, &[]),
            ask(A, &forged),
            ask(A, &also_forged),
            ask(B, &[]),
        ];

        assert_eq!(statuses, [200, 200, 429, 429, 429, 200], "{:?}", site.proxy);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_in_the_client_s_words() {
    for site in Site::all() {
        let body = "x".repeat(65_537);
        for path in [ADD, SUBMIT] {
            let answer = site.ask(A, path, &["--data", &body]);

            assert_eq!(answer.status, 413, "{:?} {path}: {answer:?}", site.proxy);
            assert_eq!(answer.json()["errcode"], "M_TOO_LARGE");
        }
    }
}

#[test]
fn no_log_holds_a_secret_not_even_when_threepid_is_down() {
    for mut site in Site::all() {
        site.request_token(A, ADD, "alice@example.org");
        let (link, code) = site.mail("alice@example.org");
        let submit = format!("{SUBMIT}?sid=S&client_secret=monkeys&token={code}");
        let referer = format!("Referer: https://{HOST}{link}");
        let ask_all = |site: &Site| {
            for path in [link.clone(), format!("/{link}"), submit.clone()] {
                site.ask(A, &path, &["--header", &referer]);
            }
            site.ask(A, "/_matrix/client/versions", &["--header", &referer]);
            let large = "x".repeat(65_537);
            site.ask(A, &link, &["--data", &large]);
        };

        ask_all(&site);
        site.lose_threepid();
        ask_all(&site);
        assert_eq!(site.ask(A, &link, &[]).status, 502, "{:?}", site.proxy);

        let logs = site.logs();
        assert!(logs.contains("/_threepid/..."), "{logs}");
        assert!(logs.contains("/_matrix/client/versions"), "{logs}");
        let secret = link.rsplit('/').next().unwrap();
        for word in [secret, &code, "monkeys"] {
            assert!(!logs.contains(word), "{word} in {:?}: {logs}", site.proxy);
        }
    }
}

#[test]
fn no_log_holds_what_is_asked_behind_a_path() {
    for mut site in Site::all() {
        let prefixed = PREFIXES
            .iter()
            .flat_map(|prefix| ACCOUNTS.map(|path| format!("/_matrix/client/{prefix}/{path}")));
        let otherwise = [
            SUBMIT,
            SUBMIT_OF_SYNAPSE,
            "/_matrix/client/v3/auth/m%2elogin.email.identity/fallback/web",
            "/_matrix/client/v3/account/whoami",
            "/_%74hreepid/link/monkeys",
            "/elsewhere",
        ];
        for path in prefixed.chain(otherwise.map(str::to_owned)) {
            site.ask(A, &format!("{path}?a=%3F&b=/?session=monkeys"), &[]);
        }
        site.ask(A, "/_matrix/client/versions", &[]);
        site.lose_threepid();
        for path in [ADD, SUBMIT] {
            let answer = site.ask(A, &format!("{path}?session=monkeys"), &[]);
            assert_eq!(answer.status, 502, "{:?} {path}: {answer:?}", site.proxy);
        }

        let logs = site.logs();
        assert!(logs.contains("/_matrix/client/versions"), "{logs}");
        assert!(logs.contains("/fallback/web"), "{logs}");
        assert!(!logs.contains("monkeys"), "{:?}: {logs}", site.proxy);
    }
}

#[test]
fn no_log_holds_where_a_browser_goes_next() {
    for site in Site::all() {
        let next_link = "https://app.example.org/?session=monkeys";
        let body = json!({ "client_secret": "s3cret", "email": "alice@example.org", "send_attempt": 1, "next_link": next_link });
        site.ask(A, ADD, &["--data", &body.to_string()]);
        let (link, _) = site.mail("alice@example.org");

        let done = site.ask(A, &link, &["--data", "", "--include"]);

        assert!(done.body.contains(next_link), "{done:?}");
        let logs = site.logs();
        assert!(!logs.contains("monkeys"), "{:?}: {logs}", site.proxy);
    }
}
