//! The command line: one file per command.
//!
//! Commands write to the `io::Write` that `main` hands in; what went wrong goes to stderr. Exit status: 0 done, 1 not
//! done, 2 not understood.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{
    config::{self, Config, Loaded},
    store::{
        StoreError,
        sqlite::{OpenError, Role, SqliteStore},
    },
};

mod account_server;
mod addresses;
mod assemble;
mod check;
mod greeting;
mod homeserver;
mod invites;
mod log;
mod migrate;
mod outbox;
mod serve;
mod signing_key;
mod table;
mod test_mail;
mod test_sms;

/// The configuration file that is taken when none is named.
const USUAL_FILE: &str = "threepid.toml";
/// What `threepid config` prints.
const EXAMPLE: &str = include_str!("../../examples/config.toml");

/// Lets a Matrix homeserver prove, by itself, that a person owns an email address or a phone number.
#[derive(Debug, Parser)]
#[command(
    name = "threepid",
    version,
    disable_help_subcommand = true,
    after_help = "Without a command, threepid serves. Without a file, it takes threepid.toml in this directory,\n\
                  or else its defaults: it listens on 127.0.0.1:8090 and shows messages instead of sending them."
)]
struct Arguments {
    /// The configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "THREEPID_CONFIG"
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; what threepid does without a command
    Serve,
    /// Print a configuration file with every key, its default and what it does
    Config,
    /// Check the configuration, the database, the key, the homeserver, how people sign up, the mail relay and the SMS
    /// gateways
    Check {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring the database up to date while no server runs
    Migrate,
    /// Send one harmless mail and tell what the relay answers
    TestMail {
        /// To whom
        address: String,
    },
    /// Send one harmless text message and tell what the gateway answers
    TestSms {
        /// To which number, as +447700900001
        number: String,
        /// The country of a number without a calling code, as GB
        #[arg(long)]
        country: Option<String>,
    },
    /// Look at messages on their way: list, retry, drop
    #[command(subcommand)]
    Outbox(outbox::Command),
    /// Look at invitations of the identity server: list, withdraw
    #[command(subcommand)]
    Invites(invites::Command),
    /// Look at and change the addresses of accounts: list, add, remove
    #[command(subcommand)]
    Addresses(addresses::Command),
    /// Make a new signing key for the identity server; the older ones stay valid
    RotateSigningKey,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the operator should know, in a line or two.
    Told(String),
    /// Its output can not be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    /// For writing to the output alone; other errors of this type need words.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Told(text)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Told(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Told(error.to_string())
    }
}

/// Does what `arguments` ask for, the program's name being the first of them.
pub fn main<I>(arguments: I, out: &mut dyn Write) -> ExitCode
where
    I: IntoIterator<Item: Into<OsString> + Clone>,
{
    let arguments = Arguments::parse_from(arguments);
    let done = run(&arguments, out).and_then(|()| Ok(out.flush()?));
    let told = match done {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read it, `head` for one, has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(Failure::Output(error)) => format!("cannot write the output: {error}"),
        Err(Failure::Told(told)) => told,
    };
    let _ = writeln!(io::stderr(), "threepid: {told}");
    ExitCode::FAILURE
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let file = arguments.file();
    let Some(command) = &arguments.command else {
        return serve::run(load(file)?, out);
    };
    match command {
        Command::Serve => serve::run(load(file)?, out),
        Command::Config => Ok(out.write_all(EXAMPLE.as_bytes())?),
        Command::Check { json } => check::run(file, *json, out),
        Command::Migrate => migrate::run(&load(file)?.config, out),
        Command::TestMail { address } => test_mail::run(&load(file)?.config, address, out),
        Command::TestSms { number, country } => {
            test_sms::run(&load(file)?.config, country.as_deref(), number, out)
        }
        Command::Outbox(command) => outbox::run(&load(file)?.config, command, out),
        Command::Invites(command) => invites::run(&load(file)?.config, command, out),
        Command::Addresses(command) => addresses::run(&load(file)?.config, command, out),
        Command::RotateSigningKey => signing_key::rotate(&load(file)?.config, out),
    }
}

impl Arguments {
    /// The configuration file: the one that is named, else the usual one if it is there.
    fn file(&self) -> Option<&Path> {
        let usual = || Some(Path::new(USUAL_FILE)).filter(|path| path.exists());
        self.config.as_deref().or_else(usual)
    }
}

fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    config::load(file, None).map_err(|error| Failure::Told(error.to_string()))
}

fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|error| Failure::Told(format!("cannot start threads: {error}")))
}

/// Whence a number is dialled that begins with `+`: it is the same from everywhere.
const ANYWHERE: &str = "GB";

/// Opens the store beside a server that may be running, does `work`, and closes it. Refuses to make a new one.
fn beside<T>(
    config: &Config,
    work: impl AsyncFnOnce(&SqliteStore) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let path = config.storage.path()?;
    if !path.exists() {
        let path = path.display();
        return Err(Failure::Told(format!(
            "there is no database at {path} yet; \"threepid serve\" makes it, or name the right file with -c"
        )));
    }
    beside_or_new(config, work)
}

/// The same as [`beside`], but makes the store if there is none.
fn beside_or_new<T>(
    config: &Config,
    work: impl AsyncFnOnce(&SqliteStore) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let path = config.storage.path()?;
    runtime()?.block_on(async {
        let store = SqliteStore::open(&path, Role::Beside)?;
        let done = work(&store).await;
        store.close().await;
        done
    })
}
