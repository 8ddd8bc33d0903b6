//! Calls to a homeserver as everybody may make them: the Client-Server API, in the name of whoever asks.

mod account;
mod answer;
mod client;
mod greeting;
pub(super) mod policy;
mod registration;

pub(super) use self::{
    account::{reauthenticated, requester},
    answer::{Answer, Asked},
    client::{Call, Client, LONGEST_USER_AGENT, is_base, segment},
    greeting::{made_up, made_up_name, sentence},
    registration::{Overlay, is_in_use, name_query, registered},
};

/// Whether a text looks like a user id (Matrix appendices, "User Identifiers"): old ones have more letters than new ones
/// may have.
pub(super) fn is_user_id(text: &str) -> bool {
    let is_plain = |letter: char| !letter.is_control() && !letter.is_whitespace();
    text.len() <= 255
        && text.chars().all(is_plain)
        && text
            .strip_prefix('@')
            .and_then(|rest| rest.split_once(':'))
            .is_some_and(|(_, server)| !server.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_looks_like_one() {
        let long = format!("@{}:b", "a".repeat(255));
        for (text, is_one) in [
            ("@alice:example.org", true),
            ("@Old/Letters+:example.org:8448", true),
            ("@:example.org", true),
            ("alice:example.org", false),
            ("@alice", false),
            ("@alice:", false),
            ("@a b:example.org", false),
            ("@a\n:example.org", false),
            ("", false),
            (&long, false),
        ] {
            assert_eq!(is_user_id(text), is_one, "{text:?}");
        }
    }
}
