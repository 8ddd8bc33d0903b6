//! The homeserver that the configuration names: how it is called, and what the service leaves to it.

use std::sync::Arc;

use secrecy::ExposeSecret;
use url::Url;

use crate::{
    Builder,
    clock::SystemClock,
    config::{Config, Homeserver, HomeserverKind, RegistrationWay},
    error::Error,
    homeserver::{
        Accounts, Directory, Origin,
        dendrite::{Dendrite, DendriteSettings},
        local::LocalDirectory,
        none::NoHomeserver,
        registration::Registrar,
        split::SplitDirectory,
        synapse::{Registration, SharedSecret, Synapse, SynapseSettings},
        webhook::{SigningKey, Webhook, WebhookSettings},
    },
    secret::AccessToken,
    store::Contacts,
    threepid::Medium,
};

/// An access token that is nobody's.
const MADE_UP: &str = "threepid-made-this-up-to-see-who-answers";

/// A homeserver that is asked.
#[derive(Clone)]
pub(super) enum Asked {
    /// Synapse; or any other, of which no more than its accounts is asked.
    Synapse(Arc<Synapse>),
    /// Dendrite, which tells nobody who has which address.
    Dendrite(Arc<Dendrite>),
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
            HomeserverKind::Dendrite => dendrite(homeserver).map(Self::Dendrite).map(Some),
            HomeserverKind::Webhook => webhook(homeserver).map(Self::Webhook).map(Some),
        }
    }

    /// Looks what works, for an operator: the steps that went well, and the one that did not.
    pub(super) async fn greet(&self, config: &Config) -> (Vec<String>, Result<(), String>) {
        match self {
            Self::Synapse(synapse) => synapse.greet().await,
            Self::Dendrite(dendrite) => {
                let mut told = Vec::new();
                let end = walk(&**dendrite, &config.homeserver, &mut told).await;
                (told, end)
            }
            Self::Webhook(webhook) => webhook.greet().await,
        }
    }

    /// The homeserver, if it is one that may have handed its accounts to an OAuth account server.
    pub(super) fn with_account_server(&self) -> Option<&Arc<Synapse>> {
        match self {
            Self::Synapse(synapse) => Some(synapse),
            Self::Dendrite(_) | Self::Webhook(_) => None,
        }
    }

    fn registrar(&self) -> Arc<dyn Registrar> {
        match self {
            Self::Synapse(synapse) => Arc::<Synapse>::clone(synapse),
            Self::Dendrite(dendrite) => Arc::<Dendrite>::clone(dendrite),
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

fn dendrite(homeserver: &Homeserver) -> Result<Arc<Dendrite>, String> {
    Dendrite::new(DendriteSettings {
        url: url(homeserver)?,
        admin_token: homeserver.admin_token()?,
        id_server_name: homeserver.id_server_name.clone(),
        timeout: homeserver.timeout.0,
        ca_files: homeserver.ca_files.0.clone(),
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

/// Looks whether a homeserver answers whose access tokens are whose, which any does.
async fn walk(
    accounts: &dyn Accounts,
    homeserver: &Homeserver,
    told: &mut Vec<String>,
) -> Result<(), String> {
    let url = homeserver.url().map_or("", Url::as_str);
    let base = url.trim_end_matches('/');
    let made_up = AccessToken::parse(MADE_UP).map_err(|error| error.to_string())?;
    match accounts.whoami(&made_up, &Origin::default()).await {
        Err(Error::UnknownToken { .. }) => told.push(format!("{base} answers as a homeserver")),
        Ok(_) => return Err(format!("{base} takes an access token that was made up")),
        Err(error) => return Err(format!("{base}: {}", cause(&error))),
    }
    let Some(token) = homeserver.admin_token()? else {
        told.push("no admin token: no password is set there".to_owned());
        return Ok(());
    };
    match accounts.whoami(&token, &Origin::default()).await {
        Ok(requester) => {
            told.push(format!("the admin token is that of {}", requester.user_id));
            Ok(())
        }
        Err(Error::UnknownToken { .. }) => Err(
            "the homeserver does not know the admin token; log in as an administrator, and write the access token into \
             homeserver.admin_token_file"
                .to_owned(),
        ),
        Err(error) => Err(cause(&error)),
    }
}

/// What an operator is told: the cause, where there is one.
pub(super) fn cause(error: &Error) -> String {
    let cause = error.cause().map(str::to_owned);
    cause.unwrap_or_else(|| error.to_string())
}

/// Lets `builder` ask the homeserver what it knows, and `store` the rest.
pub(super) fn beside(
    builder: Builder,
    config: &Config,
    asked: Option<Asked>,
    store: Arc<dyn Contacts>,
) -> Builder {
    let homeserver = &config.homeserver;
    let Some(asked) = asked else {
        return match homeserver.kind {
            HomeserverKind::None => builder
                .directory(Arc::new(NoHomeserver))
                .accounts(Arc::new(NoHomeserver)),
            _ => builder,
        };
    };
    let builder = builder.directory(directory(homeserver, &asked, store));
    let builder = if homeserver.registers() {
        builder.registrar(asked.registrar())
    } else {
        builder
    };
    match asked {
        Asked::Synapse(synapse) => builder.accounts(synapse),
        Asked::Dendrite(dendrite) => builder.accounts(dendrite),
        Asked::Webhook(webhook) => builder.accounts(webhook),
    }
}

/// Who owns which address: we for some media, the homeserver for the others.
fn directory(
    homeserver: &Homeserver,
    asked: &Asked,
    store: Arc<dyn Contacts>,
) -> Arc<dyn Directory> {
    let here = Arc::new(LocalDirectory::new(store));
    let there: Arc<dyn Directory> = match asked {
        Asked::Synapse(synapse) => Arc::<Synapse>::clone(synapse),
        Asked::Webhook(webhook) => Arc::<Webhook>::clone(webhook),
        Asked::Dendrite(_) => return here,
    };
    let keeps = [Medium::Email, Medium::Msisdn].map(|medium| homeserver.keeps_here(medium));
    match keeps {
        [true, true] => here,
        [false, false] => there,
        [false, true] => Arc::new(SplitDirectory {
            email: there,
            msisdn: here,
        }),
        [true, false] => Arc::new(SplitDirectory {
            email: here,
            msisdn: there,
        }),
    }
}
