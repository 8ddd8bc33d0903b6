//! `threepid invites`: invitations that the identity server keeps.

use std::io::Write;

use clap::Subcommand;

use super::{Failure, beside, table};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    keys::unhex,
    store::{InviteEntry, Invites},
};

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Show the newest invitations
    List {
        /// How many at most
        #[arg(long, default_value_t = 50)]
        most: u32,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Withdraw an open invitation: nobody can accept it any more
    Withdraw {
        /// The invitation's id in the list
        id: String,
    },
}

pub(super) fn run(config: &Config, command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    let now = SystemClock.now();
    match command {
        Command::List { most, json } => {
            let entries = beside(config, async |store| {
                Ok(store.list_invites(*most, now).await?)
            })?;
            if *json {
                Ok(table::write_json(out, &entries)?)
            } else {
                list(&entries, out)
            }
        }
        Command::Withdraw { id } => {
            let missing = || {
                Failure::Told(format!(
                    "there is no open invitation {id}; see \"threepid invites list\""
                ))
            };
            let name = unhex(id).ok_or_else(missing)?;
            if !beside(config, async |store| {
                Ok(store.withdraw_invite(name, now).await?)
            })? {
                return Err(missing());
            }
            Ok(writeln!(
                out,
                "Nobody can accept invitation {id} any more."
            )?)
        }
    }
}

fn list(entries: &[InviteEntry], out: &mut dyn Write) -> Result<(), Failure> {
    if entries.is_empty() {
        return Ok(writeln!(out, "No invitations.")?);
    }
    let row = |entry: &InviteEntry| {
        [
            entry.id.clone(),
            entry.state.to_owned(),
            entry.to.clone(),
            entry.sender.clone(),
            entry.room_id.clone(),
            entry.created_at.to_string(),
            entry.expires_at.to_string(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let heads = ["id", "state", "to", "from", "room", "made", "until"];
    Ok(table::write(out, heads, &rows)?)
}
