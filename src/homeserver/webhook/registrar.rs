//! Registration in one call, after all stages: the homeserver has none of its own.

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::{
    Webhook,
    client::{Verb, found, fresh_id},
};
use crate::{
    error::Result,
    homeserver::{
        Accounts, Origin, PassedBack,
        api::{Answer, LONGEST_USER_AGENT, registered},
        registration::{DUMMY, NewAccount, Registering, Registrar, Stages},
    },
    password::NewPassword,
    threepid::Threepid,
};

const REGISTER: Verb = Verb::changing("account/register");
pub(super) const REGISTERED: Verb = Verb::reading("account/registered");
pub(super) const AVAILABLE: Verb = Verb::reading("account/available");

#[async_trait]
impl Registrar for Webhook {
    /// Tells the homeserver nothing, but asks whether the name is free and what a password must have, where it answers
    /// that.
    async fn start(&self, params: &Map<String, Value>, _: &Origin) -> Result<Registering> {
        if let Some(name) = params.get("username").and_then(Value::as_str) {
            match self.ask_available(name).await? {
                Some(told) if told.status != StatusCode::OK => {
                    return Ok(Registering::Refused(told));
                }
                _ => {}
            }
        }
        if let Some(password) = params.get("password").and_then(Value::as_str) {
            let policy = self.password_policy().await?;
            policy.check(&NewPassword::parse(password)?)?;
        }
        Ok(Registering::Stages(Stages {
            session: fresh_id(),
            flows: vec![vec![DUMMY.to_owned()]],
            ..Stages::default()
        }))
    }

    /// There is none.
    async fn stage(
        &self,
        _: &str,
        _: &Map<String, Value>,
        _: &Map<String, Value>,
        _: &Origin,
    ) -> Result<Registering> {
        let words = "The homeserver has no such stage. Show one out of flows.";
        Ok(Registering::Refused(refusal(
            StatusCode::BAD_REQUEST,
            "M_INVALID_PARAM",
            words,
        )))
    }

    /// `POST account/register`
    async fn finish(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        let threepid =
            |one: &Threepid| json!({ "medium": one.medium().as_str(), "address": one.address() });
        let threepids: Vec<_> = account.threepids.iter().map(threepid).collect();
        let user_agent = origin.user_agent.as_deref();
        let body = json!({
            "params": account.params,
            "threepids": threepids,
            "client_ip": origin.address,
            "user_agent": user_agent.filter(|text| text.len() <= LONGEST_USER_AGENT),
            "op_id": account.op_id,
        });
        let answer = self.ask(REGISTER, &body).await?;
        if answer.status == StatusCode::OK {
            return registered(answer).map(Registering::Registered);
        }
        refused(answer).map(Registering::Refused)
    }

    /// `POST account/register` with the same `op_id`, if the homeserver still knows it: else it would make an account
    /// for which nothing was proved.
    async fn repeat(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        match self.made(account).await? {
            Some(_) => self.finish(account, origin).await,
            None => Ok(Registering::Lost),
        }
    }

    /// `POST account/registered`
    async fn made(&self, account: NewAccount<'_>) -> Result<Option<String>> {
        let body = json!({ "op_id": account.op_id });
        found(self.ask(REGISTERED, &body).await?)
    }

    /// `POST account/available`
    async fn available(&self, query: &str, _: &Origin) -> Result<PassedBack> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let Some((_, name)) = pairs.find(|(key, _)| key == "username") else {
            let words = "The key username is missing.";
            let status = StatusCode::BAD_REQUEST;
            return Ok(refusal(status, "M_MISSING_PARAM", words));
        };
        let told = self.ask_available(&name).await?;
        Ok(told.unwrap_or_else(|| {
            let words = "The homeserver does not tell whether a name is free.";
            refusal(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", words)
        }))
    }
}

impl Webhook {
    /// What the homeserver says of a name: 200 if it is free; `None` if it does not answer that.
    async fn ask_available(&self, name: &str) -> Result<Option<PassedBack>> {
        let answer = self.ask(AVAILABLE, &json!({ "username": name })).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => free(answer).map(Some),
            _ => refused(answer).map(Some),
        }
    }
}

fn free(answer: Answer) -> Result<PassedBack> {
    let is_free = |body: Map<String, Value>| body.get("available") == Some(&Value::Bool(true));
    if answer.object().is_some_and(is_free) {
        return Ok(answer.into_passed_back());
    }
    Err(answer
        .asked
        .broken("200 and something else than {\"available\": true}"))
}

/// The homeserver's own refusal.
///
/// # Errors
/// Those of an answer that is none: a client that asks to register has shown no token, and asked for no path of the
/// homeserver's, so that 401 and 404 are about us. And after a try without an end, a limit does not tell what became of it.
fn refused(answer: Answer) -> Result<PassedBack> {
    let is_ours = matches!(
        answer.status,
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND
    );
    let is_uncertain = answer.status == StatusCode::TOO_MANY_REQUESTS && answer.asked.may_be_done();
    if !answer.status.is_client_error()
        || answer.matrix_error().is_none()
        || is_ours
        || is_uncertain
    {
        return Err(answer.fault());
    }
    Ok(answer.into_passed_back())
}

/// A refusal of ours, in the place of the homeserver's.
fn refusal(status: StatusCode, errcode: &str, words: &str) -> PassedBack {
    let body = json!({ "errcode": errcode, "error": words });
    PassedBack {
        status,
        body: body.to_string().into_bytes(),
        retry_after: None,
    }
}
