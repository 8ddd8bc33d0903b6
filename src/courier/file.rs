//! The courier that writes mails into a folder, one file each.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use lettre::message::Mailbox;
use tokio::task::spawn_blocking;

use super::{
    Courier, DeliveryError, Message,
    mime::{Mail, token},
};
use crate::{secret::random, threepid::Threepid};

/// How long a write may take before the caller may give it up. Nothing here waits for another machine.
const LONGEST: Duration = Duration::from_secs(30);

/// Writes each mail as `<ms>-<message id>.eml`, readable by us alone: it is there whole or not at all.
#[derive(Debug)]
pub(super) struct Folder {
    from: Mailbox,
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(from: Mailbox, path: PathBuf) -> Self {
        Self { from, path }
    }

    async fn write(&self, name: String, bytes: Vec<u8>) -> Result<(), DeliveryError> {
        let folder = self.path.clone();
        let written = spawn_blocking(move || put(&folder, &name, &bytes)).await;
        let failed = |why| DeliveryError::transient(format!("file: {why}"));
        match written {
            Ok(written) => written.map_err(|error| failed(error.kind())),
            Err(_) => Err(failed(io::ErrorKind::Other)),
        }
    }
}

#[async_trait]
impl Courier for Folder {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        let mail = Mail::write(&self.from, to, message)?;
        let name = format!("{}-{}.eml", message.at.0, token(&message.id));
        self.write(name, mail.bytes).await?;
        Ok("written".to_owned())
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        let folder = self.path.clone();
        let made = spawn_blocking(move || make(&folder)).await;
        match made.map_err(io::Error::other).flatten() {
            Ok(()) => (
                vec![format!("folder {} is there", self.path.display())],
                Ok(()),
            ),
            Err(error) => {
                let outcome = format!("file: {}", error.kind());
                (Vec::new(), Err(DeliveryError::transient(outcome)))
            }
        }
    }

    fn longest(&self) -> Duration {
        LONGEST
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file that is there whole or not at all, even if the machine stops now.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    make(folder)?;
    let unfinished = folder.join(format!(".{name}.{:016x}", u64::from_le_bytes(random())));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, folder.join(name)));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::Timestamp;

    fn message(id: &str) -> Message {
        Message {
            id: id.to_owned(),
            at: Timestamp(5),
            subject: "Hello".to_owned(),
            text: "text".to_owned(),
            html: "<p>html</p>".to_owned(),
            language: "en".to_owned(),
        }
    }

    fn folder(path: &Path) -> Folder {
        Folder::new("a@example.org".parse().unwrap(), path.to_owned())
    }

    #[tokio::test]
    async fn a_mail_becomes_one_private_file() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("deep/mails");
        let alice = Threepid::email("alice@example.com").unwrap();

        let outcome = folder(&path).deliver(&alice, &message("../../x")).await;

        assert_eq!(outcome.unwrap(), "written");
        let files: Vec<_> = fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].file_name(), "5-.._.._x.eml");
        assert_eq!(
            files[0].metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let mail = fs::read_to_string(files[0].path()).unwrap();
        assert!(mail.contains("To: alice@example.com\r\n"), "{mail}");
    }

    #[tokio::test]
    async fn a_folder_that_can_not_be_made_is_transient() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let alice = Threepid::email("alice@example.com").unwrap();
        let folder = folder(&file.path().join("mails"));

        let error = folder.deliver(&alice, &message("x")).await.unwrap_err();

        assert!(error.transient);
        assert_eq!(error.outcome, "file: not a directory");
        assert_eq!(folder.greet().await.1, Err(error));
    }
}
