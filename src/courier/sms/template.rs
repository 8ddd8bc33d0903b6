//! Texts with placeholders in braces, and the values that fill them.

use std::borrow::Cow;

use serde_json::Value;

/// What stands in the place of a name in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholder {
    To,
    ToPlus,
    Text,
    TextCr,
    Type,
    Coding,
    Sender,
    SenderKey,
    Id,
    Username,
    Password,
    Account,
    Channel,
}

/// All placeholders, as they are written.
const NAMES: [(&str, Placeholder); 13] = [
    ("to", Placeholder::To),
    ("to_plus", Placeholder::ToPlus),
    ("text", Placeholder::Text),
    ("text_cr", Placeholder::TextCr),
    ("type", Placeholder::Type),
    ("coding", Placeholder::Coding),
    ("sender", Placeholder::Sender),
    ("sender_key", Placeholder::SenderKey),
    ("id", Placeholder::Id),
    ("username", Placeholder::Username),
    ("password", Placeholder::Password),
    ("account", Placeholder::Account),
    ("channel", Placeholder::Channel),
];

/// What one request is filled with.
pub(super) struct Values<'a> {
    /// The digits of the number, without `+`.
    pub(super) to: &'a str,
    pub(super) text: &'a str,
    pub(super) sender: &'a str,
    pub(super) id: &'a str,
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) account: &'a str,
    pub(super) channel: &'a str,
}

impl<'a> Values<'a> {
    fn get(&self, placeholder: Placeholder) -> Cow<'a, str> {
        let is_plain = || is_of_the_default_alphabet(self.text);
        Cow::Borrowed(match placeholder {
            Placeholder::To => self.to,
            Placeholder::ToPlus => return Cow::Owned(format!("+{}", self.to)),
            Placeholder::Text => self.text,
            Placeholder::TextCr => {
                return Cow::Owned(self.text.replace("\r\n", "\r").replace('\n', "\r"));
            }
            Placeholder::Type if is_plain() => "text",
            Placeholder::Type => "unicode",
            Placeholder::Coding if is_plain() => "1",
            Placeholder::Coding => "2",
            Placeholder::Sender => self.sender,
            Placeholder::SenderKey if self.sender.starts_with("MG") => "MessagingServiceSid",
            Placeholder::SenderKey => "From",
            Placeholder::Id => self.id,
            Placeholder::Username => self.username,
            Placeholder::Password => self.password,
            Placeholder::Account => self.account,
            Placeholder::Channel => self.channel,
        })
    }
}

/// A text with placeholders. What fills it is never read as a template itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

impl Template {
    /// Reads a text; `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// That a placeholder is not known, or a brace stands alone, and what to write. Quotes nothing: the text may hold
    /// a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") else {
                return Err(
                    "has a brace without its other half; write {{ or }} for a brace itself"
                        .to_owned(),
                );
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Value(placeholder(name)?));
            rest = after;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// Whether `placeholder` is in it.
    pub(super) fn has(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Part::Value(placeholder))
    }

    /// The text with its placeholders filled in.
    pub(super) fn fill(&self, values: &Values<'_>) -> String {
        self.fill_with(values, |value| Cow::Borrowed(value))
    }

    /// The same, each value (but not the text around) going through `encode`.
    pub(super) fn fill_with(
        &self,
        values: &Values<'_>,
        encode: fn(&str) -> Cow<'_, str>,
    ) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Value(placeholder) => filled.push_str(&encode(&values.get(*placeholder))),
            }
        }
        filled
    }
}

fn placeholder(name: &str) -> Result<Placeholder, String> {
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, placeholder)| *placeholder).ok_or_else(|| {
        let names: Vec<_> = NAMES
            .iter()
            .map(|(name, _)| format!("{{{name}}}"))
            .collect();
        format!(
            "has a placeholder that is not known; write one of {}, or {{{{ and }}}} for braces",
            names.join(" ")
        )
    })
}

/// A JSON value whose texts are templates. Keys are not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsonTemplate {
    Text(Template),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
    Other(Value),
}

impl JsonTemplate {
    /// Reads a value.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(text)?),
            Value::Array(list) => {
                Self::List(list.iter().map(Self::parse).collect::<Result<_, _>>()?)
            }
            Value::Object(object) => {
                let entry = |(key, value): (&String, _)| Ok((key.clone(), Self::parse(value)?));
                Self::Object(object.iter().map(entry).collect::<Result<_, String>>()?)
            }
            other => Self::Other(other.clone()),
        })
    }

    /// Whether `placeholder` is in it.
    pub(super) fn has(&self, placeholder: Placeholder) -> bool {
        match self {
            Self::Text(text) => text.has(placeholder),
            Self::List(list) => list.iter().any(|value| value.has(placeholder)),
            Self::Object(object) => object.iter().any(|(_, value)| value.has(placeholder)),
            Self::Other(_) => false,
        }
    }

    /// The value with the placeholders of its texts filled in: whatever fills them stays inside its text.
    pub(super) fn fill(&self, values: &Values<'_>) -> Value {
        match self {
            Self::Text(text) => Value::String(text.fill(values)),
            Self::List(list) => list.iter().map(|value| value.fill(values)).collect(),
            Self::Object(object) => object
                .iter()
                .map(|(key, value)| (key.clone(), value.fill(values)))
                .collect(),
            Self::Other(value) => value.clone(),
        }
    }
}

/// Whether a text can be sent in the default alphabet of short messages (3GPP TS 23.038, 6.2.1), its extension
/// included; others are sent as UCS-2.
fn is_of_the_default_alphabet(text: &str) -> bool {
    const BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà€";
    text.chars().all(|letter| match letter {
        '`' => false,
        '\n' | '\r' | '\u{c}' | ' '..='~' => true,
        other => BEYOND_ASCII.contains(other),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VALUES: Values<'static> = Values {
        to: "447700900001",
        text: "say \"{to}\" & {{x}}\n\\",
        sender: "Example",
        id: "message-1",
        username: "me",
        password: "hunter2",
        account: "house",
        channel: "c1",
    };

    #[test]
    fn placeholders_are_filled_once() {
        for (template, filled) in [
            ("", ""),
            ("{to}", "447700900001"),
            (
                "{to_plus} {sender}/{id}{username}",
                "+447700900001 Example/message-1me",
            ),
            ("{text}!", "say \"{to}\" & {{x}}\n\\!"),
            ("{text_cr}", "say \"{to}\" & {{x}}\r\\"),
            ("{{to}} }}{{", "{to} }{"),
            ("{{{to}}}", "{447700900001}"),
            ("{account} {channel} {password}", "house c1 hunter2"),
            ("{type} {coding} {sender_key}", "text 1 From"),
        ] {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.fill(&VALUES), filled, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, why) in [
            ("{too}", "not known"),
            ("{}", "not known"),
            ("{To}", "{to_plus}"),
            ("{hunter2}", "{{ and }}"),
            ("{ to }", "not known"),
            ("{to", "other half"),
            ("to}", "other half"),
            ("{to}}", "other half"),
        ] {
            let refusal = Template::parse(template).unwrap_err();
            assert!(refusal.contains(why), "{template}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
        assert!(JsonTemplate::parse(&json!({"a": [{"b": "{nobody}"}]})).is_err());
    }

    #[test]
    fn values_stay_inside_the_texts_of_a_json_body() {
        let template = json!({"{to}": ["{to_plus}", {"x": "a{text}b"}, 5, null, true]});

        let filled = JsonTemplate::parse(&template).unwrap().fill(&VALUES);

        let text = format!("a{}b", VALUES.text);
        assert_eq!(
            filled,
            json!({"{to}": ["+447700900001", {"x": text}, 5, null, true]})
        );
    }

    #[test]
    fn the_alphabet_decides_the_coding() {
        for (text, is_default) in [
            ("Your code is 123456", true),
            ("Grüße, Ελ 5 €\r\n[]{}|~^\\", false),
            ("Grüße 5 €\r\n[]{}|~^\\", true),
            ("日本", false),
            ("`", false),
            ("it’s", false),
            ("\t", false),
            ("ç", false),
            ("Ç", true),
        ] {
            assert_eq!(is_of_the_default_alphabet(text), is_default, "{text}");
        }
    }
}
