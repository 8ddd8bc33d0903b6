//! The configurations for an identity server with a name of its own.

use serde_json::json;

use super::{A, B, proxied::Site};

const PREFIX: &str = "/_matrix/identity/v2";

#[test]
fn the_api_of_an_identity_server_and_its_links_come_through() {
    for site in Site::identity() {
        let get = |path: &str| site.ask(A, path, &[]).json();
        assert_eq!(get(PREFIX), json!({}), "{}", site.name);
        assert!(get("/_matrix/identity/versions")["versions"].is_array());
        for spelling in ["ed25519:0", "ed25519%3A0"] {
            let shown = get(&format!("{PREFIX}/pubkey/{spelling}"));
            let key = shown["public_key"].as_str().expect(&site.name);
            let asked = format!("{PREFIX}/pubkey/isvalid?public_key={key}");
            assert_eq!(get(&asked), json!({ "valid": true }), "{}", site.name);
        }
        for path in [
            "hash_details",
            "3pid/getValidated3pid?sid=a&client_secret=b",
            "account",
        ] {
            let refused = get(&format!("{PREFIX}/{path}"));
            assert_eq!(refused["errcode"], "M_UNAUTHORIZED", "{} {path}", site.name);
        }
        let link = site.ask(A, "/_threepid/link/abc", &[]);
        assert!(
            link.status == 404 && link.is_threepid_s(),
            "{} {link:?}",
            site.name
        );
    }
}

#[test]
fn a_lookup_may_be_large_and_is_not_cut_off() {
    for site in Site::identity() {
        let folder = tempfile::tempdir().expect("a folder");
        let body = folder.path().join("body.json");
        for (kib, is_taken) in [(200, true), (3000, false)] {
            std::fs::write(&body, vec![b' '; kib * 1024]).expect("the folder can be written");
            let data = format!("@{}", body.display());
            let path = format!("{PREFIX}/account/register");

            let answer = site.ask(A, &path, &["--data-binary", &data]);

            // Of register 64 KiB are taken: threepid says so itself, or the proxy does where it is more than any call may have.
            let told = format!("{} {kib} {answer:?}", site.name);
            if is_taken {
                assert_eq!(answer.json()["errcode"], "M_TOO_LARGE", "{told}");
            } else {
                assert!(answer.status == 413 || answer.status == 0, "{told}");
            }
        }
    }
}

#[test]
fn an_identity_server_s_site_has_nothing_else() {
    for site in Site::identity() {
        for path in [
            "/",
            "/_matrix/client/v3/register/email/requestToken",
            "/_matrix/identity/api/v1/validate/email/requestToken",
            "/_matrix/identity",
            "/_matrix/identity/v2x",
            "//_matrix/identity/v2",
            "/_threepid/mailbox",
            "/_threepid/mailbox/messages",
            "/_threepid/homeserver/v1/session",
            "/_threepid/health/ready",
            "/_threepid/link/../mailbox/messages",
            "/_matrix/identity/v2/../../../_threepid/mailbox/messages",
            "/_matrix/identity/v2/%2e%2e/%2e%2e/%2e%2e/_threepid/mailbox/messages",
            "/_synapse/admin/v1/register",
        ] {
            let answer = site.ask(A, path, &[]);

            let told = format!("{} {path} {answer:?}", site.name);
            assert!([400, 404].contains(&answer.status), "{told}");
            assert!(!answer.body.starts_with('['), "{told}");
        }
        assert!(site.asked_of_homeserver().is_empty());
    }
}

#[test]
fn no_log_of_an_identity_server_holds_a_secret() {
    for mut site in Site::identity() {
        let secret = |site: &Site, from| {
            let query = format!("{PREFIX}/3pid/getValidated3pid?sid=a&client_secret=hunter2");
            site.ask(from, &query, &["--referer", "https://hunter2.example/"]);
            site.ask(from, "/_threepid/link/hunter2", &[]);
            site.ask(from, "/_Threepid/link/hunter2", &[]);
            site.ask(from, &format!("{PREFIX}/account?access_token=hunter2"), &[]);
        };
        secret(&site, A);
        site.lose_threepid();
        secret(&site, B);

        let logs = site.logs();
        assert!(logs.contains("account"), "{}: {logs}", site.name);
        assert!(!logs.contains("hunter2"), "{}: {logs}", site.name);
    }
}
