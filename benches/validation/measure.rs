//! Which servers are measured with which requests, in which order.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    BECOME, CHECK, FEW, Failure, Plan, REQUEST, SUBMIT,
    figure::Figure,
    fill,
    load::{self, Outcome, post},
    relay::{self, Manner},
    server::{self, Server},
    sessions::{Mailbox, Session},
};

/// What the slow relay thinks about each mail.
pub(crate) const RELAY_DELAY: Duration = Duration::from_millis(300);

/// A server, and what it stores and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Bare,
    Commits,
    CommitsMail,
    Capture,
    File,
    FileMany,
    SlowRelay,
    RefusingRelay,
}

/// In turns, so that what the machine does beside meets all alike.
const SUBJECTS: [Subject; 8] = [
    Subject::Bare,
    Subject::Commits,
    Subject::CommitsMail,
    Subject::Capture,
    Subject::File,
    Subject::FileMany,
    Subject::SlowRelay,
    Subject::RefusingRelay,
];

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Request,
    Link,
    Code,
    Check,
}

/// A process, in numbers.
#[derive(Clone, Copy)]
pub(crate) struct Vitals {
    pub(crate) first_answer_ms: f64,
    pub(crate) resident_at_start: f64,
    pub(crate) resident_after: f64,
}

/// Everything that was measured, each run by itself.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) figures: BTreeMap<(Operation, usize, Subject), Vec<Figure>>,
    pub(crate) vitals: BTreeMap<Subject, Vec<Vitals>>,
}

/// What the measurements need besides the plan.
struct Bench<'a> {
    plan: &'a Plan,
    folder: &'a Path,
    few: PathBuf,
    many: PathBuf,
    slow: String,
    refusing: String,
    measured: Measured,
    /// How many sessions were asked for: each has an address of its own.
    asked: usize,
}

/// Measures all of it, the runs in turns.
pub(crate) async fn all(plan: &Plan, folder: &Path) -> Result<Measured, Failure> {
    // It takes its time to make.
    let many = if plan.measures(Subject::FileMany) {
        plan.many
    } else {
        0
    };
    let mut bench = Bench {
        plan,
        folder,
        few: fill::database(&folder.join("few"), FEW)?,
        many: fill::database(&folder.join("many"), many)?,
        slow: relay::start(Manner::Slow(RELAY_DELAY))?,
        refusing: relay::start(Manner::Refusing)?,
        measured: Measured::default(),
        asked: 0,
    };
    for run in 1..=plan.runs {
        for subject in SUBJECTS {
            if !plan.measures(subject) {
                continue;
            }
            eprintln!("run {run} of {}: {subject:?}", plan.runs);
            bench.measure(subject).await?;
        }
    }
    Ok(bench.measured)
}

impl Plan {
    fn measures(&self, subject: Subject) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| *only == format!("{subject:?}"))
    }
}

impl Bench<'_> {
    async fn measure(&mut self, subject: Subject) -> Result<(), Failure> {
        let data = &self.folder.join(format!("{subject:?}-{}", self.asked));
        fs::create_dir(data)?;
        let database = if subject == Subject::FileMany {
            &self.many
        } else {
            &self.few
        };
        fs::copy(database, data.join("threepid.db"))?;
        server::sync();
        let server = self.start(subject, data)?;
        // Threads, statements and buffers come with the first requests.
        let (_, mut first) = self.open(&server, 100, 16).await?;
        let mut mails = Mailbox::new(data.join("mails"));
        if subject.takes_tokens() {
            mails.read_tokens(&mut first).await?;
        }
        server.settle().await?;
        let mut proved = Vec::new();
        for (concurrency, requests) in self.plan.loads {
            let only_busy = matches!(subject, Subject::SlowRelay | Subject::RefusingRelay);
            if only_busy && concurrency != 64 {
                continue;
            }
            let before = server.cpu()?;
            let (outcome, mut sessions) = self.open(&server, requests, concurrency).await?;
            if subject.takes_tokens() {
                mails.read_tokens(&mut sessions).await?;
            }
            // A slow relay has mails for minutes.
            let after = if only_busy {
                server.cpu()?
            } else {
                server.settle().await?
            };
            self.note(
                Operation::Request,
                concurrency,
                subject,
                &outcome,
                after.saturating_sub(before),
            );
            if subject.takes_tokens() {
                self.show_tokens(&server, subject, concurrency, &sessions)
                    .await?;
                proved.push((concurrency, sessions));
            }
        }
        self.measured
            .vitals
            .entry(subject)
            .or_default()
            .push(Vitals {
                first_answer_ms: server.first_answer_ms,
                resident_at_start: server.resident_at_start,
                resident_after: server.resident()?,
            });
        self.check_all(server, subject, data, &proved).await?;
        // The mails stay until the end: where files were just deleted, the file system is slow to make new ones.
        Ok(fs::remove_file(data.join("threepid.db"))?)
    }

    /// Asks for the proofs: ours behind a server that mounts the library, in the place of the program.
    async fn check_all(
        &mut self,
        server: Server,
        subject: Subject,
        data: &Path,
        proved: &[(usize, Vec<Session>)],
    ) -> Result<(), Failure> {
        let server = match subject {
            Subject::File | Subject::FileMany => {
                drop(server);
                Server::start(own("check", data))?
            }
            _ => server,
        };
        for (concurrency, sessions) in proved {
            self.check(&server, subject, *concurrency, sessions).await?;
        }
        Ok(())
    }

    fn start(&self, subject: Subject, data: &Path) -> Result<Server, Failure> {
        let file = format!("file:{}", data.join("mails").display());
        let transport = match subject {
            Subject::Bare => return Server::start(own("bare", data)),
            Subject::Commits => return Server::start(own("commits", data)),
            Subject::CommitsMail => return Server::start(own("commits-mail", data)),
            Subject::Capture => "capture",
            Subject::File | Subject::FileMany => &file,
            Subject::SlowRelay => &self.slow,
            Subject::RefusingRelay => &self.refusing,
        };
        Server::start(|address| server::threepid(data, transport, address))
    }

    /// Asks for sessions, each with an address and a secret of its own.
    async fn open(
        &mut self,
        server: &Server,
        requests: usize,
        concurrency: usize,
    ) -> Result<(Outcome, Vec<Session>), Failure> {
        let first = self.asked;
        self.asked += requests;
        let mut sessions: Vec<_> = (first..self.asked).map(Session::new).collect();
        let bodies = sessions.iter().map(|session| {
            let Session {
                email,
                client_secret,
                ..
            } = session;
            post(
                REQUEST,
                &format!(
                    r#"{{"client_secret":"{client_secret}","email":"{email}","send_attempt":1}}"#
                ),
            )
        });
        let outcome = load::run(server.address, bodies.collect(), concurrency).await?;
        for (number, body) in &outcome.answers {
            let body: Value = serde_json::from_slice(body)?;
            let session = &mut sessions[*number];
            body["sid"]
                .as_str()
                .ok_or("no sid")?
                .clone_into(&mut session.sid);
            session.link.clone_from(&session.sid);
        }
        sessions.retain(|session| !session.sid.is_empty());
        Ok((outcome, sessions))
    }

    /// Proves half of the sessions by link and half by code.
    async fn show_tokens(
        &mut self,
        server: &Server,
        subject: Subject,
        concurrency: usize,
        sessions: &[Session],
    ) -> Result<(), Failure> {
        let (by_link, by_code) = sessions.split_at(sessions.len() / 2);
        let links = by_link
            .iter()
            .map(|session| post(&format!("/_threepid/link/{}", session.link), ""));
        let codes = by_code.iter().map(|session| {
            let Session {
                sid,
                client_secret,
                code,
                ..
            } = session;
            post(
                SUBMIT,
                &format!(r#"{{"sid":"{sid}","client_secret":"{client_secret}","token":"{code}"}}"#),
            )
        });
        for (operation, requests) in [
            (Operation::Link, links.collect::<Vec<_>>()),
            (Operation::Code, codes.collect()),
        ] {
            let before = server.cpu()?;
            let outcome = load::run(server.address, requests, concurrency).await?;
            let after = server.settle().await?;
            self.note(
                operation,
                concurrency,
                subject,
                &outcome,
                after.saturating_sub(before),
            );
        }
        Ok(())
    }

    /// Asks again and again whether the sessions are proved.
    async fn check(
        &mut self,
        server: &Server,
        subject: Subject,
        concurrency: usize,
        sessions: &[Session],
    ) -> Result<(), Failure> {
        let requests = sessions
            .iter()
            .cycle()
            .take(sessions.len() * 4)
            .map(|session| {
                let Session {
                    sid, client_secret, ..
                } = session;
                post(
                    CHECK,
                    &format!(r#"{{"sid":"{sid}","client_secret":"{client_secret}"}}"#),
                )
            });
        let before = server.cpu()?;
        let outcome = load::run(server.address, requests.collect(), concurrency).await?;
        let after = server.cpu()?;
        self.note(
            Operation::Check,
            concurrency,
            subject,
            &outcome,
            after.saturating_sub(before),
        );
        Ok(())
    }

    fn note(
        &mut self,
        operation: Operation,
        concurrency: usize,
        subject: Subject,
        outcome: &Outcome,
        cpu: Duration,
    ) {
        let figure = Figure::new(outcome, cpu);
        let key = (operation, concurrency, subject);
        self.measured.figures.entry(key).or_default().push(figure);
    }
}

impl Subject {
    fn takes_tokens(self) -> bool {
        matches!(
            self,
            Self::Bare | Self::Commits | Self::File | Self::FileMany
        )
    }
}

/// This program as one of its own servers.
fn own(kind: &str, data: &Path) -> impl FnOnce(std::net::SocketAddr) -> Result<Command, Failure> {
    move |address| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([BECOME, kind, &address.to_string()]).arg(data);
        Ok(command)
    }
}
