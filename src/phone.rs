//! Phone numbers: from what somebody typed to E.164, and what a number tells about itself.

use std::fmt;

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType,
    enums::Region,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest text that is read as a phone number, in bytes.
const LONGEST: usize = 64;
/// The most digits of a number with its calling code (ITU-T E.164, section 6).
const MOST_DIGITS: usize = 15;
/// The most digits of a calling code (ITU-T E.164, section 6.2.1).
const LONGEST_CALLING_CODE: usize = 3;
/// The fewest digits that may follow the calling code, for the parser.
const LEAST_NATIONAL: usize = 2;
/// What begins a number that is written as E.164 has it: a plus sign, or that of East Asian keyboards.
const PLUS: [char; 2] = ['+', '＋'];
/// Countries of ISO 3166-1 in which nobody has telephones of that country's own: numbers from there need a `+`.
const WITHOUT_NUMBERS: [Region; 7] = [
    Region::AQ,
    Region::BV,
    Region::GS,
    Region::HM,
    Region::PN,
    Region::TF,
    Region::UM,
];
/// Calling codes of networks that no country has: satellites, ships and planes (ITU-T E.164.D).
const BEYOND_COUNTRIES: [u16; 4] = [870, 881, 882, 883];

/// What kind of number it is, as far as its digits tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NumberType {
    /// A line that is fixed.
    FixedLine,
    /// A mobile phone.
    Mobile,
    /// One of both: some countries do not tell them apart.
    FixedLineOrMobile,
    /// Free for whoever calls.
    TollFree,
    /// Dear for whoever calls or sends.
    PremiumRate,
    /// The caller pays a part.
    SharedCost,
    /// Voice over IP.
    Voip,
    /// Leads to one person, wherever that is.
    Personal,
    /// A pager.
    Pager,
    /// One number of a whole company.
    Company,
    /// A voice mailbox.
    VoiceMail,
    /// A satellite phone, or another network that belongs to no country.
    Satellite,
    /// Not known.
    Unknown,
}

impl NumberType {
    /// Every kind.
    pub(crate) const ALL: [Self; 13] = [
        Self::FixedLine,
        Self::Mobile,
        Self::FixedLineOrMobile,
        Self::TollFree,
        Self::PremiumRate,
        Self::SharedCost,
        Self::Voip,
        Self::Personal,
        Self::Pager,
        Self::Company,
        Self::VoiceMail,
        Self::Satellite,
        Self::Unknown,
    ];

    /// Reads the name that `Display` writes: `premium-rate`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == text)
    }
}

/// What the digits of a number tell. `Debug` shows no number.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The country's calling code, without `+`: 44. 0 if there is none.
    pub(crate) calling_code: u16,
    /// What kind of number it is.
    pub(crate) kind: NumberType,
    /// The number as people write it: `+44 7700 900001`.
    pub(crate) international: String,
}

impl fmt::Debug for Facts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Facts(+{}… {})", self.calling_code, self.kind)
    }
}

/// The digits of a number as E.164 has them, without `+`, from what was typed in `country`.
///
/// `country` says whence the number is dialled, not where it belongs: a number that begins with `+` is taken as it is
/// (Identity Service API, "Establishing associations").
///
/// # Errors
/// [`Error::InvalidParam`] for a country that is not two upper-case letters of ISO 3166-1, [`Error::InvalidNumber`]
/// for what is no number, has an extension or letters, or is impossible in its country.
pub(crate) fn canonical(country: &str, typed: &str) -> Result<String> {
    let region = region(country).ok_or_else(|| {
        Error::invalid("country must be two upper-case letters of ISO 3166-1, such as GB")
    })?;
    if typed.len() > LONGEST || !is_written_as_a_number(typed) {
        return Err(Error::InvalidNumber(
            "write the phone number in digits, without an extension",
        ));
    }
    let number = PHONE_NUMBER_UTIL.parse(typed, Some(region)).map_err(|_| {
        Error::InvalidNumber("a phone number has digits, perhaps after a + and a country's code")
    })?;
    let digits = e164(&number);
    // A prefix for calls inside the country, dialled twice, is stripped once: one phone would have two canonical forms.
    let is_read_alike =
        || typed.strip_prefix('+') == Some(&digits) || parse(&digits).as_ref() == Some(&number);
    if !is_possible(&number) || digits.len() > MOST_DIGITS || !is_read_alike() {
        return Err(Error::InvalidNumber(
            "no phone number of that country has these digits",
        ));
    }
    Ok(digits)
}

/// What a canonical number tells.
pub(crate) fn facts(digits: &str) -> Facts {
    let Some(number) = take_apart(digits) else {
        return Facts {
            calling_code: 0,
            kind: NumberType::Unknown,
            international: format!("+{digits}"),
        };
    };
    let calling_code = u16::try_from(number.country_code).unwrap_or(0);
    Facts {
        calling_code,
        kind: if BEYOND_COUNTRIES.contains(&calling_code) {
            NumberType::Satellite
        } else {
            number.get_type().into()
        },
        international: number
            .format_as(PhoneNumberFormat::International)
            .into_owned(),
    }
}

/// The country that a canonical number belongs to, as two upper-case letters; where several share a calling code, the
/// digits decide, and where they are given to nobody, the greatest of these countries has them. `None` for networks of no
/// country.
pub(crate) fn country(digits: &str) -> Option<String> {
    let number = take_apart(digits)?;
    let main = || PHONE_NUMBER_UTIL.get_region_for_country_code(number.country_code);
    let region = number.get_region_code().or_else(main);
    region
        .filter(|region| *region != Region::World)
        .map(|region| region.to_string())
}

/// Whether numbers are dialled from this country: two upper-case letters of ISO 3166-1.
pub(crate) fn is_country(letters: &str) -> bool {
    region(letters).is_some()
}

/// The calling code of a canonical number, without `+`, which is quicker to tell than all its facts.
pub(crate) fn calling_code(digits: &str) -> Option<u16> {
    let (code, _) = split(digits)?;
    Some(code)
}

/// Whether numbers may begin with this calling code.
pub(crate) fn is_calling_code(code: u16) -> bool {
    PHONE_NUMBER_UTIL
        .get_supported_calling_codes()
        .any(|known| known == i32::from(code))
}

/// A canonical number as the parser would read it, without the expressions by which it looks for extensions and the like.
fn take_apart(digits: &str) -> Option<PhoneNumber> {
    let (code, national) = split(digits)?;
    let national_number = national.parse().ok()?;
    // The zeros that a number would lose; one that is zero altogether keeps its last.
    let most = national.len() - 1;
    let zeros = national.bytes().take(most).take_while(|byte| *byte == b'0');
    let zeros = i32::try_from(zeros.count()).ok()?;
    Some(PhoneNumber {
        country_code: i32::from(code),
        national_number,
        italian_leading_zero: (zeros > 0).then_some(true),
        number_of_leading_zeros: (zeros > 1).then_some(zeros),
        ..PhoneNumber::default()
    })
}

/// Calling code and the rest of a canonical number. No calling code begins another one.
fn split(digits: &str) -> Option<(u16, &str)> {
    if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    (1..=LONGEST_CALLING_CODE).find_map(|length| {
        let (code, national) = digits.split_at_checked(length)?;
        let code = code.parse().ok().filter(|code| is_calling_code(*code))?;
        (LEAST_NATIONAL..=MOST_DIGITS)
            .contains(&national.len())
            .then_some((code, national))
    })
}

fn parse(digits: &str) -> Option<PhoneNumber> {
    PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None).ok()
}

fn e164(number: &PhoneNumber) -> String {
    let written = number.format_as(PhoneNumberFormat::E164);
    written.trim_start_matches('+').to_owned()
}

/// Whether it has as many digits as numbers of its country may have. More is not asked: what is not yet given to anybody
/// may be tomorrow, and the numbers for examples and films never are.
fn is_possible(number: &PhoneNumber) -> bool {
    matches!(
        number.is_possible_with_reason(),
        Ok(NumberLengthType::IsPossible)
    )
}

/// The parser knows every pair of letters; those that are a country are asked for here.
fn region(country: &str) -> Option<Region> {
    if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let region = country.parse().ok()?;
    let is_country = WITHOUT_NUMBERS.contains(&region)
        || PHONE_NUMBER_UTIL
            .get_country_code_for_region(region)
            .is_some();
    is_country.then_some(region)
}

/// Digits of any script, with what people put between them, after one `+` at most. The parser takes more: letters as on
/// the keys of a telephone, extensions, a second number, whatever stands around.
fn is_written_as_a_number(typed: &str) -> bool {
    let after_plus = match typed.split_once(PLUS) {
        Some((before, after)) if before.chars().all(is_separator) => after,
        Some(_) => return false,
        None => typed,
    };
    let digits = PHONE_NUMBER_UTIL.normalize_digits_only(after_plus).len();
    let separators = after_plus.chars().filter(|&letter| is_separator(letter));
    digits + separators.count() == after_plus.chars().count()
}

fn is_separator(letter: char) -> bool {
    " \u{a0}\u{3000}-‐‑–－.()（）/".contains(letter)
}

impl From<PhoneNumberType> for NumberType {
    fn from(kind: PhoneNumberType) -> Self {
        match kind {
            PhoneNumberType::FixedLine => Self::FixedLine,
            PhoneNumberType::Mobile => Self::Mobile,
            PhoneNumberType::FixedLineOrMobile => Self::FixedLineOrMobile,
            PhoneNumberType::TollFree => Self::TollFree,
            PhoneNumberType::PremiumRate => Self::PremiumRate,
            PhoneNumberType::SharedCost => Self::SharedCost,
            PhoneNumberType::VoIP => Self::Voip,
            PhoneNumberType::PersonalNumber => Self::Personal,
            PhoneNumberType::Pager => Self::Pager,
            PhoneNumberType::UAN => Self::Company,
            PhoneNumberType::VoiceMail => Self::VoiceMail,
            PhoneNumberType::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NumberType as Kind;

    /// What telephones of all kinds of countries are called, as their owners write it, and the canonical form.
    const TYPED: [(&str, &str, &str); 42] = [
        // The examples of MSC2222 and of the Matrix specification.
        ("GB", "07700900001", "447700900001"),
        ("US", "+33611223344", "33611223344"),
        ("AQ", "+33 6 11 22 33 44", "33611223344"),
        // Dialled from elsewhere, with the prefix of there, or with none.
        ("US", "011 44 7700 900001", "447700900001"),
        ("FR", "00447700900001", "447700900001"),
        ("AU", "0011 44 7700 900001", "447700900001"),
        ("GB", "447700900001", "447700900001"),
        // Italy keeps its zero; the United Kingdom does not.
        ("IT", "02 3661 8300", "390236618300"),
        ("US", "+390236618300", "390236618300"),
        ("IT", "347 1234567", "393471234567"),
        ("SM", "0549 886377", "3780549886377"),
        ("GB", "+44 (0)7700 900001", "447700900001"),
        // North America shares one calling code.
        ("US", "(650) 253-0000", "16502530000"),
        ("CA", "1 416 555 0123", "14165550123"),
        ("JM", "876 123 4567", "18761234567"),
        ("US", "16502530000", "16502530000"),
        // Mobile phones of Argentina have a 15 at home, and a 9 abroad.
        ("AR", "011 15 2345 6789", "5491123456789"),
        ("AR", "+54 9 11 2345 6789", "5491123456789"),
        ("AR", "+54 11 15 2345 6789", "5491123456789"),
        ("AR", "+54 11 2345 6789", "541123456789"),
        // Mexico did away with its 1, 044 and 045.
        ("MX", "55 1234 5678", "525512345678"),
        ("US", "+52 55 1234 5678", "525512345678"),
        // Brazil dials a carrier in between.
        ("BR", "0 15 11 91234 5678", "5511912345678"),
        // Prefixes that are not 0.
        ("HU", "06 20 123 4567", "36201234567"),
        ("KZ", "8 701 234 56 78", "77012345678"),
        ("RU", "8 912 345 67 89", "79123456789"),
        // Satellites and other networks of no country.
        ("US", "+881612345678", "881612345678"),
        ("US", "+870773111632", "870773111632"),
        ("US", "+882 16 12345678", "8821612345678"),
        ("US", "+883510012345678", "883510012345678"),
        // Separators, and where they may stand.
        ("GB", " 0-7700.900/001 ", "447700900001"),
        ("GB", "0‐7700‑900–001", "447700900001"),
        ("GB", "(+44) 7700 900001", "447700900001"),
        ("GB", "07700\u{a0}900001", "447700900001"),
        ("DE", "030/1234567", "49301234567"),
        ("JP", "（０３）\u{3000}１２３４－５６７８", "81312345678"),
        // Digits of other scripts.
        ("GB", "＋４４７７００９００００１", "447700900001"),
        ("EG", "٠١٠٠ ١٢٣ ٤٥٦٧", "201001234567"),
        ("IR", "۰۹۱۲ ۳۴۵ ۶۷۸۹", "989123456789"),
        ("IN", "०९८७६५४३२१०", "919876543210"),
        ("TH", "๐๘๑ ๒๓๔ ๕๖๗๘", "66812345678"),
        ("GB", "𝟎𝟕𝟕𝟎𝟎𝟗𝟎𝟎𝟎𝟎𝟏", "447700900001"),
    ];

    #[test]
    fn numbers_become_canonical() {
        for (country, typed, digits) in TYPED {
            assert_eq!(
                canonical(country, typed).as_deref(),
                Ok(digits),
                "{country} {typed:?}"
            );
        }
    }

    #[test]
    fn canonical_form_is_a_fixed_point_in_every_country() {
        for (_, _, digits) in TYPED {
            for country in ["GB", "US", "IT", "AR", "MX", "BR", "DE", "KZ", "AQ"] {
                let again = canonical(country, &format!("+{digits}"));

                assert_eq!(again.as_deref(), Ok(digits), "{country}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let long = format!("07700900001{}", " ".repeat(54));
        for typed in [
            "",
            "+",
            "   ",
            "-",
            "()",
            // extensions, and what is dialled after the call is taken
            "07700900001;ext=1",
            "07700900001 x123",
            "07700900001 ext. 1",
            "07700900001,1",
            "07700900001#1",
            "*07700900001",
            "07700900001;phone-context=+1",
            // letters, links, second numbers
            "0800 FLOWERS",
            "tel:07700900001",
            "tel:+447700900001",
            "07700900001/07700900002",
            "o7700900001",
            // plus signs out of place
            "++447700900001",
            "+44+7700900001",
            "07700900001+",
            "44+7700900001",
            "+＋447700900001",
            // numbers that are not digits
            "¼7700900001",
            "07700²00001",
            "07700①00001",
            "Ⅳ7700900001",
            "〇7700900001",
            // what can not be seen
            "07700900001\n",
            "07700\t900001",
            "07700900001\0",
            "\u{202a}+447700900001\u{202c}",
            "\u{200e}07700900001",
            "07700\u{200b}900001",
            "07700\u{ad}900001",
            // lengths
            "7700",
            "999",
            "7946 0000",
            "+4477009000012",
            "+49 30 1234 5678 9012",
            &long,
            // calling codes that are none
            "+0447700900001",
            "+999123456789",
            "+210123456789",
        ] {
            assert!(
                matches!(canonical("GB", typed), Err(Error::InvalidNumber(_))),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn what_is_impossible_in_its_country_is_refused() {
        for (country, typed) in [
            ("US", "253-0000"),
            ("US", "911"),
            ("US", "0016502530000"),
            ("MX", "+52 1 55 1234 5678"),
            ("MX", "044 55 1234 5678"),
            ("AQ", "07700900001"),
            // A prefix dialled twice would give one phone two canonical forms.
            ("GB", "+49 0 0 30 1234567"),
            ("AT", "+43 00 1 5880058"),
        ] {
            assert!(
                matches!(canonical(country, typed), Err(Error::InvalidNumber(_))),
                "{country} {typed:?}"
            );
        }
    }

    #[test]
    fn a_country_is_two_upper_case_letters_that_are_one() {
        for country in [
            "", "G", "gb", "Gb", "GBR", "GB ", "UK", "EU", "AN", "XX", "ZZ", "001", "01", "ÄA",
            "ß", "ＧＢ", "G\0",
        ] {
            let refused = canonical(country, "+447700900001");
            assert!(matches!(refused, Err(Error::InvalidParam(_))), "{country}");
        }
    }

    /// Canonical numbers, and what they tell: calling code, country, kind, and how people write them.
    const TOLD: [(&str, u16, &str, Kind, &str); 24] = [
        ("33611223344", 33, "FR", Kind::Mobile, "+33 6 11 22 33 44"),
        (
            "442079460000",
            44,
            "GB",
            Kind::FixedLine,
            "+44 20 7946 0000",
        ),
        ("447797712345", 44, "JE", Kind::Mobile, "+44 7797 712345"),
        (
            "16502530000",
            1,
            "US",
            Kind::FixedLineOrMobile,
            "+1 650-253-0000",
        ),
        (
            "14165550123",
            1,
            "CA",
            Kind::FixedLineOrMobile,
            "+1 416-555-0123",
        ),
        ("77012345678", 7, "KZ", Kind::Mobile, "+7 701 234 5678"),
        (
            "449098790000",
            44,
            "GB",
            Kind::PremiumRate,
            "+44 909 879 0000",
        ),
        ("19002530000", 1, "US", Kind::PremiumRate, "+1 900-253-0000"),
        (
            "979123456789",
            979,
            "",
            Kind::PremiumRate,
            "+979 1 2345 6789",
        ),
        ("18002530000", 1, "US", Kind::TollFree, "+1 800-253-0000"),
        ("448001234567", 44, "GB", Kind::TollFree, "+44 800 123 4567"),
        ("80012345678", 800, "", Kind::TollFree, "+800 1234 5678"),
        (
            "491801123456",
            49,
            "DE",
            Kind::SharedCost,
            "+49 180 1 123456",
        ),
        ("80812345678", 808, "", Kind::SharedCost, "+808 1234 5678"),
        ("447640123456", 44, "GB", Kind::Pager, "+44 76 4012 3456"),
        ("447012345678", 44, "GB", Kind::Personal, "+44 70 1234 5678"),
        ("445612345678", 44, "GB", Kind::Voip, "+44 56 1234 5678"),
        ("445512345678", 44, "GB", Kind::Company, "+44 55 1234 5678"),
        (
            "41860791234567",
            41,
            "CH",
            Kind::VoiceMail,
            "+41 860 79 123 45 67",
        ),
        ("881612345678", 881, "", Kind::Satellite, "+881 6 123 45678"),
        ("870773111632", 870, "", Kind::Satellite, "+870 773 111 632"),
        (
            "8821612345678",
            882,
            "",
            Kind::Satellite,
            "+882 16 1234 5678",
        ),
        (
            "883510012345678",
            883,
            "",
            Kind::Satellite,
            "+883 510 012 345 678",
        ),
        // Given to nobody: a number of films.
        ("447700900001", 44, "GB", Kind::Unknown, "+44 7700 900001"),
    ];

    #[test]
    fn digits_tell_the_kind_the_country_and_how_to_write_it() {
        for (digits, code, its_country, kind, written) in TOLD {
            let expected = Facts {
                calling_code: code,
                kind,
                international: written.to_owned(),
            };
            assert_eq!(facts(digits), expected);
            assert_eq!(calling_code(digits), Some(code));
            assert_eq!(country(digits).unwrap_or_default(), its_country);
        }
    }

    #[test]
    fn what_is_canonical_is_taken_apart_as_the_parser_does() {
        let mut numbers = 0;
        for region in PHONE_NUMBER_UTIL.get_supported_regions() {
            for kind in [
                PhoneNumberType::FixedLine,
                PhoneNumberType::Mobile,
                PhoneNumberType::TollFree,
                PhoneNumberType::PremiumRate,
                PhoneNumberType::PersonalNumber,
                PhoneNumberType::VoiceMail,
            ] {
                let example =
                    PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, kind);
                let typed = example.map(|number| format!("+{}", e164(&number)));
                let Ok(digits) = canonical("US", &typed.unwrap_or_default()) else {
                    continue;
                };
                assert_eq!(take_apart(&digits), parse(&digits), "{digits}");
                numbers += 1;
            }
        }
        for (_, _, digits) in TYPED {
            assert_eq!(take_apart(digits), parse(digits), "{digits}");
        }
        assert!(numbers > 800, "{numbers}");
    }

    #[test]
    fn what_is_no_number_tells_nothing() {
        for text in ["", "0", "999123", "nonsense"] {
            let told = facts(text);

            assert_eq!((told.calling_code, told.kind), (0, Kind::Unknown), "{text}");
            assert_eq!(told.international, format!("+{text}"));
            assert_eq!(calling_code(text), None);
        }
    }

    #[test]
    fn calling_codes_are_known() {
        for (code, known) in [
            (1, true),
            (44, true),
            (881, true),
            (800, true),
            (0, false),
            (440, false),
            (999, false),
        ] {
            assert_eq!(is_calling_code(code), known, "{code}");
        }
    }

    #[test]
    fn kinds_are_read_by_their_own_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(&kind.to_string()), Some(kind));
        }
        assert_eq!(Kind::PremiumRate.to_string(), "premium-rate");
        for text in ["", "Mobile", "premium_rate", "mobile "] {
            assert_eq!(Kind::parse(text), None, "{text:?}");
        }
    }
}
