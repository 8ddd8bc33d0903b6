//! Sessions that the benchmark asked for, and their tokens, as they stand in mails.

use std::{collections::HashMap, fs, path::Path};

use mail_parser::MessageParser;

use crate::Failure;

/// A session that was asked for, and how to prove its address.
pub(crate) struct Session {
    pub(crate) email: String,
    pub(crate) client_secret: String,
    pub(crate) sid: String,
    pub(crate) link: String,
    pub(crate) code: String,
}

impl Session {
    /// Before it was asked for.
    pub(crate) fn new(number: usize) -> Self {
        Self {
            email: format!("someone{number:07}@example.org"),
            client_secret: format!("benchmark.secret.{number:07}"),
            sid: String::new(),
            link: String::new(),
            code: "12345678".to_owned(),
        }
    }
}

/// Reads links and codes as people do: in the mails. Those who send none keep what they have.
pub(crate) fn read_tokens(mails: &Path, sessions: &mut [Session]) -> Result<(), Failure> {
    if !mails.exists() {
        return Ok(());
    }
    let mut waiting: HashMap<String, &mut Session> = sessions
        .iter_mut()
        .map(|session| (session.email.clone(), session))
        .collect();
    for file in fs::read_dir(mails)? {
        let path = file?.path();
        let bytes = fs::read(&path)?;
        let mail = MessageParser::default().parse(&bytes).ok_or("no mail")?;
        let to = mail
            .to()
            .and_then(|to| to.first()?.address())
            .ok_or("no recipient")?;
        if let Some(session) = waiting.remove(to) {
            let text = mail.body_text(0).ok_or("no text")?;
            let (_, rest) = text.split_once("/_threepid/link/").ok_or("no link")?;
            session.link = rest
                .chars()
                .take_while(|letter| !letter.is_whitespace())
                .collect();
            let is_code =
                |line: &&str| line.len() >= 8 && line.chars().all(|letter| letter.is_ascii_digit());
            text.lines()
                .map(str::trim)
                .find(is_code)
                .ok_or("no code")?
                .clone_into(&mut session.code);
        }
        fs::remove_file(path)?;
    }
    if waiting.is_empty() {
        Ok(())
    } else {
        Err(format!("{} mails were not written in time", waiting.len()).into())
    }
}
