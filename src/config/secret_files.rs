//! Secrets that stand in files of their own.

use std::{fs, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Config, check, homeserver::Delegate, load::Problem, values::List};

/// Reads every such file into the key that stands for the secret itself.
pub(super) fn read(config: &mut Config, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    let (email, server) = (&mut config.email, &mut config.server);
    let (homeserver, servers) = (&mut config.homeserver, &mut config.identity_servers);
    let named = |(key, file, secret): (&str, _, _)| (key.to_owned(), file, secret);
    let mut found: Vec<_> = [
        ("email.password", &email.password_file, &mut email.password),
        (
            "server.api_token",
            &server.api_token_file,
            &mut server.api_token,
        ),
        (
            "homeserver.admin_token",
            &homeserver.admin_token_file,
            &mut homeserver.admin_token,
        ),
        (
            "identity_servers.default_server_token",
            &servers.default_server_token_file,
            &mut servers.default_server_token,
        ),
    ]
    .map(named)
    .into();
    for (name, gateway) in &mut config.sms.gateways {
        let key = format!("sms.gateways.{name}.password");
        found.push((key, &gateway.password_file, &mut gateway.settings.password));
    }
    for (key, file, secret) in found {
        if let Some(path) = file {
            match read_one(&key, path, secret.is_some()) {
                Ok(text) => *secret = Some(text),
                Err(problem) => problems.push(problem),
            }
            warnings.extend(check::readable_by_others(&format!("{key}_file"), path));
        }
    }
    let tokens = [
        &mut server.api_token,
        &mut homeserver.admin_token,
        &mut servers.default_server_token,
    ];
    tokens.into_iter().for_each(shorten);
    read_prefixes(&mut config.delegate, problems, warnings);
}

/// A token is a word: nobody means the blanks and lines around it.
fn shorten(token: &mut Option<SecretString>) {
    if let Some(text) = token {
        let line = text.expose_secret().lines().next();
        *token = Some(line.unwrap_or_default().trim().into());
    }
}

/// Reads the delegate's prefixes, one on each line that is not empty.
fn read_prefixes(delegate: &mut Delegate, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    let Some(path) = &delegate.prefixes_file else {
        return;
    };
    match read_one("delegate.prefixes", path, delegate.is_on()) {
        Ok(text) => {
            let lines = text.expose_secret().lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty());
            let Ok(prefixes) = lines.map(str::parse).collect();
            delegate.prefixes = List(prefixes);
            if !delegate.is_on() {
                let reason = "there is no prefix in it; write one on each line";
                problems.push(Problem::new("delegate.prefixes_file", reason));
            }
        }
        Err(problem) => problems.push(problem),
    }
    warnings.extend(check::readable_by_others("delegate.prefixes_file", path));
}

/// The text of a file without its last line's end.
fn read_one(key: &str, path: &PathBuf, is_written_too: bool) -> Result<SecretString, Problem> {
    if is_written_too {
        let reason = format!("{key}_file is written too; write one of the two");
        return Err(Problem::new(key, reason));
    }
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).into()),
        Err(error) => {
            let reason = format!("cannot read {}: {error}", path.display());
            Err(Problem::new(format!("{key}_file"), reason))
        }
    }
}
