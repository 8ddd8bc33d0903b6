//! What the homeserver answers: sorted into what was asked for, refusals, and faults.

use std::{fmt, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    homeserver::PassedBack,
    matrix_error::{LONGEST_WAIT, MatrixError},
};

/// What is told for a homeserver that says nothing.
const NO_WORDS: &str = "The homeserver refuses this.";
/// What whoever is not told is to wait.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// What was asked: the beginning of every cause.
#[derive(Clone, Debug)]
pub(in crate::homeserver) struct Asked {
    pub(in crate::homeserver) method: Method,
    /// Its path without what it was asked for: that may be an address.
    label: &'static str,
    /// Whether it changes something that a caller must know of.
    changes: bool,
    /// Whether an earlier try at the same may have done it, or may do it yet.
    may_be_done: bool,
}

impl Asked {
    /// A request that leaves nothing behind.
    pub(in crate::homeserver) fn reading(method: Method, label: &'static str) -> Self {
        Self {
            method,
            label,
            changes: false,
            may_be_done: false,
        }
    }

    /// A request that changes something.
    pub(in crate::homeserver) fn changing(method: Method, label: &'static str) -> Self {
        Self {
            changes: true,
            ..Self::reading(method, label)
        }
    }

    /// The same once more, after a try of which nobody knows the end.
    pub(in crate::homeserver) fn again(self) -> Self {
        Self {
            may_be_done: self.changes,
            ..self
        }
    }

    /// Whether an earlier try may have done it, so that no refusal of this one tells that nothing was done.
    pub(in crate::homeserver) fn may_be_done(&self) -> bool {
        self.may_be_done
    }

    /// The homeserver had the request, and answered with nothing that can be made use of.
    pub(in crate::homeserver) fn broken(&self, what: &(impl fmt::Display + ?Sized)) -> Error {
        let cause = format!("the homeserver answered {self} with {what}");
        if self.changes {
            Error::HomeserverTimeout(cause)
        } else {
            Error::HomeserverFailed(cause)
        }
    }

    /// The homeserver refused it: nothing was done, unless by an earlier try.
    pub(in crate::homeserver) fn refused(&self, what: &(impl fmt::Display + ?Sized)) -> Error {
        if self.may_be_done {
            return self.broken(what);
        }
        Error::HomeserverFailed(format!("the homeserver answered {self} with {what}"))
    }

    /// It took too long.
    pub(in crate::homeserver) fn late(&self) -> Error {
        Error::HomeserverTimeout(format!("the homeserver did not answer {self} in time"))
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.method, self.label)
    }
}

/// What came back, with any status.
pub(in crate::homeserver) struct Answer {
    pub(in crate::homeserver) asked: Asked,
    pub(in crate::homeserver) status: StatusCode,
    pub(in crate::homeserver) retry_after: Option<String>,
    pub(in crate::homeserver) body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Answer({} to {}, {} bytes)",
            self.status,
            self.asked,
            self.body.len()
        )
    }
}

impl Answer {
    /// The body, if it is a JSON object.
    pub(in crate::homeserver) fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The Matrix error in the body, if there is one.
    pub(in crate::homeserver) fn matrix_error(&self) -> Option<MatrixError> {
        MatrixError::read(&Value::Object(self.object()?), NO_WORDS)
    }

    /// Whether it is this Matrix error with this status: only then a homeserver said it, and no proxy.
    pub(in crate::homeserver) fn says(&self, status: StatusCode, errcode: &str) -> bool {
        let is_it = |error: MatrixError| error.errcode == errcode;
        self.status == status && self.matrix_error().is_some_and(is_it)
    }

    /// The answer as it is, for whoever asked.
    pub(in crate::homeserver) fn into_passed_back(self) -> PassedBack {
        PassedBack {
            status: self.status,
            body: self.body,
            retry_after: self.retry_after,
        }
    }

    /// The object of a 200.
    ///
    /// # Errors
    /// [`Error::Limited`] for a 429. Else a 5xx, and a 200 that is none, may have done what was asked:
    /// [`Error::HomeserverTimeout`] if that was a change. All others are [`Error::HomeserverFailed`].
    pub(in crate::homeserver) fn success(self) -> Result<Map<String, Value>> {
        if self.status != StatusCode::OK {
            return Err(self.fault());
        }
        let not_json = "200 and something else than a JSON object";
        self.object().ok_or_else(|| self.asked.broken(not_json))
    }

    /// What an answer means that is no success, to a call of ours.
    pub(in crate::homeserver) fn fault(&self) -> Error {
        if self.status == StatusCode::TOO_MANY_REQUESTS && !self.asked.may_be_done {
            return Error::Limited {
                retry_after: self.wait(),
            };
        }
        let code = self.matrix_error().map(|error| error.errcode);
        let code = code.as_deref().unwrap_or("no errcode");
        let what = format!("{} ({code})", self.status.as_u16());
        if self.status.is_server_error() || self.status.is_success() {
            self.asked.broken(&what)
        } else {
            self.asked.refused(&what)
        }
    }

    /// What an answer to the server admin means that is no success.
    pub(in crate::homeserver) fn admin_fault(&self) -> Error {
        let denied = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if !denied.contains(&self.status) {
            return self.fault();
        }
        Error::HomeserverFailed(match self.matrix_error() {
            Some(MatrixError { errcode, .. }) => format!(
                "the homeserver refuses the admin token ({errcode}): write a valid one into homeserver.admin_token_file"
            ),
            None => format!(
                "something before the homeserver denies {} ({}): let homeserver.url lead straight to it",
                self.asked,
                self.status.as_u16()
            ),
        })
    }

    /// What an answer to a client means that is no success: the homeserver's refusals under their own names.
    pub(in crate::homeserver) fn client_fault(&self) -> Error {
        let Some(error) = self.matrix_error() else {
            return self.fault();
        };
        match (self.status, error.errcode.as_str()) {
            (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN") => Error::UnknownToken {
                soft_logout: self.says_soft_logout(),
            },
            (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN") => Error::MissingToken,
            (StatusCode::UNAUTHORIZED, "M_USER_LOCKED") => Error::UserLocked,
            (StatusCode::FORBIDDEN, "M_USER_SUSPENDED") => Error::UserSuspended,
            (StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN") => Error::GuestForbidden,
            (StatusCode::FORBIDDEN, "M_FORBIDDEN") => Error::Forbidden(error.error.into()),
            (StatusCode::FORBIDDEN, _) => self.relay(error),
            _ => self.fault(),
        }
    }

    fn says_soft_logout(&self) -> bool {
        let told = |body: Map<String, Value>| body.get("soft_logout") == Some(&Value::Bool(true));
        self.object().is_some_and(told)
    }

    /// A refusal that whoever asked is told as it is.
    pub(in crate::homeserver) fn relay(&self, error: MatrixError) -> Error {
        let is_limited = self.status == StatusCode::TOO_MANY_REQUESTS;
        Error::Relayed {
            status: self.status,
            errcode: error.errcode,
            error: error.error,
            retry_after: is_limited.then(|| self.wait()),
        }
    }

    /// How long to wait: from the body, else from the header, in whole seconds.
    fn wait(&self) -> Duration {
        let told = self.object().and_then(|body| {
            let ms = body.get("retry_after_ms")?.as_u64()?;
            Some(Duration::from_millis(ms))
        });
        let header = || {
            let seconds = self.retry_after.as_deref()?.trim().parse().ok()?;
            Some(Duration::from_secs(seconds))
        };
        told.or_else(header).unwrap_or(SHORT_WAIT).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: Method, status: u16, body: &str) -> Answer {
        Answer {
            asked: if method == Method::GET {
                Asked::reading(method, "/x")
            } else {
                Asked::changing(method, "/x")
            },
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_fault_tells_whether_something_may_have_been_done() {
        for (status, body, is_certain) in [
            (200, "<html>", false),
            (200, "[]", false),
            (204, "", false),
            (302, "", true),
            (400, r#"{"errcode":"M_BAD_JSON"}"#, true),
            (404, "<html>", true),
            (500, r#"{"errcode":"M_UNKNOWN"}"#, false),
            (502, "<html>", false),
        ] {
            let changed = answer(Method::PUT, status, body).success().unwrap_err();
            let read = answer(Method::GET, status, body).success().unwrap_err();

            let told = matches!(changed, Error::HomeserverFailed(_));
            assert_eq!(told, is_certain, "{status} {changed:?}");
            assert!(
                matches!(read, Error::HomeserverFailed(_)),
                "{status} {read:?}"
            );
        }
    }

    #[test]
    fn after_a_try_without_an_end_no_refusal_is_certain() {
        for status in [302, 400, 404, 429] {
            let mut again = answer(Method::PUT, status, "{}");
            again.asked = again.asked.again();
            let mut read = answer(Method::GET, status, "{}");
            read.asked = read.asked.again();

            assert!(matches!(again.fault(), Error::HomeserverTimeout(_)));
            assert!(!matches!(read.fault(), Error::HomeserverTimeout(_)));
        }
    }

    #[test]
    fn limits_say_how_long() {
        for (body, header, ms) in [
            (
                r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":2500}"#,
                Some("9"),
                2500,
            ),
            (r#"{"errcode":"M_LIMIT_EXCEEDED"}"#, Some("9"), 9000),
            ("<html>", None, 1000),
            (
                r#"{"retry_after_ms":"soon"}"#,
                Some("Sun, 22 Nov 2026"),
                1000,
            ),
            (r#"{"retry_after_ms":99999999999}"#, None, 86_400_000),
        ] {
            let mut answer = answer(Method::PUT, 429, body);
            answer.retry_after = header.map(str::to_owned);

            let retry_after = Duration::from_millis(ms);
            assert_eq!(
                answer.success(),
                Err(Error::Limited { retry_after }),
                "{body}"
            );
        }
    }

    #[test]
    fn a_client_is_told_the_homeserver_s_own_refusals() {
        let told = |status, body| answer(Method::GET, status, body).client_fault();
        assert_eq!(
            told(401, r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":true}"#),
            Error::UnknownToken { soft_logout: true }
        );
        assert_eq!(
            told(401, r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":"x"}"#),
            Error::UnknownToken { soft_logout: false }
        );
        assert_eq!(
            told(401, r#"{"errcode":"M_MISSING_TOKEN"}"#),
            Error::MissingToken
        );
        assert_eq!(
            told(401, r#"{"errcode":"M_USER_LOCKED"}"#),
            Error::UserLocked
        );
        assert_eq!(
            told(403, r#"{"errcode":"M_USER_SUSPENDED"}"#),
            Error::UserSuspended
        );
        assert_eq!(
            told(403, r#"{"errcode":"M_FORBIDDEN","error":"No\nway"}"#),
            Error::Forbidden("No way".into())
        );
        assert!(matches!(
            told(403, r#"{"errcode":"M_USER_DEACTIVATED"}"#),
            Error::Relayed { .. }
        ));
        for (status, body) in [(401, "<html>"), (401, r#"{"errcode":"M X"}"#), (404, "{}")] {
            assert!(
                matches!(told(status, body), Error::HomeserverFailed(_)),
                "{status}"
            );
        }
    }
}
