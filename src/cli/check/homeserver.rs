//! The homeserver that is asked, and those that ask us.

use super::{Finding, fine, walked};
use crate::{
    cli::{Failure, greeting, homeserver::Asked, runtime},
    config::Config,
};

/// Asks the homeserver what it is asked for while people use it, step by step.
pub(super) fn ask(config: &Config) -> Result<Vec<Finding>, Failure> {
    let part = "homeserver";
    match Asked::new(config) {
        Ok(None) => Ok(vec![fine(part, &greeting::homeserver(config))]),
        Ok(Some(homeserver)) => {
            let (steps, end) = runtime()?.block_on(homeserver.greet(config));
            Ok(walked(part, &steps, end.err()))
        }
        Err(detail) => Ok(walked(part, &[], Some(detail))),
    }
}

/// Says which homeservers may call, without the secrets by which they do.
pub(super) fn delegate(config: &Config) -> Option<Finding> {
    let delegate = &config.delegate;
    if !delegate.is_on() {
        return None;
    }
    let prefixes = match delegate.prefixes.0.len() {
        1 => "1 prefix".to_owned(),
        several => format!("{several} prefixes"),
    };
    let internal = config.server.internal_address().ok().flatten();
    let public = config.server.listen.0.iter().filter(|_| delegate.public);
    let addresses = internal.iter().chain(public).map(ToString::to_string);
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    Some(fine(
        "delegate",
        &format!("{prefixes}, served at {addresses}"),
    ))
}
