//! Secrets that stand in files of their own.

use std::{fs, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Config, check, load::Problem};

/// Reads every such file into the key that stands for the secret itself.
pub(super) fn read(config: &mut Config, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    let email = &mut config.email;
    let servers = &mut config.identity_servers;
    let mut found = vec![
        (
            "email.password".to_owned(),
            &email.password_file,
            &mut email.password,
        ),
        (
            "identity_servers.default_server_token".to_owned(),
            &servers.default_server_token_file,
            &mut servers.default_server_token,
        ),
    ];
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
    // A token is a word: nobody means the blanks and lines around it.
    if let Some(token) = &servers.default_server_token {
        let line = token.expose_secret().lines().next();
        servers.default_server_token = Some(line.unwrap_or_default().trim().into());
    }
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
