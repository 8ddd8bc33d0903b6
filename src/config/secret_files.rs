//! Secrets that stand in files of their own.

use std::{convert::Infallible, fs, path::PathBuf, str::FromStr};

use secrecy::{ExposeSecret, SecretString};

use super::{Config, check, load::Problem, values::List};

/// Reads every such file into the key that stands for the secret itself.
pub(super) fn read(config: &mut Config, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    for Single { key, file, secret } in singles(config) {
        if let Some(path) = file {
            match read_one(&key, path, secret.is_some()) {
                Ok(text) => *secret = Some(text),
                Err(problem) => problems.push(problem),
            }
            warnings.extend(check::readable_by_others(&format!("{key}_file"), path));
        }
    }
    let (server, homeserver) = (&mut config.server, &mut config.homeserver);
    let tokens = [
        &mut server.api_token,
        &mut homeserver.admin_token,
        &mut homeserver.registration_token,
        &mut homeserver.registration_shared_secret,
        &mut config.identity_servers.default_server_token,
    ];
    tokens.into_iter().for_each(shorten);
    let delegate = &mut config.delegate;
    let prefixes = Lines {
        key: "delegate.prefixes",
        what: "prefix",
        file: delegate.prefixes_file.as_ref(),
    };
    prefixes.read(&mut delegate.prefixes, problems, warnings);
    let keys = Lines {
        key: "homeserver.webhook_keys",
        what: "key",
        file: homeserver.webhook_keys_file.as_ref(),
    };
    keys.read(&mut homeserver.webhook_keys, problems, warnings);
}

/// A key whose value may stand in a file of its own.
struct Single<'a> {
    key: String,
    file: &'a Option<PathBuf>,
    secret: &'a mut Option<SecretString>,
}

fn singles(config: &mut Config) -> Vec<Single<'_>> {
    let (email, server) = (&mut config.email, &mut config.server);
    let (homeserver, servers) = (&mut config.homeserver, &mut config.identity_servers);
    let named = |(key, file, secret): (&str, _, _)| Single {
        key: key.to_owned(),
        file,
        secret,
    };
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
            "homeserver.registration_token",
            &homeserver.registration_token_file,
            &mut homeserver.registration_token,
        ),
        (
            "homeserver.registration_shared_secret",
            &homeserver.registration_shared_secret_file,
            &mut homeserver.registration_shared_secret,
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
        found.push(Single {
            key: format!("sms.gateways.{name}.password"),
            file: &gateway.password_file,
            secret: &mut gateway.settings.password,
        });
    }
    found
}

/// A token is a word: nobody means the blanks and lines around it.
fn shorten(token: &mut Option<SecretString>) {
    if let Some(text) = token {
        let line = text.expose_secret().lines().next();
        *token = Some(line.unwrap_or_default().trim().into());
    }
}

/// A file with several secrets, one on each line that is not empty.
struct Lines<'a> {
    key: &'static str,
    what: &'static str,
    file: Option<&'a PathBuf>,
}

impl Lines<'_> {
    fn read<T: FromStr<Err = Infallible>>(
        &self,
        list: &mut List<T>,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<String>,
    ) {
        let (Self { key, what, .. }, Some(path)) = (self, self.file) else {
            return;
        };
        let file_key = format!("{key}_file");
        match read_one(key, path, !list.0.is_empty()) {
            Ok(text) => {
                let lines = text.expose_secret().lines().map(str::trim);
                let lines = lines.filter(|line| !line.is_empty());
                let Ok(secrets) = lines.map(str::parse).collect();
                *list = List(secrets);
                if list.0.is_empty() {
                    let reason = format!("there is no {what} in it; write one on each line");
                    problems.push(Problem::new(&file_key, reason));
                }
            }
            Err(problem) => problems.push(problem),
        }
        warnings.extend(check::readable_by_others(&file_key, path));
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
