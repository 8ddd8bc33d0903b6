//! `threepid addresses`: which account has which address, where threepid itself keeps that.

use std::io::Write;

use clap::Subcommand;

use super::{Failure, beside, beside_or_new, table};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    error::Error,
    store::{Bound, Contact, Contacts},
    threepid::Threepid,
    user_id::is_user_id,
};

/// How many addresses are read at once.
const PAGE: u32 = 500;

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Show the addresses of one account, or of all
    List {
        /// The account, as @alice:example.org
        user_id: Option<String>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Give an address to an account, without asking its owner
    Add {
        /// The account, as @alice:example.org
        user_id: String,
        /// The email address, or the phone number as +447700900001
        address: String,
    },
    /// Take an address from an account
    Remove {
        /// The account, as @alice:example.org
        user_id: String,
        /// The email address, or the phone number as +447700900001
        address: String,
    },
}

pub(super) fn run(config: &Config, command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::List { user_id, json } => list(config, user_id.as_deref(), *json, out),
        Command::Add { user_id, address } => {
            let (user_id, threepid) = parse(user_id, address)?;
            if !config.homeserver.keeps_here(threepid.medium()) {
                return Err(Failure::Told(
                    "by homeserver.kind, such addresses are not kept by threepid: it would be of no use to add one \
                     here"
                        .to_owned(),
                ));
            }
            let now = SystemClock.now();
            let bound = beside_or_new(config, async |store| {
                let bound = store.bind(user_id, &threepid, None, now).await?;
                let owner = store.owner(&threepid).await?;
                Ok((bound, owner.unwrap_or_default()))
            })?;
            let address = threepid.address();
            match bound {
                (Bound::Bound, _) => writeln!(out, "{address} belongs to {user_id} now.")?,
                (Bound::AlreadyYours, _) => {
                    writeln!(out, "{address} belongs to {user_id} already.")?;
                }
                (Bound::OwnedByOther, owner) => {
                    return Err(Failure::Told(format!(
                        "{address} belongs to {owner}; \"threepid addresses remove {owner} {address}\" takes it away"
                    )));
                }
            }
            Ok(())
        }
        Command::Remove { user_id, address } => {
            let (user_id, threepid) = parse(user_id, address)?;
            let address = threepid.address();
            if !beside(config, async |store| {
                Ok(store.unbind(user_id, &threepid).await?)
            })? {
                return Err(Failure::Told(format!(
                    "{address} does not belong to {user_id}"
                )));
            }
            Ok(writeln!(
                out,
                "{address} does not belong to {user_id} any more."
            )?)
        }
    }
}

fn list(
    config: &Config,
    user_id: Option<&str>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let user_id = user_id.map(parse_user_id).transpose()?;
    let contacts = beside(config, async |store| {
        let mut all: Vec<Contact> = Vec::new();
        loop {
            let last = all
                .last()
                .map(|last| (last.user_id.as_str(), last.address.as_str()));
            let page = store.contacts(user_id, last, PAGE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    })?;
    if json {
        return Ok(table::write_json(out, &contacts)?);
    }
    if contacts.is_empty() {
        return Ok(writeln!(out, "No addresses.")?);
    }
    let row = |contact: &Contact| {
        [
            contact.user_id.clone(),
            contact.address.clone(),
            contact.added_at.to_string(),
        ]
    };
    let rows: Vec<_> = contacts.iter().map(row).collect();
    Ok(table::write(out, ["account", "address", "since"], &rows)?)
}

fn parse<'a>(user_id: &'a str, address: &str) -> Result<(&'a str, Threepid), Failure> {
    let threepid = parse_address(address).map_err(|error| format!("{address}: {error}"))?;
    Ok((parse_user_id(user_id)?, threepid))
}

/// An email address, or a phone number that begins with `+`: which is the same from everywhere.
fn parse_address(text: &str) -> Result<Threepid, Error> {
    match text.strip_prefix('+') {
        Some(_) => Threepid::msisdn(super::ANYWHERE, text),
        None if !text.contains('@') => Err(Error::InvalidAddress(
            "write an email address as name@example.org, or a phone number as +447700900001",
        )),
        None => Threepid::email(text),
    }
}

fn parse_user_id(text: &str) -> Result<&str, String> {
    if is_user_id(text) {
        Ok(text)
    } else {
        Err(format!(
            "{text:?} is not a user id; write it as @alice:example.org"
        ))
    }
}
