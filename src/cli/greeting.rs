//! What `threepid serve` tells a person who just started it.

use std::io::{self, Write};

use url::Url;

use super::assemble;
use crate::{
    config::{Config, HomeserverKind, SmsTransport},
    courier::email::Transport,
    http::{listen::ListenAddress, serve::Listening},
    threepid::Medium,
};

/// Tells where the server listens, where messages go, and what to do next.
pub(super) fn greet(
    config: &Config,
    public: &Listening,
    internal: &Listening,
    out: &mut dyn Write,
) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, "threepid {version} listens on {}.", names(public))?;
    if !internal.addresses().is_empty() {
        let internal = names(internal);
        writeln!(
            out,
            "Internal routes, for the homeserver and for monitoring: {internal}."
        )?;
    }
    let public_url = config.server.public_url();
    let base = public_url.as_str().trim_end_matches('/');
    writeln!(out, "Links begin with {base}, its public URL.")?;
    writeln!(out, "{}", homeserver(config))?;
    let reader = if config.server.is_for_this_machine() {
        public
    } else {
        internal
    };
    let mailbox = mailbox(reader);
    greet_texts(config, &mailbox, out)?;
    greet_identity_servers(config, out)?;
    if let Some(name) = config.identity_name().filter(|_| config.identity.enabled) {
        writeln!(
            out,
            "Identity server: {name}, at {base}/_matrix/identity/v2."
        )?;
    }
    greet_mails(config, &mailbox, out)?;
    if assemble::captures_mails(config) {
        writeln!(
            out,
            "\nTry it: curl {base}/_matrix/client/v3/register/email/requestToken \\\n  \
             -d '{{\"client_secret\":\"secret\",\"email\":\"you@example.org\",\"send_attempt\":1}}'\n\
             To send mails: \"threepid config > threepid.toml\", and set public_url and transport in it."
        )?;
    }
    out.flush()
}

/// Which homeserver there is, and what it knows.
pub(super) fn homeserver(config: &Config) -> String {
    let url = config.homeserver.url().map(Url::as_str).unwrap_or_default();
    let url = url.trim_end_matches('/');
    match config.homeserver.kind {
        HomeserverKind::Synapse if config.homeserver.keeps_here(Medium::Msisdn) => format!(
            "Synapse, at {url}, knows which account has which email address; phone numbers are kept here."
        ),
        HomeserverKind::Synapse => {
            format!("Synapse, at {url}, knows which account has which address.")
        }
        HomeserverKind::Local if url.is_empty() => {
            "Which account has which address is kept here; no homeserver is asked.".to_owned()
        }
        HomeserverKind::Local => format!(
            "Which account has which address is kept here; the homeserver at {url} knows the accounts."
        ),
        HomeserverKind::Dendrite => format!(
            "Dendrite, at {url}, knows the accounts; which one has which address is kept here."
        ),
        HomeserverKind::Webhook => {
            format!("The webhook at {url} knows the accounts, and which one has which address.")
        }
        HomeserverKind::None => {
            "No homeserver is asked who has which address: addresses are proved, and no password is reset."
                .to_owned()
        }
    }
}

fn names(listening: &Listening) -> String {
    let addresses = listening.addresses();
    let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Where captured messages are read, if they can be.
fn mailbox(reader: &Listening) -> String {
    let url = reader.addresses().iter().find_map(ListenAddress::local_url);
    url.map_or_else(String::new, |url| {
        format!(" Read them at {url}_threepid/mailbox")
    })
}

fn greet_mails(config: &Config, mailbox: &str, out: &mut dyn Write) -> io::Result<()> {
    if !config.is_on(Medium::Email) {
        return writeln!(out, "Email is off: every request for it is refused.");
    }
    match assemble::transport(config) {
        Ok(Transport::Capture) => writeln!(out, "Mails are not sent.{mailbox}"),
        Ok(transport) => writeln!(out, "Mails go to {transport}, from {}.", config.from()),
        Err(_) => Ok(()),
    }
}

fn greet_texts(config: &Config, mailbox: &str, out: &mut dyn Write) -> io::Result<()> {
    if !config.is_on(Medium::Msisdn) {
        return writeln!(
            out,
            "Phone numbers are off: every request for one is refused."
        );
    }
    match config.sms_transport() {
        Ok(SmsTransport::Capture) => writeln!(out, "Text messages are not sent.{mailbox}"),
        Ok(transport @ SmsTransport::Gateways(_)) => {
            let names = transport.names().join(", then ");
            writeln!(out, "Text messages go through {names}.")
        }
        Ok(SmsTransport::Off) | Err(_) => Ok(()),
    }
}

fn greet_identity_servers(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let names = config.identity_servers.names();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    writeln!(out, "Trusted identity servers: {names}.")
}
