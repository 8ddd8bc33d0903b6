//! Mails, read as a person reads them.

use std::{fs, path::Path};

use super::smtp::SmtpServer;

/// A mail that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// The message's id: the same for each copy of one message.
    pub(crate) id: String,
    /// Whom it is for.
    pub(crate) to: String,
    /// The plain text.
    pub(crate) text: String,
}

impl Arrived {
    fn parse(data: &[u8]) -> Self {
        let mail = mail_parser::MessageParser::default().parse(data);
        let mail = mail.expect("a mail that can be read");
        let to = mail.to().and_then(|to| to.first()?.address());
        Self {
            id: mail.message_id().expect("an id").to_owned(),
            to: to.expect("a recipient").to_owned(),
            text: mail.body_text(0).expect("a text").into_owned(),
        }
    }
}

/// Where mails arrive.
pub(crate) trait Arrivals {
    /// All mails that arrived so far.
    fn arrived(&self) -> Vec<Arrived>;
}

impl Arrivals for SmtpServer {
    fn arrived(&self) -> Vec<Arrived> {
        let mails = self.mails();
        let read = mails
            .iter()
            .map(|mail| Arrived::parse(mail.data.as_bytes()));
        read.collect()
    }
}

/// A folder of files, one for each mail.
impl Arrivals for Path {
    fn arrived(&self) -> Vec<Arrived> {
        let Ok(entries) = fs::read_dir(self) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.expect("the folder can be read").path());
        paths
            .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
            .map(|path| Arrived::parse(&fs::read(path).expect("the mail can be read")))
            .collect()
    }
}

/// The link in a mail's text.
pub(crate) fn link(text: &str) -> &str {
    let mut words = text.split_whitespace();
    let link = words.find(|word| word.contains("/_threepid/link/"));
    link.expect("a link in the mail")
}

/// The code in a mail's text: eight digits that stand alone.
pub(crate) fn code(text: &str) -> &str {
    let is_code = |word: &&str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.find(is_code).expect("a code in the mail")
}
