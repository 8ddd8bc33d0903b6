//! What the mail of an invitation says, and how names that strangers made up are shown.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::{one_line, readable};
use crate::{clock::Timestamp, threepid::is_invisible};

/// The most characters of a name that somebody made up.
const LONGEST_NAME: usize = 80;
/// How many characters of it are looked at.
const MOST_READ: usize = 4 * LONGEST_NAME;
/// What a mail program may see a host in, or a scheme's end, if something follows at once.
const JOINTS: [char; 5] = ['.', ':', '\u{3002}', '\u{ff0e}', '\u{ff61}'];
/// What could be taken for the end of a quotation.
const QUOTES: [char; 5] = ['"', '\u{201c}', '\u{201d}', '\u{201e}', '\u{201f}'];

/// What the mail of an invitation says. The outbox keeps it sealed. `Debug` shows the inviter alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Who invites: a user id.
    pub(crate) sender: String,
    /// What they call themselves.
    pub(crate) sender_name: Option<String>,
    /// What the room is called.
    pub(crate) room_name: Option<String>,
    /// Whether it is a space, that is a group of rooms.
    pub(crate) is_space: bool,
    /// The identity server that keeps the invitation.
    pub(crate) identity_server: String,
    /// The invitation's token.
    pub(crate) token: String,
    /// The private half of its ephemeral key, in unpadded base64.
    pub(crate) private_key: String,
    /// Until when it can be accepted, in milliseconds.
    pub(crate) expires_at: i64,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Invitation(from {})", self.sender)
    }
}

/// The same, made harmless: the variables of the templates.
pub(super) struct Invited<'a> {
    pub(super) sender: String,
    pub(super) sender_name: Option<String>,
    pub(super) room_name: Option<String>,
    pub(super) is_space: bool,
    pub(super) identity_server: Cow<'a, str>,
    pub(super) token: Cow<'a, str>,
    pub(super) private_key: Cow<'a, str>,
    pub(super) until: String,
}

impl<'a> Invited<'a> {
    pub(super) fn new(invitation: &'a Invitation) -> Self {
        Self {
            sender: shown_user_id(&invitation.sender),
            sender_name: invitation.sender_name.as_deref().and_then(made_up),
            room_name: invitation.room_name.as_deref().and_then(made_up),
            is_space: invitation.is_space,
            identity_server: one_line(&invitation.identity_server),
            token: one_line(&invitation.token),
            private_key: one_line(&invitation.private_key),
            until: readable(Timestamp(invitation.expires_at)),
        }
    }

    /// Of what strangers wrote, the subject holds nothing but the user id.
    pub(super) fn subject(&self) -> String {
        let room = if self.is_space { "space" } else { "room" };
        format!("{} invites you to a {room} on Matrix", self.sender)
    }
}

/// As much of a name that somebody made up as is worth keeping.
pub(crate) fn shortened(name: &str) -> String {
    name.chars().take(MOST_READ).collect()
}

/// The value on one line, without what can not be seen.
fn visible(value: &str) -> String {
    let mut value = one_line(value).into_owned();
    value.retain(|letter| !is_invisible(letter));
    value
}

/// A user id: without what can not be seen, and such that no mail program makes a link of the name before the colon. The
/// homeserver's name stays whole: it says who answers for the rest.
pub(super) fn shown_user_id(user_id: &str) -> String {
    let user_id = visible(user_id);
    match user_id.split_once(':') {
        Some((name, server)) => format!("{}:{server}", apart(name)),
        None => apart(&user_id),
    }
}

/// With a blank after all that would make a link of what follows.
fn apart(name: &str) -> String {
    let mut apart = String::new();
    for letter in name.chars() {
        if apart.ends_with(JOINTS) {
            apart.push(' ');
        }
        apart.push(letter);
    }
    apart
}

/// A name that somebody made up: on one line, cut, with nothing that ends the quotation marks around it, and such that no
/// mail program makes a link of it. `None` if nothing is left.
fn made_up(name: &str) -> Option<String> {
    let name = visible(&shortened(name)).replace(QUOTES, "'");
    let apart = apart(&name);
    let words: Vec<_> = apart.split_whitespace().collect();
    let name = words.join(" ");
    match name.char_indices().nth(LONGEST_NAME) {
        _ if name.is_empty() => None,
        Some((end, _)) => Some(format!("{}…", name[..end].trim_end())),
        None => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_stay_names() {
        for (name, shown) in [
            ("Bob Smith", Some("Bob Smith")),
            ("  Bob \t\r\n Smith ", Some("Bob Smith")),
            ("Jürgen 東京 🎉", Some("Jürgen 東京 🎉")),
            ("Dr. O'Neil & Sons", Some("Dr. O'Neil & Sons")),
            ("J.R.R. T.", Some("J. R. R. T.")),
            (
                "https://evil.example/x?y=z",
                Some("https: //evil. example/x?y=z"),
            ),
            ("www.evil.example", Some("www. evil. example")),
            (
                "evil\u{ff0e}example。org",
                Some("evil\u{ff0e} example。 org"),
            ),
            ("mailto:eve@evil.example", Some("mailto: eve@evil. example")),
            ("evil\u{200b}.\u{200b}example", Some("evil. example")),
            ("\u{202e}txt.exe\u{202c}", Some("txt. exe")),
            (
                "Bob\" (your bank) \u{201c}x\u{201d}",
                Some("Bob' (your bank) 'x'"),
            ),
            ("\u{200b}\u{2066}\r\n\u{3164}", None),
            ("", None),
        ] {
            assert_eq!(made_up(name).as_deref(), shown, "{name:?}");
        }
    }

    #[test]
    fn user_ids_stay_user_ids_and_lead_nowhere() {
        for (user_id, shown) in [
            ("@bob:example.net", "@bob:example.net"),
            ("@Bob=2f_-+/1:[::1]:8448", "@Bob=2f_-+/1:[::1]:8448"),
            (
                "@evil.example/login:hs.evil",
                "@evil. example/login:hs.evil",
            ),
            ("@evil。example:hs.evil", "@evil。 example:hs.evil"),
            (
                "@your\u{2800}bank\u{3164}\u{115f}\u{1160}\u{ffa0}:b.org",
                "@yourbank:b.org",
            ),
            ("@a\u{200b}\u{61c}\u{2062}\u{e0041}b:b.org", "@ab:b.org"),
            ("www.evil.example", "www. evil. example"),
        ] {
            assert_eq!(shown_user_id(user_id), shown, "{user_id:?}");
        }
    }

    #[test]
    fn long_names_are_cut() {
        let cut = made_up(&"é".repeat(1000)).unwrap();
        assert_eq!(cut.chars().count(), LONGEST_NAME + 1);
        assert!(cut.ends_with('…'));
        let whole = "x".repeat(LONGEST_NAME);
        assert_eq!(made_up(&whole), Some(whole));
        assert_eq!(shortened(&"é".repeat(100_000)).chars().count(), MOST_READ);
    }

    #[test]
    fn debug_shows_no_secret() {
        let invitation = super::super::tests::invitation();
        let shown = format!("{invitation:?}");
        assert!(!shown.contains(&invitation.token) && !shown.contains(&invitation.private_key));
    }
}
