//! How one SMS gateway is described: values that a configuration file can hold.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// How long one gateway may take for one message, unless the operator says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that a gateway may be given.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(5);

/// An SMS gateway, spoken to over HTTP: a preset, or a description of the request and of the answers.
///
/// `url`, the values of `headers` and `form`, and the texts in `json` are templates. Their placeholders: `{to}` (the
/// digits of E.164), `{to_plus}` (the same after `+`), `{text}`, `{text_cr}` (its lines ended by carriage returns),
/// `{type}` (`text`, or `unicode` where the text needs UCS-2), `{coding}` (`1` or `2` for the same), `{sender}`,
/// `{sender_key}` (`MessagingServiceSid` if the sender begins with `MG`, else `From`), `{id}` (of the message, the
/// same on each try), `{username}`, `{password}`, `{account}` and `{channel}`. `{{` and `}}` are braces. Keys of
/// `form` are templates too.
///
/// `Debug` shows the name, the preset and the host of the URL only.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySettings {
    /// What it is called in outcomes: 1 to 32 letters, digits, `-` and `_`. Not read from the configuration's table,
    /// whose key it is.
    #[serde(skip)]
    pub name: String,
    /// One of [`PRESETS`](super::PRESETS); whatever else is given beats the preset.
    pub preset: Option<String>,
    /// Where the request goes, a template; with a preset: what to put in the place of the vendor's scheme and host.
    /// `https://`, or `http://` to this machine.
    pub url: Option<String>,
    /// How the request is made; `POST` unless said otherwise.
    pub method: Option<Method>,
    /// Header fields and their values.
    pub headers: BTreeMap<String, String>,
    /// How `username` and `password` are shown; not at all unless said otherwise, then `{password}` is to be used.
    pub auth: Option<Auth>,
    /// The user, the account's id or the API key.
    pub username: Option<String>,
    /// The password, token or secret. Written as if it were unset.
    #[serde(serialize_with = "hidden")]
    pub password: Option<SecretString>,
    /// A further id: the account (Twilio with an API key), the SMS service (OVHcloud), the workspace (Bird).
    pub account: Option<String>,
    /// A further id: the channel (Bird).
    pub channel: Option<String>,
    /// The body as JSON. Not together with `form`.
    pub json: Option<Value>,
    /// The body as `application/x-www-form-urlencoded`.
    pub form: Option<BTreeMap<String, String>>,
    /// The statuses, as `201`, `2xx` or `400-499`, that mean that the message was taken; `2xx` unless said otherwise.
    pub accepted: Option<Vec<String>>,
    /// Those that mean that another try, or another gateway, may succeed; all that are in no other list, and `3xx`.
    pub again: Option<Vec<String>>,
    /// Those that mean that the number or the text is refused for good, so that no other gateway is asked; `400`,
    /// `404`, `410`, `413` and `422` unless said otherwise.
    pub never: Option<Vec<String>>,
    /// Rules on an answer that is JSON: the first that fits beats the status, redirects excepted. Those of a preset
    /// come after these.
    pub answer: Vec<AnswerRule>,
    /// A JSON pointer to the vendor's code of the error, told in the outcome if it is one word without a number in it.
    pub code: Option<String>,
    /// How long one try takes at most, all in all; 10 seconds unless said otherwise. Half of it
    /// may go into connecting, and never more than five seconds.
    #[serde(with = "span")]
    pub timeout: Option<Duration>,
    /// PEM files with CA certificates that are trusted besides the platform's.
    pub ca_files: Vec<PathBuf>,
}

impl GatewaySettings {
    /// A gateway called `name`, of a preset; what the preset needs is still to be set.
    #[must_use]
    pub fn preset(name: &str, preset: &str) -> Self {
        Self {
            name: name.to_owned(),
            preset: Some(preset.to_owned()),
            ..Self::default()
        }
    }
}

impl fmt::Debug for GatewaySettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self
            .url
            .as_deref()
            .and_then(|url| url::Url::parse(url).ok());
        out.debug_struct("GatewaySettings")
            .field("name", &self.name)
            .field("preset", &self.preset)
            .field("host", &url.as_ref().and_then(url::Url::host_str))
            .finish_non_exhaustive()
    }
}

/// How a request is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "UPPERCASE")]
pub enum Method {
    /// With a body, or without.
    #[default]
    Post,
    /// Without a body.
    Get,
    /// With a body, or without.
    Put,
}

impl TryFrom<String> for Method {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "POST" => Ok(Self::Post),
            "GET" => Ok(Self::Get),
            "PUT" => Ok(Self::Put),
            _ => Err(format!(
                "{text:?} is no method; write \"POST\", \"GET\" or \"PUT\""
            )),
        }
    }
}

/// How `username` and `password` are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum Auth {
    /// Not, unless templates name them.
    #[default]
    None,
    /// Both, by HTTP Basic (RFC 7617).
    Basic,
    /// The password, as a bearer token (RFC 6750).
    Bearer,
}

impl TryFrom<String> for Auth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "none" => Ok(Self::None),
            "basic" => Ok(Self::Basic),
            "bearer" => Ok(Self::Bearer),
            _ => Err(format!(
                "{text:?} is no way to log in; write \"none\", \"basic\" or \"bearer\""
            )),
        }
    }
}

/// What an answer means if its JSON holds a certain value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// Where the value is: a JSON pointer (RFC 6901), as `/messages/0/status`.
    pub pointer: String,
    /// The values that fit, as texts; numbers and truth values are compared by their text.
    pub equals: Vec<String>,
    /// What they mean.
    pub means: Means,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum Means {
    /// The gateway has taken the message.
    Accepted,
    /// The gateway has not taken the message; another try, or another gateway, may succeed.
    Again,
    /// The gateway may have taken the message: no other gateway is asked, and it is tried at most once more.
    Unsure,
    /// The number or the text is refused for good.
    Never,
}

impl TryFrom<String> for Means {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "accepted" => Ok(Self::Accepted),
            "again" => Ok(Self::Again),
            "unsure" => Ok(Self::Unsure),
            "never" => Ok(Self::Never),
            _ => Err(format!(
                "{text:?} is no meaning; write \"accepted\", \"again\", \"unsure\" or \"never\""
            )),
        }
    }
}

/// A secret is written as if it were unset.
#[expect(clippy::ref_option, reason = "serde calls it with the field")]
fn hidden<S: Serializer>(_: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_none()
}

/// A time as text: `10s`.
mod span {
    use super::{Deserialize, Deserializer, Duration, LONGEST_TIMEOUT, Serializer, check_timeout};
    use serde::de::Error as _;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let span = text.parse::<jiff::SignedDuration>().ok();
        // What is no time, or a negative one, is refused like one that is too long.
        let span = span.and_then(|span| Duration::try_from(span).ok());
        let span = span.unwrap_or(LONGEST_TIMEOUT * 2);
        check_timeout(span)
            .map(Some)
            .map_err(|why| D::Error::custom(format!("{text:?} {why}")))
    }

    #[expect(clippy::ref_option, reason = "serde calls it with the field")]
    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match span.and_then(|span| jiff::SignedDuration::try_from(span).ok()) {
            Some(span) => to.collect_str(&format_args!("{span:#}")),
            None => to.serialize_none(),
        }
    }
}

/// Gives the time back if a gateway may be given it.
pub(super) fn check_timeout(timeout: Duration) -> Result<Duration, String> {
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        return Err(
            "is no time between nothing and five minutes; write one such as \"10s\"".to_owned(),
        );
    }
    Ok(timeout)
}
