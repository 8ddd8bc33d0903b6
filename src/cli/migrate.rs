//! `threepid migrate`: brings the database up to date while no server runs.

use std::io::Write;

use super::Failure;
use crate::{config::Config, store::sqlite::SqliteStore};

pub(super) fn run(config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let path = config.storage.path()?;
    let report = SqliteStore::migrate(&path)?;
    let (path, version) = (path.display(), report.version);
    match report.applied {
        0 => writeln!(out, "{path} is up to date already (schema {version}).")?,
        1 => writeln!(
            out,
            "{path} is up to date now (schema {version}): 1 migration ran."
        )?,
        many => writeln!(
            out,
            "{path} is up to date now (schema {version}): {many} migrations ran."
        )?,
    }
    Ok(())
}
