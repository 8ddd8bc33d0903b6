//! What is wrong with `[sms]`.

use super::{MOST_WORKERS, Medium};
use crate::{
    config::{
        Config,
        sms::{CAPTURE, OFF, SmsTransport},
    },
    courier::sms::SmsSettings,
    policy::Numbers,
    rate::Rate,
    validation::Validate,
};

/// Whether people get text messages.
pub(super) fn really_sends(config: &Config) -> bool {
    let transport = config.sms_transport();
    config.is_on(Medium::Msisdn) && matches!(transport, Ok(SmsTransport::Gateways(_)))
}

pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let sms = &config.sms;
    check_names(config, refuse);
    check_numbers(config, refuse);
    match config.sms_transport() {
        Err(reason) => refuse("sms.transport", reason),
        Ok(SmsTransport::Gateways(settings)) => check_gateways(&settings, refuse),
        Ok(_) => {}
    }
    for (key, rates) in [
        ("sms.ceilings.per_source", &sms.ceilings.per_source.0),
        ("sms.ceilings.per_number", &sms.ceilings.per_number.0),
        (
            "sms.ceilings.per_calling_code",
            &sms.ceilings.per_calling_code.0,
        ),
        ("sms.ceilings.total", &sms.ceilings.total.0),
    ] {
        if rates.is_empty() {
            let reason =
                "there is no ceiling in it; write for example [\"100/24h\"], or \"off\" for none";
            refuse(key, reason.to_owned());
        } else if rates.len() > 1 && rates.contains(&Rate::OFF) {
            let reason = "\"off\" stands beside others; write it alone, or take it out";
            refuse(key, reason.to_owned());
        }
    }
    if !(1..=MOST_WORKERS).contains(&sms.workers) {
        refuse(
            "sms.workers",
            format!("{} is not a number from 1 to {MOST_WORKERS}", sms.workers),
        );
    }
}

fn check_numbers(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    const NOTHING: &[String] = &[];
    let sms = &config.sms;
    for (key, codes, kinds) in [
        (
            "allowed_calling_codes",
            &*sms.allowed_calling_codes.0,
            NOTHING,
        ),
        (
            "denied_calling_codes",
            &*sms.denied_calling_codes.0,
            NOTHING,
        ),
        (
            "allowed_number_types",
            NOTHING,
            &*sms.allowed_number_types.0,
        ),
        ("denied_number_types", NOTHING, &*sms.denied_number_types.0),
    ] {
        if let Err(reason) = Numbers::new(codes, &[], kinds, &[]) {
            refuse(&format!("sms.{key}"), reason);
        }
    }
}

/// What gateways are called, and that somebody uses them.
fn check_names(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    let sms = &config.sms;
    for name in sms.gateways.keys() {
        // The environment's names have no case, and so its keys are in lower case.
        if [OFF, CAPTURE].contains(&name.as_str()) || name.to_ascii_lowercase() != *name {
            refuse(
                &format!("sms.gateways.{name}"),
                "a gateway can not have this name; write another one in lower case".to_owned(),
            );
        }
    }
    if let (None, Some(name)) = (&sms.transport, sms.gateways.keys().next()) {
        refuse(
            "sms.transport",
            format!(
                "there is a gateway, but it is not used; write transport = [\"{name}\"], or \"off\""
            ),
        );
    }
}

/// Looks at each gateway by itself, so that all that is wrong is told.
fn check_gateways(settings: &SmsSettings, refuse: &mut impl FnMut(&str, String)) {
    let mut told = Vec::new();
    for gateway in &settings.gateways {
        let alone = SmsSettings {
            gateways: vec![gateway.clone()],
            ..settings.clone()
        };
        told.extend(
            alone
                .check()
                .err()
                .filter(|refusal| !told.contains(refusal)),
        );
    }
    if told.is_empty() {
        told.extend(settings.check().err());
    }
    for refusal in &told {
        let (key, reason) = split(refusal);
        refuse(key, reason);
    }
}

/// The key that a refusal begins with, and the rest of it.
fn split(refusal: &str) -> (&str, String) {
    match refusal.split_once(' ') {
        Some((key, reason)) if key.starts_with("sms.") => match key.strip_suffix(':') {
            Some(key) => (key, reason.to_owned()),
            None => (key, format!("it {reason}")),
        },
        _ => ("sms.transport", refusal.to_owned()),
    }
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    let sms = &config.sms;
    if let Ok(transport @ SmsTransport::Gateways(_)) = config.sms_transport() {
        let names = transport.names();
        let unused = sms
            .gateways
            .keys()
            .filter(|name| !names.contains(&name.as_str()));
        warnings.extend(unused.map(|name| {
            format!(
                "sms.gateways.{name} is described, but not used: sms.transport does not name it"
            )
        }));
    }
    if sms.validate_password != Validate::Off {
        warnings.push(
            "sms.validate_password is on: numbers are given to other people after a while, who can then take over accounts"
                .to_owned(),
        );
    }
}
