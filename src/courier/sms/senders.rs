//! Which sender a message shows, by the country of the number.

use std::collections::BTreeMap;

use crate::phone;

/// The longest sender, in letters: an id of a pool of senders, such as Twilio's, has 34.
const LONGEST: usize = 64;

/// The senders, by country, by calling code, and for all others.
#[derive(Clone, Debug, Default)]
pub(super) struct Senders {
    usual: Option<String>,
    by_country: BTreeMap<String, String>,
    by_calling_code: BTreeMap<u16, String>,
}

impl Senders {
    /// Takes `sms.sender` and `sms.senders`.
    ///
    /// # Errors
    /// Which key or sender can not be used, and what to write instead.
    pub(super) fn new(
        usual: Option<&str>,
        senders: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut found = Self::default();
        if let Some(usual) = usual {
            found.usual = Some(check(usual).map_err(|why| format!("sms.sender: {why}"))?);
        }
        for (key, sender) in senders {
            let sender = check(sender).map_err(|why| format!("sms.senders.{key}: {why}"))?;
            let is_new = match (country(key), calling_code(key)) {
                (Some(country), _) => found.by_country.insert(country, sender).is_none(),
                (_, Some(code)) => found.by_calling_code.insert(code, sender).is_none(),
                _ => {
                    return Err(format!(
                        "sms.senders: {key:?} is neither a country nor a calling code; write \"GB\" or \"44\""
                    ));
                }
            };
            if !is_new {
                return Err(format!(
                    "sms.senders has {key:?} twice; write each calling code once, as \"44\""
                ));
            }
        }
        Ok(found)
    }

    /// Whether there is a sender for every number.
    pub(super) fn has_usual(&self) -> bool {
        self.usual.is_some()
    }

    /// The sender for a number, given by its digits; nothing if none is set.
    pub(super) fn of(&self, digits: &str) -> &str {
        let country = || self.by_country.get(&phone::country(digits)?);
        let calling_code = || self.by_calling_code.get(&phone::calling_code(digits)?);
        country()
            .or_else(calling_code)
            .or(self.usual.as_ref())
            .map_or("", String::as_str)
    }
}

fn country(key: &str) -> Option<String> {
    phone::is_country(key).then(|| key.to_owned())
}

fn calling_code(key: &str) -> Option<u16> {
    let digits = key.strip_prefix('+').unwrap_or(key);
    let is_code = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let code = digits.parse().ok().filter(|_| is_code)?;
    phone::is_calling_code(code).then_some(code)
}

fn check(sender: &str) -> Result<String, String> {
    let is_sender = (1..=LONGEST).contains(&sender.len())
        && sender.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && sender.trim() == sender;
    if is_sender {
        return Ok(sender.to_owned());
    }
    Err(format!(
        "{sender:?} is no sender; write a number as \"+447700900000\", or a name such as \"Example\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(usual: Option<&str>, senders: &[(&str, &str)]) -> Result<Senders, String> {
        let own = |(key, sender): &(&str, &str)| ((*key).to_owned(), (*sender).to_owned());
        Senders::new(usual, &senders.iter().map(own).collect())
    }

    #[test]
    fn a_country_beats_a_calling_code_and_that_beats_the_rest() {
        let senders = senders(
            Some("Example"),
            &[
                ("+1", "+12025550100"),
                ("CA", "Canada"),
                ("44", "Islands"),
                ("GB", "Britain"),
            ],
        )
        .unwrap();
        for (number, sender) in [
            ("12025550123", "+12025550100"),
            ("16132350123", "Canada"),
            // Guernsey shares the code of Great Britain.
            ("447911123456", "Islands"),
            // Given to nobody, but no other country could have it.
            ("447700900001", "Britain"),
            ("33612345678", "Example"),
            ("999", "Example"),
        ] {
            assert_eq!(senders.of(number), sender, "{number}");
        }
        assert_eq!(Senders::default().of("33612345678"), "");
    }

    #[test]
    fn what_is_no_sender_or_key_is_refused() {
        for key in [
            "", "gb", "GBR", "UK", "XX", "044", "0", "+", "999", "4444", "+44 ", "-1", "*",
        ] {
            let refusal = senders(None, &[(key, "Example")]).unwrap_err();
            assert!(refusal.contains("\"GB\""), "{key}: {refusal}");
        }
        for sender in ["", " x", "x\ny", "Grüße", &"x".repeat(65)] {
            assert!(senders(Some(sender), &[]).is_err(), "{sender}");
            assert!(senders(None, &[("GB", sender)]).is_err(), "{sender}");
        }
        assert!(senders(None, &[("44", "a"), ("+44", "b")]).is_err());
    }
}
