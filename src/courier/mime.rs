//! A message as the bytes of a mail, and between whom it goes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::{
    Address,
    address::Envelope,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};

use super::{DeliveryError, Message};
use crate::{clock::Timestamp, threepid::Threepid};

/// How many characters of a subject are sent: a word without blanks can not be folded, and a line has a limit (RFC 5322,
/// 2.1.1).
const LONGEST_SUBJECT: usize = 250;

/// A mail that is ready to go.
pub(super) struct Mail {
    /// Where a bounce goes. ASCII.
    pub(super) from: Address,
    /// The one it is for: a canonical address, so without blanks, controls and angle brackets.
    pub(super) to: String,
    /// Header and body, lines ended by CR LF. ASCII, save where the address itself is not.
    pub(super) bytes: Vec<u8>,
}

impl Mail {
    /// Writes the mail of `message`, from `from` to `to`.
    ///
    /// # Errors
    /// Permanent; there is no message known that can not be written.
    pub(super) fn write(
        from: &Mailbox,
        to: &Threepid,
        message: &Message,
    ) -> Result<Self, DeliveryError> {
        let refuse = |_| DeliveryError::permanent("mail: can not be written");
        // `Address` knows fewer letters than RFC 6531 (it refuses the marks of Indic scripts), so the recipient is
        // none: it gets its header here and its command in the dialogue. This envelope is used by nobody.
        let unused = Envelope::new(None, vec![from.email.clone()]).map_err(refuse)?;
        let mail = lettre::Message::builder()
            .envelope(unused)
            .from(from.clone())
            .raw_header(recipient(to))
            .subject(on_one_line(&message.subject))
            .date(moment(message.at))
            .message_id(Some(format!(
                "<{}@{}>",
                token(&message.id),
                from.email.domain()
            )))
            .raw_header(header("Content-Language", &token(&message.language)))
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Auto-Response-Suppress", "All"))
            .multipart(
                MultiPart::alternative()
                    .singlepart(SinglePart::plain(printable(&message.text)))
                    .singlepart(SinglePart::html(printable(&message.html))),
            )
            .map_err(refuse)?;
        Ok(Self {
            from: from.email.clone(),
            to: to.address().to_owned(),
            bytes: mail.formatted(),
        })
    }

    /// Whether the relay must know SMTPUTF8 (RFC 6531) to carry it.
    pub(super) fn needs_smtputf8(&self) -> bool {
        !self.to.is_ascii()
    }
}

/// The address as it is: never an encoded word (RFC 2047, 5), and raw UTF-8 beyond ASCII (RFC 6532).
fn recipient(to: &Threepid) -> HeaderValue {
    let address = to.address().to_owned();
    let name = HeaderName::new_from_ascii_str("To");
    HeaderValue::dangerous_new_pre_encoded(name, address.clone(), address)
}

/// Reads the mailbox that mails come from: `Example <no-reply@example.org>`.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(super) fn sender(text: &str) -> Result<Mailbox, String> {
    let refuse = |why: &str| {
        format!("email.from is {why}; write one mailbox, as in \"Example <no-reply@example.org>\"")
    };
    if text.chars().any(char::is_control) {
        return Err(refuse("not on one line"));
    }
    let mailbox: Mailbox = text.parse().map_err(|_| refuse("not a mailbox"))?;
    if !AsRef::<str>::as_ref(&mailbox.email).is_ascii() {
        return Err(refuse("not an ASCII address"));
    }
    Ok(mailbox)
}

/// `text` reduced to what is harmless in a file name, a `Message-ID` and a language tag.
pub(super) fn token(text: &str) -> String {
    let harmless = |letter: char| letter.is_ascii_alphanumeric() || "-_=.".contains(letter);
    text.chars()
        .map(|letter| if harmless(letter) { letter } else { '_' })
        .collect()
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// A header's text without line breaks and other controls: none can begin a header of its own.
fn on_one_line(text: &str) -> String {
    text.split(|letter: char| letter.is_control() || letter.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(LONGEST_SUBJECT)
        .collect()
}

/// A body whose only controls are line ends and tabs, so that relays see the same lines in it as we do.
fn printable(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .chars()
        .filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
        .collect()
}

fn moment(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use mail_parser::{HeaderValue, MessageParser};

    use super::*;

    fn message() -> Message {
        Message {
            id: "Abc-123.2".to_owned(),
            at: Timestamp(1_795_341_600_123),
            subject: "Bestätige deine Adresse".to_owned(),
            text: "Grüße!\nhttps://example.org/link?token=abc\n.\nEnde\n".to_owned(),
            html: "<p>Grüße! 🎉</p>\n".to_owned(),
            language: "de".to_owned(),
        }
    }

    fn write(to: &str, message: &Message) -> Vec<u8> {
        let from = sender("Bücher & Co. <no-reply@example.org>").unwrap();
        Mail::write(&from, &Threepid::email(to).unwrap(), message)
            .unwrap()
            .bytes
    }

    #[test]
    fn a_mail_says_what_it_is() {
        let bytes = write("alice@example.com", &message());
        let mail = MessageParser::default().parse(&bytes).unwrap();

        assert!(bytes.is_ascii());
        let from = mail.from().unwrap().first().unwrap();
        assert_eq!(from.name(), Some("Bücher & Co."));
        assert_eq!(from.address(), Some("no-reply@example.org"));
        assert_eq!(
            mail.to().unwrap().first().unwrap().address(),
            Some("alice@example.com")
        );
        assert_eq!(mail.subject(), Some("Bestätige deine Adresse"));
        assert_eq!(mail.message_id(), Some("Abc-123.2@example.org"));
        assert_eq!(mail.date().unwrap().to_rfc3339(), "2026-11-22T10:00:00Z");
        for (name, value) in [
            ("Auto-Submitted", "auto-generated"),
            ("X-Auto-Response-Suppress", "All"),
            ("Content-Language", "de"),
            ("MIME-Version", "1.0"),
        ] {
            assert_eq!(mail.header_raw(name).map(str::trim), Some(value), "{name}");
        }
        assert_eq!(
            mail.body_text(0).unwrap().replace("\r\n", "\n").trim_end(),
            message().text.trim_end()
        );
        assert_eq!(
            mail.body_html(0).unwrap().trim_end(),
            message().html.trim_end()
        );
        let kind = mail.content_type_of_whole();
        assert_eq!(kind, "multipart/alternative");
    }

    trait Whole {
        fn content_type_of_whole(&self) -> String;
    }

    impl Whole for mail_parser::Message<'_> {
        fn content_type_of_whole(&self) -> String {
            match self.header("Content-Type") {
                Some(HeaderValue::ContentType(kind)) => {
                    format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or(""))
                }
                _ => String::new(),
            }
        }
    }

    #[test]
    fn no_header_can_be_injected() {
        let attack = "x\r\nBcc: eve@example.net\r\n\r\nbody\n\rX: y\0\u{85}\u{2028}z";
        let message = Message {
            id: attack.to_owned(),
            subject: attack.to_owned(),
            language: attack.to_owned(),
            text: "a\n.\nb\r.\rc\r\n.\r\nMAIL FROM:<eve@example.net>\0".to_owned(),
            ..message()
        };
        let bytes = write("alice@example.com", &message);
        let mail = MessageParser::default().parse(&bytes).unwrap();

        assert!(mail.bcc().is_none());
        assert!(mail.header("X").is_none());
        assert_eq!(mail.message_id().unwrap().matches('@').count(), 1);
        assert_eq!(mail.subject(), Some("x Bcc: eve@example.net body X: y z"));
        let text = String::from_utf8(bytes).unwrap().replace("\r\n", "");
        assert!(!text.contains(['\r', '\n', '\0']), "a bare line end or NUL");
    }

    #[test]
    fn a_local_part_may_be_beyond_ascii() {
        let from = sender("no-reply@example.org").unwrap();
        let to = Threepid::email("संपर्क@example.com").unwrap();
        let mail = Mail::write(&from, &to, &message()).unwrap();

        assert!(mail.needs_smtputf8());
        assert_eq!(mail.to, "संपर्क@example.com");
        let parsed = MessageParser::default().parse(&mail.bytes).unwrap();
        assert_eq!(
            parsed.to().unwrap().first().unwrap().address(),
            Some("संपर्क@example.com")
        );
    }

    #[test]
    fn no_line_is_too_long_for_a_relay() {
        let long = "ü".repeat(3000);
        for text in [
            long.clone(),
            "x".repeat(3000),
            format!("{}\n{long}", "x ".repeat(900)),
        ] {
            let message = Message {
                subject: text.clone(),
                text: text.clone(),
                html: text,
                ..message()
            };
            let bytes = write("alice@example.com", &message);
            assert!(bytes.is_ascii());
            assert!(
                bytes
                    .split(|byte| *byte == b'\n')
                    .all(|line| line.len() < 998)
            );
        }
    }

    #[test]
    fn every_address_that_is_taken_can_be_written() {
        let from = sender("no-reply@example.org").unwrap();
        for address in [
            "me@localhost",
            "o'neil+tag@xn--strae-oqa.example",
            "#$&'*+-/=?^_`{|}~@b.org",
            "-f@example.org",
            "σίσυφοσ@x.example",
            "i\u{307}@x.example",
        ] {
            let to = Threepid::email(address).unwrap();
            assert!(Mail::write(&from, &to, &message()).is_ok(), "{address}");
        }
    }

    #[test]
    fn the_sender_is_one_mailbox() {
        for good in [
            "a@example.org",
            "Example <a@example.org>",
            "\"A, B\" <a@localhost>",
        ] {
            assert!(sender(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Example",
            "a@b@c.org",
            "a@example.org, b@example.org",
            "ä@example.org",
            "A\r\nBcc: x <a@example.org>",
        ] {
            let why = sender(bad).unwrap_err();
            assert!(
                why.contains("email.from") && why.contains("no-reply@example.org"),
                "{why}"
            );
        }
    }
}
