//! `threepid rotate-signing-key`: a new key for the identity server.

use std::io::Write;

use super::Failure;
use crate::{config::Config, key_file};

pub(super) fn rotate(config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let path = &config.identity.signing_key_file;
    let name = key_file::rotate_signing(path)?;
    writeln!(
        out,
        "{} has a new key, {name}. Restart the server to sign with it; what the older keys signed stays valid. Keep a \
         backup of the file.",
        path.display()
    )?;
    Ok(())
}
