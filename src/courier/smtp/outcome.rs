//! How a dialogue with a relay ended: which phase, what in it, and whether another try can help.

use std::{error::Error as StdError, io};

use lettre::transport::smtp::{self, response::Response};
use tokio_rustls::rustls::{self, CertificateError};

use crate::courier::DeliveryError;

/// The code with which a relay ends the dialogue (RFC 5321, section 3.8).
const SHUTTING_DOWN: u16 = 421;
/// Subjects of an enhanced status (RFC 3463, section 3).
const ADDRESS: &str = "1";
const MAILBOX: &str = "2";
const MAIL_SYSTEM: &str = "3";
/// Enhanced statuses, without their class, that are about who sends, although many relays tell them at `RCPT`: the sender's
/// address (RFC 3463, section 3.2), and the name of the machine (RFC 7372, section 3.3).
const OF_SENDER: [&str; 3] = ["1.7", "1.8", "7.25"];

/// A step of the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    Greeting,
    Tls,
    Auth,
    Noop,
    Mail,
    Rcpt,
    Data,
    Body,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Tls => "TLS",
            Self::Auth => "AUTH",
            Self::Noop => "NOOP",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Body => "body",
        }
    }

    /// Whether a refusal here is about the message, not about how we and the relay are set up.
    fn is_about_the_message(self) -> bool {
        matches!(self, Self::Mail | Self::Rcpt | Self::Data | Self::Body)
    }
}

/// What happened in a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The relay answered this.
    Reply(Reply),
    /// The relay did not answer in time.
    TimedOut,
    /// The network failed, or the relay hung up.
    Network(&'static str),
    /// Anything else that another try, or the operator, may mend.
    Setup(&'static str),
    /// The relay will never carry this message.
    Never(&'static str),
}

/// A relay's answer without its words: the code, and the enhanced status (RFC 3463) if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    enhanced: Option<String>,
}

impl Reply {
    fn new(code: u16, text: &str) -> Self {
        let enhanced = text
            .split_whitespace()
            .next()
            .filter(|word| is_enhanced(word));
        Self {
            code,
            enhanced: enhanced.map(str::to_owned),
        }
    }

    pub(super) fn is(&self, codes: &[u16]) -> bool {
        codes.contains(&self.code)
    }

    /// The second part of the enhanced status: what it is about.
    fn subject(&self) -> Option<&str> {
        self.enhanced.as_ref()?.split('.').nth(1)
    }

    /// Whether it is about the sender of all our mails.
    fn is_of_sender(&self) -> bool {
        let status = self.enhanced.as_ref();
        let status = status.and_then(|status| status.split_once('.'));
        status.is_some_and(|(_, detail)| OF_SENDER.contains(&detail))
    }
}

impl From<&Response> for Reply {
    fn from(response: &Response) -> Self {
        Self::new(
            response.code().into(),
            response.first_line().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.enhanced {
            Some(enhanced) => write!(out, "{} {enhanced}", self.code),
            None => write!(out, "{}", self.code),
        }
    }
}

/// Whether `word` is like `5.7.1`.
fn is_enhanced(word: &str) -> bool {
    let parts: Vec<_> = word.split('.').collect();
    parts.len() == 3
        && matches!(parts[0], "2" | "4" | "5")
        && parts[1..]
            .iter()
            .all(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
}

/// A dialogue that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) phase: Phase,
    pub(super) cause: Cause,
}

impl Failure {
    pub(super) fn new(phase: Phase, cause: Cause) -> Self {
        Self { phase, cause }
    }

    /// An answer that is positive, yet not the one that the phase asks for, or a negative one.
    pub(super) fn reply(phase: Phase, reply: Reply) -> Self {
        Self::new(phase, Cause::Reply(reply))
    }

    /// What lettre found, without any words of the relay.
    pub(super) fn of(phase: Phase, error: &smtp::Error) -> Self {
        if let Some(code) = error.status() {
            let text = error.source().map(ToString::to_string).unwrap_or_default();
            return Self::reply(phase, Reply::new(code.into(), &text));
        }
        let cause = match io_error(error) {
            Some(error) => of_io(error),
            None if error.is_response() && ended(error) => Cause::Network("connection closed"),
            None if error.is_response() => Cause::Setup("answer not understood"),
            // The relay asks on where the mechanism has said all: so XOAUTH2 refuses a token.
            None if phase == Phase::Auth => Cause::Setup("login refused"),
            None => Cause::Setup("not possible with this relay"),
        };
        Self::new(phase, cause)
    }

    /// What the operating system or the TLS library found.
    pub(super) fn of_io(phase: Phase, error: &io::Error) -> Self {
        Self::new(phase, of_io(error))
    }

    /// Whether a connection that was kept open had been given up by the relay meanwhile: nothing was sent.
    pub(super) fn is_stale(&self) -> bool {
        self.phase == Phase::Mail
            && match &self.cause {
                Cause::Network(_) => true,
                Cause::Reply(reply) => reply.is(&[SHUTTING_DOWN]),
                _ => false,
            }
    }

    fn is_permanent(&self) -> bool {
        // Codes about logging in: the message is not to blame.
        const LOGIN: &[u16] = &[530, 534, 535, 538];
        match &self.cause {
            Cause::Reply(reply) => {
                reply.code >= 500 && self.phase.is_about_the_message() && !reply.is(LOGIN)
            }
            Cause::Never(_) => true,
            _ => false,
        }
    }

    /// Whether the relay puts off this recipient alone (greylisting, a domain that can not be found, a full mailbox), which
    /// says nothing about other mails. Strangers choose the recipient: a few such addresses must not look like a relay that
    /// fails.
    fn is_of_recipient(&self) -> bool {
        let Cause::Reply(reply) = &self.cause else {
            return false;
        };
        let is_put_off = (400..500).contains(&reply.code) && !reply.is(&[SHUTTING_DOWN]);
        is_put_off
            && !reply.is_of_sender()
            && match self.phase {
                Phase::Rcpt => reply.subject() != Some(MAIL_SYSTEM),
                // By now it may be about anything: the relay must say that it is about the recipient.
                Phase::Data | Phase::Body => {
                    matches!(reply.subject(), Some(ADDRESS | MAILBOX))
                }
                _ => false,
            }
    }
}

impl From<Failure> for DeliveryError {
    fn from(failure: Failure) -> Self {
        let phase = failure.phase.as_str();
        let outcome = match &failure.cause {
            Cause::Reply(reply) => format!("{phase} {reply}"),
            Cause::TimedOut => format!("{phase}: timed out"),
            Cause::Network(what) | Cause::Setup(what) | Cause::Never(what) => {
                format!("{phase}: {what}")
            }
        };
        Self {
            transient: !failure.is_permanent(),
            unsure: false,
            of_recipient: failure.is_of_recipient(),
            outcome,
        }
    }
}

fn of_io(error: &io::Error) -> Cause {
    if let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return Cause::Setup(match error {
            rustls::Error::InvalidCertificate(why) => of_certificate(why),
            _ => "handshake failed",
        });
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Network("refused"),
        io::ErrorKind::TimedOut => Cause::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Cause::Network("unreachable")
        }
        io::ErrorKind::InvalidData => Cause::Setup("answer not understood"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => Cause::Network("connection closed"),
        _ => Cause::Network("network error"),
    }
}

fn of_certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::UnknownIssuer => "certificate not trusted",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate of another name"
        }
        CertificateError::Revoked => "certificate revoked",
        _ => "certificate refused",
    }
}

fn io_error(error: &smtp::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// Whether the relay hung up instead of answering, which lettre tells by its words only.
fn ended(error: &smtp::Error) -> bool {
    error
        .source()
        .is_some_and(|source| source.to_string() == "incomplete response")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(phase: Phase, cause: Cause) -> (bool, String) {
        let error = DeliveryError::from(Failure::new(phase, cause));
        (error.transient, error.outcome)
    }

    #[test]
    fn only_a_refusal_of_the_message_is_permanent() {
        for (phase, code, transient) in [
            (Phase::Greeting, 554, true),
            (Phase::Tls, 502, true),
            (Phase::Auth, 535, true),
            (Phase::Auth, 500, true),
            (Phase::Mail, 530, true),
            (Phase::Mail, 553, false),
            (Phase::Rcpt, 450, true),
            (Phase::Rcpt, 550, false),
            (Phase::Rcpt, 535, true),
            (Phase::Rcpt, 252, true),
            (Phase::Data, 554, false),
            (Phase::Body, 552, false),
            (Phase::Body, 421, true),
            (Phase::Body, 538, true),
        ] {
            let (is_transient, outcome) = told(phase, Cause::Reply(Reply::new(code, "")));
            assert_eq!(is_transient, transient, "{outcome}");
        }
    }

    #[test]
    fn what_is_about_one_recipient_is_told_from_what_is_about_the_relay() {
        for (phase, code, text, of_recipient) in [
            (Phase::Rcpt, 450, "4.7.1 greylisted", true),
            (Phase::Rcpt, 451, "4.7.1 greylisted", true),
            (Phase::Rcpt, 450, "4.1.2 domain not found", true),
            (Phase::Rcpt, 452, "4.2.2 mailbox full", true),
            (Phase::Rcpt, 450, "try again later", true),
            (Phase::Rcpt, 451, "4.3.0 out of order", false),
            (Phase::Rcpt, 452, "4.3.1 disk full", false),
            (Phase::Rcpt, 421, "4.7.0 too many connections", false),
            (Phase::Rcpt, 450, "4.1.8 sender: domain not found", false),
            (Phase::Rcpt, 450, "4.1.7 sender rejected", false),
            (Phase::Rcpt, 450, "4.7.25 cannot find your hostname", false),
            (Phase::Body, 451, "4.1.8 sender: domain not found", false),
            (Phase::Rcpt, 252, "2.1.5 who knows", false),
            (Phase::Rcpt, 530, "5.7.0 log in first", false),
            (Phase::Body, 452, "4.2.2 mailbox full", true),
            (Phase::Body, 451, "4.1.1 no such mailbox now", true),
            (Phase::Body, 451, "4.7.1 no filter", false),
            (Phase::Body, 452, "disk full", false),
            (Phase::Data, 421, "4.2.1 bye", false),
            (Phase::Mail, 450, "4.1.8 sender not found", false),
            (Phase::Greeting, 450, "4.2.1 busy", false),
        ] {
            let reply = Cause::Reply(Reply::new(code, text));
            let error = DeliveryError::from(Failure::new(phase, reply));
            assert_eq!(error.of_recipient, of_recipient, "{}", error.outcome);
        }
        for cause in [Cause::TimedOut, Cause::Network("connection closed")] {
            let error = DeliveryError::from(Failure::new(Phase::Rcpt, cause));
            assert!(!error.of_recipient, "{}", error.outcome);
        }
    }

    #[test]
    fn outcomes_hold_no_words_of_the_relay() {
        for (text, outcome) in [
            ("5.1.1 <alice@example.org>: no such user", "RCPT 550 5.1.1"),
            ("5.1.1", "RCPT 550 5.1.1"),
            ("alice@example.org is unknown", "RCPT 550"),
            ("5.alice.1 unknown", "RCPT 550"),
            ("5.1.1.1 unknown", "RCPT 550"),
            ("", "RCPT 550"),
        ] {
            assert_eq!(
                told(Phase::Rcpt, Cause::Reply(Reply::new(550, text))).1,
                outcome
            );
        }
    }

    #[test]
    fn tls_and_network_errors_are_told_apart() {
        let untrusted = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for (error, outcome) in [
            (
                io::Error::new(io::ErrorKind::InvalidData, untrusted),
                "TLS: certificate not trusted",
            ),
            (io::ErrorKind::ConnectionRefused.into(), "TLS: refused"),
            (
                io::ErrorKind::UnexpectedEof.into(),
                "TLS: connection closed",
            ),
            (io::Error::other("alice@example.org"), "TLS: network error"),
        ] {
            let error = DeliveryError::from(Failure::of_io(Phase::Tls, &error));
            assert_eq!((error.transient, error.outcome.as_str()), (true, outcome));
        }
    }
}
