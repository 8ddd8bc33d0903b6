//! Which keys there are, and which one was meant.

use serde_json::Value;

use super::{Config, identity::Terms, sms::Gateway};

/// Stands for any name, where the operator chooses it.
pub(super) const ANY: &str = "*";

/// Every key there is, as a tree; a key whose value is looked at as a whole is null or a list, a text, a number.
pub(super) fn known_keys() -> Value {
    let mut known = written(&Config::default());
    let mut gateway = written(&Gateway::default());
    // Its keys are the gateway's own words.
    gateway["headers"] = Value::Null;
    known["sms"]["gateways"][ANY] = gateway;
    known["sms"]["senders"][ANY] = Value::Null;
    known["identity"]["terms"][ANY] = written(&Terms::default());
    // By language.
    known["identity"]["terms"][ANY][ANY] = Value::Null;
    known
}

fn written(defaults: &impl serde::Serialize) -> Value {
    serde_json::to_value(defaults)
        .expect("the defaults hold nothing but texts, numbers, lists and tables")
}

/// The known name that looks most like the one at `path`, if one does.
pub(super) fn nearest(path: &[&str]) -> Option<String> {
    let mut names = Vec::new();
    list_names(&mut Vec::new(), &known_keys(), &mut names);
    let own = path.last()?;
    let scored = names.into_iter().map(|known| {
        let known = filled(&known, path);
        let last = known.rsplit('.').next().unwrap_or_default();
        let off = distance(own, last);
        (off, distance(&path.join("."), &known), known)
    });
    let (off, _, known) = scored.min()?;
    (off <= 2 && off * 2 < own.chars().count()).then_some(known)
}

/// A known name, with the names that the operator chose where they belong.
fn filled(known: &str, path: &[&str]) -> String {
    let parts = known.split('.').enumerate();
    let filled: Vec<&str> = parts
        .map(|(at, part)| match path.get(at) {
            Some(chosen) if part == ANY && at + 1 < path.len() => chosen,
            _ if part == ANY => "NAME",
            _ => part,
        })
        .collect();
    filled.join(".")
}

/// The full names of all sections and keys.
pub(super) fn list_names<'a>(path: &mut Vec<&'a str>, known: &'a Value, names: &mut Vec<String>) {
    for (key, below) in known.as_object().into_iter().flatten() {
        path.push(key);
        names.push(path.join("."));
        list_names(path, below, names);
        path.pop();
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
