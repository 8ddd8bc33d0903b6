//! `threepid test-sms`: one harmless text message straight to the gateways, past the outbox and its ceilings.

use std::io::Write;

use super::{Failure, assemble, runtime};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, SmsTransport},
    courier::{Message, capture::Capture},
    phone,
    session::Purpose,
    threepid::Threepid,
};

const TEXT: &str = "This is a test message from threepid. You need not do anything.";

pub(super) fn run(
    config: &Config,
    country: Option<&str>,
    number: &str,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let to = read(country, number)?;
    let nothing = |what| {
        Err(Failure::Told(format!(
            "text messages are {what}, so there is nothing to try. Describe a gateway below [sms.gateways.NAME], and \
             write transport = [\"NAME\"] below [sms]."
        )))
    };
    let transport = config.sms_transport()?;
    match &transport {
        SmsTransport::Off => return nothing("off"),
        SmsTransport::Capture => return nothing("not sent"),
        SmsTransport::Gateways(_) => {}
    }
    let Some(courier) = assemble::sms_courier(config, &Capture::in_memory())? else {
        return nothing("off");
    };
    let now = SystemClock.now();
    let message = Message {
        id: format!("test-{}", now.0),
        at: now,
        subject: String::new(),
        text: TEXT.to_owned(),
        html: String::new(),
        language: "en".to_owned(),
    };
    match runtime()?.block_on(courier.deliver(&to, &message)) {
        Ok(outcome) => {
            writeln!(
                out,
                "The message for +{} was taken: {outcome}",
                to.address()
            )?;
            writeln!(out, "Now see whether it arrives.")?;
            let number = phone::facts(to.address());
            let policy = assemble::policy(config)?;
            if policy.check(Purpose::Add, &to, Some(&number)).is_err() {
                writeln!(
                    out,
                    "Apps could not ask for it: [sms] or [policy] denies this number."
                )?;
            }
            Ok(())
        }
        Err(error) => {
            let again = if error.unsure {
                "See whether it arrives all the same."
            } else if error.transient {
                "It may pass: try again later."
            } else {
                "It will not pass by itself."
            };
            Err(Failure::Told(format!(
                "no gateway says that it took the message: {error}\n{again} \"threepid check\" greets each gateway step by step."
            )))
        }
    }
}

fn read(country: Option<&str>, number: &str) -> Result<Threepid, Failure> {
    let country = match country {
        Some(country) => country,
        None if number.trim_start().starts_with('+') => super::ANYWHERE,
        None => {
            return Err(Failure::Told(format!(
                "{number}: write the number with its calling code, as +447700900001, or name its country: --country GB"
            )));
        }
    };
    let read = Threepid::msisdn(&country.to_ascii_uppercase(), number);
    read.map_err(|error| Failure::Told(format!("{number}: {error}")))
}
