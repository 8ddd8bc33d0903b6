//! Where the log goes: to stderr, for people or for programs.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{Log, LogFormat};

/// Starts the log of this process.
pub(super) fn start(log: &Log) -> Result<(), Failure> {
    // A plain level is for what we have to say; the migrations' library reports each start at length.
    let filter = match log.level.as_str() {
        "info" => "info,refinery_core=warn",
        written => written,
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log.level: {error}"))?;
    // This library tells at length which number it reads: whole numbers are in no log, whatever is asked for.
    let silent = "rlibphonenumber=off".parse();
    let filter = filter.add_directive(silent.expect("a literal that is a directive"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| Failure::Told(format!("cannot start the log: {error}")))
}
