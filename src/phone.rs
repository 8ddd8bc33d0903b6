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

/// What the digits of a number tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The country's calling code, without `+`: 44. 0 if there is none.
    pub(crate) calling_code: u16,
    /// The country that the number belongs to, as two upper-case letters; where several share a calling code, the
    /// digits decide.
    pub(crate) country: Option<String>,
    /// What kind of number it is.
    pub(crate) kind: NumberType,
    /// The number as people write it: `+44 7700 900001`.
    pub(crate) international: String,
}

/// The digits of a number as E.164 has them, without `+`, from what was typed in `country`.
///
/// `country` says whence the number is dialled, not where it belongs: a number that begins with `+` is taken as it is
/// (Identity Service API, "Establishing associations").
///
/// # Errors
/// [`Error::InvalidParam`] for a country that is not two upper-case letters of ISO 3166-1, [`Error::InvalidAddress`]
/// for what is no number, has an extension or letters, or is impossible in its country.
pub(crate) fn canonical(country: &str, typed: &str) -> Result<String> {
    let region = region(country).ok_or_else(|| {
        Error::invalid("country must be two upper-case letters of ISO 3166-1, such as GB")
    })?;
    if typed.len() > LONGEST || !typed.chars().all(is_of_a_number) {
        return Err(Error::InvalidAddress(
            "write the phone number in digits, without an extension",
        ));
    }
    let number = PHONE_NUMBER_UTIL.parse(typed, Some(region)).map_err(|_| {
        Error::InvalidAddress("a phone number has digits, perhaps after a + and a country's code")
    })?;
    if !matches!(
        number.is_possible_with_reason(),
        Ok(NumberLengthType::IsPossible)
    ) {
        return Err(Error::InvalidAddress(
            "no phone number of that country has so many digits",
        ));
    }
    Ok(number
        .format_as(PhoneNumberFormat::E164)
        .trim_start_matches('+')
        .to_owned())
}

/// What a canonical number tells.
pub(crate) fn facts(digits: &str) -> Facts {
    let Some(number) = parse(digits) else {
        return Facts {
            calling_code: 0,
            country: None,
            kind: NumberType::Unknown,
            international: format!("+{digits}"),
        };
    };
    let calling_code = u16::try_from(number.country_code).unwrap_or(0);
    Facts {
        calling_code,
        country: number.get_region_code().map(|region| region.to_string()),
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

fn parse(digits: &str) -> Option<PhoneNumber> {
    PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None).ok()
}

fn region(country: &str) -> Option<Region> {
    let is_code = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
    country.parse().ok().filter(|_| is_code)
}

/// Digits of any script, and what people put between and before them.
fn is_of_a_number(letter: char) -> bool {
    letter.is_numeric() || " \u{a0}-‐‑–.()/+＋".contains(letter)
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
