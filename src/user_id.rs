//! The form of a user id.

use crate::server_name::ServerName;

/// The longest user id, in bytes (Matrix appendices, "User Identifiers").
const LONGEST: usize = 255;

/// Whether it is a user id of the form `@alice:example.org`; historical ones may hold any printable character before the
/// colon.
pub(crate) fn is_user_id(text: &str) -> bool {
    let is_printable = |letter: char| !letter.is_whitespace() && !letter.is_control();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".-:[]".contains(letter);
    let parts = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    parts.is_some_and(|(name, server)| {
        !name.is_empty()
            && name.chars().all(is_printable)
            && !server.is_empty()
            && server.chars().all(is_part)
            && text.len() <= LONGEST
    })
}

/// The homeserver of a user id: all after the first colon, so that nobody is taken for a user of a server whose name
/// merely ends like theirs. `None` if it is no user id.
///
/// The name before the colon must be of the historical grammar, printable ASCII (Matrix appendices, "Historical User IDs"):
/// what other homeservers call their users is mailed to strangers, and all of it must be seen for what it is.
pub(crate) fn server_of(user_id: &str) -> Option<ServerName> {
    let (name, server) = user_id.split_once(':').filter(|_| is_user_id(user_id))?;
    let is_historical = name.bytes().all(|byte| byte.is_ascii_graphic());
    server.parse().ok().filter(|_| is_historical)
}

/// The host of a user's homeserver, in lower case and without a port: what limits take for one homeserver, since whoever has a
/// host has all its ports. `None` if it is no user id.
pub(crate) fn host_of(user_id: &str) -> Option<String> {
    server_of(user_id).map(|server| server.host().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_have_their_form() {
        for good in [
            "@alice:example.org",
            "@a:localhost:8448",
            "@ALICE/x:[::1]:1",
        ] {
            assert!(is_user_id(good), "{good}");
        }
        let long = format!("@{}:example.org", "a".repeat(255));
        for bad in [
            "",
            "alice",
            "@alice",
            "@:example.org",
            "@alice:",
            "@a b:c",
            "@a:b c",
            "a@b.org",
            &long,
        ] {
            assert!(!is_user_id(bad), "{bad}");
        }
    }

    #[test]
    fn the_server_is_all_after_the_first_colon() {
        for (user_id, server) in [
            ("@a:b.org", "b.org"),
            ("@a:b.org:8448", "b.org:8448"),
            ("@a:[::1]:1", "[::1]:1"),
            ("@!\"A/~:b.org", "b.org"),
        ] {
            assert_eq!(server_of(user_id).unwrap().as_str(), server);
        }
        for user_id in [
            "a:b.org",
            "@:b.org",
            "@a:evil:b.org",
            "@a:b.org/x",
            "@a:",
            "@é:b.org",
            "@your\u{2800}bank:b.org",
            "@a\u{200b}:b.org",
            "@a\u{61c}:b.org",
        ] {
            assert_eq!(server_of(user_id), None, "{user_id}");
        }
    }
    #[test]
    fn a_host_is_the_same_however_it_is_written_and_whatever_the_port() {
        for (user_id, host) in [
            ("@a:b.org", "b.org"),
            ("@a:B.Org:8448", "b.org"),
            ("@a:192.0.2.1:1", "192.0.2.1"),
            ("@a:[2001:DB8::1]:1", "[2001:db8::1]"),
            ("@a:[2001:db8:0::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(host_of(user_id).unwrap(), host);
        }
        assert_eq!(host_of("@a:evil:b.org"), None);
    }
}
