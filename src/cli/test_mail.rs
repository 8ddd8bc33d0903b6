//! `threepid test-mail`: one harmless mail straight to the relay, past the outbox.

use std::io::Write;

use super::{Failure, assemble, runtime};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    courier::{Message, capture::Capture, email::Transport},
    threepid::Threepid,
};

const SUBJECT: &str = "Test mail from threepid";
const TEXT: &str = "This is a test mail: the operator of a Matrix homeserver tries out whether threepid can send mail.\n\
                    It can. You need not do anything.\n";
const HTML: &str = "<p>This is a test mail: the operator of a Matrix homeserver tries out whether threepid can send \
                    mail.</p>\n<p>It can. You need not do anything.</p>\n";

pub(super) fn run(config: &Config, address: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let to = Threepid::email(address).map_err(|error| format!("{address}: {error}"))?;
    let transport = assemble::transport(config)?;
    if transport == Transport::Capture {
        return Err(Failure::Told(
            "email.transport is \"capture\": nothing is sent, so there is nothing to try. \
             Write for example transport = \"smtps://user@mail.example.org\"."
                .to_owned(),
        ));
    }
    let courier = assemble::courier(config, &Capture::in_memory())?;
    let now = SystemClock.now();
    let message = Message {
        id: format!("test-{}", now.0),
        at: now,
        subject: SUBJECT.to_owned(),
        text: TEXT.to_owned(),
        html: HTML.to_owned(),
        language: "en".to_owned(),
    };
    match runtime()?.block_on(courier.deliver(&to, &message)) {
        Ok(outcome) => {
            writeln!(
                out,
                "{transport} took the mail for {}: {outcome}",
                to.address()
            )?;
            writeln!(
                out,
                "Now see whether it arrives, and not in the spam folder."
            )?;
            Ok(())
        }
        Err(error) => {
            let again = if error.transient {
                "It may pass: try again later."
            } else {
                "It will not pass by itself."
            };
            Err(Failure::Told(format!(
                "{transport} did not take the mail: {error}\n{again} \"threepid check\" greets the relay step by step."
            )))
        }
    }
}
