//! Reading the configuration: file and environment are merged, and whatever is wrong is told all at once.

use std::{fmt, fs, io, path::Path};

use config::{ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use serde_json::Value as Known;

use super::{
    Config, check,
    known::{ANY, known_keys, nearest},
    secret_files,
};

/// What is put before the name of each environment variable, and between its parts.
const PREFIX: &str = "THREEPID";
const SEPARATOR: &str = "__";

/// A configuration that is sound, and what its operator should know all the same.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The key's full name, with its sections.
    pub(crate) key: String,
    /// Why it is refused, and what to write instead.
    pub(crate) reason: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file can not be read, or is not TOML.
    #[error("{0}")]
    File(String),
    /// Keys that are unknown, or values that can not be.
    #[error("{}", Refusals(.0))]
    Refused(Vec<Problem>),
}

struct Refusals<'a>(&'a [Problem]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the configuration does not work:")?;
        for Problem { key, reason } in self.0 {
            write!(out, "\n  {key}: {reason}")?;
        }
        Ok(())
    }
}

/// Reads the file, if one is given, and lays `environment` over it: that of the process, if it is `None`.
///
/// # Errors
/// All that is wrong, with the name of each key; never the value of a secret.
pub(crate) fn load(
    file: Option<&Path>,
    environment: Option<Map<String, String>>,
) -> Result<Loaded, LoadError> {
    let merged = merge(file, environment)?;
    let mut problems = Vec::new();
    let table = merged.collect().map_err(refused)?;
    find_problems(&mut Vec::new(), &table, &known_keys(), &mut problems);
    if !problems.is_empty() {
        return Err(LoadError::Refused(problems));
    }
    let mut config: Config = merged.try_deserialize().map_err(refused)?;

    let mut warnings = Vec::new();
    secret_files::read(&mut config, &mut problems, &mut warnings);
    check::cross_check(&config, &mut problems);
    check::warn(&config, &mut warnings);
    if problems.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(LoadError::Refused(problems))
    }
}

fn merge(
    file: Option<&Path>,
    environment: Option<Map<String, String>>,
) -> Result<config::Config, LoadError> {
    let mut builder = config::Config::builder();
    if let Some(path) = file {
        builder = builder.add_source(File::from_str(&read_toml(path)?, FileFormat::Toml));
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(environment);
    builder.add_source(environment).build().map_err(refused)
}

/// The text of a file that is TOML. Its faults are told by line: the library's own words quote the line, which may hold
/// a password.
fn read_toml(path: &Path) -> Result<String, LoadError> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; \"threepid config\" prints one to begin with",
            _ => "",
        };
        LoadError::File(format!(
            "cannot read the configuration file {shown}: {error}{hint}"
        ))
    })?;
    if let Err(error) = text.parse::<toml::Table>() {
        let before = text
            .get(..error.span().map_or(0, |span| span.start))
            .unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let why = error.message();
        return Err(LoadError::File(format!(
            "{shown}, line {line}: this is not TOML: {why}"
        )));
    }
    Ok(text)
}

/// Looks at each key by itself, so that all of them are told.
fn find_problems<'a>(
    path: &mut Vec<&'a str>,
    table: &'a Map<String, Value>,
    known: &Known,
    problems: &mut Vec<Problem>,
) {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| *key);
    for (key, value) in keys {
        path.push(key);
        let name = path.join(".");
        let known = known.get(key).or_else(|| known.get(ANY));
        match (known, &value.kind) {
            (None, _) => problems.push(unknown(path, value)),
            (Some(below @ Known::Object(_)), ValueKind::Table(table)) => {
                find_problems(path, table, below, problems);
            }
            (Some(Known::Object(_)), _) => {
                let reason = format!("this is a section: write [{name}], and its keys below");
                problems.push(Problem::new(name, reason));
            }
            (Some(_), _) => problems.extend(value_problem(path, value)),
        }
        path.pop();
    }
}

fn unknown(path: &[&str], value: &Value) -> Problem {
    let what = if matches!(value.kind, ValueKind::Table(_)) {
        "section"
    } else {
        "key"
    };
    let hint = match nearest(path) {
        Some(near) => format!("did you mean {near}?"),
        None => "\"threepid config\" prints all there are".to_owned(),
    };
    let (name, place) = (path.join("."), place(path, value));
    Problem::new(name, format!("there is no such {what}{place}; {hint}"))
}

/// Why a value can not stand for a known key: the whole configuration is read with this one key set.
fn value_problem(path: &[&str], value: &Value) -> Option<Problem> {
    let alone = path.iter().rev().fold(value.clone(), |below, key| {
        let table = Map::from_iter([((*key).to_owned(), below)]);
        Value::new(None, ValueKind::Table(table))
    });
    let error = alone.try_deserialize::<Config>().err()?;
    let reason = match form_of_secret(path) {
        Some(form) => format!("it must be {form}"),
        None => reason(error),
    };
    let place = place(path, value);
    Some(Problem::new(path.join("."), format!("{reason}{place}")))
}

/// What a key takes whose value no error may show; `None` for all others.
fn form_of_secret(path: &[&str]) -> Option<&'static str> {
    match path {
        ["email", "password"]
        | ["server", "api_token"]
        | [
            "homeserver",
            "admin_token" | "registration_token" | "registration_shared_secret",
        ]
        | ["identity_servers", "default_server_token"]
        | ["sms", "gateways", _, "password" | "url"] => Some("a text in quotes"),
        ["delegate", "prefixes"] | ["homeserver", "webhook_keys"] => {
            Some("a list of texts, as [\"one\", \"two\"]")
        }
        ["sms", "gateways", _, "headers" | "form" | "json"] => {
            Some("a table of texts, as { Name = \"value\" }")
        }
        _ => None,
    }
}

/// Says where a value came from, if it is not the file.
fn place(path: &[&str], value: &Value) -> String {
    if value.origin() != Some("the environment") {
        return String::new();
    }
    let variable = path.join(SEPARATOR).to_uppercase();
    format!(" (in the environment: {PREFIX}{SEPARATOR}{variable})")
}

/// The library's words without the key's name, which stands before them already.
fn reason(error: ConfigError) -> String {
    match error {
        ConfigError::At { error, .. } => reason(*error),
        ConfigError::Type {
            unexpected,
            expected,
            ..
        } => {
            format!("{unexpected} can not stand here; write {expected}")
        }
        other => other
            .to_string()
            .replace("unknown variant", "unknown value")
            .replace("expected", "write"),
    }
}

fn refused(error: ConfigError) -> LoadError {
    LoadError::File(format!(
        "the configuration does not work: {}",
        reason(error)
    ))
}
