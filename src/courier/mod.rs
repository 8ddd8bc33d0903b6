//! Who carries a message away: the trait, and what goes through it.

pub mod capture;
pub mod email;
mod file;
mod mime;
mod sendmail;
pub mod sms;
mod smtp;
pub(crate) mod tls;

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{clock::Timestamp, threepid::Threepid};

/// A message that is ready to go. It holds a token: `Debug` shows nothing of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The left half of a mail's `Message-ID`; the same each time one message is tried.
    pub id: String,
    /// When it is sent.
    pub at: Timestamp,
    /// The subject line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
    /// The language of the text, as in `Content-Language`: `en`.
    pub language: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Message({})", self.id)
    }
}

/// Why a message was not delivered.
///
/// `outcome` goes to the operator's history and to logs: it holds a phase, a code and an enhanced status, never the
/// relay's own words or the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{outcome}")]
pub struct DeliveryError {
    /// Whether another try can succeed.
    pub transient: bool,
    /// Whether the next hop may have the message nevertheless, so that another try may deliver it a second time.
    pub unsure: bool,
    /// Whether it is this recipient that the next hop does not take now: then nothing is said about other messages.
    pub of_recipient: bool,
    /// How it ended, redacted: `RCPT 550 5.1.1`, `connect: timed out`.
    pub outcome: String,
}

impl DeliveryError {
    /// A failure that may pass.
    #[must_use]
    pub fn transient(outcome: impl Into<String>) -> Self {
        Self {
            transient: true,
            unsure: false,
            of_recipient: false,
            outcome: outcome.into(),
        }
    }

    /// A failure that will not pass.
    #[must_use]
    pub fn permanent(outcome: impl Into<String>) -> Self {
        Self {
            transient: false,
            unsure: false,
            of_recipient: false,
            outcome: outcome.into(),
        }
    }

    /// A failure after the message may have been handed over, which is added to the outcome. For next hops where each
    /// message costs money or rings a phone: the outbox tries again at most once.
    #[must_use]
    pub fn unsure(outcome: impl fmt::Display) -> Self {
        Self {
            transient: true,
            unsure: true,
            of_recipient: false,
            outcome: format!("{outcome}, may have been sent"),
        }
    }
}

/// Carries messages to their next hop.
#[async_trait]
pub trait Courier: fmt::Debug + Send + Sync {
    /// Hands the message over; returns, when the next hop has taken it, what it said (a code, redacted).
    ///
    /// May be cancelled or time out at any moment: a courier never reuses a connection that was interrupted.
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError>;

    /// Greets the next hop without sending, phase by phase; each line tells one phase that went well.
    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>);

    /// The longest that one delivery takes, all phases together.
    fn longest(&self) -> Duration;
}
