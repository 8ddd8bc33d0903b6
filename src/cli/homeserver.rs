//! The homeserver that the configuration names: how it is called, and what the service leaves to it.

use std::sync::Arc;

use secrecy::ExposeSecret;
use url::Url;

use crate::{
    Builder,
    clock::SystemClock,
    config::{Config, Homeserver, HomeserverKind, RegistrationWay},
    homeserver::{
        none::NoHomeserver,
        registration::Registrar,
        synapse::{Registration, SharedSecret, Synapse, SynapseSettings},
        webhook::{SigningKey, Webhook, WebhookSettings},
    },
};

/// A homeserver that is asked.
#[derive(Clone)]
pub(super) enum Asked {
    /// Synapse; or any other, of which no more than its accounts is asked.
    Synapse(Arc<Synapse>),
    /// One that takes signed calls.
    Webhook(Arc<Webhook>),
}

impl Asked {
    /// The homeserver that is asked, if one is.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, String> {
        let homeserver = &config.homeserver;
        if homeserver.url.is_none() {
            return Ok(None);
        }
        match homeserver.kind {
            HomeserverKind::None => Ok(None),
            HomeserverKind::Local | HomeserverKind::Synapse => {
                synapse(homeserver).map(Self::Synapse).map(Some)
            }
            HomeserverKind::Dendrite => Err("homeserver.kind can not be used yet".to_owned()),
            HomeserverKind::Webhook => webhook(homeserver).map(Self::Webhook).map(Some),
        }
    }

    /// Looks what works, for an operator: the steps that went well, and the one that did not.
    pub(super) async fn greet(&self) -> (Vec<String>, Result<(), String>) {
        match self {
            Self::Synapse(synapse) => synapse.greet().await,
            Self::Webhook(webhook) => webhook.greet().await,
        }
    }

    /// The homeserver, if it is one that may have handed its accounts to an OAuth account server.
    pub(super) fn with_account_server(&self) -> Option<&Arc<Synapse>> {
        match self {
            Self::Synapse(synapse) => Some(synapse),
            Self::Webhook(_) => None,
        }
    }

    fn registrar(&self) -> Arc<dyn Registrar> {
        match self {
            Self::Synapse(synapse) => Arc::<Synapse>::clone(synapse),
            Self::Webhook(webhook) => Arc::<Webhook>::clone(webhook),
        }
    }
}

fn synapse(homeserver: &Homeserver) -> Result<Arc<Synapse>, String> {
    Synapse::new(SynapseSettings {
        url: url(homeserver)?,
        admin_token: homeserver.admin_token()?,
        timeout: homeserver.timeout.0,
        ca_files: homeserver.ca_files.0.clone(),
        registration: registration(homeserver)?,
    })
}

/// How it makes accounts, if it does.
fn registration(homeserver: &Homeserver) -> Result<Registration, String> {
    let token = homeserver.registration_token()?;
    let secret = homeserver.registration_shared_secret.as_ref();
    Ok(match (homeserver.registration(), token, secret) {
        (RegistrationWay::Token, Some(token), _) => Registration::Token(token),
        (RegistrationWay::SharedSecret, _, Some(secret)) => {
            Registration::SharedSecret(SharedSecret::parse(secret.expose_secret())?)
        }
        (_, token, _) => Registration::Overlay { token },
    })
}

fn webhook(homeserver: &Homeserver) -> Result<Arc<Webhook>, String> {
    let keys = homeserver.webhook_keys.0.iter();
    let keys = keys.map(|key| SigningKey::parse(key.0.expose_secret()));
    Webhook::new(WebhookSettings {
        url: url(homeserver)?,
        keys: keys.collect::<Result<_, _>>()?,
        timeout: homeserver.timeout.0,
        ca_files: homeserver.ca_files.0.clone(),
        clock: Arc::new(SystemClock),
    })
}

fn url(homeserver: &Homeserver) -> Result<Url, String> {
    let missing = || "homeserver.url is missing".to_owned();
    homeserver.url().cloned().ok_or_else(missing)
}

/// Lets `builder` ask the homeserver what it knows, and ourselves the rest.
pub(super) fn beside(builder: Builder, config: &Config, asked: Option<Asked>) -> Builder {
    let homeserver = &config.homeserver;
    let Some(asked) = asked else {
        return match homeserver.kind {
            HomeserverKind::None => builder
                .directory(Arc::new(NoHomeserver))
                .accounts(Arc::new(NoHomeserver)),
            _ => builder,
        };
    };
    let builder = if homeserver.registers() {
        builder.registrar(asked.registrar())
    } else {
        builder
    };
    match asked {
        Asked::Synapse(synapse) if homeserver.kind == HomeserverKind::Synapse => builder
            .directory(Arc::<Synapse>::clone(&synapse))
            .accounts(synapse),
        Asked::Synapse(synapse) => builder.accounts(synapse),
        Asked::Webhook(webhook) => builder
            .directory(Arc::<Webhook>::clone(&webhook))
            .accounts(webhook),
    }
}
