//! The local table as directory: for homeservers that keep no addresses of their own.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    clock::Timestamp,
    error::Result,
    homeserver::Directory,
    store::{Bound, Contact, Contacts},
    threepid::Threepid,
};

/// The most addresses that one account's list shows.
const MOST_PER_ACCOUNT: u32 = 1000;

/// Accounts' addresses in our own store.
#[derive(Clone, Debug)]
pub struct LocalDirectory {
    contacts: Arc<dyn Contacts>,
}

impl LocalDirectory {
    /// A directory over the store's table of contacts.
    #[must_use]
    pub fn new(contacts: Arc<dyn Contacts>) -> Self {
        Self { contacts }
    }
}

#[async_trait]
impl Directory for LocalDirectory {
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>> {
        Ok(self.contacts.owner(threepid).await?)
    }

    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Bound> {
        let bound = self.contacts.bind(user_id, threepid, validated_at, now);
        Ok(bound.await?)
    }

    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool> {
        Ok(self.contacts.unbind(user_id, threepid).await?)
    }

    async fn list(&self, user_id: &str) -> Result<Vec<Contact>> {
        Ok(self
            .contacts
            .contacts(Some(user_id), None, MOST_PER_ACCOUNT)
            .await?)
    }
}
