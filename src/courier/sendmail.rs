//! The courier that hands mails to the `sendmail` program of this machine.

use std::{
    fmt, io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use lettre::message::Mailbox;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Courier, DeliveryError, Message, mime::Mail};
use crate::threepid::Threepid;

/// The exit statuses that are about the mail itself: wrong usage, wrong data, no such user (sysexits.h). What else goes
/// wrong is about this machine or the way, which somebody may mend.
const PERMANENT: &[i32] = &[64, 65, 67];

/// Runs `sendmail` once for each mail.
pub(super) struct Sendmail {
    from: Mailbox,
    program: PathBuf,
    /// How long one run may take.
    limit: Duration,
}

impl Sendmail {
    /// Runs `program`, each time for no longer than `limit`.
    pub(super) fn new(from: Mailbox, program: PathBuf, limit: Duration) -> Self {
        Self {
            from,
            program,
            limit,
        }
    }

    async fn run(&self, mail: &Mail) -> io::Result<ExitStatus> {
        let from: &str = mail.from.as_ref();
        let mut child = Command::new(&self.program)
            // After "--" nothing is an option, and no shell reads it.
            .args(["-i", "-f", from, "--", &mail.to])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // When the time is over, or the delivery is cancelled, this future is dropped, and the child with it.
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(&with_plain_line_ends(&mail.bytes)).await {
                // It ended without reading: its exit status says why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        child.wait().await
    }
}

#[async_trait]
impl Courier for Sendmail {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        let mail = Mail::write(&self.from, to, message)?;
        match timeout(self.limit, self.run(&mail)).await {
            Ok(Ok(status)) => outcome(status),
            Ok(Err(error)) => Err(not_run(error.kind())),
            Err(_) => Err(DeliveryError::transient("sendmail: timed out")),
        }
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        let told = match tokio::fs::metadata(&self.program).await {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                return (vec![format!("{} is there", self.program.display())], Ok(()));
            }
            Ok(_) => io::ErrorKind::PermissionDenied,
            Err(error) => error.kind(),
        };
        (Vec::new(), Err(not_run(told)))
    }

    fn longest(&self) -> Duration {
        self.limit
    }
}

impl fmt::Debug for Sendmail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Sendmail({})", self.program.display())
    }
}

fn not_run(why: io::ErrorKind) -> DeliveryError {
    DeliveryError::transient(format!("sendmail: can not be run: {why}"))
}

fn outcome(status: ExitStatus) -> Result<String, DeliveryError> {
    match status.code() {
        Some(0) => Ok("sent: exit 0".to_owned()),
        Some(code) => Err(DeliveryError {
            transient: !PERMANENT.contains(&code),
            unsure: false,
            of_recipient: false,
            outcome: format!("sendmail: exit {code}"),
        }),
        None => Err(DeliveryError::transient("sendmail: ended by a signal")),
    }
}

/// Lines ended by LF, as programs on this machine expect them.
fn with_plain_line_ends(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    plain.retain(|byte| *byte != b'\r');
    plain
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::process::ExitStatusExt, path::Path};

    use super::*;
    use crate::clock::Timestamp;

    /// A `sendmail` that does what `script` says, in a folder of its own.
    fn sendmail(folder: &Path, script: &str, limit: Duration) -> Sendmail {
        let program = folder.join("sendmail");
        let script = format!("#!/bin/sh\ncd {}\n{script}\n", folder.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        Sendmail::new("-x@example.org".parse().unwrap(), program, limit)
    }

    async fn deliver(sendmail: &Sendmail) -> Result<String, DeliveryError> {
        let to = Threepid::email("-oq/tmp@example.com").unwrap();
        let message = Message {
            id: "id".to_owned(),
            at: Timestamp(0),
            subject: "Hello".to_owned(),
            text: "one\n.\ntwo\n".to_owned(),
            html: "<p>html</p>".to_owned(),
            language: "en".to_owned(),
        };
        // Another test that forks just now may hold our script open for writing (ETXTBSY): try again.
        loop {
            match sendmail.deliver(&to, &message).await {
                Err(error) if error.outcome.ends_with("executable file busy") => {}
                done => return done,
            }
        }
    }

    #[tokio::test]
    async fn the_program_gets_the_mail_and_no_option_of_a_stranger() {
        let folder = tempfile::tempdir().unwrap();
        let script = "printf '%s\\n' \"$@\" > args; cat > mail";
        let sendmail = sendmail(folder.path(), script, Duration::from_secs(30));

        assert_eq!(deliver(&sendmail).await.unwrap(), "sent: exit 0");

        let args = fs::read_to_string(folder.path().join("args")).unwrap();
        assert_eq!(args, "-i\n-f\n-x@example.org\n--\n-oq/tmp@example.com\n");
        let mail = fs::read_to_string(folder.path().join("mail")).unwrap();
        assert!(
            !mail.contains('\r') && mail.contains("\none\n.\ntwo\n"),
            "{mail}"
        );
    }

    #[tokio::test]
    async fn the_exit_status_tells_whether_another_try_helps() {
        for (script, transient, outcome) in [
            ("exit 64", false, "sendmail: exit 64"),
            ("exit 67", false, "sendmail: exit 67"),
            ("exit 75", true, "sendmail: exit 75"),
            ("kill -9 $$", true, "sendmail: ended by a signal"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let sendmail = sendmail(folder.path(), script, Duration::from_secs(30));
            let error = deliver(&sendmail).await.unwrap_err();
            assert_eq!(
                (error.transient, error.outcome.as_str()),
                (transient, outcome)
            );
        }
    }

    #[test]
    fn only_what_is_about_the_mail_is_permanent() {
        for code in 1..=255 {
            let error = outcome(ExitStatus::from_raw(code << 8)).unwrap_err();
            assert_eq!(error.transient, !matches!(code, 64 | 65 | 67), "{code}");
        }
        for signal in [1, 9, 13, 15] {
            let error = outcome(ExitStatus::from_raw(signal)).unwrap_err();
            assert!(error.transient, "{signal}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo $$ > pid; exec sleep 600";
        let sendmail = sendmail(folder.path(), script, Duration::from_millis(250));

        let error = deliver(&sendmail).await.unwrap_err();

        assert_eq!(error, DeliveryError::transient("sendmail: timed out"));
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
        let process = format!("/proc/{}/cmdline", pid.trim());
        while fs::read(&process).is_ok_and(|line| !line.is_empty()) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_transient() {
        let from = "a@example.org".parse().unwrap();
        let sendmail = Sendmail::new(from, "/nonexistent".into(), Duration::from_secs(1));

        let error = deliver(&sendmail).await.unwrap_err();

        assert!(error.transient);
        assert_eq!(sendmail.greet().await, (vec![], Err(error)));
    }
}
