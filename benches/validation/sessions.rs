//! Sessions that the benchmark asked for, and their tokens, as they stand in mails.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    path::PathBuf,
    time::Duration,
};

use mail_parser::MessageParser;

use crate::{Failure, load::now};

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

/// The longest that all mails of one load may take.
const DELIVERY_LIMIT: Duration = Duration::from_mins(2);

/// A folder that mails are written into.
pub(crate) struct Mailbox {
    folder: PathBuf,
    seen: HashSet<OsString>,
}

impl Mailbox {
    pub(crate) fn new(folder: PathBuf) -> Self {
        let seen = HashSet::new();
        Self { folder, seen }
    }

    /// Waits for the mails of `sessions` and reads links and codes as people do: in the mails. From a server that
    /// writes none, they keep what they have.
    pub(crate) async fn read_tokens(&mut self, sessions: &mut [Session]) -> Result<(), Failure> {
        if !self.folder.exists() {
            return Ok(());
        }
        let mut waiting: HashMap<String, &mut Session> = sessions
            .iter_mut()
            .map(|session| (session.email.clone(), session))
            .collect();
        let began = now();
        while !waiting.is_empty() {
            if began.elapsed() > DELIVERY_LIMIT {
                return Err(format!("{} mails are missing", waiting.len()).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            for file in fs::read_dir(&self.folder)? {
                let name = file?.file_name();
                // Those with a dot are not whole yet.
                if !name.as_encoded_bytes().starts_with(b".") && !self.seen.contains(&name) {
                    read_mail(&fs::read(self.folder.join(&name))?, &mut waiting)?;
                    self.seen.insert(name);
                }
            }
        }
        Ok(())
    }
}

fn read_mail(bytes: &[u8], waiting: &mut HashMap<String, &mut Session>) -> Result<(), Failure> {
    let mail = MessageParser::default().parse(bytes).ok_or("no mail")?;
    let to = mail
        .to()
        .and_then(|to| to.first()?.address())
        .ok_or("no recipient")?;
    let Some(session) = waiting.remove(to) else {
        return Ok(());
    };
    let text = mail.body_text(0).ok_or("no text")?;
    let (_, rest) = text.split_once("/_threepid/link/").ok_or("no link")?;
    session.link = rest
        .chars()
        .take_while(|letter| !letter.is_whitespace())
        .collect();
    let is_code = |line: &&str| line.len() >= 8 && line.chars().all(|digit| digit.is_ascii_digit());
    text.lines()
        .map(str::trim)
        .find(is_code)
        .ok_or("no code")?
        .clone_into(&mut session.code);
    Ok(())
}
