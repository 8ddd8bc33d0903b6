//! The identity servers that we call: Identity Service API v2.

mod answer;
mod wire;

use std::fmt;

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;

use self::{
    answer::{Answer, Asked},
    wire::{Bind, RequestToken, Session, SubmitToken, Unbind},
};
pub use crate::id_server::Unbound;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id_server::IdServer,
    outbound::{Call, CallError, ChosenBy, Outbound},
    secret::{AccessToken, ClientSecret, Sid},
    threepid::{Medium, Threepid},
};

/// What all paths begin with.
const PREFIX: &str = "/_matrix/identity/v2/";

/// An identity server, and the account there that a call is made with.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The server.
    pub server: &'a IdServer,
    /// The account's token.
    pub access_token: &'a AccessToken,
}

/// A session at an identity server.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Its name there.
    pub sid: &'a Sid,
    /// The client's secret.
    pub client_secret: &'a ClientSecret,
}

/// One `requestToken` to pass on. `Debug` does not show where the browser goes, which may hold a secret.
#[derive(Clone, Copy)]
pub struct TokenRequest<'a> {
    /// The address.
    pub threepid: &'a Threepid,
    /// The client's secret.
    pub client_secret: &'a ClientSecret,
    /// The client's count of attempts.
    pub send_attempt: i64,
    /// Where the browser is sent afterwards.
    pub next_link: Option<&'a str>,
}

impl fmt::Debug for TokenRequest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TokenRequest({:?})", self.threepid)
    }
}

/// Who asks for an association to go.
#[derive(Clone, Copy)]
pub enum Authority<'a> {
    /// An account of the identity server's, by its token.
    Bearer(&'a AccessToken),
    /// The homeserver of the user: the whole value of an `Authorization` header, `X-Matrix …`, over the request: `POST`,
    /// `/_matrix/identity/v2/3pid/unbind`, and `{"mxid": …, "threepid": {"medium": …, "address": …}}`.
    Signed(&'a str),
    /// Whoever proved the address in this session, with the account that asks.
    Session(Pair<'a>, Option<&'a AccessToken>),
}

impl fmt::Debug for Authority<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Signed(_) => "Signed(…)",
            Self::Session(..) => "Session(…)",
        })
    }
}

/// Calls identity servers.
#[derive(Clone, Debug)]
pub struct IdentityClient {
    outbound: Outbound,
}

impl IdentityClient {
    /// A client that calls through `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }

    /// `POST /_matrix/identity/v2/validate/{email,msisdn}/requestToken`: the session there.
    ///
    /// # Errors
    /// [`Error::Relayed`], [`Error::UpstreamFailed`], [`Error::UpstreamTimeout`], [`Error::Unavailable`].
    pub async fn request_token(&self, at: At<'_>, request: TokenRequest<'_>) -> Result<Sid> {
        let asked = Asked {
            server: at.server,
            path: match request.threepid.medium() {
                Medium::Email => "validate/email/requestToken",
                Medium::Msisdn => "validate/msisdn/requestToken",
            },
        };
        let answer = self
            .post(at, ChosenBy::Operator, asked, &RequestToken::from(request))
            .await?;
        // Nothing was sent, and no server is known to say so in a 200: there is no telling what went wrong.
        if matches!(answer, Answer::Refused(StatusCode::OK, _)) {
            return Err(asked.nonsense("an error inside a 200"));
        }
        let body = answer.success(asked)?;
        let sid = body.get("sid").and_then(Value::as_str);
        sid.and_then(|sid| Sid::parse(sid).ok())
            .ok_or_else(|| asked.nonsense("no sid"))
    }

    /// `POST /_matrix/identity/v2/validate/{email,msisdn}/submitToken`. Succeeds if the server says that the token is
    /// right.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`]; [`Error::TokenIncorrect`] and [`Error::NoValidSession`] where an answer
    /// with `success: false` says so, with any status.
    pub async fn submit_token(
        &self,
        at: At<'_>,
        medium: Medium,
        pair: Pair<'_>,
        token: &str,
    ) -> Result<()> {
        let asked = Asked {
            server: at.server,
            path: match medium {
                Medium::Email => "validate/email/submitToken",
                Medium::Msisdn => "validate/msisdn/submitToken",
            },
        };
        let session = Session::from(pair);
        let answer = self
            .post(
                at,
                ChosenBy::Operator,
                asked,
                &SubmitToken { session, token },
            )
            .await?;
        let says_false = matches!(&answer, Answer::Refused(_, refused) if refused.denies_success);
        let body = answer.success(asked).map_err(|error| match &error {
            Error::Relayed { errcode, .. } if says_false => {
                without_success(errcode).unwrap_or(error)
            }
            _ => error,
        })?;
        match body.get("success").and_then(Value::as_bool) {
            Some(true) => Ok(()),
            Some(false) => Err(Error::TokenIncorrect),
            None => Err(asked.nonsense("no success")),
        }
    }

    /// `GET /_matrix/identity/v2/3pid/getValidated3pid`: when the session proved `wanted`, as the server says.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`]; [`Error::SessionNotValidated`], [`Error::SessionExpired`] and
    /// [`Error::NoValidSession`] where the server says so (also inside a 200); [`Error::UpstreamFailed`] if it names
    /// another address.
    pub async fn validated(
        &self,
        at: At<'_>,
        pair: Pair<'_>,
        wanted: &Threepid,
    ) -> Result<Timestamp> {
        let asked = Asked {
            server: at.server,
            path: "3pid/getValidated3pid",
        };
        let query = Session::from(pair).query();
        let call = Call {
            chosen_by: ChosenBy::Operator,
            method: Method::GET,
            to: at.server.into(),
            path: format!("{PREFIX}{}?{query}", asked.path),
            bearer: Some(at.access_token),
            authorization: None,
            body: None,
        };
        let answer = self.call(call).await?;
        let body = answer.success(asked).map_err(|error| match &error {
            Error::Relayed { errcode, .. } => about_session(errcode).unwrap_or(error),
            _ => error,
        })?;
        let validated_at = body.get("validated_at").and_then(Value::as_i64);
        let Some((threepid, validated_at)) = answer::threepid(&body).zip(validated_at) else {
            return Err(asked.nonsense("no address, or no time at which it was proved"));
        };
        if threepid == *wanted && validated_at >= 0 {
            Ok(Timestamp(validated_at))
        } else {
            Err(asked.nonsense("another address than the session is for"))
        }
    }

    /// `POST /_matrix/identity/v2/3pid/bind`: the address that is `user_id`'s there from now on.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`].
    pub async fn bind(&self, at: At<'_>, pair: Pair<'_>, user_id: &str) -> Result<Threepid> {
        let asked = Asked {
            server: at.server,
            path: "3pid/bind",
        };
        let body = Bind {
            session: pair.into(),
            mxid: user_id,
        };
        let body = self
            .post(at, ChosenBy::Account, asked, &body)
            .await?
            .success(asked)?;
        let is_of_user = body.get("mxid").and_then(Value::as_str) == Some(user_id);
        let is_signed = body.get("signatures").is_some_and(Value::is_object);
        answer::threepid(&body)
            .filter(|_| is_of_user && is_signed)
            .ok_or_else(|| asked.nonsense("no association, or one of another user"))
    }

    /// `POST /_matrix/identity/v2/3pid/unbind`.
    ///
    /// # Errors
    /// As [`IdentityClient::request_token`].
    pub async fn unbind(
        &self,
        server: &IdServer,
        authority: Authority<'_>,
        user_id: &str,
        threepid: &Threepid,
    ) -> Result<Unbound> {
        let asked = Asked {
            server,
            path: "3pid/unbind",
        };
        let (bearer, authorization, session) = match authority {
            Authority::Bearer(token) => (Some(token), None, None),
            Authority::Signed(header) => (None, Some(header), None),
            Authority::Session(pair, token) => (token, None, Some(pair)),
        };
        let call = Call {
            chosen_by: ChosenBy::Account,
            method: Method::POST,
            to: server.into(),
            path: format!("{PREFIX}{}", asked.path),
            bearer,
            authorization,
            body: Some(json(&Unbind::new(user_id, threepid, session))),
        };
        match self.call(call).await? {
            // `null` is what servers answered before the specification asked for an object.
            Answer::Good(Value::Object(_) | Value::Null) => Ok(Unbound::Success),
            // How a server says that it can not do this (MSC1915).
            Answer::Nonsense(
                StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED,
                _,
            ) => Ok(Unbound::NoSupport),
            Answer::Refused(status @ StatusCode::NOT_IMPLEMENTED, refused) => {
                Err(refused.relay(status))
            }
            answer => {
                answer.success(asked)?;
                Err(asked.nonsense("no JSON object"))
            }
        }
    }

    async fn post(
        &self,
        at: At<'_>,
        chosen_by: ChosenBy,
        asked: Asked<'_>,
        body: &impl Serialize,
    ) -> Result<Answer> {
        self.call(Call {
            chosen_by,
            method: Method::POST,
            to: at.server.into(),
            path: format!("{PREFIX}{}", asked.path),
            bearer: Some(at.access_token),
            authorization: None,
            body: Some(json(body)),
        })
        .await
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer> {
        match self.outbound.call(call).await {
            Ok(reply) => Ok(Answer::from(reply)),
            Err(CallError::TimedOut(cause)) => Err(Error::UpstreamTimeout(cause)),
            Err(CallError::Busy(cause)) => Err(Error::Unavailable(cause)),
            Err(CallError::Failed(cause)) => Err(Error::UpstreamFailed(cause)),
        }
    }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("texts and numbers under fixed names are JSON")
}

/// What a server means that says `success: false` together with an `errcode`, where it is not what the code says.
///
/// Sydent has these two the wrong way round: a wrong token is "no session", a wrong session is "no such token". It
/// answers them with 200 for email, with 404 and 400 for phone numbers.
fn without_success(errcode: &str) -> Option<Error> {
    match errcode {
        "M_NO_VALID_SESSION" => Some(Error::TokenIncorrect),
        "M_INVALID_PARAM" => Some(Error::NoValidSession),
        _ => None,
    }
}

/// The errors that a session can have, as our own.
fn about_session(errcode: &str) -> Option<Error> {
    match errcode {
        "M_SESSION_NOT_VALIDATED" => Some(Error::SessionNotValidated),
        "M_SESSION_EXPIRED" => Some(Error::SessionExpired),
        "M_NO_VALID_SESSION" => Some(Error::NoValidSession),
        _ => None,
    }
}
