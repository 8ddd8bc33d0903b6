//! The words of a short message: one line, which a phone can take the code from by itself.

use askama::Template;

use self::templates::Text;
use super::{Writing, one_line};
use crate::{
    courier::Message,
    session::{MessageKind, Purpose},
};

/// The most letters of the service's name: with them, each text is one message in the alphabet of GSM.
const LONGEST_NAME: usize = 20;
/// The most messages that a text is cut into on its way. Each is paid for.
const MOST_SEGMENTS: usize = 2;
/// The alphabet that an SMS counts one unit of, but for the control characters (3GPP TS 23.038, 6.2.1).
const BASIC: &str = "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?\
                     ¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// The characters that it counts two units of (3GPP TS 23.038, 6.2.1.1).
const EXTENDED: &str = "^{}\\[~]|€";

/// The variables of the templates.
struct Sms<'a> {
    app_name: &'a str,
    code: &'a str,
    code_minutes: u64,
}

#[expect(
    unused_qualifications,
    clippy::ref_binding_to_reference,
    reason = "askama's derive writes them"
)]
mod templates {
    use askama::Template;

    use super::Sms;

    #[derive(Template)]
    pub(super) enum Text<'a> {
        #[template(path = "sms/registration.txt")]
        Registration { sms: &'a Sms<'a> },
        #[template(path = "sms/add_threepid.txt")]
        AddThreepid { sms: &'a Sms<'a> },
        #[template(path = "sms/password_reset.txt")]
        PasswordReset { sms: &'a Sms<'a> },
        #[template(path = "sms/identity.txt")]
        Identity { sms: &'a Sms<'a> },
        #[template(path = "sms/already_in_use.txt")]
        AlreadyInUse { sms: &'a Sms<'a> },
        #[template(path = "sms/password_changed.txt")]
        PasswordChanged { sms: &'a Sms<'a> },
        #[template(path = "sms/no_account.txt")]
        NoAccount { sms: &'a Sms<'a> },
    }
}

/// Writes a short message, without link, address and account: it is shown on locked screens, and the number may have
/// another owner by now.
///
/// # Errors
/// A message for a token without its code: there would be nothing to do with it. An invitation.
pub(super) fn write(writing: &Writing<'_>) -> Result<Message, askama::Error> {
    if matches!(writing.kind, MessageKind::Token(_)) && writing.code.is_none() {
        return Err(askama::Error::Custom("a short message has no code".into()));
    }
    let mut app_name = short_name(writing.app_name);
    let mut text = rendered(writing, &app_name)?;
    // Outside the alphabet of GSM a message holds less than half as much.
    while segments(&text) > MOST_SEGMENTS && app_name.pop().is_some() {
        text = rendered(writing, &app_name)?;
    }
    Ok(Message {
        id: writing.id.clone(),
        at: writing.at,
        subject: String::new(),
        text,
        html: String::new(),
        language: "en".to_owned(),
    })
}

/// The text on one line, without blanks that say nothing.
fn rendered(writing: &Writing<'_>, app_name: &str) -> Result<String, askama::Error> {
    let code = one_line(writing.code.unwrap_or_default());
    let sms = &Sms {
        app_name,
        code: &code,
        code_minutes: writing.code_minutes,
    };
    let text = match writing.kind {
        MessageKind::Token(Purpose::Register) => Text::Registration { sms },
        MessageKind::Token(Purpose::Add) => Text::AddThreepid { sms },
        MessageKind::Token(Purpose::Password) => Text::PasswordReset { sms },
        MessageKind::Token(Purpose::Identity) => Text::Identity { sms },
        MessageKind::AlreadyInUse => Text::AlreadyInUse { sms },
        MessageKind::NoAccount => Text::NoAccount { sms },
        MessageKind::PasswordChanged => Text::PasswordChanged { sms },
        MessageKind::Invite => {
            let why = "an invitation goes to an email address alone";
            return Err(askama::Error::Custom(why.into()));
        }
    };
    Ok(blanks_joined(&text.render()?))
}

/// The service's name as far as there is room for it, ended at a blank where it has one, and without the typographic
/// characters that have a plain twin: one of them would make the whole message a dear one.
fn short_name(app_name: &str) -> String {
    let plain = one_line(app_name)
        .replace('…', "...")
        .replace(['‘', '’', '‚', '′', '`', '´'], "'")
        .replace(['“', '”', '„', '″'], "\"")
        .replace(['‐', '‑', '‒', '–', '—', '―', '−'], "-");
    let plain = blanks_joined(&plain);
    let Some((end, _)) = plain.char_indices().nth(LONGEST_NAME) else {
        return plain;
    };
    let cut = &plain[..end];
    let is_whole_word = plain[end..].starts_with(' ');
    match cut.rsplit_once(' ') {
        Some((words, _)) if !is_whole_word => words.to_owned(),
        _ => cut.to_owned(),
    }
}

fn blanks_joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How many messages the text is cut into (3GPP TS 23.040, 9.2.3.24.1). One unit of each may be lost, because a
/// character of two units is not cut.
fn segments(text: &str) -> usize {
    let (units, whole, part) = match gsm_units(text) {
        Some(units) => (units, 160, 152),
        None => (text.encode_utf16().count(), 70, 66),
    };
    if units <= whole {
        1
    } else {
        units.div_ceil(part)
    }
}

/// How many units of GSM's alphabet the text takes; `None` if it has other characters.
fn gsm_units(text: &str) -> Option<usize> {
    text.chars()
        .map(|letter| match letter {
            _ if BASIC.contains(letter) => Some(1),
            _ if EXTENDED.contains(letter) => Some(2),
            _ => None,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{KINDS, LINK, writing};
    use super::*;

    fn text(writing: &Writing<'_>) -> String {
        write(writing).unwrap().text
    }

    fn named(kind: MessageKind, app_name: &str) -> Writing<'_> {
        Writing {
            app_name,
            ..writing(kind)
        }
    }

    #[test]
    fn every_short_message_reads_as_reviewed() {
        for kind in KINDS {
            let six_digits = Writing {
                code: writing(kind).code.map(|_| "123456"),
                ..writing(kind)
            };

            let message = write(&six_digits).unwrap();

            assert_eq!((&*message.subject, &*message.html), ("", ""));
            insta::with_settings!({
                snapshot_path => "../../tests/it/snapshots",
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                insta::assert_snapshot!(format!("sms_{}", kind.as_str()), message.text);
            });
        }
    }

    #[test]
    fn the_code_comes_first_and_is_called_one() {
        for kind in KINDS {
            let text = text(&writing(kind));

            let is_token = matches!(kind, MessageKind::Token(_));
            assert_eq!(text.starts_with("12345678 is your "), is_token, "{text}");
            assert_eq!(text.contains(" code to "), is_token, "{text}");
            assert_eq!(text.matches("12345678").count(), usize::from(is_token));
        }
    }

    #[test]
    fn with_a_name_of_twenty_letters_it_is_one_message() {
        for name in ["Twenty Letters Long!", "Grüße aus Köln & Øre"] {
            for kind in KINDS {
                let longest = Writing {
                    code_minutes: 1439,
                    ..named(kind, name)
                };

                let text = text(&longest);

                assert!(text.contains(name), "{text}");
                assert!(gsm_units(&text).is_some_and(|units| units <= 160), "{text}");
            }
        }
    }

    #[test]
    fn whatever_the_name_it_is_two_messages_at_most() {
        for name in [
            "The Chat of the Society for Plain Words in Long Names",
            "€€€€€€€€€€€€€€€€€€€€€€€€€€€",
            "例のチャットの会例のチャットの会例のチャットの会",
            "🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨🗨",
            "Чат для всех и каждого из нас",
        ] {
            for kind in KINDS {
                let longest = Writing {
                    code_minutes: 1439,
                    ..named(kind, name)
                };

                let text = text(&longest);

                assert!(segments(&text) <= 2, "{text}");
                let begun: String = name.chars().take(5).collect();
                assert!(text.contains(&begun), "{text}");
            }
        }
    }

    #[test]
    fn a_name_is_shortened_at_a_blank_and_made_plain() {
        for (name, short) in [
            ("Example Chat", "Example Chat"),
            ("Bob’s “Chat” – so…", "Bob's \"Chat\" - so..."),
            ("A\r\n\u{2028}B\u{a0}C\u{202e}", "A B C"),
            ("The Chat of the Society", "The Chat of the"),
            ("Twenty Letters Long! And more", "Twenty Letters Long!"),
            ("Donaudampfschifffahrtsgesellschaft", "Donaudampfschifffahr"),
            ("", ""),
        ] {
            assert_eq!(short_name(name), short);
        }
    }

    #[test]
    fn it_is_one_line_without_link_address_account_and_network() {
        for kind in KINDS {
            let hostile = named(kind, "A\r\nB\u{2028}<b>\u{202e}");
            for text in [text(&writing(kind)), text(&hostile)] {
                assert!(!text.contains(char::is_control), "{text:?}");
                for part in [
                    LINK, "http", "alice", "example.", "192.0.2", "@", "\u{2028}",
                ] {
                    assert!(!text.contains(part), "{part} in {text}");
                }
            }
        }
    }

    #[test]
    fn it_is_not_written_without_its_code() {
        for kind in KINDS {
            let codeless = Writing {
                code: None,
                ..writing(kind)
            };

            let is_token = matches!(kind, MessageKind::Token(_));
            assert_eq!(write(&codeless).is_err(), is_token);
        }
    }

    #[test]
    fn messages_are_counted_as_they_are_paid() {
        for (text, count) in [
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("a".repeat(304), 2),
            ("a".repeat(305), 3),
            ("я".repeat(70), 1),
            ("я".repeat(71), 2),
            ("🗨".repeat(35), 1),
            ("я".repeat(132), 2),
            ("я".repeat(133), 3),
            (format!("{}`", "a".repeat(70)), 2),
        ] {
            assert_eq!(segments(&text), count, "{text}");
        }
    }
}
