//! Which addresses may be proved at all.

use crate::{
    error::{Error, Result},
    phone::{self, Facts, NumberType},
    session::Purpose,
    threepid::{Medium, Threepid},
};

/// A pattern for whole addresses or whole domains, in which `*` stands for any run of characters.
///
/// It is about one medium alone: one that begins with `+` or a digit, and holds only digits and `*` after it, is for
/// phone numbers, any other for email addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    medium: Medium,
    text: String,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(number) = number_pattern(text) {
            if number.starts_with('0') {
                return Err(format!(
                    "{text:?} is no phone number with its country's calling code (\"+447700900001\", \"+44*\")"
                ));
            }
            return Ok(Self {
                medium: Medium::Msisdn,
                text: number.to_owned(),
            });
        }
        let known = |letter: char| !letter.is_whitespace() && !letter.is_control();
        if text.is_empty()
            || !text.chars().all(known)
            || text.matches('@').count() > 1
            || text.starts_with('@')
            || text.ends_with('@')
            || (text.starts_with('+') && !text.contains('@'))
        {
            return Err(format!(
                "{text:?} is neither a domain (\"example.org\", \"*.example.org\"), an address (\"alice@example.org\") \
                 nor a phone number (\"+447700900001\", \"+44*\")"
            ));
        }
        Ok(Self {
            medium: Medium::Email,
            text: caseless::default_case_fold_str(text),
        })
    }

    /// Anchored at both ends: a number against the whole number; else against the whole address if the pattern has an
    /// `@`, against the whole domain if not.
    fn matches(&self, threepid: &Threepid) -> bool {
        let whole = if self.medium == Medium::Msisdn || self.text.contains('@') {
            threepid.address()
        } else {
            threepid.domain()
        };
        self.medium == threepid.medium() && glob(&self.text, whole)
    }
}

/// The pattern without its `+`, if it is one for phone numbers. `*` alone is none: it has always meant every domain.
fn number_pattern(text: &str) -> Option<&str> {
    let number = text.strip_prefix('+').unwrap_or(text);
    let is_number = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'*');
    let begins = text.starts_with('+') || text.starts_with(|first: char| first.is_ascii_digit());
    (is_number && begins && !number.is_empty()).then_some(number)
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return text.ends_with(piece);
        }
        let Some(found) = text.find(piece) else {
            return false;
        };
        text = &text[found + piece.len()..];
    }
    true
}

/// What is allowed and denied. A medium that `allowed` has no pattern for is allowed, but for what is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    allowed: Vec<Pattern>,
    denied: Vec<Pattern>,
}

impl Lists {
    /// Reads the operator's patterns.
    ///
    /// # Errors
    /// A sentence that names the pattern that is none.
    pub fn new<S: AsRef<str>>(allowed: &[S], denied: &[S]) -> Result<Self, String> {
        let parse = |texts: &[S]| {
            texts
                .iter()
                .map(|text| Pattern::parse(text.as_ref()))
                .collect::<Result<_, _>>()
        };
        Ok(Self {
            allowed: parse(allowed)?,
            denied: parse(denied)?,
        })
    }

    fn admit(&self, threepid: &Threepid) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(threepid));
        let is_listed = |pattern: &Pattern| pattern.medium == threepid.medium();
        !is_in(&self.denied) && (!self.allowed.iter().any(is_listed) || is_in(&self.allowed))
    }
}

/// Which phone numbers are admitted, whatever they are proved for: a message costs money, and some numbers are there to
/// earn it. An empty list of what is allowed allows all; a denial beats an allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Calling codes, without `+`, that alone are allowed: 44.
    pub allowed_calling_codes: Vec<u16>,
    /// Calling codes, without `+`, that are denied.
    pub denied_calling_codes: Vec<u16>,
    /// Kinds of numbers that alone are allowed. Where a country does not tell mobile phones from fixed lines, as in North
    /// America, its numbers are [`NumberType::FixedLineOrMobile`].
    pub allowed_types: Vec<NumberType>,
    /// Kinds of numbers that are denied.
    pub denied_types: Vec<NumberType>,
}

impl Numbers {
    /// Reads the operator's calling codes (`44` or `+44`) and kinds of numbers (`premium-rate`).
    ///
    /// # Errors
    /// A sentence that names the text that is none, and for a kind lists all.
    pub fn new<S: AsRef<str>>(
        allowed_calling_codes: &[S],
        denied_calling_codes: &[S],
        allowed_types: &[S],
        denied_types: &[S],
    ) -> Result<Self, String> {
        Ok(Self {
            allowed_calling_codes: each(allowed_calling_codes, calling_code)?,
            denied_calling_codes: each(denied_calling_codes, calling_code)?,
            allowed_types: each(allowed_types, number_type)?,
            denied_types: each(denied_types, number_type)?,
        })
    }

    fn admit(&self, facts: &Facts) -> bool {
        let (code, kind) = (facts.calling_code, facts.kind);
        !self.denied_calling_codes.contains(&code)
            && !self.denied_types.contains(&kind)
            && (self.allowed_calling_codes.is_empty() || self.allowed_calling_codes.contains(&code))
            && (self.allowed_types.is_empty() || self.allowed_types.contains(&kind))
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            allowed_calling_codes: Vec::new(),
            denied_calling_codes: Vec::new(),
            allowed_types: Vec::new(),
            denied_types: vec![
                // Their owner earns from each call, in some countries from each message: who asks for many is paid by us.
                NumberType::PremiumRate,
                NumberType::SharedCost,
                // They take no messages, or those of a whole company: nobody there is the one owner of the number.
                NumberType::TollFree,
                NumberType::Company,
                NumberType::VoiceMail,
                NumberType::Pager,
                // A message costs many times the usual price.
                NumberType::Satellite,
            ],
        }
    }
}

fn each<S: AsRef<str>, T>(
    texts: &[S],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    texts.iter().map(|text| read(text.as_ref())).collect()
}

fn calling_code(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_written = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let code = digits.parse().ok().filter(|_| is_written);
    code.filter(|&code| phone::is_calling_code(code))
        .ok_or_else(|| {
            format!("{text:?} is no calling code of a country or a network (\"44\", \"+44\")")
        })
}

fn number_type(text: &str) -> Result<NumberType, String> {
    NumberType::parse(text).ok_or_else(|| {
        let all: Vec<String> = NumberType::ALL.iter().map(NumberType::to_string).collect();
        format!(
            "{text:?} is no kind of phone number; there are {}",
            all.join(", ")
        )
    })
}

/// The address policy: `[policy]`, and what a purpose has instead of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// For every purpose without lists of its own.
    pub general: Lists,
    /// For signing up.
    pub register: Option<Lists>,
    /// For adding to an account.
    pub add: Option<Lists>,
    /// For resetting a password.
    pub password: Option<Lists>,
    /// For phone numbers, besides the lists.
    pub numbers: Numbers,
}

impl Settings {
    /// Whether the operator admits the address for `purpose`; `number` is what a phone number tells.
    pub(crate) fn check(
        &self,
        purpose: Purpose,
        threepid: &Threepid,
        number: Option<&Facts>,
    ) -> Result<()> {
        let own = match purpose {
            Purpose::Register => &self.register,
            Purpose::Add => &self.add,
            Purpose::Password => &self.password,
            Purpose::Identity => &None,
        };
        let admits_number = number.is_none_or(|facts| self.numbers.admit(facts));
        if admits_number && own.as_ref().unwrap_or(&self.general).admit(threepid) {
            Ok(())
        } else {
            Err(Error::Denied)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &[&str] = &[];

    fn admits(allowed: &[&str], denied: &[&str], address: &str) -> bool {
        Lists::new(allowed, denied)
            .unwrap()
            .admit(&Threepid::email(address).unwrap())
    }

    fn admits_number(allowed: &[&str], denied: &[&str], number: &str) -> bool {
        Lists::new(allowed, denied)
            .unwrap()
            .admit(&Threepid::msisdn("GB", number).unwrap())
    }

    fn check(numbers: Numbers, number: &str) -> Result<()> {
        let settings = Settings {
            numbers,
            ..Settings::default()
        };
        let threepid = Threepid::msisdn("GB", number).unwrap();
        let facts = Some(phone::facts(threepid.address()));
        let checked = settings.check(Purpose::Register, &threepid, facts.as_ref());
        for purpose in [Purpose::Add, Purpose::Password] {
            assert_eq!(
                settings.check(purpose, &threepid, facts.as_ref()),
                checked,
                "{purpose}"
            );
        }
        checked
    }

    #[test]
    fn patterns_are_anchored_at_both_ends() {
        for (pattern, address, matches) in [
            ("example.org", "a@example.org", true),
            ("Example.ORG", "a@example.org", true),
            ("example.org", "a@mail.example.org", false),
            ("example.org", "a@example.org.evil.net", false),
            ("example.org", "a@notexample.org", false),
            ("*.example.org", "a@mail.example.org", true),
            ("*.example.org", "a@example.org", false),
            ("alice@example.org", "Alice@Example.org", true),
            ("alice@example.org", "malice@example.org", false),
            ("*@example.org", "anyone@example.org", true),
            ("spam-*@*.org", "spam-1@x.org", true),
            ("spam-*@*.org", "spam-1@x.org.net", false),
            ("*", "a@b.org", true),
        ] {
            assert_eq!(
                admits(&[pattern], &[], address),
                matches,
                "{pattern} {address}"
            );
            assert_eq!(
                admits(&[], &[pattern], address),
                !matches,
                "not {pattern} {address}"
            );
        }
    }

    #[test]
    fn a_denial_beats_an_allowance_and_a_purpose_s_lists_beat_the_general_ones() {
        assert!(!admits(
            &["example.org"],
            &["bad@example.org"],
            "bad@example.org"
        ));
        let alice = Threepid::email("alice@example.org").unwrap();
        let settings = Settings {
            general: Lists::new(&["other.org"], &[]).unwrap(),
            password: Some(Lists::default()),
            ..Settings::default()
        };
        assert_eq!(
            settings.check(Purpose::Register, &alice, None),
            Err(Error::Denied)
        );
        assert_eq!(settings.check(Purpose::Password, &alice, None), Ok(()));
    }

    #[test]
    fn patterns_that_are_numbers_are_for_phones() {
        for (pattern, number, matches) in [
            ("+447700900001", "07700900001", true),
            ("447700900001", "07700900001", true),
            ("+447700900*", "07700900001", true),
            ("+44*", "07700900001", true),
            ("+4477*01", "07700900001", true),
            ("+*", "07700900001", true),
            ("44*", "+33611223344", false),
            ("+44770090000", "07700900001", false),
            ("+7700900001", "07700900001", false),
            ("+4*2", "07700900001", false),
            ("+1876*", "+18761234567", true),
            ("+1876*", "+16502530000", false),
        ] {
            assert_eq!(
                admits_number(&[pattern], &[], number),
                matches,
                "{pattern} {number}"
            );
            assert_eq!(
                admits_number(&[], &[pattern], number),
                !matches,
                "not {pattern} {number}"
            );
        }
    }

    #[test]
    fn a_pattern_of_one_medium_says_nothing_of_the_other() {
        for pattern in [
            "example.org",
            "*",
            "*@*",
            "*7700900001",
            "123.example",
            "+44@b.org",
        ] {
            assert!(admits_number(&[pattern], &[], "07700900001"), "{pattern}");
            assert!(admits_number(&[], &[pattern], "07700900001"), "{pattern}");
        }
        for pattern in ["+*", "44*", "+447700900001"] {
            assert!(admits(&[pattern], &[], "44@example.org"), "{pattern}");
            assert!(admits(&[], &[pattern], "44@example.org"), "{pattern}");
        }
        let both = ["example.org", "+44*"];
        assert!(admits_number(&both, &[], "07700900001"));
        assert!(!admits_number(&both, &[], "+33611223344"));
        assert!(admits(&both, &[], "a@example.org"));
        assert!(!admits(&both, &[], "a@example.com"));
    }

    #[test]
    fn numbers_that_cost_or_have_no_owner_are_denied_unless_the_operator_says_otherwise() {
        let open = Numbers::new(NOTHING, NOTHING, NOTHING, NOTHING).unwrap();
        for (number, admitted) in [
            ("07700900001", true),
            ("07400123456", true),
            ("020 7946 0000", true),
            ("+16502530000", true),
            ("07012345678", true),
            ("05612345678", true),
            ("0909 879 0000", false),
            ("+49 180 1 123456", false),
            ("0800 123 4567", false),
            ("055 1234 5678", false),
            ("+41 860 79 123 45 67", false),
            ("076 4012 3456", false),
            ("+881 6 123 45678", false),
        ] {
            let wanted = if admitted { Ok(()) } else { Err(Error::Denied) };
            assert_eq!(check(Numbers::default(), number), wanted, "{number}");
            assert_eq!(check(open.clone(), number), Ok(()), "{number}");
        }
    }

    #[test]
    fn calling_codes_and_kinds_are_allowed_and_denied() {
        let none: [&str; 0] = [];
        let numbers = |codes: [&[&str]; 2], kinds: [&[&str]; 2]| {
            Numbers::new(codes[0], codes[1], kinds[0], kinds[1]).unwrap()
        };
        let (gb, fr, us) = ("07400123456", "+33611223344", "+16502530000");
        for (rules, admitted) in [
            (
                numbers([&["+44", "1"], &none], [&none; 2]),
                [true, false, true],
            ),
            (numbers([&none, &["33"]], [&none; 2]), [true, false, true]),
            (
                numbers([&["44", "33"], &["44"]], [&none; 2]),
                [false, true, false],
            ),
            (
                numbers([&none; 2], [&["mobile"], &none]),
                [true, true, false],
            ),
            (
                numbers([&none; 2], [&none, &["fixed-line-or-mobile"]]),
                [true, true, false],
            ),
            (numbers([&none; 2], [&["mobile"], &["mobile"]]), [false; 3]),
            (numbers([&["44"], &none], [&["voip"], &none]), [false; 3]),
        ] {
            let outcome = [gb, fr, us].map(|number| check(rules.clone(), number).is_ok());
            assert_eq!(outcome, admitted, "{rules:?}");
        }
    }

    #[test]
    fn the_rules_for_numbers_say_nothing_of_emails() {
        let settings = Settings {
            numbers: Numbers::new(&["44"], NOTHING, &["mobile"], NOTHING).unwrap(),
            ..Settings::default()
        };
        let alice = Threepid::email("alice@example.org").unwrap();
        assert_eq!(settings.check(Purpose::Register, &alice, None), Ok(()));
    }

    #[test]
    fn what_is_no_calling_code_or_kind_is_named() {
        for bad in [
            "", "+", "0", "044", "440", "999", "1876", "GB", "++44", "4 4", "70000",
        ] {
            for refused in [
                Numbers::new(&[bad], NOTHING, NOTHING, NOTHING),
                Numbers::new(NOTHING, &[bad], NOTHING, NOTHING),
            ] {
                let why = refused.unwrap_err();
                assert!(
                    why.starts_with(&format!("{bad:?} is no calling code")),
                    "{why}"
                );
            }
        }
        for refused in [
            Numbers::new(NOTHING, NOTHING, &["premium"], NOTHING),
            Numbers::new(NOTHING, NOTHING, NOTHING, &["premium"]),
        ] {
            assert_eq!(
                refused.unwrap_err(),
                "\"premium\" is no kind of phone number; there are fixed-line, mobile, fixed-line-or-mobile, toll-free, \
                 premium-rate, shared-cost, voip, personal, pager, company, voice-mail, satellite, unknown"
            );
        }
    }

    #[test]
    fn nonsense_is_no_pattern() {
        for bad in [
            "",
            "a b",
            "a@b@c",
            "a\n",
            "@b.org",
            "a@",
            "+",
            "+a",
            "+44 7700*",
            "+44-7*",
            "07700*",
            "+07*",
        ] {
            assert!(Lists::new(&[bad], &[]).is_err(), "{bad:?}");
        }
    }
}
