//! `threepid check`: whether it would work, one part after the other; also while a server runs.

use std::{io::Write, path::Path, sync::Arc};

use serde::Serialize;

mod call;
mod forms;
mod homeserver;
mod identity;
mod outside;
mod registration;

use super::{Failure, assemble, beside, load, runtime, table};
use crate::{
    config::{Config, Loaded, SmsTransport},
    courier::{Courier, capture::Capture, email::Transport},
    key_file,
    threepid::Medium,
};

/// What is told of messages that are captured.
const SHOWN: &str = "not sent, but shown at /_threepid/mailbox";

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Finding {
    part: &'static str,
    ok: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
    warnings: Vec<String>,
}

pub(super) fn run(file: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let report = look(file)?;
    if json {
        table::write_json(out, &report)?;
    } else {
        for Finding { part, ok, detail } in &report.findings {
            let mark = if *ok { "ok    " } else { "FAILED" };
            writeln!(out, "{mark}  {part}: {detail}")?;
        }
        for warning in &report.warnings {
            writeln!(out, "WARNING {warning}")?;
        }
    }
    if report.ok {
        return Ok(());
    }
    out.flush()?;
    Err(Failure::Told(
        "the check found something to mend".to_owned(),
    ))
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    findings: Vec<Finding>,
    warnings: Vec<String>,
}

impl Found {
    fn fine(&mut self, part: &'static str, detail: &str) {
        self.findings.push(fine(part, detail));
    }

    fn failed(&mut self, part: &'static str, detail: String) {
        self.findings.push(failed(part, detail));
    }

    /// What works, but should be known.
    fn warn(&mut self, part: &str, detail: &str) {
        self.warnings.push(format!("{part}: {detail}"));
    }
}

fn look(file: Option<&Path>) -> Result<Report, Failure> {
    let mut found = Found::default();
    let part = "configuration";
    match load(file) {
        Err(Failure::Told(detail)) => found.failed(part, detail),
        Err(failure) => return Err(failure),
        Ok(Loaded { config, warnings }) => {
            found.warnings = warnings;
            let file = file.map(|file| file.display().to_string());
            found.fine(part, file.as_deref().unwrap_or("built-in defaults"));
            look_at(&config, &mut found)?;
        }
    }
    let Found { findings, warnings } = found;
    Ok(Report {
        ok: findings.iter().all(|finding| finding.ok),
        findings,
        warnings,
    })
}

fn look_at(config: &Config, found: &mut Found) -> Result<(), Failure> {
    found.findings.push(storage(config)?);
    let homeserver = homeserver::ask(config)?;
    let answers = homeserver.iter().all(|finding| finding.ok);
    found.findings.extend(homeserver);
    runtime()?.block_on(registration::look(config, answers, found));
    found.findings.extend(mail(config)?);
    found.findings.extend(texts(config)?);
    found.findings.extend(identity_servers(config));
    let keys = identity::keys(config, found)?;
    runtime()?.block_on(identity::look(config, keys, found));
    found.findings.extend(homeserver::delegate(config));
    Ok(())
}

/// Opens the database, and holds the key file against it.
fn storage(config: &Config) -> Result<Finding, Failure> {
    let part = "database and key";
    let (path, key_path) = (config.storage.path()?, &config.secrets.key_file);
    let shown = path.display();
    if !path.exists() {
        let detail = format!("{shown} is not there yet; it is made at first start");
        return Ok(Finding {
            part,
            ok: true,
            detail,
        });
    }
    let opened = beside(config, async |store| {
        let keys = key_file::load(key_path, store)?;
        Ok((keys.is_some(), store.key_fingerprint()?.is_some()))
    });
    let key = key_path.display();
    let (ok, detail) = match opened {
        Ok((true, _)) => (true, format!("{shown} opens, and {key} fits")),
        Ok((false, false)) => (
            true,
            format!("{shown} opens; {key} is not there yet, and is made at first start"),
        ),
        Ok((false, true)) => (
            false,
            format!("{shown} opens, but there is no key at {key}; bring it back from your backup"),
        ),
        Err(Failure::Told(detail)) => (false, detail),
        Err(failure) => return Err(failure),
    };
    Ok(Finding { part, ok, detail })
}

/// Greets the relay, phase by phase.
fn mail(config: &Config) -> Result<Vec<Finding>, Failure> {
    let part = "mail";
    if !config.is_on(Medium::Email) {
        return Ok(vec![fine(part, "off: every request for it is refused")]);
    }
    if assemble::transport(config)? == Transport::Capture {
        return Ok(vec![fine(part, SHOWN)]);
    }
    greet(part, assemble::courier(config, &Capture::in_memory()))
}

/// Greets each gateway, phase by phase.
fn texts(config: &Config) -> Result<Vec<Finding>, Failure> {
    let part = "text messages";
    if !config.is_on(Medium::Msisdn) {
        return Ok(vec![fine(part, "off: every request for one is refused")]);
    }
    let courier = match config.sms_transport()? {
        SmsTransport::Off => return Ok(vec![fine(part, "off: none is sent")]),
        SmsTransport::Capture => return Ok(vec![fine(part, SHOWN)]),
        SmsTransport::Gateways(_) => assemble::sms_courier(config, &Capture::in_memory()),
    };
    greet(
        part,
        courier.and_then(|courier| courier.ok_or_else(|| "off".to_owned())),
    )
}

fn greet(
    part: &'static str,
    courier: Result<Arc<dyn Courier>, String>,
) -> Result<Vec<Finding>, Failure> {
    let courier = match courier {
        Ok(courier) => courier,
        Err(detail) => return Ok(walked(part, &[], Some(detail))),
    };
    let (phases, end) = runtime()?.block_on(courier.greet());
    let failed = end.err().map(|error| error.to_string());
    Ok(walked(part, &phases, failed))
}

/// The steps that went well, and the one that did not.
fn walked(part: &'static str, steps: &[String], failed: Option<String>) -> Vec<Finding> {
    let failed = failed.map(|detail| self::failed(part, detail));
    let steps = steps.iter().map(|step| fine(part, step));
    steps.chain(failed).collect()
}

/// Says whom requests may be passed on to; calls nobody.
fn identity_servers(config: &Config) -> Option<Finding> {
    let names = config.identity_servers.names();
    let told = format!("trusted: {}", names.join(", "));
    (!names.is_empty()).then(|| fine("identity servers", &told))
}

fn fine(part: &'static str, detail: &str) -> Finding {
    Finding {
        part,
        ok: true,
        detail: detail.to_owned(),
    }
}

fn failed(part: &'static str, detail: String) -> Finding {
    Finding {
        part,
        ok: false,
        detail,
    }
}
