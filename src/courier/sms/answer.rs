//! What a gateway's answer means: rules on its status and on its JSON.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::settings::{AnswerRule, GatewaySettings, Means};

/// The longest error code of a vendor that is told.
const LONGEST_CODE: usize = 32;
/// So many digits in a row may be a phone number.
const DIGITS_OF_A_NUMBER: usize = 7;

/// How the answers of one gateway are read.
#[derive(Debug)]
pub(super) struct Answers {
    accepted: Statuses,
    again: Statuses,
    never: Statuses,
    rules: Vec<AnswerRule>,
    code: Option<String>,
}

impl Answers {
    /// Takes the rules of a gateway, `at` being its name in the configuration.
    ///
    /// # Errors
    /// Which rule can not be used, and what to write instead.
    pub(super) fn new(settings: &GatewaySettings, at: &str) -> Result<Self, String> {
        let statuses = |field: &str, given: &Option<Vec<String>>, usual: &[&str]| {
            match given {
                Some(given) => Statuses::parse(given),
                None => Statuses::parse(usual),
            }
            .map_err(|why| format!("{at}.{field}: {why}"))
        };
        let accepted = statuses("accepted", &settings.accepted, &["2xx"])?;
        if (300..400).any(|status| accepted.has(status)) {
            return Err(format!(
                "{at}.accepted has a redirect, which is never followed; write statuses such as \"2xx\""
            ));
        }
        for pointer in settings.answer.iter().map(|rule| &rule.pointer) {
            check_pointer(pointer).map_err(|why| format!("{at}.answer: {why}"))?;
        }
        if let Some(pointer) = &settings.code {
            check_pointer(pointer).map_err(|why| format!("{at}.code: {why}"))?;
        }
        Ok(Self {
            accepted,
            again: statuses("again", &settings.again, &[])?,
            never: statuses(
                "never",
                &settings.never,
                &["400", "404", "410", "413", "422"],
            )?,
            rules: settings.answer.clone(),
            code: settings.code.clone(),
        })
    }

    /// What a status means, with the JSON that came with it, if it was JSON.
    pub(super) fn judge(&self, status: u16, body: Option<&Value>) -> Means {
        if (300..400).contains(&status) {
            return Means::Again;
        }
        let ruled = self.rules.iter().find(|rule| {
            let found = body.and_then(|body| text_at(body, &rule.pointer));
            found.is_some_and(|found| rule.equals.contains(&found))
        });
        match ruled {
            Some(rule) => rule.means,
            None => match self.judge_status(status) {
                Means::Again | Means::Never if self.lacks_its_word(status, body) => Means::Unsure,
                means => means,
            },
        }
    }

    fn judge_status(&self, status: u16) -> Means {
        if self.again.has(status) {
            Means::Again
        } else if self.accepted.has(status) {
            Means::Accepted
        } else if self.never.has(status) {
            Means::Never
        } else {
            Means::Again
        }
    }

    /// Whether the gateway tells by JSON what it takes, and a success came without: cut, late, too long, or with
    /// nothing in it that is looked at.
    fn lacks_its_word(&self, status: u16, body: Option<&Value>) -> bool {
        let tells_by_json = self.rules.iter().any(|rule| rule.means == Means::Accepted);
        let mut pointers = self
            .rules
            .iter()
            .map(|rule| &rule.pointer)
            .chain(&self.code);
        let is_told = |pointer: &String| body.is_some_and(|body| text_at(body, pointer).is_some());
        (200..300).contains(&status) && tells_by_json && !pointers.any(is_told)
    }

    /// The vendor's own code for the error, if it is one word that gives nothing away.
    pub(super) fn code(&self, body: Option<&Value>) -> Option<String> {
        let code = text_at(body?, self.code.as_ref()?)?;
        is_harmless(&code).then_some(code)
    }
}

/// A text, or the text of a number or a truth value.
fn text_at(body: &Value, pointer: &str) -> Option<String> {
    match body.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn is_harmless(code: &str) -> bool {
    let is_of_a_code = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let mut digits = code.split(|letter: char| !letter.is_ascii_digit());
    (1..=LONGEST_CODE).contains(&code.len())
        && code.bytes().all(is_of_a_code)
        && digits.all(|run| run.len() < DIGITS_OF_A_NUMBER)
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.starts_with('/') {
        return Ok(());
    }
    Err(format!(
        "{pointer:?} is no JSON pointer (RFC 6901); write one such as \"/messages/0/status\""
    ))
}

/// A list of statuses.
#[derive(Debug)]
struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Takes `201`, `2xx` and `400-499`.
    fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, String> {
        let one = |text: &S| {
            range(text.as_ref()).ok_or_else(|| {
                format!(
                    "{:?} is no status; write \"201\", \"2xx\" or \"400-499\"",
                    text.as_ref()
                )
            })
        };
        Ok(Self(texts.iter().map(one).collect::<Result<_, _>>()?))
    }

    fn has(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| -> Option<u16> {
        let is_status = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status = text.parse().ok().filter(|_| is_status)?;
        (100..600).contains(&status).then_some(status)
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = status(&format!("{class}00"))?;
        return Some(first..=first + 99);
    }
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (status(first)?, status(last)?);
        return (first <= last).then_some(first..=last);
    }
    status(text).map(|status| status..=status)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answers(settings: &GatewaySettings) -> Answers {
        Answers::new(settings, "sms.gateways.main").unwrap()
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn statuses_mean_what_is_usual() {
        let answers = answers(&GatewaySettings::default());
        for (status, means) in [
            (200, Means::Accepted),
            (201, Means::Accepted),
            (299, Means::Accepted),
            (301, Means::Again),
            (307, Means::Again),
            (400, Means::Never),
            (401, Means::Again),
            (402, Means::Again),
            (403, Means::Again),
            (404, Means::Never),
            (408, Means::Again),
            (410, Means::Never),
            (413, Means::Never),
            (422, Means::Never),
            (429, Means::Again),
            (500, Means::Again),
            (599, Means::Again),
        ] {
            assert_eq!(answers.judge(status, None), means, "{status}");
        }
    }

    #[test]
    fn statuses_can_be_given() {
        let answers = answers(&GatewaySettings {
            accepted: Some(list(&["202"])),
            again: Some(list(&["404", "410-499"])),
            never: Some(list(&["4xx"])),
            ..GatewaySettings::default()
        });
        for (status, means) in [
            (200, Means::Again),
            (202, Means::Accepted),
            (400, Means::Never),
            (404, Means::Again),
            (409, Means::Never),
            (410, Means::Again),
            (499, Means::Again),
        ] {
            assert_eq!(answers.judge(status, None), means, "{status}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_beats_the_status() {
        let rule = |equals: &[&str], means| AnswerRule {
            pointer: "/messages/0/status".to_owned(),
            equals: list(equals),
            means,
        };
        let answers = answers(&GatewaySettings {
            answer: vec![
                rule(&["0"], Means::Accepted),
                rule(&["1", "5", "true"], Means::Again),
                rule(&["1", "6"], Means::Never),
            ],
            accepted: Some(list(&[])),
            ..GatewaySettings::default()
        });
        for (status, code, means) in [
            (200, json!("0"), Means::Accepted),
            (200, json!(0), Means::Accepted),
            (500, json!(0), Means::Accepted),
            (302, json!(0), Means::Again),
            (400, json!("1"), Means::Again),
            (400, json!(true), Means::Again),
            (200, json!("6"), Means::Never),
            (200, json!("7"), Means::Again),
            (503, json!(null), Means::Again),
            (400, json!("7"), Means::Never),
            (400, json!(["1"]), Means::Never),
            (200, json!(null), Means::Unsure),
        ] {
            let body = json!({"messages": [{"status": code}]});
            assert_eq!(answers.judge(status, Some(&body)), means, "{status} {body}");
        }
    }

    #[test]
    fn a_success_without_the_json_that_decides_is_unsure() {
        let gateway = |accepted: Option<&[&str]>, again: &[&str], means| {
            answers(&GatewaySettings {
                accepted: accepted.map(list),
                again: Some(list(again)),
                answer: vec![AnswerRule {
                    pointer: "/status".to_owned(),
                    equals: list(&["ok"]),
                    means,
                }],
                code: Some("/error".to_owned()),
                ..GatewaySettings::default()
            })
        };
        let (error, nothing) = (json!({"error": 5}), json!({}));
        let by_json = gateway(Some(&[]), &[], Means::Accepted);
        for (status, body, means) in [
            (200, None, Means::Unsure),
            (204, None, Means::Unsure),
            (200, Some(&nothing), Means::Unsure),
            (200, Some(&error), Means::Again),
            (503, None, Means::Again),
            (302, None, Means::Again),
            (400, None, Means::Never),
        ] {
            assert_eq!(by_json.judge(status, body), means, "{status} {body:?}");
        }
        for (gateway, means) in [
            (gateway(None, &["2xx"], Means::Accepted), Means::Unsure),
            (gateway(None, &[], Means::Accepted), Means::Accepted),
            (gateway(None, &[], Means::Never), Means::Accepted),
            (gateway(Some(&["201"]), &[], Means::Never), Means::Again),
        ] {
            assert_eq!(gateway.judge(200, None), means, "{gateway:?}");
        }
    }

    #[test]
    fn rules_that_can_not_be_used_are_refused() {
        for bad in [
            "", "2", "20", "2000", "2XX", "xx", "9xx", "099", "400-", "499-400", "4xx-5xx", "+20",
            "ok",
        ] {
            let given = GatewaySettings {
                again: Some(list(&["200", bad])),
                ..GatewaySettings::default()
            };
            let refusal = Answers::new(&given, "sms.gateways.main").unwrap_err();
            assert!(refusal.starts_with("sms.gateways.main.again"), "{refusal}");
            assert!(refusal.contains("\"2xx\""), "{refusal}");
        }
        let redirect = GatewaySettings {
            accepted: Some(list(&["200-302"])),
            ..GatewaySettings::default()
        };
        let pointer = GatewaySettings {
            code: Some("code".to_owned()),
            ..GatewaySettings::default()
        };
        for given in [redirect, pointer] {
            assert!(Answers::new(&given, "sms.gateways.main").is_err());
        }
    }

    #[test]
    fn only_a_harmless_code_is_told() {
        let answers = answers(&GatewaySettings {
            code: Some("/code".to_owned()),
            ..GatewaySettings::default()
        });
        for (code, told) in [
            (json!(21211), Some("21211")),
            (json!("Invalid-Payload_1.2"), Some("Invalid-Payload_1.2")),
            (json!("447700900001"), None),
            (json!("x7700900001"), None),
            (json!("no such number"), None),
            (json!("a".repeat(33)), None),
            (json!(""), None),
            (json!("ä"), None),
            (json!(["x"]), None),
            (json!(null), None),
        ] {
            let body = json!({"code": code});
            assert_eq!(answers.code(Some(&body)).as_deref(), told, "{body}");
        }
    }
}
