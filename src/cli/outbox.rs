//! `threepid outbox`: messages on their way.

use std::io::Write;

use clap::Subcommand;

use super::{Failure, beside, table};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    store::{Outbox, OutboxEntry},
};

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// Show the newest messages
    List {
        /// How many at most
        #[arg(long, default_value_t = 50)]
        most: u32,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Try a waiting or failed message again now; of an invitation's mail that failed nothing is kept to try
    Retry {
        /// The message's number in the list
        id: i64,
    },
    /// Drop a waiting message: it will not be sent
    Drop {
        /// The message's number in the list
        id: i64,
    },
}

pub(super) fn run(config: &Config, command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    let now = SystemClock.now();
    let missing = |what: &str, id: i64| {
        Failure::Told(format!(
            "there is no {what} message {id}; see \"threepid outbox list\""
        ))
    };
    match *command {
        Command::List { most, json } => {
            let entries = beside(config, async |store| Ok(store.list(most).await?))?;
            if json {
                Ok(table::write_json(out, &entries)?)
            } else {
                list(&entries, out)
            }
        }
        Command::Retry { id } => {
            if !beside(config, async |store| Ok(store.retry(id, now).await?))? {
                return Err(Failure::Told(format!(
                    "there is no waiting or failed message {id} that could be tried again: of an invitation's mail that \
                     failed, nothing is kept; see \"threepid outbox list\""
                )));
            }
            Ok(writeln!(
                out,
                "Message {id} is due now. A running server tries it within moments."
            )?)
        }
        Command::Drop { id } => {
            if !beside(config, async |store| {
                Ok(store.drop_message(id, now).await?)
            })? {
                return Err(missing("waiting", id));
            }
            Ok(writeln!(out, "Message {id} will not be sent.")?)
        }
    }
}

fn list(entries: &[OutboxEntry], out: &mut dyn Write) -> Result<(), Failure> {
    if entries.is_empty() {
        return Ok(writeln!(out, "No messages.")?);
    }
    let row = |entry: &OutboxEntry| {
        [
            entry.id.to_string(),
            entry.state.to_owned(),
            entry.kind.clone(),
            entry.to.clone(),
            entry.deliveries.to_string(),
            entry.queued_at.to_string(),
            entry.due_at.map(|due| due.to_string()).unwrap_or_default(),
            entry.outcome.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let heads = [
        "id",
        "state",
        "kind",
        "to",
        "tries",
        "asked for",
        "next try",
        "last answer",
    ];
    Ok(table::write(out, heads, &rows)?)
}
