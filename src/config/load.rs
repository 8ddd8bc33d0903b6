//! Reading the configuration: file and environment are merged, and whatever is wrong is told all at once.

use std::{fmt, fs, io, path::Path};

use config::{
    ConfigBuilder, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind,
    builder::DefaultState,
};
use secrecy::SecretString;
use serde_json::Value as Known;

use super::{Config, check};

/// What is put before the name of each environment variable, and between its parts.
const PREFIX: &str = "THREEPID";
const SEPARATOR: &str = "__";
/// Values that no error may show.
const SECRET_KEYS: [&str; 1] = ["email.password"];

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
    find_problems("", &table, &known_keys(), &mut problems);
    if !problems.is_empty() {
        return Err(LoadError::Refused(problems));
    }
    let mut config: Config = merged.try_deserialize().map_err(refused)?;

    let mut warnings = Vec::new();
    read_password(&mut config, &mut problems, &mut warnings);
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

/// Every key there is, as a tree; a key whose default is "unset" is null.
pub(super) fn known_keys() -> Known {
    serde_json::to_value(Config::default())
        .expect("the defaults hold nothing but texts, numbers and lists")
}

/// Looks at each key by itself, so that all of them are told.
fn find_problems(
    section: &str,
    table: &Map<String, Value>,
    known: &Known,
    problems: &mut Vec<Problem>,
) {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| *key);
    for (key, value) in keys {
        let name = if section.is_empty() {
            key.clone()
        } else {
            format!("{section}.{key}")
        };
        match (known.get(key), &value.kind) {
            (None, _) => problems.push(unknown(name, value)),
            (Some(below @ Known::Object(_)), ValueKind::Table(table)) => {
                find_problems(&name, table, below, problems);
            }
            (Some(Known::Object(_)), _) => {
                let reason = format!("this is a section: write [{name}], and its keys below");
                problems.push(Problem::new(name, reason));
            }
            (Some(_), _) => problems.extend(value_problem(&name, value)),
        }
    }
}

fn unknown(name: String, value: &Value) -> Problem {
    let what = if matches!(value.kind, ValueKind::Table(_)) {
        "section"
    } else {
        "key"
    };
    let hint = match nearest(&name) {
        Some(near) => format!("did you mean {near}?"),
        None => "\"threepid config\" prints all there are".to_owned(),
    };
    let place = place(&name, value);
    Problem::new(name, format!("there is no such {what}{place}; {hint}"))
}

/// Why a value can not stand for a known key: the whole configuration is read with this one key set.
fn value_problem(name: &str, value: &Value) -> Option<Problem> {
    let alone = config::Config::builder().set_override(name, value.clone());
    let read = alone.and_then(ConfigBuilder::<DefaultState>::build);
    let error = read
        .and_then(config::Config::try_deserialize::<Config>)
        .err()?;
    let reason = if SECRET_KEYS.contains(&name) {
        "it must be a text in quotes".to_owned()
    } else {
        reason(error)
    };
    let place = place(name, value);
    Some(Problem::new(name, format!("{reason}{place}")))
}

/// Says where a value came from, if it is not the file.
fn place(name: &str, value: &Value) -> String {
    if value.origin() != Some("the environment") {
        return String::new();
    }
    let variable = name.replace('.', SEPARATOR).to_uppercase();
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

/// The known name that looks most like `name`, if one does.
fn nearest(name: &str) -> Option<String> {
    let mut names = Vec::new();
    list_names("", &known_keys(), &mut names);
    let last = |name: &str| {
        name.rsplit('.')
            .next()
            .map(str::to_owned)
            .unwrap_or_default()
    };
    let own = last(name);
    let scored = names.into_iter().map(|known| {
        let off = distance(&own, &last(&known));
        (off, distance(name, &known), known)
    });
    let (off, _, known) = scored.min()?;
    (off <= 2 && off * 2 < own.chars().count()).then_some(known)
}

/// The full names of all sections and keys.
pub(super) fn list_names(section: &str, known: &Known, names: &mut Vec<String>) {
    for (key, below) in known.as_object().into_iter().flatten() {
        let name = if section.is_empty() {
            key.clone()
        } else {
            format!("{section}.{key}")
        };
        list_names(&name, below, names);
        names.push(name);
    }
}

/// How many letters must be added, dropped or exchanged to turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut corner = above;
        row[0] = above + 1;
        for (at, other) in to.iter().enumerate() {
            let exchanged = corner + usize::from(letter != *other);
            corner = row[at + 1];
            row[at + 1] = exchanged.min(corner + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

fn read_password(config: &mut Config, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    let Some(path) = &config.email.password_file else {
        return;
    };
    if config.email.password.is_some() {
        problems.push(Problem::new(
            "email.password",
            "email.password_file is written too; write one of the two",
        ));
        return;
    }
    match fs::read_to_string(path) {
        Ok(text) => {
            warnings.extend(check::readable_by_others("email.password_file", path));
            config.email.password = Some(SecretString::from(text.trim_end_matches(['\r', '\n'])));
        }
        Err(error) => {
            let reason = format!("cannot read {}: {error}", path.display());
            problems.push(Problem::new("email.password_file", reason));
        }
    }
}
