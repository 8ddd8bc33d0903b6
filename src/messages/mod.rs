//! The words of a message: from values to one that is ready to go.

mod mail;

use std::borrow::Cow;

use crate::{clock::Timestamp, session::MessageKind};

pub(crate) use mail::write;

/// What a mail is written from. Values may be any text: they are made harmless here.
#[derive(Clone)]
pub(crate) struct Writing<'a> {
    pub(crate) kind: MessageKind,
    /// What people call the service.
    pub(crate) app_name: &'a str,
    /// The homeserver's name.
    pub(crate) server_name: &'a str,
    /// The address that is to be proved, and gets the mail.
    pub(crate) address: &'a str,
    /// The whole URL of the landing page. `None` if mails carry codes only.
    pub(crate) link: Option<&'a str>,
    /// The eight digits. `None` if mails carry links only.
    pub(crate) code: Option<&'a str>,
    /// The account that it is about, if known.
    pub(crate) account: Option<&'a str>,
    /// Whence it was asked, coarsely: `192.0.2.0/24`.
    pub(crate) network: Option<&'a str>,
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
