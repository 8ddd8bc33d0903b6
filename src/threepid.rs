//! A third-party identifier: a medium and an address in canonical form.

use std::fmt;

use crate::{error::Error, phone};

/// The longest email address that is taken, in bytes: the limit that SMTP sets to a path (RFC 5321, 4.5.3.1.3).
const MAX_EMAIL: usize = 254;
/// The longest local part of an email address, in bytes (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL: usize = 64;
/// How many digits of a phone number stay hidden at least, so that nobody tries them all.
const LEAST_HIDDEN: usize = 5;

/// What kind of address it is (Matrix appendices, "3PID Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Medium {
    /// An email address.
    Email,
    /// A phone number.
    Msisdn,
}

impl Medium {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Email, Self::Msisdn];

    /// The specification's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Msisdn => "msisdn",
        }
    }

    /// The byte that stands for it in a MAC.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Email => b'e',
            Self::Msisdn => b'm',
        }
    }

    /// Reads the specification's name; `None` for a medium that is not known here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|medium| medium.as_str() == text)
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// An address that somebody may own, in canonical form: two spellings of one address are equal.
///
/// `Debug` shows the masked form only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Threepid {
    medium: Medium,
    address: String,
}

impl Threepid {
    /// Takes an email address as somebody typed it: the local part case-folded (Unicode C and F mappings), the ASCII
    /// domain in lower case (Matrix appendices, "E-mail addresses"; MSC2265).
    ///
    /// # Errors
    /// [`Error::InvalidAddress`] for anything but one bare address: display names, two `@`, blanks, control
    /// characters, quotes, `%` and `!`, a domain that is not ASCII, more than 254 bytes.
    pub fn email(typed: &str) -> Result<Self, Error> {
        let refuse = |why| Err(Error::InvalidAddress(why));
        if typed.len() > MAX_EMAIL {
            return refuse("the email address is longer than 254 bytes");
        }
        let Some((local, domain)) = typed.split_once('@') else {
            return refuse("an email address looks like name@example.org");
        };
        if !is_local_part(local) {
            return refuse("the part before the @ is not that of a bare email address");
        }
        if !domain.is_ascii() {
            return refuse("write the domain of the email address in its ASCII form (xn--…)");
        }
        if !is_domain(domain) {
            return refuse("the part after the @ is not a domain name");
        }
        let local = caseless::default_case_fold_str(local);
        if local.len() > MAX_LOCAL {
            return refuse("the part before the @ is longer than 64 bytes");
        }
        Ok(Self {
            medium: Medium::Email,
            address: format!("{local}@{}", domain.to_ascii_lowercase()),
        })
    }

    /// Takes a phone number as somebody typed it in `country`, two upper-case letters of ISO 3166-1: the digits of E.164
    /// (Matrix appendices, "PSTN Phone numbers").
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a country that is none, [`Error::InvalidNumber`] for what is no number, has an
    /// extension or letters, or is impossible in its country.
    pub fn msisdn(country: &str, typed: &str) -> Result<Self, Error> {
        Ok(Self {
            medium: Medium::Msisdn,
            address: phone::canonical(country, typed)?,
        })
    }

    /// Takes an address as another server holds it: an email address, or the digits of E.164 with or without `+`.
    ///
    /// # Errors
    /// As [`Threepid::email`] and [`Threepid::msisdn`].
    pub fn parse(medium: Medium, address: &str) -> Result<Self, Error> {
        match medium {
            Medium::Email => Self::email(address),
            Medium::Msisdn => {
                let digits = address.strip_prefix('+').unwrap_or(address);
                // With a + it has no meaning whence a number is dialled.
                Self::msisdn("US", &format!("+{digits}"))
            }
        }
    }

    /// Takes what the store kept, which was canonical when it was stored.
    pub(crate) fn stored(medium: Medium, address: String) -> Self {
        Self { medium, address }
    }

    /// What kind of address it is.
    #[must_use]
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// The address in canonical form, to store, to compare and to send to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The mailbox that an email address leads to where `name+tag@…` reaches `name@…`: what a limit is counted on.
    #[must_use]
    pub fn mailbox(&self) -> String {
        match (self.address.split_once('+'), self.address.rsplit_once('@')) {
            (Some((name, _)), Some((local, domain))) if !name.is_empty() && local.contains('+') => {
                format!("{name}@{domain}")
            }
            _ => self.address.clone(),
        }
    }

    /// The domain of an email address; nothing for a phone number.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.address
            .rsplit_once('@')
            .map_or("", |(_, domain)| domain)
    }

    /// A form for logs and lists, that does not give the address away: `a…@e….org`, `+44…01`. A short number shows its
    /// calling code alone.
    #[must_use]
    pub fn masked(&self) -> String {
        if self.medium == Medium::Msisdn {
            return masked_number(&self.address);
        }
        let (local, domain) = self.address.rsplit_once('@').unwrap_or((&self.address, ""));
        let (name, top) = domain.rsplit_once('.').unwrap_or((domain, ""));
        let first = |text: &str| text.chars().next().map(String::from).unwrap_or_default();
        let dot = if top.is_empty() { "" } else { "." };
        format!("{}…@{}…{dot}{top}", first(local), first(name))
    }
}

impl fmt::Debug for Threepid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Threepid({} {})", self.medium, self.masked())
    }
}

fn masked_number(digits: &str) -> String {
    let code = phone::calling_code(digits).map_or_else(String::new, |code| code.to_string());
    let last = digits.len().saturating_sub(2);
    let shown = if last >= code.len() + LEAST_HIDDEN {
        digits.get(last..).unwrap_or_default()
    } else {
        ""
    };
    format!("+{code}…{shown}")
}

/// The unquoted local part of RFC 5321, its letters widened by RFC 6531; `@`, blanks, quotes and controls are not in it.
///
/// Nor are `%` and `!`, although RFC 5321 has them: relays may read `eve%evil.net@example.org` and
/// `evil.net!eve@example.org` as routes (RFC 5321, appendix F.2) and carry a mail to another domain than the policy saw.
fn is_local_part(local: &str) -> bool {
    let is_atom = |letter: char| {
        letter.is_ascii_alphanumeric()
            || "#$&'*+-/=?^_`{|}~.".contains(letter)
            || (!letter.is_ascii()
                && !letter.is_control()
                && !letter.is_whitespace()
                && !is_invisible(letter))
    };
    !local.is_empty()
        && local.len() <= MAX_LOCAL
        && local.chars().all(is_atom)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
}

/// Characters that a reader can not see or that turn the text round: they would make two addresses look like one.
pub(crate) fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1345f}' | '\u{16fe4}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A domain name of at least two labels (`localhost` alone excepted), with letters, digits and inner hyphens.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let parses = || matches!(url::Host::parse(domain), Ok(url::Host::Domain(_)));
    domain.len() <= 253
        && domain.split('.').all(is_label)
        && (domain.contains('.') || domain.eq_ignore_ascii_case("localhost"))
        && parses()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_canonical() {
        for (typed, canonical) in [
            ("Alice@Example.COM", "alice@example.com"),
            ("Strauß@Example.com", "strauss@example.com"),
            ("quac\u{212a}@example.com", "quack@example.com"),
            ("ΣΊΣΥΦΟΣ@x.example", "σίσυφοσ@x.example"),
            ("\u{fb01}@x.example", "fi@x.example"),
            ("İ@x.example", "i\u{307}@x.example"),
            (
                "o'neil+tag@xn--strae-oqa.example",
                "o'neil+tag@xn--strae-oqa.example",
            ),
            ("me@localhost", "me@localhost"),
        ] {
            assert_eq!(Threepid::email(typed).unwrap().address(), canonical);
        }
    }

    #[test]
    fn what_is_no_bare_address_is_refused() {
        let long_local = format!("{}@x.org", "a".repeat(65));
        let long = format!("a@{}.org", "b.".repeat(130));
        for typed in [
            "",
            "@",
            "a@",
            "@b.org",
            "a",
            "a@b@c.org",
            "Alice <a@b.org>",
            "<a@b.org>",
            "mailto:a@b.org ",
            "a b@c.org",
            "a@b.org\r\nBcc: x@y.org",
            "a\0@b.org",
            "a@b\0.org",
            "\"a b\"@c.org",
            "a@b_c.org",
            "a@-b.org",
            "a@b..org",
            "a@straße.example",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@b",
            ".a@b.org",
            "a.@b.org",
            "a..b@c.org",
            "a@b.org.",
            "a\u{202e}b@c.org",
            "a\u{200b}@c.org",
            "a\u{85}@c.org",
            "a,b@c.org",
            "eve%evil.net@example.org",
            "evil.net!eve@example.org",
            "a%@b.org",
            "!a@b.org",
            "a@b%2e.org",
            &long_local,
            &long,
        ] {
            assert!(
                matches!(Threepid::email(typed), Err(Error::InvalidAddress(_))),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn what_another_server_holds_is_read_with_and_without_a_plus() {
        for (medium, address, canonical) in [
            (
                Medium::Email,
                "Alice@Example.org",
                Some("alice@example.org"),
            ),
            (Medium::Msisdn, "447700900001", Some("447700900001")),
            (Medium::Msisdn, "+447700900001", Some("447700900001")),
            (Medium::Msisdn, "++447700900001", None),
            (Medium::Msisdn, "07700900001", None),
            (Medium::Msisdn, "", None),
            (Medium::Email, "447700900001", None),
        ] {
            let read = Threepid::parse(medium, address).ok();
            let read = read.as_ref().map(Threepid::address);
            assert_eq!(read, canonical, "{medium} {address}");
        }
    }

    #[test]
    fn canonical_form_is_a_fixed_point() {
        let once = Threepid::email("GROẞ+Tag@Example.org").unwrap();
        assert_eq!(Threepid::email(once.address()).unwrap(), once);
        assert_eq!(once.mailbox(), "gross@example.org");
    }

    #[test]
    fn a_mask_hides_the_address() {
        assert_eq!(
            Threepid::email("alice@mail.example.org").unwrap().masked(),
            "a…@m….org"
        );
        assert!(!format!("{:?}", Threepid::email("alice@example.org").unwrap()).contains("alice"));
    }

    #[test]
    fn a_mask_hides_the_number() {
        for (address, masked) in [
            ("447700900001", "+44…01"),
            ("16502530000", "+1…00"),
            ("881612345678", "+881…78"),
            ("6834002", "+683…"),
            ("290123456", "+290…"),
            ("", "+…"),
            ("nonsense", "+…se"),
        ] {
            let number = Threepid::stored(Medium::Msisdn, address.to_owned());
            assert_eq!(number.masked(), masked);
            assert_eq!(format!("{number:?}"), format!("Threepid(msisdn {masked})"));
        }
    }

    #[test]
    fn a_number_is_its_own_mailbox_and_has_no_domain() {
        let number = Threepid::msisdn("GB", "07700 900001").unwrap();
        assert_eq!(number.medium(), Medium::Msisdn);
        assert_eq!(number.address(), "447700900001");
        assert_eq!(number.mailbox(), "447700900001");
        assert_eq!(number.domain(), "");
    }
}
