//! How people sign up: `homeserver.registration` and what belongs to it, and `accounts.registration_requires`.

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{
    Config,
    homeserver::{Homeserver, HomeserverKind},
};
use crate::{
    config::SmsTransport, secret::AccessToken, session::Purpose, threepid::Medium,
    validation::Validate,
};

/// How many characters the homeserver's registration tokens have at most (Client-Server API, "Token-authenticated
/// registration").
const LONGEST_TOKEN: usize = 64;

/// How accounts are made at the homeserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RegistrationWay {
    /// By the homeserver's own `/register`, with our stage among its own.
    Overlay,
    /// By the homeserver's own `/register`, with a registration token and nothing else.
    Token,
    /// By Synapse's admin API, with its shared secret.
    SharedSecret,
    /// Not by us.
    Off,
}

impl RegistrationWay {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Token => "token",
            Self::SharedSecret => "shared-secret",
            Self::Off => "off",
        }
    }
}

impl Homeserver {
    /// How accounts are made: as is written, else as its kind does it. A webhook has but one way, which has no name.
    pub(crate) fn registration(&self) -> RegistrationWay {
        let usual = match self.kind {
            HomeserverKind::Synapse | HomeserverKind::Dendrite => RegistrationWay::Overlay,
            HomeserverKind::Local | HomeserverKind::None | HomeserverKind::Webhook => {
                RegistrationWay::Off
            }
        };
        self.registration.unwrap_or(usual)
    }

    /// Whether accounts are made through us at all.
    pub(crate) fn registers(&self) -> bool {
        match self.kind {
            HomeserverKind::Webhook => self.registration.is_none(),
            _ => self.registration() != RegistrationWay::Off,
        }
    }

    /// The registration token that nobody but we know.
    ///
    /// # Errors
    /// Why it is none; never what it is.
    pub(crate) fn registration_token(&self) -> Result<Option<AccessToken>, String> {
        let Some(text) = &self.registration_token else {
            return Ok(None);
        };
        let text = text.expose_secret();
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"._~-".contains(&letter);
        if text.is_empty() || !text.bytes().all(is_plain) {
            return Err("a registration token has letters, digits and . _ ~ - alone".to_owned());
        }
        if text.len() > LONGEST_TOKEN {
            return Err(format!(
                "it is too long: homeservers take {LONGEST_TOKEN} characters at most"
            ));
        }
        AccessToken::parse(text)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

impl Config {
    /// Why no address of a medium can be proved here for signing up: the key that forbids it; `None` if one can.
    pub(crate) fn unprovable(&self, medium: Medium) -> Option<&'static str> {
        let validate = self.validates(medium).of(Purpose::Register);
        let transport = self.sms_transport();
        let is_sent = medium == Medium::Email || !matches!(transport, Ok(SmsTransport::Off));
        let is_passed_on = !self.identity_servers.is_empty();
        match (validate, medium) {
            (Validate::Off, Medium::Email) => Some("email.validate_register"),
            (Validate::Off, Medium::Msisdn) => Some("sms.validate_register"),
            (Validate::Here, _) => (!is_sent).then_some("sms.transport"),
            (Validate::ClientChoice, _) => (!is_sent && !is_passed_on).then_some("sms.transport"),
            (Validate::IdentityServer, _) => (!is_passed_on).then_some("identity_servers.trusted"),
        }
    }
}
