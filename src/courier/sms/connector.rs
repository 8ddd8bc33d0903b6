//! One gateway: what it is asked, and what its answer means.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::Answers,
    network::{self, Way},
    presets,
    request::RequestTemplate,
    settings::{Auth, GatewaySettings, Means, TIMEOUT, check_timeout},
    template::{Placeholder, Values},
};

/// The longest answer that is read, in bytes; a longer one counts by its status alone.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The longest name of a gateway, in bytes.
const LONGEST_NAME: usize = 32;
/// A message, as a gateway is told it.
#[derive(Clone, Copy)]
pub(super) struct Sms<'a> {
    /// The digits of the number, without `+`.
    pub(super) to: &'a str,
    pub(super) text: &'a str,
    pub(super) sender: &'a str,
    pub(super) id: &'a str,
}

/// How one try ended. The outcome begins with the gateway's name, and holds nothing of the vendor's but a harmless
/// code.
pub(super) struct Tried {
    pub(super) means: Means,
    pub(super) outcome: String,
}

/// A gateway that can be asked.
pub(super) struct Gateway {
    name: String,
    request: RequestTemplate,
    credentials: Credentials,
    answers: Answers,
    timeout: Duration,
    way: Way,
    client: reqwest::Client,
}

struct Credentials {
    username: String,
    password: SecretString,
    account: String,
    channel: String,
}

impl Gateway {
    /// Reads a description.
    ///
    /// # Errors
    /// Which setting is missing or can not be used, and what to write instead. Holds no secret.
    pub(super) fn new(given: &GatewaySettings) -> Result<Self, String> {
        check_name(&given.name)?;
        let at = format!("sms.gateways.{}", given.name);
        let settings = presets::complete(given, &at)?;
        let timeout = check_timeout(settings.timeout.unwrap_or(TIMEOUT))
            .map_err(|why| format!("{at}.timeout {why}"))?;
        let (request, sample) = RequestTemplate::new(&settings, &at)?;
        let way = Way::new(&sample, &settings.ca_files, timeout, &at)?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let gateway = Self {
            request,
            credentials: Credentials {
                username: text(&settings.username),
                password: settings.password.clone().unwrap_or_default(),
                account: text(&settings.account),
                channel: text(&settings.channel),
            },
            answers: Answers::new(&settings, &at)?,
            timeout,
            client: way.client()?,
            way,
            name: settings.name.clone(),
        };
        gateway.check(&settings, &at)?;
        Ok(gateway)
    }

    /// That all is given which is used, and used which is given.
    fn check(&self, settings: &GatewaySettings, at: &str) -> Result<(), String> {
        let logs_in = settings.auth.unwrap_or_default() != Auth::None;
        let is_basic = settings.auth == Some(Auth::Basic);
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let password = settings.password.as_ref();
        let has_password = password.is_some_and(|secret| !secret.expose_secret().is_empty());
        for (field, given, used) in [
            (
                "username",
                is_set(&settings.username),
                is_basic || self.request.has(Placeholder::Username),
            ),
            (
                "password",
                has_password,
                logs_in || self.request.has(Placeholder::Password),
            ),
            (
                "account",
                is_set(&settings.account),
                self.request.has(Placeholder::Account),
            ),
            (
                "channel",
                is_set(&settings.channel),
                self.request.has(Placeholder::Channel),
            ),
        ] {
            let hint = presets::hint(settings.preset.as_deref(), field);
            if used && !given {
                return Err(format!("{at}.{field} is missing; write it{hint}"));
            }
            if given && !used {
                return Err(format!(
                    "{at}.{field} is not used by this gateway; write {{{field}}} where it belongs, set {at}.auth, or take it out"
                ));
            }
        }
        if is_basic && self.credentials.username.contains(':') {
            return Err(format!(
                "{at}.username has a colon, which can not be sent with auth = \"basic\"; write it without"
            ));
        }
        let has = |placeholder| self.request.has(placeholder);
        let has_number = has(Placeholder::To) || has(Placeholder::ToPlus);
        if !has_number || !(has(Placeholder::Text) || has(Placeholder::TextCr)) {
            return Err(format!(
                "{at} sends no number or no text; write {{to}} or {{to_plus}}, and {{text}}, in its url, json or form"
            ));
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The longest that one try takes.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether its request names the sender.
    pub(super) fn needs_sender(&self) -> bool {
        self.request.has(Placeholder::Sender) || self.request.has(Placeholder::SenderKey)
    }

    /// Connects and sends nothing; tells each phase that went well.
    ///
    /// # Errors
    /// The gateway, the phase that failed, and how.
    pub(super) async fn greet(&self, told: &mut Vec<String>) -> Result<(), String> {
        let greeted = self.way.greet(&self.name, told).await;
        greeted.map_err(|why| format!("{}: {why}", self.name))
    }

    /// Asks the gateway once.
    pub(super) async fn send(&self, sms: Sms<'_>) -> Tried {
        let (means, outcome) = self.ask(sms).await;
        Tried {
            means,
            outcome: format!("{}: {outcome}", self.name),
        }
    }

    async fn ask(&self, sms: Sms<'_>) -> (Means, String) {
        let Some(request) = self.request(sms) else {
            let outcome = "request: not possible with these values";
            return (Means::Again, outcome.to_owned());
        };
        let deadline = Instant::now() + self.timeout;
        let response = match timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let means = if error.is_connect() {
                    Means::Again
                } else {
                    Means::Unsure
                };
                return (means, network::told(&error.without_url()));
            }
            // Connecting would have timed out before: the gateway may have the request.
            Err(_) => return (Means::Unsure, "timed out".to_owned()),
        };
        let status = response.status().as_u16();
        // A gateway that has told its status may have taken the message, so that a body that does not come, or is no
        // JSON, must not by itself lead to another gateway.
        let body = timeout_at(deadline, read(response)).await.unwrap_or(None);
        let means = self.answers.judge(status, body.as_ref());
        let outcome = match self.answers.code(body.as_ref()) {
            Some(code) if means != Means::Accepted && !sms.has_word(&code) => {
                format!("{status} {code}")
            }
            _ => status.to_string(),
        };
        (means, outcome)
    }

    /// The request, or nothing if a value does not fit where the description wants it.
    fn request(&self, sms: Sms<'_>) -> Option<reqwest::Request> {
        let Credentials {
            username,
            password,
            account,
            channel,
        } = &self.credentials;
        let values = Values {
            to: sms.to,
            text: sms.text,
            sender: sms.sender,
            id: sms.id,
            username,
            password: password.expose_secret(),
            account,
            channel,
        };
        self.request.fill(&self.client, &values)
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Gateway({} at {})", self.name, self.way.host())
    }
}

impl Sms<'_> {
    /// Whether the text has this word: a vendor that says it back might tell the code we sent.
    fn has_word(&self, word: &str) -> bool {
        let mut words = self.text.split(|letter: char| !letter.is_alphanumeric());
        words.any(|own| own == word)
    }
}

/// The JSON of an answer; nothing if it is none, is too long, or breaks off.
async fn read(mut response: reqwest::Response) -> Option<Value> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if bytes.len() + chunk.len() > LONGEST_ANSWER {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).ok()
}

fn check_name(name: &str) -> Result<(), String> {
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_of_a_name) {
        return Ok(());
    }
    Err(format!(
        "sms.gateways: {name:?} is no name for a gateway; write up to {LONGEST_NAME} letters, digits, - and _, as \"main\""
    ))
}
