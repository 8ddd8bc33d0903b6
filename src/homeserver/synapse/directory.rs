//! Who owns which address, by the admin API.

use async_trait::async_trait;
use http::StatusCode;
use serde_json::Value;

use super::{
    Synapse,
    list::{Change, Entry},
};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::{
        Directory,
        api::{Call, is_user_id, segment},
    },
    store::{Bound, Contact},
    threepid::Threepid,
};

/// Where owners are looked up.
const OWNERS: &str = "/_synapse/admin/v1/threepid";

#[async_trait]
impl Directory for Synapse {
    /// `GET /_synapse/admin/v1/threepid/{medium}/users/{address}`
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>> {
        let medium = threepid.medium().as_str();
        self.find_owner(medium, threepid.address()).await
    }

    /// Of the homeserver's own writers, and of other processes, nobody waits for us: what they did meanwhile is read
    /// back, not prevented. When the address was validated can not be told to the homeserver: it takes the present.
    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        _: Option<Timestamp>,
        _: Timestamp,
    ) -> Result<Bound> {
        // Always in this order, so that no two wait for each other.
        let address = format!("{} {}", threepid.medium(), threepid.address());
        let _address = self.turns.wait(&address).await;
        let _user = self.turns.wait(user_id).await;
        match self.owner(threepid).await? {
            Some(owner) if owner == user_id => return Ok(Bound::AlreadyYours),
            Some(_) => return Ok(Bound::OwnedByOther),
            None => {}
        }
        let account = self.find_person(user_id).await?;
        let before = account.ok_or_else(no_account)?.threepids()?;
        self.make(user_id, before, Change::Add(threepid)).await?;
        match self.owner(threepid).await {
            Ok(Some(owner)) if owner == user_id => Ok(Bound::Bound),
            Ok(Some(_)) => Ok(Bound::OwnedByOther),
            Ok(None) => Err(unseen(
                "the homeserver does not find an address that it took",
            )),
            Err(error) => Err(unseen(error.cause().unwrap_or("429 after a change"))),
        }
    }

    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool> {
        let _user = self.turns.wait(user_id).await;
        let Some(account) = self.find_user(user_id).await? else {
            return Ok(false);
        };
        let before = account.threepids()?;
        if !before.iter().any(|entry| entry.is(threepid)) {
            return Ok(false);
        }
        self.make(user_id, before, Change::Remove(threepid)).await?;
        Ok(true)
    }

    async fn list(&self, user_id: &str) -> Result<Vec<Contact>> {
        let Some(account) = self.find_user(user_id).await? else {
            return Ok(Vec::new());
        };
        let contact = |entry: Entry| Contact {
            user_id: user_id.to_owned(),
            medium: entry.medium,
            address: entry.address,
            validated_at: entry.validated_at,
            added_at: entry
                .added_at
                .or(entry.validated_at)
                .unwrap_or(Timestamp(0)),
        };
        Ok(account.threepids()?.into_iter().map(contact).collect())
    }
}

impl Synapse {
    /// The user id of the account that has an address in exactly this spelling; `None` if no account has.
    pub(super) async fn find_owner(&self, medium: &str, address: &str) -> Result<Option<String>> {
        let (medium, address) = (segment(medium), segment(address));
        let path = format!("{OWNERS}/{medium}/users/{address}");
        let call = Call::get(OWNERS, path).bearer(self.admin()?);
        let answer = self.client.send(call).await?;
        if answer.says(StatusCode::NOT_FOUND, "M_NOT_FOUND") {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(answer.admin_fault());
        }
        let asked = answer.asked.clone();
        let body = answer.success()?;
        let user_id = body.get("user_id").and_then(Value::as_str);
        let user_id = user_id.filter(|user_id| is_user_id(user_id));
        let user_id = user_id.ok_or_else(|| asked.broken("200 and no user_id"))?;
        Ok(Some(user_id.to_owned()))
    }
}

impl Synapse {
    /// Makes a change, unless an earlier one of the same account may be made yet.
    async fn make(&self, user_id: &str, before: Vec<Entry>, change: Change<'_>) -> Result<()> {
        self.unsettled.check(user_id, &before, change)?;
        let made = self.change(user_id, before, change).await;
        self.unsettled.note(user_id, change, &made);
        made
    }
}

fn no_account() -> Error {
    Error::Forbidden("The homeserver does not know this account. Log in again.".into())
}

/// A change was made, and can not be seen.
fn unseen(cause: &str) -> Error {
    Error::HomeserverTimeout(cause.to_owned())
}
