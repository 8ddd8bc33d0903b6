//! Who owns which address, as the homeserver tells it.

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Webhook,
    client::{Verb, flag, found, fresh_id},
};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    homeserver::Directory,
    store::{Bound, Contact},
    threepid::Threepid,
};

pub(super) const OWNER: Verb = Verb::reading("directory/owner");
const LIST: Verb = Verb::reading("directory/list");
const BIND: Verb = Verb::changing("directory/bind");
const UNBIND: Verb = Verb::changing("directory/unbind");

#[async_trait]
impl Directory for Webhook {
    /// `POST directory/owner`
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>> {
        let (medium, address) = (threepid.medium().as_str(), threepid.address());
        let body = json!({ "medium": medium, "address": address });
        found(self.ask(OWNER, &body).await?)
    }

    /// `POST directory/bind`. That the address was the account's already is not told apart.
    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        _: Timestamp,
    ) -> Result<Bound> {
        let body = json!({
            "user_id": user_id,
            "medium": threepid.medium().as_str(),
            "address": threepid.address(),
            "validated_at": validated_at,
            "op_id": fresh_id(),
        });
        let answer = self.ask(BIND, &body).await?;
        match answer.status {
            StatusCode::OK => answer.success().map(|_| Bound::Bound),
            status if answer.says(status, "M_THREEPID_IN_USE") && status.is_client_error() => {
                Ok(Bound::OwnedByOther)
            }
            StatusCode::NOT_FOUND if answer.says(StatusCode::NOT_FOUND, "M_NOT_FOUND") => {
                let why = "The homeserver does not know this account. Log in again.";
                Err(Error::Forbidden(why.into()))
            }
            StatusCode::FORBIDDEN => Err(answer.client_fault()),
            _ => Err(answer.fault()),
        }
    }

    /// `POST directory/unbind`
    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool> {
        let body = json!({
            "user_id": user_id,
            "medium": threepid.medium().as_str(),
            "address": threepid.address(),
            "op_id": fresh_id(),
        });
        flag(self.ask(UNBIND, &body).await?, "removed")
    }

    /// `POST directory/list`
    async fn list(&self, user_id: &str) -> Result<Vec<Contact>> {
        let answer = self.ask(LIST, &json!({ "user_id": user_id })).await?;
        let asked = answer.asked.clone();
        let body = answer.success()?;
        let list = body.get("threepids").and_then(Value::as_array);
        let read = list.and_then(|list| list.iter().map(|entry| contact(user_id, entry)).collect());
        read.ok_or_else(|| {
            asked.broken("200 and no threepids with medium, address, validated_at and added_at")
        })
    }
}

/// An entry of a list; `None` if something is missing.
fn contact(user_id: &str, entry: &Value) -> Option<Contact> {
    let at = |key: &str| entry[key].as_i64().map(Timestamp);
    let text = |key: &str| entry[key].as_str().map(str::to_owned);
    let validated_at = at("validated_at");
    if validated_at.is_none() && !entry["validated_at"].is_null() {
        return None;
    }
    Some(Contact {
        user_id: user_id.to_owned(),
        medium: text("medium")?,
        address: text("address")?,
        validated_at,
        added_at: at("added_at")?,
    })
}
