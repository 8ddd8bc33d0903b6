//! What identity servers answer: sorted into what was asked for, a Matrix error, and nonsense.

use std::fmt;

use http::StatusCode;
use serde_json::Value;

use crate::{
    error::Error,
    id_server::IdServer,
    matrix_error::MatrixError,
    outbound::Reply,
    threepid::{Medium, Threepid},
};

/// What is told for a server that says nothing.
const NO_WORDS: &str = "The identity server refuses this.";

/// What was asked of whom: the beginning of every cause.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) server: &'a IdServer,
    /// The path, without what all have in common and without a query.
    pub(super) path: &'static str,
}

impl Asked<'_> {
    /// An answer that can not be made use of.
    pub(super) fn nonsense(self, why: impl fmt::Display) -> Error {
        Error::UpstreamFailed(format!("{} answered {} with {why}", self.server, self.path))
    }
}

/// A sorted answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// 200 with JSON that is no error.
    Good(Value),
    /// A Matrix error, with its status; old servers put some into a 200.
    Refused(StatusCode, Refusal),
    /// An `errcode` that breaks its grammar.
    Garbled(StatusCode),
    /// Neither success nor error, with what it is.
    Nonsense(StatusCode, &'static str),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let status = reply.status;
        // The parser itself refuses JSON that is nested so deep that the stack would not hold it.
        let Ok(body) = serde_json::from_slice::<Value>(&reply.body) else {
            return Self::Nonsense(status, "something else than JSON");
        };
        match body.get("errcode") {
            Some(_) => Refusal::read(&body).map_or(Self::Garbled(status), |refusal| {
                Self::Refused(status, refusal)
            }),
            None if status == StatusCode::OK => Self::Good(body),
            None => Self::Nonsense(status, "no errcode"),
        }
    }
}

impl Answer {
    /// The JSON of a success.
    ///
    /// # Errors
    /// [`Error::Relayed`] for a Matrix error in a 4xx or a 200, else [`Error::UpstreamFailed`].
    pub(super) fn success(self, asked: Asked<'_>) -> Result<Value, Error> {
        match self {
            Self::Good(body) => Ok(body),
            Self::Refused(status, refused)
                if status.is_client_error() || status == StatusCode::OK =>
            {
                Err(refused.relay(status))
            }
            Self::Refused(status, refused) => {
                let code = refused.error.errcode;
                Err(asked.nonsense(format_args!("{} {code}", status.as_u16())))
            }
            Self::Garbled(status) => Err(asked.nonsense(format_args!(
                "{} and an errcode that is none",
                status.as_u16()
            ))),
            Self::Nonsense(status, what) => {
                Err(asked.nonsense(format_args!("{} and {what}", status.as_u16())))
            }
        }
    }
}

/// A Matrix error of an identity server.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    error: MatrixError,
    /// Whether it also says `"success": false`, as Sydent does.
    pub(super) denies_success: bool,
}

impl Refusal {
    fn read(body: &Value) -> Option<Self> {
        Some(Self {
            error: MatrixError::read(body, NO_WORDS)?,
            denies_success: body["success"] == Value::Bool(false),
        })
    }

    /// The error to pass on; one that did not come with a 4xx gets 400.
    pub(super) fn relay(self, status: StatusCode) -> Error {
        let errcode = match self.error.errcode.as_str() {
            // It is the token for the identity server that is wrong. Under these names a client would take it for its
            // session at the homeserver, and log out.
            "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" => "M_UNAUTHORIZED".to_owned(),
            _ => self.error.errcode,
        };
        Error::Relayed {
            status: if status.is_client_error() {
                status
            } else {
                StatusCode::BAD_REQUEST
            },
            errcode,
            error: self.error.error,
            retry_after: self.error.retry_after,
        }
    }
}

/// The `medium` and `address` that an answer names, in canonical form; `None` if it names none.
///
/// Servers are known to answer addresses as they were typed, and numbers with or without `+`.
pub(super) fn threepid(body: &Value) -> Option<Threepid> {
    let address = body.get("address")?.as_str()?;
    let medium = Medium::parse(body.get("medium")?.as_str()?)?;
    Threepid::parse(medium, address).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sort(status: u16, body: &str) -> Result<Value, Error> {
        let server = "id.example.org".parse().unwrap();
        let asked = Asked {
            server: &server,
            path: "3pid/bind",
        };
        let reply = Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        Answer::from(reply).success(asked)
    }

    fn relayed(status: u16, errcode: &str, error: &str, retry_after_ms: Option<u64>) -> Error {
        Error::Relayed {
            status: StatusCode::from_u16(status).unwrap(),
            errcode: errcode.to_owned(),
            error: error.to_owned(),
            retry_after: retry_after_ms.map(Duration::from_millis),
        }
    }

    #[test]
    fn matrix_errors_are_passed_on_and_nothing_else_of_them() {
        for (status, body, expected) in [
            (
                403,
                r#"{"errcode":"M_TERMS_NOT_SIGNED","error":"Sign","policies":{"x":1}}"#,
                relayed(403, "M_TERMS_NOT_SIGNED", "Sign", None),
            ),
            (
                400,
                r#"{"errcode":"M_X"}"#,
                relayed(400, "M_X", NO_WORDS, None),
            ),
            (
                400,
                r#"{"errcode":"ORG.example.x_1","error":7}"#,
                relayed(400, "ORG.example.x_1", NO_WORDS, None),
            ),
            (
                429,
                r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Slow","retry_after_ms":2500}"#,
                relayed(429, "M_LIMIT_EXCEEDED", "Slow", Some(2500)),
            ),
            (
                429,
                r#"{"errcode":"M_UNKNOWN","error":"Too many","retry_after_ms":-1}"#,
                relayed(429, "M_UNKNOWN", "Too many", None),
            ),
            (
                429,
                r#"{"errcode":"M_X","retry_after_ms":18446744073709551615}"#,
                relayed(429, "M_X", NO_WORDS, Some(86_400_000)),
            ),
            (
                429,
                r#"{"errcode":"M_X","retry_after_ms":"5"}"#,
                relayed(429, "M_X", NO_WORDS, None),
            ),
            (
                401,
                r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Who?","soft_logout":true}"#,
                relayed(401, "M_UNAUTHORIZED", "Who?", None),
            ),
            (
                403,
                r#"{"errcode":"M_MISSING_TOKEN","error":"Who?"}"#,
                relayed(403, "M_UNAUTHORIZED", "Who?", None),
            ),
            (
                400,
                r#"{"errcode":"M_X","error":"a\r\nb\u0000c\u2028d\u001be\u0085f"}"#,
                relayed(400, "M_X", "a  b c d e f", None),
            ),
            (
                200,
                r#"{"errcode":"M_X"}"#,
                relayed(400, "M_X", NO_WORDS, None),
            ),
        ] {
            assert_eq!(sort(status, body), Err(expected), "{status} {body}");
        }
    }

    #[test]
    fn a_long_error_is_cut() {
        let body = format!(r#"{{"errcode":"M_X","error":"{}"}}"#, "ä".repeat(5000));
        let cut = "ä".repeat(1000);
        assert_eq!(sort(400, &body), Err(relayed(400, "M_X", &cut, None)));
    }

    #[test]
    fn nonsense_is_told_to_the_log_alone() {
        let deep = "[".repeat(60_000);
        let long = format!(r#"{{"errcode":"{}"}}"#, "M".repeat(256));
        for (status, body, why) in [
            (200, "", "200 and something else than JSON"),
            (200, "<html>", "200 and something else than JSON"),
            (200, "{\"a\":", "200 and something else than JSON"),
            (200, "\u{feff}{}", "200 and something else than JSON"),
            (200, &deep, "200 and something else than JSON"),
            (
                200,
                r#"{"errcode":null}"#,
                "200 and an errcode that is none",
            ),
            (201, "{}", "201 and no errcode"),
            (204, "", "204 and something else than JSON"),
            (302, "", "302 and something else than JSON"),
            (302, r#"{"errcode":"M_X"}"#, "302 M_X"),
            (400, "{}", "400 and no errcode"),
            (400, "null", "400 and no errcode"),
            (400, "[]", "400 and no errcode"),
            (404, "<html>", "404 and something else than JSON"),
            (400, r#"{"errcode":5}"#, "400 and an errcode that is none"),
            (400, r#"{"errcode":""}"#, "400 and an errcode that is none"),
            (
                400,
                r#"{"errcode":"M X"}"#,
                "400 and an errcode that is none",
            ),
            (
                400,
                r#"{"errcode":"M_X\n"}"#,
                "400 and an errcode that is none",
            ),
            (400, &long, "400 and an errcode that is none"),
            (
                500,
                r#"{"errcode":"M_EMAIL_SEND_ERROR"}"#,
                "500 M_EMAIL_SEND_ERROR",
            ),
            (502, "<html>", "502 and something else than JSON"),
        ] {
            let cause = format!("id.example.org answered 3pid/bind with {why}");
            assert_eq!(
                sort(status, body),
                Err(Error::UpstreamFailed(cause)),
                "{status} {why}"
            );
        }
    }

    #[test]
    fn addresses_are_compared_in_canonical_form() {
        for (medium, address, expected) in [
            ("email", "Alice@Example.org", Some("alice@example.org")),
            ("email", "Alice <alice@example.org>", None),
            ("msisdn", "447700900001", Some("447700900001")),
            ("msisdn", "+447700900001", Some("447700900001")),
            ("msisdn", "07700900001", None),
            ("MSISDN", "447700900001", None),
            ("email", "447700900001", None),
        ] {
            let body = serde_json::json!({"medium": medium, "address": address});
            let found = threepid(&body);
            let found = found.as_ref().map(Threepid::address);
            assert_eq!(found, expected, "{medium} {address}");
        }
    }
}
