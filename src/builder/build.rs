//! From settings to a service.

use std::sync::Arc;

use tokio::sync::Notify;
use url::Url;

use super::{Builder, Threepid};
use crate::{
    account::{AccountRules, registration::RegistrationRules},
    federation::Federation,
    http::App,
    identity::{IdentityRules, validate::LetThrough},
    identity_client::IdentityClient,
    limits::Limiter,
    outbox::{Deliveries, Letterhead, Shared},
    threepid::Medium,
    validation::{Validation, Wakes},
};

impl Builder {
    /// Puts the service together. Nothing runs yet: see [`Threepid::start`].
    ///
    /// # Errors
    /// A sentence that says which settings do not fit together.
    pub fn build(self) -> Result<Threepid, String> {
        let mut settings = self.settings;
        let public_url = settings.public_url.clone();
        check_base(&public_url)?;
        settings.email.has_transport = self.email.is_some();
        settings.msisdn.has_transport = self.sms.is_some();
        let host = || public_url.host_str().unwrap_or("localhost").to_owned();
        let head = Letterhead {
            app_name: self.app_name.clone(),
            server_name: self.server_name.unwrap_or_else(host),
            public_url,
            contents: settings.email.contents,
            lifetimes: settings.lifetimes,
        };
        let shared = Shared {
            store: self.store,
            keys: Arc::new(self.keys),
            clock: self.clock,
        };
        let deliveries =
            [(Medium::Email, self.email), (Medium::Msisdn, self.sms)].map(|(medium, courier)| {
                let contents = settings.of(medium).contents;
                let head = Letterhead {
                    contents,
                    ..head.clone()
                };
                // Without a courier what is queued waits for a start with one.
                let courier = courier?;
                Some(Arc::new(Deliveries::new(medium, courier, &shared, head)))
            });
        let wakes = wakes(&deliveries);
        let validation = Validation {
            limiter: Limiter::new(settings.limits.clone()),
            settings,
            keys: shared.keys,
            store: shared.store,
            directory: self.directory,
            clock: shared.clock,
            identity: IdentityClient::new(self.outbound.clone()),
            wakes,
        };
        let validation = Arc::new(validation);
        let account = AccountRules::new(self.account, Arc::clone(&validation), self.accounts);
        let account = Arc::new(account);
        let (settings, registrar) = (self.registration, self.registrar);
        let registration = registrar
            .map(|registrar| RegistrationRules::new(settings, registrar, Arc::clone(&account)));
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
