//! From settings to a service.

use std::sync::Arc;

use tokio::sync::Notify;
use url::Url;

use super::{Builder, Threepid};
use crate::{
    account::{AccountRules, registration::RegistrationRules},
    courier::Courier,
    federation::Federation,
    http::App,
    identity::{IdentityRules, validate::LetThrough},
    identity_client::IdentityClient,
    limits::Limiter,
    outbox::{Deliveries, Letterhead, Shared},
    threepid::Medium,
    validation::{Settings, Validation, Wakes},
};

impl Builder {
    /// Puts the service together. Nothing runs yet: see [`Threepid::start`].
    ///
    /// # Errors
    /// A sentence that says which settings do not fit together.
    pub fn build(self) -> Result<Threepid, String> {
        let mut settings = self.settings;
        check_base(&settings.public_url)?;
        settings.email.has_transport = self.email.is_some();
        settings.msisdn.has_transport = self.sms.is_some();
        let head = letterhead(&settings, self.app_name.clone(), self.server_name);
        let shared = Shared {
            store: self.store,
            keys: Arc::new(self.keys),
            clock: self.clock,
        };
        let couriers = [(Medium::Email, self.email), (Medium::Msisdn, self.sms)];
        let deliveries = deliveries(couriers, &settings, &shared, &head);
        let wakes = wakes(&deliveries);
        let validation = Arc::new(Validation {
            limiter: Limiter::new(&settings.limits),
            settings,
            keys: shared.keys,
            store: shared.store,
            directory: self.directory,
            clock: shared.clock,
            identity: IdentityClient::new(self.outbound.clone()),
            wakes,
        });
        let account = AccountRules::new(self.account, Arc::clone(&validation), self.accounts);
        let account = Arc::new(account);
        let registration = self.registrar.map(|registrar| {
            RegistrationRules::new(self.registration, registrar, Arc::clone(&account))
        });
        let deliveries: Arc<[Arc<Deliveries>]> = deliveries.into_iter().flatten().collect();
        let identity = self.identity.map(|(settings, signing)| IdentityRules {
            settings,
            signing,
            federation: Federation::new(self.outbound, Arc::clone(&validation.clock)),
            validation: Arc::clone(&validation),
            deliveries: Arc::clone(&deliveries),
            let_through: LetThrough::default(),
            onbind_wake: Notify::new(),
        });
        let app = App {
            validation,
            account,
            registration: registration.map(Arc::new),
            identity: identity.map(Arc::new),
            deliveries,
            trusted_proxies: Arc::new(self.trusted_proxies),
            mailbox: self.mailbox,
            delegate: self.delegate,
            api_token: self.api_token,
            name: self.app_name.into(),
            request_timeout: self.request_timeout,
        };
        let workers = self.workers;
        Ok(Threepid { app, workers })
    }
}

/// What mails say of the server; those of each medium have contents of their own.
fn letterhead(settings: &Settings, app_name: String, server_name: Option<String>) -> Letterhead {
    let public_url = settings.public_url.clone();
    let host = || public_url.host_str().unwrap_or("localhost").to_owned();
    Letterhead {
        app_name,
        server_name: server_name.unwrap_or_else(host),
        public_url,
        contents: settings.email.contents,
        lifetimes: settings.lifetimes,
    }
}

/// Who delivers the messages of each medium.
fn deliveries(
    couriers: [(Medium, Option<Arc<dyn Courier>>); 2],
    settings: &Settings,
    shared: &Shared,
    head: &Letterhead,
) -> [Option<Arc<Deliveries>>; 2] {
    couriers.map(|(medium, courier)| {
        let contents = settings.of(medium).contents;
        let head = Letterhead {
            contents,
            ..head.clone()
        };
        // Without a courier what is queued waits for a start with one.
        let courier = courier?;
        Some(Arc::new(Deliveries::new(medium, courier, shared, head)))
    })
}

/// What wakes the workers of each medium.
fn wakes(deliveries: &[Option<Arc<Deliveries>>; 2]) -> Wakes {
    let [email, msisdn] = deliveries.each_ref().map(|deliveries| {
        let deliveries = deliveries.as_ref();
        deliveries.map_or_else(Arc::default, |deliveries| Arc::clone(&deliveries.wake))
    });
    Wakes { email, msisdn }
}

/// That other URLs can stand below it.
fn check_base(public_url: &Url) -> Result<(), String> {
    if public_url.cannot_be_a_base() || !matches!(public_url.scheme(), "http" | "https") {
        return Err(format!(
            "the public URL must be an http or https URL, not {public_url}"
        ));
    }
    Ok(())
}
