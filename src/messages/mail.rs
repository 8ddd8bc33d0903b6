//! The words of a mail.

use std::borrow::Cow;

use askama::Template;

use self::templates::{Html, Text};
use super::{
    Writing,
    invite::{Invited, shown_user_id},
    one_line, readable,
};
use crate::{
    courier::Message,
    session::{MessageKind, Purpose},
};

/// The longest line of a text that is not one long word, in characters (RFC 5322, section 2.1.1, less a quotation mark).
const LINE: usize = 76;

/// The variables of the templates, under Synapse's names where it has them.
struct Mail<'a> {
    app_name: Cow<'a, str>,
    server_name: Cow<'a, str>,
    address: Cow<'a, str>,
    link: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
    account: Option<String>,
    network: Option<Cow<'a, str>>,
    asked_at: String,
    link_minutes: u64,
    code_minutes: u64,
}

#[expect(
    unused_qualifications,
    clippy::ref_binding_to_reference,
    reason = "askama's derive writes them"
)]
mod templates {
    use askama::Template;

    use super::{Invited, Mail};

    #[derive(Template)]
    pub(super) enum Text<'a> {
        #[template(path = "registration.txt")]
        Registration { mail: &'a Mail<'a> },
        #[template(path = "add_threepid.txt")]
        AddThreepid { mail: &'a Mail<'a> },
        #[template(path = "password_reset.txt")]
        PasswordReset { mail: &'a Mail<'a> },
        #[template(path = "identity.txt")]
        Identity { mail: &'a Mail<'a> },
        #[template(path = "already_in_use.txt")]
        AlreadyInUse { mail: &'a Mail<'a> },
        #[template(path = "password_changed.txt")]
        PasswordChanged { mail: &'a Mail<'a> },
        #[template(path = "no_account.txt")]
        NoAccount { mail: &'a Mail<'a> },
        #[template(path = "invite.txt")]
        Invite {
            mail: &'a Mail<'a>,
            invite: &'a Invited<'a>,
        },
    }

    #[derive(Template)]
    pub(super) enum Html<'a> {
        #[template(path = "registration.html")]
        Registration { mail: &'a Mail<'a> },
        #[template(path = "add_threepid.html")]
        AddThreepid { mail: &'a Mail<'a> },
        #[template(path = "password_reset.html")]
        PasswordReset { mail: &'a Mail<'a> },
        #[template(path = "identity.html")]
        Identity { mail: &'a Mail<'a> },
        #[template(path = "already_in_use.html")]
        AlreadyInUse { mail: &'a Mail<'a> },
        #[template(path = "password_changed.html")]
        PasswordChanged { mail: &'a Mail<'a> },
        #[template(path = "no_account.html")]
        NoAccount { mail: &'a Mail<'a> },
        #[template(path = "invite.html")]
        Invite {
            mail: &'a Mail<'a>,
            invite: &'a Invited<'a>,
        },
    }
}

/// Writes a mail. Its subject never holds the code, which would show on a locked screen.
///
/// # Errors
/// The mail of an invitation without the invitation.
pub(super) fn write(writing: &Writing<'_>) -> Result<Message, askama::Error> {
    let mail = &Mail::new(writing);
    let invite = &writing.invitation.map(Invited::new);
    let (text, html) = match writing.kind {
        MessageKind::Token(Purpose::Register) => {
            (Text::Registration { mail }, Html::Registration { mail })
        }
        MessageKind::Token(Purpose::Add) => {
            (Text::AddThreepid { mail }, Html::AddThreepid { mail })
        }
        MessageKind::Token(Purpose::Password) => {
            (Text::PasswordReset { mail }, Html::PasswordReset { mail })
        }
        MessageKind::Token(Purpose::Identity) => (Text::Identity { mail }, Html::Identity { mail }),
        MessageKind::AlreadyInUse => (Text::AlreadyInUse { mail }, Html::AlreadyInUse { mail }),
        MessageKind::NoAccount => (Text::NoAccount { mail }, Html::NoAccount { mail }),
        MessageKind::PasswordChanged => (
            Text::PasswordChanged { mail },
            Html::PasswordChanged { mail },
        ),
        MessageKind::Invite => {
            let invite = invite.as_ref().ok_or_else(no_invitation)?;
            (Text::Invite { mail, invite }, Html::Invite { mail, invite })
        }
    };
    Ok(Message {
        id: writing.id.clone(),
        at: writing.at,
        subject: subject(writing.kind, &mail.app_name, invite.as_ref()),
        text: wrapped(&text.render()?),
        html: html.render()?,
        language: "en".to_owned(),
    })
}

impl<'a> Mail<'a> {
    fn new(writing: &Writing<'a>) -> Self {
        Self {
            app_name: one_line(writing.app_name),
            server_name: one_line(writing.server_name),
            address: one_line(writing.address),
            link: writing.link.map(one_line),
            token: writing.code.map(one_line),
            account: writing.account.map(shown_user_id),
            network: writing.network.map(one_line),
            asked_at: readable(writing.asked_at),
            link_minutes: writing.link_minutes,
            code_minutes: writing.code_minutes,
        }
    }
}

fn no_invitation() -> askama::Error {
    askama::Error::Custom("the mail of an invitation has none".into())
}

fn subject(kind: MessageKind, app_name: &str, invite: Option<&Invited<'_>>) -> String {
    match kind {
        MessageKind::Token(Purpose::Register) => {
            format!("Confirm your email address for {app_name}")
        }
        MessageKind::Token(Purpose::Add) => {
            format!("Add this email address to an account on {app_name}")
        }
        MessageKind::Token(Purpose::Password) => format!("Reset your password on {app_name}"),
        MessageKind::Token(Purpose::Identity) => {
            format!("Confirm your email address, to be found by it on {app_name}")
        }
        MessageKind::AlreadyInUse => format!("You already have an account on {app_name}"),
        MessageKind::NoAccount => format!("No account with this address on {app_name}"),
        MessageKind::PasswordChanged => format!("Your password on {app_name} was changed"),
        MessageKind::Invite => invite.map(Invited::subject).unwrap_or_default(),
    }
}

/// The text with its long lines broken at blanks and no two empty lines in a row.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        let indent = if line.starts_with("- ") { "  " } else { "" };
        let mut filled = String::new();
        for word in line.split_whitespace() {
            if filled.is_empty() {
                filled.push_str(word);
            } else if filled.chars().count() + 1 + word.chars().count() <= LINE {
                filled.push(' ');
                filled.push_str(word);
            } else {
                lines.push(filled);
                filled = format!("{indent}{word}");
            }
        }
        if !filled.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(filled);
        }
    }
    let mut joined = lines.join("\n");
    joined.truncate(joined.trim_end().len());
    joined.push('\n');
    joined
}

#[cfg(test)]
mod tests {
    use super::super::tests::{KINDS, LINK, invitation, writing};
    use super::*;
    use crate::messages::Invitation;

    /// All kinds that a mail may be.
    const MAILS: [MessageKind; 8] = {
        let [a, b, c, d, e, f, g] = KINDS;
        [a, b, c, d, e, f, g, MessageKind::Invite]
    };

    fn snapshot(name: &str, writing: &Writing<'_>) {
        let message = write(writing).unwrap();
        insta::with_settings!({
            snapshot_path => "../../tests/it/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(
                format!("mail_{name}_text"),
                format!("Subject: {}\n\n{}", message.subject, message.text)
            );
            insta::assert_snapshot!(format!("mail_{name}_html"), message.html);
        });
    }

    #[test]
    fn every_mail_reads_as_reviewed() {
        for kind in MAILS {
            snapshot(kind.as_str(), &writing(kind));
        }
    }

    #[test]
    fn a_mail_may_hold_the_link_or_the_code_alone() {
        let both = writing(MessageKind::Token(Purpose::Register));
        snapshot(
            "register_link_only",
            &Writing {
                code: None,
                ..both.clone()
            },
        );
        snapshot("register_code_only", &Writing { link: None, ..both });
    }

    #[test]
    fn an_invitation_may_be_to_a_space_and_names_what_it_was_given() {
        let space = Invitation {
            sender_name: None,
            room_name: None,
            is_space: true,
            ..invitation()
        };
        snapshot(
            "invite_space",
            &Writing {
                invitation: Some(&space),
                ..writing(MessageKind::Invite)
            },
        );
    }

    #[test]
    fn an_invitation_copies_in_one_piece_and_fits_on_a_screen() {
        let message = write(&writing(MessageKind::Invite)).unwrap();

        let invitation = invitation();
        for value in [&invitation.token, &invitation.private_key] {
            assert!(message.text.lines().any(|line| line == value));
            assert!(message.html.contains(&format!(">{value}<")));
            assert!(!message.subject.contains(value.as_str()));
        }
        assert!(message.text.lines().count() <= 35, "{}", message.text);
    }

    #[test]
    fn a_hostile_invitation_stays_text_and_leads_nowhere() {
        let foul = "A\r\nBcc: x\u{2028}\"'<script>&amp;\u{202e}<a href=https://evil.example/>www.evil.example";
        let hostile = Invitation {
            sender: "@eve\u{200b}\u{202e}<script>\r\nBcc:x".to_owned(),
            sender_name: Some(foul.to_owned()),
            room_name: Some(foul.to_owned()),
            identity_server: "<script>\r\n".to_owned(),
            token: "<script>\r\n".to_owned(),
            private_key: "<script>\r\n".to_owned(),
            ..invitation()
        };
        let hostile = Writing {
            invitation: Some(&hostile),
            ..writing(MessageKind::Invite)
        };

        let message = write(&hostile).unwrap();

        let Message {
            subject,
            text,
            html,
            ..
        } = &message;
        assert!(!subject.contains(char::is_control), "{subject:?}");
        assert!(!html.contains("<script") && !html.contains("<a "), "{html}");
        for shown in [subject, text, html] {
            for part in [
                "\nBcc",
                "\r",
                "\u{2028}",
                "\u{202e}",
                "\u{200b}",
                "https:/",
                "evil.example",
            ] {
                assert!(!shown.contains(part), "{part:?} in {shown}");
            }
        }
    }

    #[test]
    fn a_mail_does_without_account_and_network() {
        for kind in MAILS {
            let sparse = Writing {
                account: None,
                network: None,
                ..writing(kind)
            };

            let message = write(&sparse).unwrap();

            for body in [message.text, message.html] {
                assert!(
                    !body.contains("network") && !body.contains("@alice:"),
                    "{body}"
                );
                assert!(body.contains("2026-11-22 10:00 UTC."), "{body}");
            }
        }
    }

    #[test]
    fn no_name_of_an_account_becomes_a_link_or_hides_a_letter() {
        for kind in MAILS {
            let user_id = "@evil.example/l\u{200b}o\u{61c}g\u{2800}in:hs.example";
            let hostile = Invitation {
                sender: user_id.to_owned(),
                ..invitation()
            };
            let hostile = Writing {
                account: Some(user_id),
                invitation: (kind == MessageKind::Invite).then_some(&hostile),
                ..writing(kind)
            };

            let message = write(&hostile).unwrap();

            for shown in [&message.subject, &message.text, &message.html] {
                let hidden = shown.contains(['\u{200b}', '\u{61c}', '\u{2800}']);
                assert!(!hidden && !shown.contains("evil.example"), "{shown}");
            }
            if kind == MessageKind::Invite || kind == MessageKind::Token(Purpose::Identity) {
                assert!(message.html.contains("@evil. example/login:hs.example"));
            }
        }
    }

    #[test]
    fn hostile_values_stay_text() {
        for kind in MAILS {
            let hostile = Writing {
                app_name: "A\r\nBcc: x\u{2028}\"'<script>&amp;\u{202e}",
                address: "\"><script>@a.org",
                account: Some("@<script>:b"),
                server_name: "<script>",
                network: Some("<script>"),
                link: Some("https://a.org/\"onclick=<script>"),
                code: Some("<script>"),
                ..writing(kind)
            };

            let message = write(&hostile).unwrap();

            assert!(!message.html.contains("<script"), "{}", message.html);
            assert!(!message.html.contains("\"onclick"), "{}", message.html);
            assert!(
                !message.subject.contains(char::is_control),
                "{:?}",
                message.subject
            );
            for body in [&message.text, &message.html] {
                assert!(!body.contains("\nBcc"), "{body}");
                assert!(!body.contains(['\r', '\u{2028}', '\u{202e}']), "{body}");
            }
        }
    }

    #[test]
    fn no_subject_holds_the_code() {
        for kind in MAILS {
            assert!(!write(&writing(kind)).unwrap().subject.contains("12345678"));
        }
    }

    #[test]
    fn only_mails_for_a_token_hold_one_and_each_copies_in_one_piece() {
        for kind in MAILS {
            let message = write(&writing(kind)).unwrap();

            let wanted = matches!(kind, MessageKind::Token(_));
            assert_eq!(message.text.lines().any(|line| line == "12345678"), wanted);
            assert_eq!(message.text.lines().any(|line| line == LINK), wanted);
            assert_eq!(message.html.contains(">12345678<"), wanted);
            assert_eq!(message.html.contains(&format!(">{LINK}<")), wanted);
        }
    }

    #[test]
    fn nothing_in_a_mail_leads_elsewhere_or_is_fetched() {
        for kind in MAILS {
            let html = write(&writing(kind)).unwrap().html;

            let rest = html.replace(LINK, "");
            for word in [
                "http", "src=", "url(", "<script", "<style", "<img", "<table", "//",
            ] {
                assert!(!rest.contains(word), "{word} in {rest}");
            }
        }
    }

    #[test]
    fn lines_of_a_text_are_short_but_for_the_link() {
        for kind in MAILS {
            let long = Writing {
                app_name: "The Chat of the Society for Plain Words in Long Names",
                account: Some("@somebody.with.a.long.name:matrix.example.org"),
                ..writing(kind)
            };

            let text = write(&long).unwrap().text;

            for line in text.lines().filter(|line| *line != LINK) {
                assert!(line.chars().count() < 78, "{line}");
            }
            assert!(
                !text.contains("\n\n\n") && !text.starts_with('\n'),
                "{text}"
            );
        }
    }

    #[test]
    fn spans_are_told_in_hours_where_they_are_whole() {
        for (minutes, words) in [
            (1, "1 minute."),
            (15, "15 minutes."),
            (60, "1 hour."),
            (90, "90 minutes."),
            (120, "2 hours."),
        ] {
            let linked = Writing {
                link_minutes: minutes,
                code: None,
                ..writing(MessageKind::Token(Purpose::Add))
            };

            let message = write(&linked).unwrap();

            assert!(
                message.text.contains(&format!("works for {words}")),
                "{}",
                message.text
            );
            assert!(
                message.html.contains(&format!("works for {words}")),
                "{}",
                message.html
            );
        }
    }
}
