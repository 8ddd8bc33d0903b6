//! Which module may know which.

use std::{fs, path::Path};

/// Who may import whom: a module's group, and the groups that it may import.
const TABLE: [(&str, &[&str]); 10] = [
    ("words", &["words"]),
    ("traits", &["words", "traits"]),
    (
        "rules",
        &["words", "traits", "rules", "identity_client", "federation"],
    ),
    ("federation", &["words", "outbound"]),
    ("adapters", &["words", "traits", "own", "outbound"]),
    ("identity_client", &["words", "outbound"]),
    ("outbound", &["words"]),
    ("http", &["words", "traits", "rules", "http", "capture"]),
    (
        "config",
        &[
            "words", "traits", "rules", "adapters", "outbound", "http", "config",
        ],
    ),
    (
        "top",
        &[
            "words",
            "traits",
            "rules",
            "adapters",
            "identity_client",
            "federation",
            "outbound",
            "http",
            "config",
            "top",
            "capture",
        ],
    ),
];

fn group(path: &str) -> &'static str {
    let mut parts = path.split("::");
    let (module, inner) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    match (module, inner) {
        (
            "clock" | "error" | "id_server" | "in_flight" | "keys" | "loopback" | "lookup_hash"
            | "matrix_error" | "next_link" | "phone" | "password" | "proof" | "rate" | "secret"
            | "server_name" | "session" | "signing" | "source" | "threepid" | "turns" | "user_id"
            | "x_matrix" | "Error",
            _,
        ) => "words",
        ("courier", "capture") => "capture",
        ("store", "sqlite")
        | ("homeserver", "api" | "dendrite" | "local" | "none" | "split" | "synapse" | "webhook")
        | ("courier", "smtp" | "sendmail" | "file" | "mime" | "email" | "sms" | "tls") => {
            "adapters"
        }
        ("identity_client", _) => "identity_client",
        ("federation", _) => "federation",
        ("outbound", _) => "outbound",
        ("store" | "courier" | "homeserver", _) => "traits",
        (
            "account" | "identity" | "validation" | "limits" | "policy" | "messages" | "outbox"
            | "routing",
            _,
        ) => "rules",
        ("http", _) => "http",
        ("config", _) => "config",
        (
            "background" | "builder" | "cli" | "host" | "key_file" | "main" | "lib" | "Threepid"
            | "Keyring" | "SigningKeys" | "Builder" | "Background",
            _,
        ) => "top",
        _ => "unknown",
    }
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All paths behind `crate::` in a text, groups of `use` unfolded.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        unfold(&text[at + "crate::".len()..], "", &mut found);
    }
    found
}

/// Reads one path, or a group of paths in braces; what is left after it.
fn unfold<'a>(mut text: &'a str, before: &str, found: &mut Vec<String>) -> &'a str {
    let end = text
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':')
        .unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    text = &text[end..];
    let Some(mut inside) = text
        .strip_prefix('{')
        .filter(|_| path.is_empty() || path.ends_with("::"))
    else {
        found.push(path);
        return text;
    };
    loop {
        inside = inside.trim_start_matches([',', ' ', '\n', '\t']);
        if let Some(rest) = inside.strip_prefix('}') {
            return rest;
        }
        let rest = unfold(inside, &path, found);
        inside = if rest.len() == inside.len() {
            &rest[1..]
        } else {
            rest
        };
    }
}

#[test]
fn every_import_goes_the_way_that_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file
            .strip_prefix(&root)
            .unwrap()
            .with_extension("")
            .to_string_lossy()
            .replace('/', "::");
        let own = relative.trim_end_matches("::mod").to_owned();
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let from = if group(&own) == "capture" {
            "adapters"
        } else {
            group(&own)
        };
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("{own} is in no layer"));
            continue;
        };
        for import in imports(code) {
            let to = group(&import);
            let module = |path: &str| path.split("::").next().unwrap_or_default().to_owned();
            let same_family = allowed.contains(&"own") && module(&import) == module(&own);
            if !allowed.contains(&to) && !same_family && !import.is_empty() {
                wrong.push(format!("{own} ({from}) imports {import} ({to})"));
            }
        }
    }
    assert!(files.len() > 20, "the sources were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scanner_sees_what_it_should() {
    let text =
        "use crate::{error::{Error, Result}, store::sqlite::Row}; fn x() { crate::http::serve() }";
    assert_eq!(
        imports(text),
        [
            "error::Error",
            "error::Result",
            "store::sqlite::Row",
            "http::serve"
        ]
    );
    assert_eq!(group("store::sqlite::Row"), "adapters");
    assert_eq!(group("store::Store"), "traits");
}
