//! The courier that sends nothing: it keeps messages to be looked at.

use std::{
    collections::VecDeque,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Courier, DeliveryError, Message};
use crate::{clock::Timestamp, threepid::Threepid};

/// How many messages are kept: the newest ones.
const KEPT: usize = 1000;
/// How many lines the file has before it is written anew with those that are kept.
const LINES: usize = 2 * KEPT;

/// A message that was not sent. It holds a token: `Debug` shows nothing of its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The message's own id; the same each time one message is tried.
    pub id: String,
    /// The medium of the address: `email`.
    pub medium: String,
    /// The address it was for.
    pub to: String,
    /// The subject line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
    /// When it would have been sent, in milliseconds since 1970.
    #[serde(deserialize_with = "timestamp")]
    pub at: Timestamp,
}

impl fmt::Debug for Captured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Captured({})", self.id)
    }
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    i64::deserialize(deserializer).map(Timestamp)
}

/// Keeps the newest thousand messages, in memory or also in a file. Clones share what they keep.
#[derive(Clone)]
pub struct Capture(Arc<Mutex<Kept>>);

struct Kept {
    /// Oldest first.
    messages: VecDeque<Captured>,
    journal: Option<Journal>,
}

/// A file with one message as JSON in each line, oldest first.
struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Whether the last write may have left half a line.
    torn: bool,
}

impl Capture {
    /// Keeps messages until the process ends.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::of(VecDeque::new(), None)
    }

    /// Keeps messages in the file at `path` too, and begins with those that are in it. The file is for our user alone.
    ///
    /// A line that is not whole, because the process was ended while it wrote, is left out.
    ///
    /// # Errors
    /// Whatever keeps the file from being read or written.
    pub fn in_file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut messages: VecDeque<Captured> = text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        messages.drain(..messages.len().saturating_sub(KEPT));
        let journal = Journal::rewrite(path, &messages)?;
        Ok(Self::of(messages, Some(journal)))
    }

    fn of(messages: VecDeque<Captured>, journal: Option<Journal>) -> Self {
        Self(Arc::new(Mutex::new(Kept { messages, journal })))
    }

    /// What is kept, newest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Captured> {
        self.lock().messages.iter().rev().cloned().collect()
    }

    /// Forgets what is kept.
    ///
    /// # Errors
    /// If the file can not be emptied; then nothing is forgotten.
    pub fn clear(&self) -> io::Result<()> {
        let mut kept = self.lock();
        if let Some(journal) = &mut kept.journal {
            journal.file.set_len(0)?;
            journal.lines = 0;
            journal.torn = false;
        }
        kept.messages.clear();
        Ok(())
    }

    fn keep(&self, message: Captured) -> io::Result<()> {
        let mut kept = self.lock();
        let Kept { messages, journal } = &mut *kept;
        if let Some(journal) = journal {
            journal.append(&message)?;
        }
        messages.push_back(message);
        if messages.len() > KEPT {
            messages.pop_front();
        }
        if let Some(journal) = journal
            && journal.lines > LINES
        {
            *journal = Journal::rewrite(journal.path.clone(), messages)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Puts a file with just `messages` in the place of what is at `path`.
    fn rewrite(path: PathBuf, messages: &VecDeque<Captured>) -> io::Result<Self> {
        let mut text = Vec::new();
        for message in messages {
            text.extend(line(message)?);
        }
        let unfinished = beside(&path);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        Ok(Self {
            path,
            file,
            lines: messages.len(),
            torn: false,
        })
    }

    fn append(&mut self, message: &Captured) -> io::Result<()> {
        let mut text = line(message)?;
        if self.torn {
            text.insert(0, b'\n');
        }
        self.torn = true;
        self.file.write_all(&text)?;
        self.torn = false;
        self.lines += 1;
        Ok(())
    }
}

fn line(message: &Captured) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[async_trait]
impl Courier for Capture {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        let captured = Captured {
            id: message.id.clone(),
            medium: to.medium().to_string(),
            to: to.address().to_owned(),
            subject: message.subject.clone(),
            text: message.text.clone(),
            html: message.html.clone(),
            at: message.at,
        };
        match self.keep(captured) {
            Ok(()) => Ok("captured".to_owned()),
            Err(error) => Err(DeliveryError::transient(format!(
                "capture: {}",
                error.kind()
            ))),
        }
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        let told = "messages are kept here to be looked at, none is sent";
        (vec![told.to_owned()], Ok(()))
    }

    /// It waits for nobody.
    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Capture")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn deliver(capture: &Capture, id: &str) -> Result<String, DeliveryError> {
        let message = Message {
            id: id.to_owned(),
            at: Timestamp(1_795_341_600_123),
            subject: "Grüße".to_owned(),
            text: "one\ntwo".to_owned(),
            html: "<p>one</p>".to_owned(),
            language: "en".to_owned(),
        };
        let alice = Threepid::email("alice@example.com").unwrap();
        capture.deliver(&alice, &message).await
    }

    fn ids(capture: &Capture) -> Vec<String> {
        capture.messages().into_iter().map(|kept| kept.id).collect()
    }

    #[tokio::test]
    async fn what_is_sent_is_kept_newest_first() {
        let capture = Capture::in_memory();
        for id in ["a", "b", "b"] {
            assert_eq!(deliver(&capture, id).await.unwrap(), "captured");
        }

        assert_eq!(ids(&capture.clone()), ["b", "b", "a"]);
        capture.clear().unwrap();
        assert!(capture.messages().is_empty());
    }

    #[tokio::test]
    async fn a_captured_message_is_plain_json() {
        let capture = Capture::in_memory();
        deliver(&capture, "a").await.unwrap();

        assert_eq!(
            serde_json::to_value(&capture.messages()[0]).unwrap(),
            serde_json::json!({
                "id": "a", "medium": "email", "to": "alice@example.com", "subject": "Grüße",
                "text": "one\ntwo", "html": "<p>one</p>", "at": 1_795_341_600_123_i64,
            })
        );
        assert!(!format!("{:?} {capture:?}", capture.messages()).contains("one"));
    }

    #[tokio::test]
    async fn captured_messages_survive_without_a_goodbye() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mails");
        let first = Capture::in_file(&path).unwrap();
        deliver(&first, "a").await.unwrap();
        deliver(&first, "b").await.unwrap();
        let kept = first.messages();
        // As a process leaves it that was ended in the middle of a write.
        std::mem::forget(first);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"c\",\"medi").unwrap();

        let second = Capture::in_file(&path).unwrap();
        assert_eq!(second.messages(), kept);
        deliver(&second, "d").await.unwrap();

        assert_eq!(ids(&Capture::in_file(&path).unwrap()), ["d", "b", "a"]);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[tokio::test]
    async fn only_the_newest_are_kept_and_the_file_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mails");
        let capture = Capture::in_file(&path).unwrap();
        for number in 0..LINES + 10 {
            deliver(&capture, &number.to_string()).await.unwrap();
        }

        assert_eq!(capture.messages().len(), KEPT);
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!((KEPT..=LINES).contains(&lines), "{lines}");
        let again = Capture::in_file(&path).unwrap();
        assert_eq!(again.messages(), capture.messages());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), KEPT);
        again.clear().unwrap();
        assert!(Capture::in_file(&path).unwrap().messages().is_empty());
    }
}
