//! nginx and Caddy with the configurations that `deploy/` offers: what comes through, what does not, and what is logged.

use serde_json::json;

use self::proxied::{HOST, Site};

#[path = "support/proxied.rs"]
mod proxied;

const REGISTER: &str = "/_matrix/client/v3/register/email/requestToken";
const SUBMIT: &str = "/_threepid/email/submitToken";
const A: &str = "127.0.0.2";
const B: &str = "127.0.0.3";

#[test]
fn tokens_are_asked_for_under_every_prefix() {
    for site in Site::both() {
        let mut client = 1;
        for prefix in ["v3", "r0", "unstable", "api/v1"] {
            for purpose in ["register", "account/password", "account/3pid"] {
                client += 1;
                let from = format!("127.0.1.{client}");
                let path = format!("/_matrix/client/{prefix}/{purpose}/email/requestToken");
                let email = format!("alice{client}@example.org");

                let answer = site.request_token(&from, &path, &email);

                assert_eq!(answer.status, 200, "{:?} {path}: {answer:?}", site.proxy);
                let submit_url = format!("https://{HOST}{SUBMIT}");
                assert_eq!(answer.json()["submit_url"], submit_url, "{path}");
            }
        }
    }
}

#[test]
fn phone_numbers_are_threepid_s_too() {
    for site in Site::both() {
        for purpose in ["register", "account/password", "account/3pid"] {
            let path = format!("/_matrix/client/v3/{purpose}/msisdn/requestToken");

            let answer = site.ask(A, &path, &["--data", "{}"]);

            // The homeserver behind it would say 200.
            assert_eq!(answer.status, 400, "{:?} {path}: {answer:?}", site.proxy);
            assert!(answer.json()["errcode"].is_string(), "{path}: {answer:?}");
        }
        let submitted = site.ask(A, "/_threepid/msisdn/submitToken", &["--data", "{}"]);
        assert!(submitted.json()["errcode"].is_string(), "{submitted:?}");
    }
}

#[test]
fn links_and_codes_come_through() {
    for site in Site::both() {
        let sid = site.request_token(A, REGISTER, "alice@example.org").json()["sid"].clone();
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
    for site in Site::both() {
        for path in [
            "/_threepid",
            "/_threepid/",
            "/_threepid/mailbox",
            "/_threepid/mailbox/messages",
            "/_threepid/health/live",
            "/_threepid/health/ready",
            "/_threepid/admin/v1/x",
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
fn a_link_that_is_written_otherwise_opens_nothing() {
    for site in Site::both() {
        site.request_token(A, REGISTER, "alice@example.org");
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
    for site in Site::both() {
        for path in [
            "/_matrix/client/versions",
            "/_matrix/client/v3/register",
            "/_matrix/client/v3/register/msisdn/requestTokens",
            "/_matrix/client/v3/account/3pid?access_token=x",
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
    for site in Site::both() {
        let mut asked = 0;
        let mut ask = |from, forged: &[&str]| {
            asked += 1;
            let email = format!("alice{asked}@example.org");
            let body = json!({ "client_secret": "monkeys", "email": email, "send_attempt": 1 });
            let body = body.to_string();
            let options = [&["--data", &body][..], forged].concat();
            site.ask(from, REGISTER, &options).status
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
    for site in Site::both() {
        let body = "x".repeat(65_537);
        for path in [REGISTER, SUBMIT] {
            let answer = site.ask(A, path, &["--data", &body]);

            assert_eq!(answer.status, 413, "{:?} {path}: {answer:?}", site.proxy);
            assert_eq!(answer.json()["errcode"], "M_TOO_LARGE");
        }
    }
}

#[test]
fn no_log_holds_a_secret_not_even_when_threepid_is_down() {
    for mut site in Site::both() {
        site.request_token(A, REGISTER, "alice@example.org");
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
