//! An account as the admin API shows it, and changes of its list of addresses.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Synapse,
    list::{Change, Entry, are_equal, have, is_done, union},
};
use crate::{
    error::{Error, Result},
    homeserver::api::{Answer, Asked, Call, segment},
};

/// Where accounts are.
const USERS: &str = "/_synapse/admin/v2/users";
/// How often a list is written that others write too.
const TRIES: usize = 2;

/// Whose an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Person,
    Guest,
    AppService,
    /// Nobody's any more.
    Deactivated,
}

/// An account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) holder: Holder,
    pub(super) is_suspended: bool,
    /// `None` if the homeserver does not tell them in a form that can be sent back.
    threepids: Option<Vec<Entry>>,
}

impl Account {
    fn read(body: &Map<String, Value>) -> Self {
        // Old versions write 0 and 1.
        let is = |key: &str| match body.get(key) {
            Some(Value::Number(number)) => number.as_i64() != Some(0),
            value => value == Some(&Value::Bool(true)),
        };
        let is_appservice = body.get("appservice_id").is_some_and(|id| !id.is_null());
        let threepids = body.get("threepids").and_then(Value::as_array);
        Self {
            holder: if is("deactivated") {
                Holder::Deactivated
            } else if is("is_guest") {
                Holder::Guest
            } else if is_appservice {
                Holder::AppService
            } else {
                Holder::Person
            },
            is_suspended: is("suspended"),
            threepids: threepids.and_then(|list| list.iter().map(Entry::read).collect()),
        }
    }

    /// The addresses.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`] if the list could not be sent back as it came.
    pub(super) fn threepids(self) -> Result<Vec<Entry>> {
        let unreadable = || {
            let cause =
                "the homeserver does not tell an account's threepids with medium and address";
            Error::HomeserverFailed(cause.to_owned())
        };
        self.threepids.ok_or_else(unreadable)
    }
}

/// After a change has begun nobody can say that nothing was done.
fn begun(error: Error) -> Error {
    match error {
        Error::HomeserverTimeout(_) => error,
        Error::Limited { .. } => {
            let cause = "the homeserver allows no look at what it has changed (429)";
            Error::HomeserverTimeout(cause.to_owned())
        }
        error => Error::HomeserverTimeout(error.cause().unwrap_or_default().to_owned()),
    }
}

impl Synapse {
    /// The account of a person; `None` if there is none, or it is deactivated.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for guests and for accounts of application services.
    pub(super) async fn find_person(&self, user_id: &str) -> Result<Option<Account>> {
        let forbidden = |why: &'static str| Err(Error::Forbidden(why.into()));
        let account = self.find_user(user_id).await?;
        match account.as_ref().map(|account| account.holder) {
            None | Some(Holder::Deactivated) => Ok(None),
            Some(Holder::Person) => Ok(account),
            Some(Holder::Guest) => forbidden("Guests can not do this. Sign up first."),
            Some(Holder::AppService) => forbidden(
                "This account belongs to a bridge or a bot. It has no addresses and no password of its own.",
            ),
        }
    }

    /// The account of this name; `None` if there is none.
    pub(super) async fn find_user(&self, user_id: &str) -> Result<Option<Account>> {
        let call = Call::get(USERS, user_path(user_id)).bearer(self.admin()?);
        let answer = self.client.send(call).await?;
        if answer.says(StatusCode::NOT_FOUND, "M_NOT_FOUND") {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(answer.admin_fault());
        }
        Ok(Some(Account::read(&answer.success()?)))
    }

    /// Changes the list of an account's addresses from `before`, and reads it back. What was lost on the way is put
    /// there again, once; but any address that another account has got meanwhile is left to that. The account's turn
    /// must be the caller's.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`] if the homeserver refuses the list: then it is as it was.
    /// [`Error::HomeserverTimeout`] if what is there now is not known, or not what is wanted; what was lost was put there
    /// again, if that could be done.
    pub(super) async fn change(
        &self,
        user_id: &str,
        mut before: Vec<Entry>,
        change: Change<'_>,
    ) -> Result<()> {
        let mut wanted = change.apply(before.clone());
        for attempt in 0..TRIES {
            let written = self.write(user_id, &wanted, &before, change).await;
            let there = written.map_err(|error| if attempt == 0 { error } else { begun(error) })?;
            wanted = self.without_others(user_id, wanted, &there).await?;
            if is_done(&there, &wanted, change) {
                return Ok(());
            }
            wanted = change.strip(union(wanted, there.clone()));
            // What others have added meanwhile is not to be lost by the next try either.
            before = union(before, change.undo(there));
        }
        let cause = "somebody else changes the same account's addresses at the homeserver";
        Err(Error::HomeserverTimeout(cause.to_owned()))
    }

    /// Leaves out of a list what is missing from what is there, and another account's now: writing it again would take
    /// it away from there.
    async fn without_others(
        &self,
        user_id: &str,
        list: Vec<Entry>,
        there: &[Entry],
    ) -> Result<Vec<Entry>> {
        let mut left = Vec::with_capacity(list.len());
        for entry in list {
            if have(there, &entry) || !self.is_others(user_id, &entry).await? {
                left.push(entry);
            }
        }
        Ok(left)
    }

    /// Whether an address is another account's, in the spelling that it has or that it would get.
    async fn is_others(&self, user_id: &str, entry: &Entry) -> Result<bool> {
        for address in entry.spellings() {
            let owner = self.find_owner(&entry.medium, &address).await;
            if owner.map_err(begun)?.is_some_and(|owner| owner != user_id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the list once; what is there then. No answer is no failure if the list shows that all is done.
    async fn write(
        &self,
        user_id: &str,
        list: &[Entry],
        before: &[Entry],
        change: Change<'_>,
    ) -> Result<Vec<Entry>> {
        let answer = match self.put(user_id, list).await {
            Ok(answer) => answer,
            Err(error) => return self.settle(user_id, list, before, change, error).await,
        };
        match answer.status {
            StatusCode::OK => {}
            StatusCode::CREATED => tracing::error!(
                user_id,
                "the homeserver made an account while its addresses were changed: somebody had deleted it"
            ),
            StatusCode::BAD_REQUEST => {
                let there = self.entries(user_id).await.map_err(begun)?;
                self.restore(user_id, before, there, change).await?;
                return Err(answer.fault());
            }
            _ => {
                let error = answer.admin_fault();
                return self.settle(user_id, list, before, change, error).await;
            }
        }
        self.entries(user_id).await.map_err(begun)
    }

    /// After a call that failed: what is there, if it is what was wanted all the same. Else the failure; but what was
    /// lost is put there again first, for whoever tries once more takes what is there for the whole list.
    async fn settle(
        &self,
        user_id: &str,
        list: &[Entry],
        before: &[Entry],
        change: Change<'_>,
        error: Error,
    ) -> Result<Vec<Entry>> {
        if !matches!(error, Error::HomeserverTimeout(_)) {
            return Err(error);
        }
        let Ok(there) = self.entries(user_id).await else {
            return Err(error);
        };
        let Ok(wanted) = self.without_others(user_id, list.to_vec(), &there).await else {
            return Err(error);
        };
        if is_done(&there, &wanted, change) {
            return Ok(there);
        }
        self.restore(user_id, before, there, change).await?;
        Err(error)
    }

    /// What was lost, and is nobody else's now, is put there again, once.
    async fn restore(
        &self,
        user_id: &str,
        before: &[Entry],
        there: Vec<Entry>,
        change: Change<'_>,
    ) -> Result<()> {
        let before = self
            .without_others(user_id, before.to_vec(), &there)
            .await?;
        let whole = union(before, change.undo(there.clone()));
        if are_equal(&there, &whole) {
            return Ok(());
        }
        let answer = self.put(user_id, &whole).await.map_err(begun)?;
        let there = self.entries(user_id).await.map_err(begun)?;
        if answer.status == StatusCode::OK && are_equal(&there, &whole) {
            return Ok(());
        }
        tracing::error!(
            user_id,
            "the homeserver dropped addresses of an account while they were changed, and does not take them back"
        );
        Err(begun(answer.admin_fault()))
    }

    async fn entries(&self, user_id: &str) -> Result<Vec<Entry>> {
        let gone = || Error::HomeserverFailed("the homeserver lost an account".to_owned());
        self.find_user(user_id).await?.ok_or_else(gone)?.threepids()
    }

    /// Replaces the whole list. Only for an account that was there a moment ago: who is absent would be made.
    async fn put(&self, user_id: &str, list: &[Entry]) -> Result<Answer> {
        let list: Vec<Value> = list
            .iter()
            .map(|entry| json!({ "medium": entry.medium, "address": entry.address }))
            .collect();
        let call = Call::new(Asked::changing(Method::PUT, USERS), user_path(user_id))
            .bearer(self.admin()?)
            .json(&json!({ "threepids": list }));
        self.client.send(call).await
    }
}

fn user_path(user_id: &str) -> String {
    format!("{USERS}/{}", segment(user_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_can_not_be_sent_back_is_none() {
        for (body, is_readable) in [
            (json!({ "threepids": [] }), true),
            (
                json!({ "threepids": [{ "medium": "email", "address": "a@b.org" }] }),
                true,
            ),
            (json!({ "threepids": [{ "medium": "email" }] }), false),
            (json!({ "threepids": null }), false),
            (json!({}), false),
        ] {
            let account = Account::read(body.as_object().unwrap());
            assert_eq!(account.threepids().is_ok(), is_readable, "{body}");
        }
    }

    #[test]
    fn guests_and_bridges_are_no_people() {
        for (body, holder) in [
            (json!({}), Holder::Person),
            (
                json!({ "is_guest": 0, "appservice_id": null }),
                Holder::Person,
            ),
            (json!({ "is_guest": 1 }), Holder::Guest),
            (json!({ "is_guest": true }), Holder::Guest),
            (json!({ "appservice_id": "irc" }), Holder::AppService),
            (
                json!({ "deactivated": true, "is_guest": true }),
                Holder::Deactivated,
            ),
        ] {
            let account = Account::read(body.as_object().unwrap());
            assert_eq!(account.holder, holder, "{body}");
        }
    }
}
