//! Which addresses may be proved at all.

use crate::{
    error::{Error, Result},
    session::Purpose,
    threepid::Threepid,
};

/// A pattern for whole addresses or whole domains, in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let known = |letter: char| !letter.is_whitespace() && !letter.is_control();
        if text.is_empty()
            || !text.chars().all(known)
            || text.matches('@').count() > 1
            || text.starts_with('@')
            || text.ends_with('@')
        {
            return Err(format!(
                "{text:?} is neither a domain (\"example.org\", \"*.example.org\") nor an address (\"alice@example.org\")"
            ));
        }
        Ok(Self(caseless::default_case_fold_str(text)))
    }

    /// Anchored at both ends: against the whole address if the pattern has an `@`, else against the whole domain.
    fn matches(&self, threepid: &Threepid) -> bool {
        let whole = if self.0.contains('@') {
            threepid.address()
        } else {
            threepid.domain()
        };
        glob(&self.0, whole)
    }
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

/// What is allowed and denied; an empty `allowed` allows all that is not denied.
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
        !is_in(&self.denied) && (self.allowed.is_empty() || is_in(&self.allowed))
    }
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
}

impl Settings {
    /// Whether the operator admits the address for `purpose`.
    pub(crate) fn check(&self, purpose: Purpose, threepid: &Threepid) -> Result<()> {
        let own = match purpose {
            Purpose::Register => &self.register,
            Purpose::Add => &self.add,
            Purpose::Password => &self.password,
        };
        if own.as_ref().unwrap_or(&self.general).admit(threepid) {
            Ok(())
        } else {
            Err(Error::Denied)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(allowed: &[&str], denied: &[&str], address: &str) -> bool {
        Lists::new(allowed, denied)
            .unwrap()
            .admit(&Threepid::email(address).unwrap())
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
            settings.check(Purpose::Register, &alice),
            Err(Error::Denied)
        );
        assert_eq!(settings.check(Purpose::Password, &alice), Ok(()));
    }

    #[test]
    fn nonsense_is_no_pattern() {
        for bad in ["", "a b", "a@b@c", "a\n", "@b.org", "a@"] {
            assert!(Lists::new(&[bad], &[]).is_err(), "{bad:?}");
        }
    }
}
