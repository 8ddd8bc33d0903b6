//! What an operator is told of a homeserver, and what it is asked for that.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{error::Error, secret::random, threepid::Threepid};

/// What an operator is told: the cause, where there is one.
pub(in crate::homeserver) fn sentence(error: &Error) -> String {
    error
        .cause()
        .map_or_else(|| error.to_string(), str::to_owned)
}

/// A name that nobody has.
pub(in crate::homeserver) fn made_up_name() -> String {
    let name = URL_SAFE_NO_PAD.encode(random::<12>());
    let name = name.to_ascii_lowercase().replace(['-', '_'], "x");
    format!("nobody-{name}")
}

/// An address that nobody has.
pub(in crate::homeserver) fn made_up() -> Threepid {
    let address = format!("{}@threepid.invalid", made_up_name());
    Threepid::email(&address).expect("letters, digits and a hyphen, at a domain")
}
