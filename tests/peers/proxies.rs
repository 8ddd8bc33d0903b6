//! nginx, Caddy and `HAProxy` with the configurations that `deploy/` offers: what comes through, what does not, and what
//! is logged.

use serde_json::json;

use self::proxied::{Answer, HOST, Recipe, Site};

#[path = "proxies_identity.rs"]
mod identity;
#[path = "support/proxied.rs"]
mod proxied;
#[path = "proxies_register.rs"]
mod register;

const ADD: &str = "/_matrix/client/v3/account/3pid/email/requestToken";
const SUBMIT: &str = "/_threepid/email/submitToken";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const A: &str = "127.0.0.2";
const B: &str = "127.0.0.3";
const PREFIXES: [&str; 4] = ["v3", "r0", "unstable", "api/v1"];

/// What is threepid's below each prefix with every recipe.
const ADDING: [&str; 1] = ["account/3pid/email/requestToken"];

/// What is threepid's too where people sign up through it.
const SIGNING_UP: [&str; 10] = [
    "register/email/requestToken",
    "register/msisdn/requestToken",
    "account/password/email/requestToken",
    "account/password/msisdn/requestToken",
    "account/3pid/msisdn/requestToken",
    "account/password",
    "auth/m.login.email.identity/fallback/web",
    "auth/m.login.msisdn/fallback/web",
    "register",
    "register/available",
];

/// What is threepid's too where it has the addresses of accounts.
const ADDRESSES: [&str; 6] = [
    "account/3pid",
    "account/3pid/add",
    "account/3pid/delete",
    "account/3pid/bind",
    "account/3pid/unbind",
    "capabilities",
];
const SUBMIT_OF_SYNAPSE: &str = "/_matrix/client/unstable/add_threepid/msisdn/submit_token";
const VERSIONS: &str = "/_matrix/client/versions";

/// Every path of clients that some recipe gives to threepid, and whether this one does.
fn shared_paths(recipe: Recipe) -> impl Iterator<Item = (String, bool)> {
    let adding = ADDING.map(|path| (path, true));
    let signing_up = SIGNING_UP.map(|path| (path, recipe != Recipe::Delegate));
    let addresses = ADDRESSES.map(|path| (path, recipe == Recipe::Sidecar));
    let below = adding.into_iter().chain(signing_up).chain(addresses);
    let prefixed = below.flat_map(|(path, is_ours)| {
        PREFIXES.map(|prefix| (format!("/_matrix/client/{prefix}/{path}"), is_ours))
    });
    let alone = [SUBMIT_OF_SYNAPSE, VERSIONS];
    prefixed.chain(alone.map(|path| (path.to_owned(), recipe == Recipe::Sidecar)))
}

#[test]
fn tokens_are_asked_for_under_every_prefix() {
    for site in Site::all() {
        for (client, prefix) in PREFIXES.iter().enumerate() {
            let from = format!("127.0.1.{}", client + 1);
            let path = format!("/_matrix/client/{prefix}/account/3pid/email/requestToken");
            let email = format!("alice{client}@example.org");

            let answer = site.request_token(&from, &path, &email);

            assert_eq!(answer.status, 200, "{} {path}: {answer:?}", site.name);
            let submit_url = format!("https://{HOST}{SUBMIT}");
            assert_eq!(answer.json()["submit_url"], submit_url, "{path}");
        }
    }
}

#[test]
fn each_recipe_gives_threepid_what_is_its_and_the_homeserver_the_rest() {
    for site in Site::all() {
        for (path, is_ours) in shared_paths(site.recipe) {
            let answer = site.ask(A, &format!("{path}?session=x"), &["--data", "{}"]);

            let told = format!("{} {path}: {answer:?}", site.name);
            assert_eq!(answer.is_threepid_s(), is_ours, "{told}");
            let is_homeserver_s = answer.body.starts_with("homeserver:");
            assert_eq!(is_homeserver_s, !is_ours, "{told}");
        }
    }
}

#[test]
fn browsers_ask_for_leave_where_they_will_ask_then() {
    for site in Site::all() {
        let of_v3 = |(path, _): &(String, bool)| path.contains("/v3/");
        for (path, is_ours) in shared_paths(site.recipe).filter(of_v3) {
            let preflight = site.ask(A, &path, &["--request", "OPTIONS"]);

            let told = format!("{} {path}: {preflight:?}", site.name);
            let is_homeserver_s = preflight.body.starts_with("homeserver:");
            assert_eq!(is_homeserver_s, !is_ours, "{told}");
        }
    }
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

            let told = format!("{} {path}: {answer:?}", site.name);
            assert!([400, 404].contains(&answer.status), "{told}");
            assert!(!answer.is_threepid_s(), "{told}");
        }
    }
}

fn signs_up(path: &str) -> bool {
    path.ends_with("/register") || path.ends_with("/register/available")
}

#[test]
fn a_path_with_a_line_break_behind_it_is_not_threepid_s() {
    for site in Site::all() {
        let of_v3 = |(path, _): &(String, bool)| path.contains("/v3/") && !signs_up(path);
        for (path, _) in shared_paths(site.recipe).filter(of_v3) {
            let path = format!("{path}%0a");

            let answer = site.ask(A, &path, &[]);

            let told = format!("homeserver: {path}");
            assert_eq!((answer.status, answer.body), (200, told), "{}", site.name);
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

            let told = format!("{} {path}: {answer:?}", site.name);
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

            assert!(answer.status >= 400, "{} {path}: {answer:?}", site.name);
        }
        assert!(site.ask(A, &link, &[]).body.contains("<button"), "pending");
    }
}

#[test]
fn the_rest_of_matrix_reaches_the_homeserver_as_it_was_sent() {
    for site in Site::all() {
        for path in [
            "/_matrix/client/v3/register/msisdn/requestTokens",
            "/_matrix/client/v3/registers",
            "/_matrix/client/v1/register/m.login.registration_token/validity?token=x",
            "/_matrix/client/v3/login/sso/redirect?redirectUrl=https://example.org/%61/../register",
            "/_matrix/client/v3/directory/room/%23register:example.org",
            "/_matrix/client/v1/media/download/example.org/x/register%20form.pdf",
            "/_matrix/client/v3/rooms/!a:example.org/state/x/100%25%20%F0%9F%98%80",
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
            assert_eq!((answer.status, answer.body), (200, told), "{}", site.name);
        }
    }
}

#[test]
fn nobody_changes_the_protocol_to_leave_the_proxy_behind() {
    for site in Site::all() {
        let h2c = [
            "--header",
            "Connection: Upgrade",
            "--header",
            "Upgrade: h2c",
        ];

        site.ask(A, WHOAMI, &[&h2c[..], &["--http1.1"]].concat());

        let asked = site.asked_of_homeserver();
        assert_eq!(asked, [format!("GET {WHOAMI}")], "{}", site.name);
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

        assert_eq!(statuses, [200, 200, 429, 429, 429, 200], "{}", site.name);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_in_the_client_s_words() {
    for site in Site::all() {
        let chunked = ["--header", "Transfer-Encoding: chunked", "--http1.1"];
        let small = "x".repeat(65_537);
        let large = "x".repeat(100_000);
        for (path, body, how) in [
            (ADD, &small, &[][..]),
            (SUBMIT, &large, &[]),
            (SUBMIT, &small, &["--http1.1"]),
            (ADD, &small, &chunked),
        ] {
            let answer = site.ask(A, path, &[&["--data", body], how].concat());

            assert_eq!(answer.status, 413, "{} {path}: {answer:?}", site.name);
            assert_eq!(answer.json()["errcode"], "M_TOO_LARGE");
        }
    }
}

/// Whether the proxy says that threepid is not there.
fn is_lost(answer: &Answer) -> bool {
    [502, 503].contains(&answer.status)
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
            site.ask(A, WHOAMI, &["--header", &referer]);
            let large = "x".repeat(65_537);
            site.ask(A, &link, &["--data", &large]);
        };

        ask_all(&site);
        site.lose_threepid();
        ask_all(&site);
        let lost = site.ask(A, &link, &[]);
        assert!(is_lost(&lost), "{} {lost:?}", site.name);

        let logs = site.logs();
        assert!(logs.contains("/_threepid/..."), "{logs}");
        assert!(logs.contains(WHOAMI), "{logs}");
        let secret = link.rsplit('/').next().unwrap();
        for word in [secret, &code, "monkeys"] {
            assert!(!logs.contains(word), "{word} in {}: {logs}", site.name);
        }
    }
}

#[test]
fn no_log_holds_what_is_asked_behind_a_path() {
    for mut site in Site::all() {
        let shared = shared_paths(site.recipe).map(|(path, _)| path);
        let shared = shared.filter(|path| !path.contains("/r0/") && !path.contains("/api/v1/"));
        let otherwise = [
            SUBMIT,
            WHOAMI,
            "/_matrix/client/v3/%72egister",
            "/_matrix/client/v3/auth/m%2elogin.email.identity/fallback/web",
            "/_%74hreepid/link/monkeys",
            "/elsewhere",
        ];
        for path in shared.chain(otherwise.map(str::to_owned)) {
            site.ask(A, &format!("{path}?a=%3F&b=/?session=monkeys"), &[]);
        }
        site.ask(A, WHOAMI, &[]);
        site.lose_threepid();
        for path in [ADD, SUBMIT] {
            let answer = site.ask(A, &format!("{path}?session=monkeys"), &[]);
            assert!(is_lost(&answer), "{} {path}: {answer:?}", site.name);
        }

        let logs = site.logs();
        assert!(logs.contains(WHOAMI), "{logs}");
        assert!(logs.contains("/fallback/web"), "{logs}");
        assert!(!logs.contains("monkeys"), "{}: {logs}", site.name);
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
        assert!(!logs.contains("monkeys"), "{}: {logs}", site.name);
    }
}
