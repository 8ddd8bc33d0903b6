//! A call of the contract: signed, and made again while nobody knows whether it was heard.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::{SigningKey, Webhook};
use crate::{
    error::{Error, Result},
    homeserver::api::{Answer, Asked, Call, is_user_id},
    secret::{random, random_fraction},
};

/// The header that the signature is in.
const SIGNATURE: &str = "X-Threepid-Signature";
/// What a receiver says to a signature that is wrong, or of another time, with 401.
pub(super) const BAD_SIGNATURE: &str = "THREEPID_BAD_SIGNATURE";
/// Between the tries, about.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// What is asked for, by the path below the base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verb {
    name: &'static str,
    changes: bool,
    pauses: &'static [Duration],
}

impl Verb {
    /// It leaves nothing behind.
    pub(super) const fn reading(name: &'static str) -> Self {
        Self {
            name,
            changes: false,
            pauses: &PAUSES,
        }
    }

    /// It changes something; its `op_id` lets it be asked for again.
    pub(super) const fn changing(name: &'static str) -> Self {
        Self {
            changes: true,
            ..Self::reading(name)
        }
    }

    /// Asked for twice it may answer otherwise, so that is left to whoever wants it.
    pub(super) const fn once(self) -> Self {
        Self {
            pauses: &[],
            ..self
        }
    }

    fn asked(self) -> Asked {
        if self.changes {
            Asked::changing(Method::POST, self.name)
        } else {
            Asked::reading(Method::POST, self.name)
        }
    }
}

/// A name for one operation, the same in all its tries.
pub(super) fn fresh_id() -> String {
    URL_SAFE_NO_PAD.encode(random::<18>())
}

impl Webhook {
    /// Asks, and again after a 5xx and after no answer. Any other status is an answer.
    ///
    /// # Errors
    /// Those of the last try; [`Error::HomeserverTimeout`] if any try may have changed something.
    pub(super) async fn ask(&self, verb: Verb, body: &Value) -> Result<Answer> {
        let body = body.to_string().into_bytes();
        let deadline = Instant::now() + self.limit * 2;
        let mut asked = verb.asked();
        let mut pauses = verb.pauses.iter();
        let answer = loop {
            let tried = timeout_at(deadline, self.send(&asked, verb, &self.key, &body)).await;
            let error = match tried.unwrap_or_else(|_| Err(asked.late())) {
                Ok(answer) => break answer,
                Err(error) => error,
            };
            if error.leaves_open() {
                asked = asked.again();
            }
            let Some(pause) = pauses.next() else {
                return Err(error);
            };
            // Spread, so that those who failed together do not come back together.
            let pause = pause.mul_f64(0.5 + random_fraction());
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        };
        if answer.says(StatusCode::UNAUTHORIZED, BAD_SIGNATURE) {
            let why = "a refusal of our signature: give both sides the same key (homeserver.webhook_keys) and the \
                       right time";
            return Err(answer.asked.refused(why));
        }
        Ok(answer)
    }

    /// Asks once, with a signature under any key.
    ///
    /// # Errors
    /// A 5xx too is an error.
    pub(super) async fn send(
        &self,
        asked: &Asked,
        verb: Verb,
        key: &SigningKey,
        body: &[u8],
    ) -> Result<Answer> {
        let path = format!("/{}", verb.name);
        let seconds = self.clock.now().0.div_euclid(1000);
        let signature = key.sign(seconds, &format!("{}{path}", self.base_path), body);
        let call = Call {
            body: Some(body.to_vec()),
            header: Some((SIGNATURE, signature)),
            ..Call::new(asked.clone(), path)
        };
        match self.client.send(call).await {
            Ok(answer) if answer.status.is_server_error() => Err(answer.fault()),
            Err(Error::HomeserverFailed(cause)) if asked.may_be_done() => {
                Err(Error::HomeserverTimeout(cause))
            }
            tried => tried,
        }
    }

    /// Asks once, signed with a key that the receiver does not know.
    pub(super) async fn send_badly_signed(&self, verb: Verb, body: &Value) -> Result<Answer> {
        let key = format!("{}{}", fresh_id(), fresh_id());
        let key = SigningKey::parse(&key).map_err(Error::Internal)?;
        let body = body.to_string();
        self.send(&verb.asked(), verb, &key, body.as_bytes()).await
    }
}

/// The account that an answer names; `None` if it says that there is none, in words that no proxy uses.
pub(super) fn found(answer: Answer) -> Result<Option<String>> {
    if answer.says(StatusCode::NOT_FOUND, "M_NOT_FOUND") {
        return Ok(None);
    }
    let asked = answer.asked.clone();
    match answer.success()?.remove("user_id") {
        Some(Value::Null) => Ok(None),
        Some(Value::String(user_id)) if is_user_id(&user_id) => Ok(Some(user_id)),
        _ => Err(asked.broken("200 and no user_id")),
    }
}

/// A key of a 200 that is true or false.
pub(super) fn flag(answer: Answer, key: &'static str) -> Result<bool> {
    let asked = answer.asked.clone();
    let told = answer.success()?.remove(key);
    let told = told.and_then(|value| value.as_bool());
    told.ok_or_else(|| asked.broken(&format!("200 and no {key}, true or false")))
}
