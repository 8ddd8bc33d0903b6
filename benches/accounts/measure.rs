//! Polls, additions and resets, each measured at a server on one core.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{self, Command},
};

use crate::{
    Failure, Plan,
    figure::Figure,
    fill,
    homeserver::{ADMIN_TOKEN, Homeserver},
    load,
    registering::{self, Costs},
    server::{self, Server},
    sessions::{Mailbox, Session},
};

const ADD: &str = "/_matrix/client/v3/account/3pid/email/requestToken";
const RESET: &str = "/_matrix/client/v3/account/password/email/requestToken";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `POST account/password` while the link is not opened yet.
    Poll,
    /// `POST account/3pid/add`, with the password that the homeserver wants.
    Add,
    /// `POST account/password` once the link was opened.
    Reset,
}

/// Everything that was measured, each run by itself.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) loads: BTreeMap<(Kind, usize), Vec<Figure>>,
    /// How many requests the homeserver got for one of ours.
    pub(crate) calls: BTreeMap<(Kind, usize), f64>,
    /// What registrations cost.
    pub(crate) registrations: Costs,
}

pub(crate) async fn all(plan: &Plan, folder: &Path) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    for run in 1..=plan.runs {
        eprintln!("run {run} of {}", plan.runs);
        let data = folder.join(format!("run-{run}"));
        fill::database(&data, plan.stored)?;
        let bench = Bench::start(&data)?;
        bench.polls(plan, &mut figures).await?;
        bench.changes(plan, Kind::Add, &mut figures).await?;
        bench.changes(plan, Kind::Reset, &mut figures).await?;
        drop(bench);
        registering::all(plan, &data, &mut figures.registrations).await?;
        fs::remove_dir_all(&data)?;
    }
    Ok(figures)
}

struct Bench {
    homeserver: Homeserver,
    server: Server,
    mails: std::path::PathBuf,
}

impl Bench {
    fn start(data: &Path) -> Result<Self, Failure> {
        let homeserver = Homeserver::start()?;
        let mails = data.join("mails");
        let transport = format!("file:{}", mails.display());
        let server = Server::start(|address| threepid(data, &transport, &homeserver, address))?;
        Ok(Self {
            homeserver,
            server,
            mails,
        })
    }

    /// Polls for resets whose links nobody has opened.
    async fn polls(&self, plan: &Plan, figures: &mut Figures) -> Result<(), Failure> {
        let sessions = self.ask(Kind::Reset, 100, 0).await?;
        let polls = |count: usize| {
            (0..count)
                .map(|number| reset(&sessions[number % sessions.len()]))
                .collect::<Vec<_>>()
        };
        load::run_until(self.server.address, polls(1000), 16, 401).await?;
        for (concurrency, count) in plan.polls {
            self.measure(Kind::Poll, concurrency, polls(count), 401, figures)
                .await?;
        }
        Ok(())
    }

    /// Additions or resets of addresses that were just proved.
    async fn changes(&self, plan: &Plan, kind: Kind, figures: &mut Figures) -> Result<(), Failure> {
        let mut first = 1_000_000 * (1 + kind as usize);
        for (concurrency, count) in plan.changes {
            let sessions = self.ask(kind, count, first).await?;
            first += count;
            let presses = sessions.iter().map(press).collect();
            load::run(self.server.address, presses, 16).await?;
            let requests = sessions
                .iter()
                .map(if kind == Kind::Add { add } else { reset });
            self.measure(kind, concurrency, requests.collect(), 200, figures)
                .await?;
        }
        Ok(())
    }

    /// Asks for tokens, and reads them in the mails.
    async fn ask(&self, kind: Kind, count: usize, first: usize) -> Result<Vec<Session>, Failure> {
        let mut sessions: Vec<_> = (first..first + count).map(Session::new).collect();
        if kind == Kind::Reset {
            for session in &sessions {
                self.homeserver.give(user(&session.email), &session.email);
            }
        }
        let path = if kind == Kind::Add { ADD } else { RESET };
        let requests = sessions.iter().map(|session| {
            let Session {
                email,
                client_secret,
                ..
            } = session;
            let body = format!(
                r#"{{"email":"{email}","client_secret":"{client_secret}","send_attempt":1}}"#
            );
            load::post(path, &body)
        });
        let outcome = load::run(self.server.address, requests.collect(), 16).await?;
        for (number, answer) in outcome.answers {
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            let sid = answer["sid"].as_str().ok_or("an answer without sid")?;
            sid.clone_into(&mut sessions[number].sid);
        }
        Mailbox::new(self.mails.clone())
            .read_tokens(&mut sessions)
            .await?;
        Ok(sessions)
    }

    async fn measure(
        &self,
        kind: Kind,
        concurrency: usize,
        requests: Vec<Vec<u8>>,
        status: u16,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        server::sync();
        let before = self.server.settle().await?;
        let calls = self.homeserver.requests();
        let outcome = load::run_until(self.server.address, requests, concurrency, status).await?;
        let calls = self.homeserver.requests() - calls;
        let cpu = self.server.settle().await?.saturating_sub(before);
        let figure = Figure::new(&outcome, cpu);
        let runs = figures.loads.entry((kind, concurrency)).or_default();
        runs.push(figure);
        let each = load::count(calls) / load::count(outcome.count());
        figures.calls.insert((kind, concurrency), each);
        Ok(())
    }
}

/// The program on one core with the loader and the homeserver on the others.
pub(crate) fn threepid(
    data: &Path,
    transport: &str,
    homeserver: &Homeserver,
    address: SocketAddr,
) -> Result<Command, Failure> {
    let whole = server::threepid(data, transport, address)?;
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]);
    command.arg(whole.get_program()).args(whole.get_args());
    command
        .env("THREEPID__HOMESERVER__KIND", "synapse")
        .env("THREEPID__HOMESERVER__URL", &homeserver.url)
        .env("THREEPID__HOMESERVER__ADMIN_TOKEN", ADMIN_TOKEN);
    pin_self()?;
    Ok(command)
}

/// Leaves the server's core to it.
fn pin_self() -> Result<(), Failure> {
    let pinned = Command::new("taskset")
        .args(["--all-tasks", "--pid", "--cpu-list", "1-1023"])
        .arg(process::id().to_string())
        .stdout(process::Stdio::null())
        .status()?;
    if pinned.success() {
        Ok(())
    } else {
        Err("taskset can not pin this process: two cores are needed".into())
    }
}

/// Whose address it is.
pub(crate) fn user(email: &str) -> &str {
    email.split('@').next().unwrap_or_default()
}

fn press(session: &Session) -> Vec<u8> {
    let body = "continue=app";
    let path = format!("/_threepid/link/{}", session.link);
    format!(
        "POST {path} HTTP/1.1\r\nHost: matrix.example.org\r\nX-Forwarded-For: 203.0.113.7\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn add(session: &Session) -> Vec<u8> {
    let (name, sid, secret) = (user(&session.email), &session.sid, &session.client_secret);
    let auth = format!(
        r#"{{"type":"m.login.password","identifier":{{"type":"m.id.user","user":"{name}"}},"password":"p"}}"#
    );
    let body = format!(r#"{{"sid":"{sid}","client_secret":"{secret}","auth":{auth}}}"#);
    let token = format!("Authorization: Bearer {name}\r\n");
    load::post_as(&token, "/_matrix/client/v3/account/3pid/add", &body)
}

fn reset(session: &Session) -> Vec<u8> {
    let (sid, secret) = (&session.sid, &session.client_secret);
    let creds = format!(r#"{{"sid":"{sid}","client_secret":"{secret}"}}"#);
    let auth = format!(r#"{{"type":"m.login.email.identity","threepid_creds":{creds}}}"#);
    let body = format!(r#"{{"new_password":"correct horse battery","auth":{auth}}}"#);
    load::post("/_matrix/client/v3/account/password", &body)
}
