//! The words of a message: from values to one that is ready to go.

mod invite;
mod mail;
mod sms;

use std::borrow::Cow;

pub(crate) use self::invite::{Invitation, shortened};
use crate::{clock::Timestamp, courier::Message, session::MessageKind, threepid::Medium};

/// What a message is written from. Values may be any text: they are made harmless here.
#[derive(Clone)]
pub(crate) struct Writing<'a> {
    pub(crate) kind: MessageKind,
    /// What people call the service.
    pub(crate) app_name: &'a str,
    /// The homeserver's name.
    pub(crate) server_name: &'a str,
    /// The address that is to be proved, and gets the message.
    pub(crate) address: &'a str,
    /// The whole URL of the landing page. `None` if mails carry codes only; a short message never carries it.
    pub(crate) link: Option<&'a str>,
    /// The digits. `None` if mails carry links only; a short message for a token needs them.
    pub(crate) code: Option<&'a str>,
    /// The account that it is about, if known.
    pub(crate) account: Option<&'a str>,
    /// Whence it was asked, coarsely: `192.0.2.0/24`.
    pub(crate) network: Option<&'a str>,
    /// The invitation that it tells of; the mail of an invitation needs it.
    pub(crate) invitation: Option<&'a Invitation>,
    /// When it was asked.
    pub(crate) asked_at: Timestamp,
    /// How long the link works.
    pub(crate) link_minutes: u64,
    /// How long the code works.
    pub(crate) code_minutes: u64,
    /// The message's own name.
    pub(crate) id: String,
    /// When it is sent.
    pub(crate) at: Timestamp,
}

/// Writes a message for an address of `medium`: a mail, or a short message, which has neither subject nor HTML.
pub(crate) fn write(medium: Medium, writing: &Writing<'_>) -> Result<Message, askama::Error> {
    match medium {
        Medium::Email => mail::write(writing),
        Medium::Msisdn => sms::write(writing),
    }
}

/// A moment as people read it, to the minute: `2026-11-22 10:00 UTC`.
pub(crate) fn readable(moment: Timestamp) -> String {
    let written = moment.to_string();
    match written.split_once('T') {
        Some((day, time)) => format!("{day} {} UTC", time.get(..5).unwrap_or(time)),
        None => written,
    }
}

/// The value without what would begin a line of its own or turn the direction of the text around it.
fn one_line(value: &str) -> Cow<'_, str> {
    let breaks = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if value.contains(breaks) {
        Cow::Owned(value.replace(breaks, " "))
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::session::Purpose;

    static INVITATION: LazyLock<Invitation> = LazyLock::new(invitation);

    pub(super) const LINK: &str = "https://matrix.example.org/_threepid/link/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    /// Those of both media.
    pub(super) const KINDS: [MessageKind; 7] = [
        MessageKind::Token(Purpose::Register),
        MessageKind::Token(Purpose::Add),
        MessageKind::Token(Purpose::Password),
        MessageKind::Token(Purpose::Identity),
        MessageKind::AlreadyInUse,
        MessageKind::NoAccount,
        MessageKind::PasswordChanged,
    ];

    pub(super) fn invitation() -> Invitation {
        Invitation {
            sender: "@bob:example.net".to_owned(),
            sender_name: Some("Bob Smith".to_owned()),
            room_name: Some("Bob's Emporium of Messages".to_owned()),
            is_space: false,
            identity_server: "id.example.org".to_owned(),
            token: "dG9rZW4gb2YgYW4gaW52aXRhdGlvbiBmb3IgYWxpY2U".to_owned(),
            private_key: "cHJpdmF0ZSBrZXkgb2YgYW4gaW52aXRhdGlvbiBoZXI".to_owned(),
            expires_at: 1_810_893_600_000,
        }
    }

    pub(super) fn writing(kind: MessageKind) -> Writing<'static> {
        let token = matches!(kind, MessageKind::Token(_));
        Writing {
            kind,
            app_name: "Example Chat",
            server_name: "example.org",
            address: "alice@example.com",
            link: token.then_some(LINK),
            code: token.then_some("12345678"),
            account: match kind {
                MessageKind::Token(Purpose::Register) | MessageKind::NoAccount => None,
                _ => Some("@alice:example.org"),
            },
            network: Some("192.0.2.0/24"),
            invitation: (kind == MessageKind::Invite).then(|| LazyLock::force(&INVITATION)),
            asked_at: Timestamp(1_795_341_600_123),
            link_minutes: 60,
            code_minutes: 15,
            id: "m1".to_owned(),
            at: Timestamp(1_795_341_601_000),
        }
    }

    #[test]
    fn the_medium_picks_the_message() {
        for kind in KINDS {
            let [mail, sms] = Medium::ALL.map(|medium| write(medium, &writing(kind)).unwrap());

            assert!(!mail.subject.is_empty() && !mail.html.is_empty());
            assert!(sms.subject.is_empty() && sms.html.is_empty());
            assert!(sms.text.len() < mail.text.len());
            assert_eq!((&sms.id, sms.at), (&mail.id, mail.at));
        }
        let invite = writing(MessageKind::Invite);
        assert!(write(Medium::Msisdn, &invite).is_err(), "it is a mail");
    }
}
