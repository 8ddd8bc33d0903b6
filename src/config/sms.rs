//! `[sms]`: whether, how and at what price text messages are sent.

use std::{collections::BTreeMap, path::PathBuf};

use config::{Map, Value, ValueKind};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{
    Config,
    values::{List, choice, optional_choice},
};
use crate::{
    courier::{
        email,
        sms::{GatewaySettings, PRESETS, SmsSettings},
    },
    limits,
    policy::Numbers,
    rate::Rate,
    validation::{Validate, Validates},
};

/// Words that stand in the place of gateways' names.
pub(super) const OFF: &str = "off";
pub(super) const CAPTURE: &str = "capture";

/// Text messages.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sms {
    /// `off`, `capture`, or names of gateways in the order in which they are tried.
    pub(crate) transport: Option<List<String>>,
    #[serde(deserialize_with = "choice")]
    pub(crate) validate: Validate,
    #[serde(deserialize_with = "optional_choice")]
    pub(crate) validate_register: Option<Validate>,
    #[serde(deserialize_with = "optional_choice")]
    pub(crate) validate_add: Option<Validate>,
    #[serde(deserialize_with = "choice")]
    pub(crate) validate_password: Validate,
    #[serde(deserialize_with = "choice")]
    pub(crate) validate_identity: Validate,
    pub(crate) sender: Option<String>,
    /// By country or calling code.
    pub(crate) senders: BTreeMap<String, String>,
    pub(crate) allowed_calling_codes: List<String>,
    pub(crate) denied_calling_codes: List<String>,
    pub(crate) allowed_number_types: List<String>,
    pub(crate) denied_number_types: List<String>,
    pub(crate) ceilings: Ceilings,
    pub(crate) workers: usize,
    /// By name.
    pub(crate) gateways: BTreeMap<String, Gateway>,
}

impl Default for Sms {
    fn default() -> Self {
        let denied_types = Numbers::default().denied_types;
        let denied_types = denied_types.iter().map(ToString::to_string).collect();
        Self {
            transport: None,
            validate: Validate::Here,
            validate_register: None,
            validate_add: None,
            validate_password: Validate::Off,
            validate_identity: Validate::Here,
            sender: None,
            senders: BTreeMap::new(),
            allowed_calling_codes: List::default(),
            denied_calling_codes: List::default(),
            allowed_number_types: List::default(),
            denied_number_types: List(denied_types),
            ceilings: Ceilings::default(),
            workers: 4,
            gateways: BTreeMap::new(),
        }
    }
}

impl Sms {
    pub(super) fn validates(&self) -> Validates {
        Validates {
            register: self.validate_register.unwrap_or(self.validate),
            add: self.validate_add.unwrap_or(self.validate),
            password: self.validate_password,
            identity: self.validate_identity,
        }
    }

    /// The gateways that `transport` names.
    fn named(&self, names: &[String]) -> Result<SmsSettings, String> {
        let find = |name: &String| match self.gateways.get(name) {
            Some(gateway) => Ok(gateway.settings(name)),
            None if [OFF, CAPTURE].contains(&name.as_str()) => {
                Err(format!("{name:?} stands beside others; write it alone"))
            }
            None if PRESETS.contains(&name.as_str()) => Err(format!(
                "{name:?} needs its credentials; write them below [sms.gateways.{name}]"
            )),
            None => Err(format!(
                "there is no gateway {name:?}; write \"off\", \"capture\", or the NAME of a section [sms.gateways.NAME]"
            )),
        };
        Ok(SmsSettings {
            gateways: names.iter().map(find).collect::<Result<_, _>>()?,
            sender: self.sender.clone(),
            senders: self.senders(),
        })
    }

    /// The senders; names of countries are in lower case when they come from the environment, which wins.
    pub(super) fn senders(&self) -> BTreeMap<String, String> {
        let written = self.senders.iter();
        written
            .map(|(key, sender)| (key.to_ascii_uppercase(), sender.clone()))
            .collect()
    }
}

/// What text messages may cost at most.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ceilings {
    pub(crate) per_source: List<Rate>,
    pub(crate) per_number: List<Rate>,
    pub(crate) per_calling_code: List<Rate>,
    pub(crate) total: List<Rate>,
}

impl Default for Ceilings {
    fn default() -> Self {
        let ceilings = limits::Ceilings::default();
        Self {
            per_source: List(ceilings.per_source),
            per_number: List(ceilings.per_number),
            per_calling_code: List(ceilings.per_calling_code),
            total: List(ceilings.total),
        }
    }
}

impl Ceilings {
    /// The ceilings; "off" is none.
    pub(crate) fn settings(&self) -> limits::Ceilings {
        let rates = |list: &List<Rate>| {
            let rates = list.0.iter().copied();
            rates.filter(|rate| *rate != Rate::OFF).collect()
        };
        limits::Ceilings {
            per_source: rates(&self.per_source),
            per_number: rates(&self.per_number),
            per_calling_code: rates(&self.per_calling_code),
            total: rates(&self.total),
        }
    }
}

/// One gateway, whose name is its key.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Gateway {
    #[serde(flatten)]
    pub(super) settings: GatewaySettings,
    pub(super) password_file: Option<PathBuf>,
}

impl Gateway {
    /// The gateway; one that is called like a preset is of that preset.
    pub(super) fn settings(&self, name: &str) -> GatewaySettings {
        let mut settings = self.settings.clone();
        name.clone_into(&mut settings.name);
        if settings.preset.is_none() && PRESETS.contains(&name) {
            settings.preset = Some(name.to_owned());
        }
        settings
    }
}

impl<'de> Deserialize<'de> for Gateway {
    /// The gateway's own reader refuses what it does not know, so that our key is taken out before it.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut table = Map::<String, Value>::deserialize(from)?;
        let password_file = table.remove("password_file").map(Value::try_deserialize);
        let settings = Value::new(None, ValueKind::Table(table)).try_deserialize();
        Ok(Self {
            settings: settings.map_err(D::Error::custom)?,
            password_file: password_file.transpose().map_err(D::Error::custom)?,
        })
    }
}

/// Where text messages go.
#[derive(Clone, Debug)]
pub(crate) enum SmsTransport {
    /// Nowhere.
    Off,
    /// To the mailbox page.
    Capture,
    /// Through gateways.
    Gateways(SmsSettings),
}

impl SmsTransport {
    /// The names of the gateways, in the order in which they are tried.
    pub(crate) fn names(&self) -> Vec<&str> {
        let gateways = match self {
            Self::Off | Self::Capture => &[][..],
            Self::Gateways(settings) => &settings.gateways,
        };
        gateways
            .iter()
            .map(|gateway| gateway.name.as_str())
            .collect()
    }
}

impl Config {
    /// Which phone numbers are admitted.
    ///
    /// # Errors
    /// Which entry of which list is none.
    pub(crate) fn numbers(&self) -> Result<Numbers, String> {
        let sms = &self.sms;
        Numbers::new(
            &sms.allowed_calling_codes.0,
            &sms.denied_calling_codes.0,
            &sms.allowed_number_types.0,
            &sms.denied_number_types.0,
        )
    }

    /// Where text messages go: what is written, else to the mailbox page if mails do, and only this machine can ask.
    ///
    /// # Errors
    /// What is wrong with `sms.transport`, and what to write instead.
    pub(crate) fn sms_transport(&self) -> Result<SmsTransport, String> {
        let Some(List(names)) = &self.sms.transport else {
            let mails = email::Transport::parse(&self.email.transport);
            let is_captured = mails == Ok(email::Transport::Capture);
            return Ok(if is_captured && self.server.is_for_this_machine() {
                SmsTransport::Capture
            } else {
                SmsTransport::Off
            });
        };
        match names.as_slice() {
            [] => Err(
                "it names nothing; write \"off\", \"capture\" or the names of gateways".to_owned(),
            ),
            [name] if name == OFF => Ok(SmsTransport::Off),
            [name] if name == CAPTURE => Ok(SmsTransport::Capture),
            names => self.sms.named(names).map(SmsTransport::Gateways),
        }
    }
}
