//! The signature of a request between servers: `Authorization: X-Matrix …` (Server-Server API, "Request Authentication").

use std::fmt;

use serde_json::Value;

use crate::{server_name::ServerName, signing};

/// The longest header that is read, in bytes.
const LONGEST: usize = 4096;

/// What one header says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct XMatrix {
    /// Who signed the request.
    pub(crate) origin: ServerName,
    /// Whom it was signed for, if it says so.
    pub(crate) destination: Option<String>,
    /// The key's name: `ed25519:0`.
    pub(crate) key: String,
    signature: Vec<u8>,
}

impl fmt::Debug for XMatrix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "XMatrix({})", self.origin)
    }
}

impl XMatrix {
    /// Reads a header; `None` if it is of another scheme, or lacks what is needed.
    ///
    /// Older servers wrote values without quotation marks, and put a colon into a bare one: so it is read by hand where the
    /// grammar of HTTP (RFC 9110, section 11.2) would refuse it.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("x-matrix") || header.len() > LONGEST {
            return None;
        }
        let parameters = parameters(rest)?;
        let value = |name: &str| {
            let mut found = parameters.iter().filter(|(key, _)| key == name);
            match (found.next(), found.next()) {
                (Some((_, value)), None) => Some(value.as_str()),
                // Said twice, it might mean one thing to us and another to whoever looked before.
                _ => None,
            }
        };
        Some(Self {
            origin: value("origin")?.parse().ok()?,
            destination: value("destination").map(str::to_owned),
            key: value("key")?.to_owned(),
            signature: signing::decode(value("sig").or_else(|| value("signature"))?)?,
        })
    }

    /// Whether `public_key` signed this request for `destination`. `content` is in its canonical form, for which nobody
    /// need pay more than once.
    ///
    /// Towards identity servers Synapse signs the key `destination_is` in the place of `destination`, which no specification
    /// mentions; either is taken.
    pub(crate) fn verify(
        &self,
        public_key: &[u8],
        (method, uri): (&str, &str),
        content: &str,
        destination: &str,
    ) -> bool {
        let [method, uri, origin, destination] = [method, uri, self.origin.as_str(), destination]
            .map(|text| Value::from(text).to_string());
        ["destination_is", "destination"].iter().any(|name| {
            // The canonical form: no blanks, and the keys in their order.
            let signed = format!(
                r#"{{"content":{content},"{name}":{destination},"method":{method},"origin":{origin},"uri":{uri}}}"#
            );
            signing::verify_text(&signed, public_key, &self.signature)
        })
    }
}

/// The parameters, their names in lower case; `None` if a quotation mark is not closed.
fn parameters(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let Some((name, rest)) = text.split_once('=') else {
            return text.is_empty().then_some(found);
        };
        let rest = rest.trim_start();
        let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].trim_end().to_owned(), &rest[end..])
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        text = rest;
    }
}

/// What stands before the closing quotation mark, and what after it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signing::{SigningKey, canonical, encode, generate_seed};

    #[test]
    fn a_header_is_read_in_every_form() {
        let signature = encode(&[7; 64]);
        for header in [
            format!(
                "X-Matrix origin=\"a.org:8448\",destination=\"b.org\",key=\"ed25519:1\",sig=\"{signature}\""
            ),
            format!("X-Matrix origin=a.org:8448,destination=b.org,key=ed25519:1,sig={signature}"),
            format!(
                "x-matrix ORIGIN = \"a.org:8448\" , Destination=\"b.org\",, Key=\"ed25519:1\", Sig=\"{signature}\""
            ),
            format!(
                "X-Matrix origin=a.org:8448,destination=b.org,key=ed25519:1,signature={signature}==,more=\"\\\"x,y\""
            ),
            format!(
                "X-Matrix origin=\"a\\.org:8448\",destination=\"b.org\",key=\"ed25519:1\",sig=\"{signature}\""
            ),
        ] {
            let read = XMatrix::parse(&header).unwrap_or_else(|| panic!("{header}"));
            assert_eq!(read.origin.as_str(), "a.org:8448");
            assert_eq!(read.destination.as_deref(), Some("b.org"));
            assert_eq!((read.key.as_str(), read.signature.len()), ("ed25519:1", 64));
        }
    }

    #[test]
    fn what_lacks_something_is_no_signature() {
        let signature = encode(&[7; 64]);
        let long = format!(
            "X-Matrix origin=a.org,key=k,sig={signature},x={}",
            "x".repeat(LONGEST)
        );
        for header in [
            "",
            "X-Matrix",
            "Bearer abc",
            &format!("Bearer origin=a.org,key=k,sig={signature}"),
            &format!("X-Matrix key=k,sig={signature}"),
            &format!("X-Matrix origin=a.org,sig={signature}"),
            "X-Matrix origin=a.org,key=k",
            "X-Matrix origin=a.org,key=k,sig=*",
            &format!("X-Matrix origin=http://a.org,key=k,sig={signature}"),
            &format!("X-Matrix origin=a.org,origin=b.org,key=k,sig={signature}"),
            &format!("X-Matrix origin=\"a.org,key=k,sig={signature}"),
            &format!("X-Matrix origin=a.org,key=k,sig={signature},x"),
            &long,
        ] {
            assert_eq!(XMatrix::parse(header), None, "{header}");
        }
    }

    #[test]
    fn both_names_of_the_destination_are_taken_and_nothing_else_is() {
        let key = SigningKey::from_seed("1", &generate_seed()).unwrap();
        let content =
            json!({ "mxid": "@a:a.org", "b": ["\u{7f}\"\\/本", { "z": null, "a": -1 }], "": true });
        let canonical = |content: &Value| canonical(content.as_object().unwrap().clone()).unwrap();
        let (uri, to) = ("/x?\"\\本", "id.b.org");
        for name in ["destination_is", "destination", "to"] {
            let signed = json!({
                "method": "POST", "uri": uri, "origin": "a.org", name: to, "content": content,
            });
            let mut signed = signed.as_object().unwrap().clone();
            key.sign("a.org", &mut signed).unwrap();
            let signature = signed["signatures"]["a.org"]["ed25519:1"].as_str().unwrap();
            let header = format!("X-Matrix origin=a.org,key=ed25519:1,sig={signature}");
            let read = XMatrix::parse(&header).unwrap();
            let holds = |method, uri, content: &Value, to| {
                read.verify(&key.public(), (method, uri), &canonical(content), to)
            };
            assert_eq!(holds("POST", uri, &content, to), name != "to");
            for (method, uri, content, to) in [
                ("GET", uri, &content, to),
                ("POST", "/y", &content, to),
                ("POST", uri, &json!({}), to),
                ("POST", uri, &content, "id.c.org"),
            ] {
                assert!(!holds(method, uri, content, to));
            }
        }
    }
}
