//! Nobody signs up past threepid: with every configuration that gives it `/register`, no other way to write that path
//! leads to the homeserver.

use super::{
    A, PREFIXES,
    proxied::{HOST, Site},
};

/// What some homeserver could take for `/register` or `/register/available`, behind `/_matrix/client/v3/`.
const BELOW: [&str; 66] = [
    // Letters.
    "%72egister",
    "%52egister",
    "regi%73ter",
    "%72%65%67%69%73%74%65%72",
    "%2572egister",
    "%252572egister",
    "%25%37%32egister",
    "%25%32%35%37%32egister",
    "%7%32egister",
    "register/%61vailable",
    "register/%2561vailable",
    "Register",
    "REGISTER/AVAILABLE",
    // Slashes.
    "/register",
    "//register",
    "register/",
    "register///",
    "register//available",
    "register/available/",
    "register/available//",
    "%2fregister",
    "%2Fregister",
    "register%2f",
    "register%2F",
    "register%252F",
    "register%2favailable",
    "register%252favailable",
    "\\register",
    "%5cregister",
    "register\\",
    "register%5Cavailable",
    // Dots.
    "./register",
    ".//register",
    "%2e/register",
    "%252e/register",
    "x/../register",
    "x/%2e%2e/register",
    "x/%2E./register",
    "x%2f..%2fregister",
    "x/..;/register",
    "login/../register",
    "register/.",
    "register/./",
    "register/x/..",
    "register/x/../",
    "register/x/..;/",
    "register/x/%2e%2e",
    "register/x/%252e%252e/",
    "register/x%2f%2e%2e",
    "register/./available",
    "register/x/../available",
    "register/email/requestToken/../..",
    // What hangs on it.
    "register;x",
    "register;x=y/",
    "register/;x",
    "register%3bx",
    "register/available;x",
    "register%00",
    "register%00x",
    "register%2500",
    "register%20",
    "register%09",
    "register%0d%0a",
    "register%3fx",
    "register#x",
    "register%23x",
];

/// The same where it is the beginning that is odd.
const WHOLE: [&str; 22] = [
    "//_matrix/client/v3/register",
    "/_matrix//client/v3/register",
    "/_matrix/client//v3/register",
    "/_matrix/client/v3;x/register",
    "/_matrix/client;x/v3/register",
    "/_matrix/./client/v3/register",
    "/./_matrix/client/v3/register",
    "/x/../_matrix/client/v3/register",
    "/_matrix/x/../client/v3/register",
    "/_matrix%2fclient/v3/register",
    "/_matrix/client%2fv3%2fregister",
    "/_matrix/client%2fv3/register",
    "/%5fmatrix/client/v3/register",
    "/_matrix/c%6cient/v3/register",
    "/_matrix/client/v%33/register",
    "/_matrix/client/V3/register",
    "/_matrix/client/v1/register",
    "/_matrix/client/api//v1/register",
    "/_matrix/client/api%2fv1/register",
    "/_synapse/client/../../_matrix/client/v3/register",
    "/_synapse/client/..%2f..%2f_matrix/client/v3/register",
    "/.well-known/matrix/../../_matrix/client/v3/register",
];

/// All of these, and some of them with other prefixes, as whole URLs, and with a query.
fn targets() -> Vec<String> {
    let v3 = "/_matrix/client/v3";
    let some = ["%72egister", "register/", "/register", "register;x"];
    let mut targets: Vec<_> = BELOW.map(|path| format!("{v3}/{path}")).into();
    targets.extend(WHOLE.map(str::to_owned));
    for base in [
        "/_matrix/client/r0",
        "/_matrix/client/unstable",
        "/_matrix/client/api/v1",
        "https://matrix.example.org/_matrix/client/v3",
        "http://MATRIX.example.org:80/_matrix/client/v3",
    ] {
        targets.extend(some.map(|path| format!("{base}/{path}")));
        targets.extend(some.map(|path| format!("{base}/{path}?kind=user")));
    }
    targets
}

#[test]
fn nobody_signs_up_past_threepid() {
    for site in Site::signing_up() {
        for target in targets() {
            for version in site.http_versions() {
                // What is asked for is told apart from the URL, so that curl does not tidy it up.
                let host = format!("Host: {HOST}");
                let options = [version, "--request-target", &target, "--header", &host];
                let answer = site.ask(A, "/", &[&options[..], &["--data", "{}"]].concat());

                let told = format!("{} {version} {target}: {answer:?}", site.name);
                let is_refused = match answer.status {
                    400 => true,
                    404 => answer.json()["errcode"] == "M_UNRECOGNIZED",
                    // A request that HTTP/2 cannot carry.
                    0 => *version == "--http2",
                    _ => answer.is_threepid_s(),
                };
                assert!(is_refused, "{told}");
            }
        }
        let asked = site.asked_of_homeserver();
        assert!(asked.is_empty(), "{}: {asked:?}", site.name);
    }
}

#[test]
fn signing_up_is_threepid_s_however_it_is_asked_for() {
    for site in Site::signing_up() {
        for prefix in PREFIXES {
            let path = format!("/_matrix/client/{prefix}/register");
            let whole = format!("https://{HOST}{path}?kind=guest");
            for options in [
                &["--request", "PUT"][..],
                &["--request", "GET"],
                &["--request", "DELETE"],
                &["--request", "REGISTER"],
                &["--header", "Host: Matrix.Example.ORG"],
                &["--header", "Host: MATRIX.example.org:8448"],
                &["--header", "Host: matrix.example.org:443"],
                &["--header", "X-HTTP-Method-Override: GET"],
                &[
                    "--request-target",
                    &whole,
                    "--header",
                    "Host: matrix.example.org",
                ],
            ] {
                let options = [&["--http1.1"], options].concat();
                let answer = site.ask(A, &path, &options);

                let told = format!("{} {path} {options:?}: {answer:?}", site.name);
                assert!(answer.is_threepid_s(), "{told}");
            }
        }
        let asked = site.asked_of_homeserver();
        assert!(asked.is_empty(), "{}: {asked:?}", site.name);
    }
}
