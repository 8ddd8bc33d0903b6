//! How validation is done here.

use std::time::Duration;

use url::Url;

use crate::{limits, next_link::NextLinkPolicy, policy, session::Lifetimes};

/// What a mail holds: `[email] contents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contents {
    /// A link to click.
    Link,
    /// A code to type into the client.
    Code,
    /// Both.
    #[default]
    Both,
}

impl Contents {
    /// Whether a mail holds a link.
    #[must_use]
    pub fn has_link(self) -> bool {
        self != Self::Code
    }

    /// Whether a mail holds a code: then, and only then, clients are told a `submit_url` (MSC2078).
    #[must_use]
    pub fn has_code(self) -> bool {
        self != Self::Link
    }
}

/// How validation is done here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What mails hold.
    pub contents: Contents,
    /// Whether email addresses are validated at all.
    pub email: bool,
    /// How long things live.
    pub lifetimes: Lifetimes,
    /// How often things may happen.
    pub limits: limits::Settings,
    /// Which addresses are admitted.
    pub policy: policy::Settings,
    /// Where browsers may be sent.
    pub next_links: NextLinkPolicy,
    /// Whether it is told who has an account.
    pub reveal: bool,
    /// The base of every URL that is told to anybody.
    pub public_url: Url,
}

impl Settings {
    /// How long what a mail holds works, the longer of both.
    pub(crate) fn useful_for(&self) -> Duration {
        if self.contents.has_link() {
            self.lifetimes.link
        } else {
            self.lifetimes.code
        }
    }
}
