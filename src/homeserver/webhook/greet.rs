//! Whether a receiver does what it should: for `threepid check`.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Webhook,
    accounts::{IS_SUSPENDED, PASSWORD_POLICY},
    client::{BAD_SIGNATURE, Verb, found, fresh_id},
    directory::OWNER,
    registrar::{AVAILABLE, REGISTERED},
};
use crate::{
    error::{Error, Result},
    homeserver::{
        Accounts, Directory, Origin,
        api::{made_up, made_up_name, sentence},
    },
    secret::AccessToken,
};

impl Webhook {
    /// Looks what works, for an operator: the steps that went well, and the one that did not. It changes nothing there.
    pub async fn greet(&self) -> (Vec<String>, Result<(), String>) {
        let mut told = Vec::new();
        let end = self.walk(&mut told).await;
        (told, end)
    }

    async fn walk(&self, told: &mut Vec<String>) -> Result<(), String> {
        let base = self.client.base();
        match self.owner(&made_up()).await {
            Ok(None) => told.push(format!("{base} answers, and accepts the signature")),
            Ok(Some(_)) => {
                return Err(format!(
                    "{base} names an owner of an address that was made up"
                ));
            }
            Err(error) => return Err(format!("{base}: {}", sentence(&error))),
        }
        self.check_refusal().await?;
        told.push("it refuses a wrong signature".to_owned());
        let token = AccessToken::parse(&fresh_id()).map_err(|error| sentence(&error))?;
        match self.whoami(&token, &Origin::default()).await {
            Err(Error::UnknownToken { .. }) => {
                told.push("it knows a made-up access token to be nobody's".to_owned());
            }
            Ok(_) => return Err("account/whoami takes an access token that was made up".to_owned()),
            Err(error) => return Err(sentence(&error)),
        }
        let body = json!({ "op_id": fresh_id() });
        match self.ask(REGISTERED, &body).await.and_then(found) {
            Ok(None) => told.push("it tells what became of a registration".to_owned()),
            Ok(Some(_)) => {
                return Err(
                    "account/registered tells of a registration that was made up".to_owned(),
                );
            }
            Err(error) => return Err(sentence(&error)),
        }
        told.push(self.look_for_optional().await?);
        Ok(())
    }

    /// Whoever reaches a receiver that looks at no signature has all its accounts.
    async fn check_refusal(&self) -> Result<(), String> {
        let body = json!({ "medium": "email", "address": made_up().address() });
        let answer = self.send_badly_signed(OWNER, &body).await;
        let answer = answer.map_err(|error| sentence(&error))?;
        if answer.says(StatusCode::UNAUTHORIZED, BAD_SIGNATURE) {
            return Ok(());
        }
        Err(format!(
            "it answers a wrong signature with {} instead of 401 and {BAD_SIGNATURE}: let the receiver look at \
             signatures, before whoever reaches it has its accounts",
            answer.status.as_u16()
        ))
    }

    async fn look_for_optional(&self) -> Result<String, String> {
        let name = made_up_name();
        let mut there = Vec::new();
        let optional: [(Verb, &str, Value); 3] = [
            (PASSWORD_POLICY, "password policy", json!({})),
            (
                IS_SUSPENDED,
                "suspended accounts",
                json!({ "user_id": format!("@{name}:threepid.invalid") }),
            ),
            (AVAILABLE, "free names", json!({ "username": name })),
        ];
        for (verb, what, body) in optional {
            let answer = self
                .ask(verb, &body)
                .await
                .map_err(|error| sentence(&error))?;
            if answer.status != StatusCode::NOT_FOUND {
                there.push(what);
            }
        }
        Ok(match there.as_slice() {
            [] => "it has none of the optional calls".to_owned(),
            there => format!("of the optional calls it has: {}", there.join(", ")),
        })
    }
}
