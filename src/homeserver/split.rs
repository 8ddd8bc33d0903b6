//! Two directories, one for each medium: for homeservers that keep email addresses alone.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    clock::Timestamp,
    error::Result,
    homeserver::Directory,
    store::{Bound, Contact},
    threepid::{Medium, Threepid},
};

/// Email addresses here, phone numbers there.
#[derive(Clone, Debug)]
pub struct SplitDirectory {
    /// Who owns which email address, and whatever else is no phone number.
    pub email: Arc<dyn Directory>,
    /// Who owns which phone number.
    pub msisdn: Arc<dyn Directory>,
}

impl SplitDirectory {
    fn of(&self, threepid: &Threepid) -> &dyn Directory {
        match threepid.medium() {
            Medium::Email => &*self.email,
            Medium::Msisdn => &*self.msisdn,
        }
    }
}

#[async_trait]
impl Directory for SplitDirectory {
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>> {
        self.of(threepid).owner(threepid).await
    }

    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Bound> {
        let directory = self.of(threepid);
        directory.bind(user_id, threepid, validated_at, now).await
    }

    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool> {
        self.of(threepid).unbind(user_id, threepid).await
    }

    /// What one of them has of the other's is not listed: it could not be taken away.
    async fn list(&self, user_id: &str) -> Result<Vec<Contact>> {
        let is_number = |contact: &Contact| contact.medium == Medium::Msisdn.as_str();
        let mut list = self.email.list(user_id).await?;
        list.retain(|contact| !is_number(contact));
        let mut numbers = self.msisdn.list(user_id).await?;
        numbers.retain(is_number);
        list.append(&mut numbers);
        Ok(list)
    }
}
