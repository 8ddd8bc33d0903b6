//! The courier that hands short messages to gateways, one after the other until one takes them.

mod answer;
mod connector;
mod network;
mod presets;
mod request;
mod senders;
mod settings;
mod template;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use super::{Courier, DeliveryError, Message};
use crate::threepid::{Medium, Threepid};
use connector::{Gateway, Sms};
use senders::Senders;

pub use presets::PRESETS;
pub use settings::{AnswerRule, Auth, GatewaySettings, Means, Method, TIMEOUT};

/// What all tries together take longer than their time limits.
const SLACK: Duration = Duration::from_secs(1);

/// How short messages leave. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct SmsSettings {
    /// The gateways, in the order in which they are tried.
    pub gateways: Vec<GatewaySettings>,
    /// Whom messages come from: a number, a name of up to 11 letters, or what else the vendor takes.
    pub sender: Option<String>,
    /// The sender for numbers of a country (`GB`) or of a calling code (`44`, `+44`). A country beats its calling
    /// code, and both beat `sender`.
    pub senders: BTreeMap<String, String>,
}

impl SmsSettings {
    /// Whether a courier can be made of these settings.
    ///
    /// # Errors
    /// As [`SmsCourier::new`].
    pub fn check(&self) -> Result<(), String> {
        SmsCourier::new(self).map(drop)
    }
}

/// Hands short messages to the first gateway that says that it takes them. Only the plain text of a message is sent.
#[derive(Debug)]
pub struct SmsCourier {
    gateways: Vec<Gateway>,
    senders: Senders,
}

impl SmsCourier {
    /// Reads the settings; nothing is connected yet.
    ///
    /// # Errors
    /// A sentence that names the setting that is missing or can not be used, and says what to write. Holds no secret.
    pub fn new(settings: &SmsSettings) -> Result<Self, String> {
        let senders = Senders::new(settings.sender.as_deref(), &settings.senders)?;
        let mut gateways: Vec<Gateway> = Vec::new();
        for given in &settings.gateways {
            let gateway = Gateway::new(given)?;
            let name = gateway.name();
            if gateways.iter().any(|other| other.name() == name) {
                return Err(format!(
                    "two SMS gateways are called {name:?}; give each a name of its own"
                ));
            }
            if gateway.needs_sender() && !senders.has_usual() {
                return Err(format!(
                    "sms.sender is missing, which the gateway {name:?} shows; write a number as \"+447700900000\", or a name"
                ));
            }
            gateways.push(gateway);
        }
        if gateways.is_empty() {
            return Err(
                "there is no SMS gateway; write one as [sms.gateways.main], with a preset or a url"
                    .to_owned(),
            );
        }
        Ok(Self { gateways, senders })
    }
}

#[async_trait]
impl Courier for SmsCourier {
    async fn deliver(&self, to: &Threepid, message: &Message) -> Result<String, DeliveryError> {
        if to.medium() != Medium::Msisdn {
            return Err(DeliveryError::permanent("not a phone number"));
        }
        let sms = Sms {
            to: to.address(),
            text: &message.text,
            sender: self.senders.of(to.address()),
            id: &message.id,
        };
        let (mut outcomes, mut is_unsure) = (Vec::new(), false);
        for gateway in &self.gateways {
            let tried = gateway.send(sms).await;
            outcomes.push(tried.outcome);
            match tried.means {
                Means::Accepted => return Ok(outcomes.join("; ")),
                Means::Never => return Err(DeliveryError::permanent(outcomes.join("; "))),
                // A second message is better than none: the next gateway is asked, as after any failure.
                Means::Unsure => is_unsure = true,
                Means::Again => {}
            }
        }
        let outcomes = outcomes.join("; ");
        Err(if is_unsure {
            DeliveryError::unsure(outcomes)
        } else {
            DeliveryError::transient(outcomes)
        })
    }

    async fn greet(&self) -> (Vec<String>, Result<(), DeliveryError>) {
        let mut told = Vec::new();
        let mut failed = Vec::new();
        for gateway in &self.gateways {
            if let Err(why) = gateway.greet(&mut told).await {
                failed.push(why);
            }
        }
        let greeted = match failed.as_slice() {
            [] => Ok(()),
            failed => Err(DeliveryError::transient(failed.join("; "))),
        };
        (told, greeted)
    }

    /// Each gateway has its time.
    fn longest(&self) -> Duration {
        self.gateways.iter().map(Gateway::timeout).sum::<Duration>() + SLACK
    }
}
