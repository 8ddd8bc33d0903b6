//! What can go wrong with a homeserver, and with which requests it does.

use std::{future::pending, io, sync::Mutex, time::Duration};

use axum::body::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;

use super::{Answer, Seen, lock, state::State, text};

/// More than any answer may have.
const TOO_MUCH: usize = 2 * 1024 * 1024;

/// A fault. Those named `…After` do first what they were asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It takes so many milliseconds.
    Slow(u64),
    /// Nothing is done, and nothing ever answered.
    Silent,
    /// It is done, and nothing ever answered.
    SilentAfter,
    /// Nothing is done; the connection is closed.
    Drop,
    /// It is done; the connection is closed.
    DropAfter,
    /// Nothing is done; an error of this status.
    Status(u16),
    /// It is done; an error of this status.
    StatusAfter(u16),
    /// A page of a proxy's, 404.
    Html,
    /// 200 with something else than JSON.
    Garbage,
    /// 200 with more than anybody wants to read.
    Huge,
    /// 429, with so many milliseconds to wait.
    Limited(u64),
    /// 401 as if the token were not known.
    TokenRevoked,
    /// 403 as if the token were no admin's.
    NotAdmin,
    /// 404 as if there were no such endpoint.
    Unrecognized,
    /// It is done; then the last address of the list goes to this account.
    ThenGivenTo(&'static str),
    /// It is done; then this e-mail address goes to this account.
    ThenMoved(&'static str, &'static str),
    /// The account's old list is deleted, and no more is done; an error of this status.
    StatusHalfway(u16),
    /// The account's old list is deleted, and no more is done; nothing ever answered.
    SilentHalfway,
    /// The account's old list is deleted, and no more is done; the connection is closed.
    DropHalfway,
    /// The account is deleted; an error of this status.
    StatusAndGone(u16),
    /// Nothing is done; this status, and this text.
    Says(u16, &'static str),
    /// It is done; this status, and this text.
    SaysAfter(u16, &'static str),
    /// It is answered as if it were done, and somebody else undoes it at once.
    Undone,
}

impl Fault {
    /// The answer.
    pub(super) async fn strike(
        self,
        seen: &Seen,
        state: &Mutex<State>,
    ) -> io::Result<Response<Full<Bytes>>> {
        if let Self::Slow(ms) = self {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let answer = self.act(seen, &mut lock(state));
        let error = |status, errcode: &str| {
            let body = json!({ "errcode": errcode, "error": format!("Words of {}", seen.method) });
            Answer { status, body }.response()
        };
        Ok(match self {
            Self::Slow(_) | Self::ThenGivenTo(_) | Self::ThenMoved(..) | Self::Undone => {
                answer.expect("it was done").response()
            }
            Self::Silent | Self::SilentAfter | Self::SilentHalfway => pending().await,
            Self::Drop | Self::DropAfter | Self::DropHalfway => {
                return Err(io::Error::other("broken off"));
            }
            Self::Status(status)
            | Self::StatusAfter(status)
            | Self::StatusHalfway(status)
            | Self::StatusAndGone(status) => error(status, "M_UNKNOWN"),
            Self::Says(status, body) | Self::SaysAfter(status, body) => {
                text(status, "application/json", body)
            }
            Self::Html => text(404, "text/html", "<h1>Not found</h1>"),
            Self::Garbage => text(200, "application/json", "{\"a\":"),
            Self::Huge => text(200, "application/json", vec![b' '; TOO_MUCH]),
            Self::Limited(ms) => {
                let body = json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Too fast", "retry_after_ms": ms });
                let mut response = Answer { status: 429, body }.response();
                let headers = response.headers_mut();
                headers.insert("Retry-After", ms.div_ceil(1000).into());
                response
            }
            Self::TokenRevoked => error(401, "M_UNKNOWN_TOKEN"),
            Self::NotAdmin => error(403, "M_FORBIDDEN"),
            Self::Unrecognized => error(404, "M_UNRECOGNIZED"),
        })
    }

    /// Does what is done in spite of it; the answer to the request, if that was done.
    fn act(self, seen: &Seen, state: &mut State) -> Option<Answer> {
        match self {
            Self::Slow(_)
            | Self::SilentAfter
            | Self::DropAfter
            | Self::StatusAfter(_)
            | Self::SaysAfter(..) => Some(state.answer(seen)),
            Self::ThenGivenTo(user_id) => {
                let answer = state.answer(seen);
                let list = seen.json()["threepids"].as_array().cloned();
                let entry = list.and_then(|list| list.last().cloned());
                let entry = entry.unwrap_or_default();
                let text = |key: &str| entry[key].as_str().unwrap_or_default();
                state.give(user_id, text("medium"), text("address"));
                Some(answer)
            }
            Self::ThenMoved(address, user_id) => {
                let answer = state.answer(seen);
                state.give(user_id, "email", address);
                Some(answer)
            }
            Self::Undone => {
                let kept = state.clone();
                let answer = state.answer(seen);
                *state = kept;
                Some(answer)
            }
            Self::SilentHalfway | Self::DropHalfway | Self::StatusHalfway(_) => {
                state.lose_threepids(seen);
                None
            }
            Self::StatusAndGone(_) => {
                state.lose_user(seen);
                None
            }
            _ => None,
        }
    }
}

/// A fault, and the requests that it strikes.
#[derive(Clone, Debug)]
pub(super) struct When {
    method: String,
    part: String,
    fault: Fault,
    /// Which of these requests alone, counted from now; `None` for all of them.
    nth: Option<usize>,
}

impl When {
    pub(super) fn always(fault: Fault) -> Self {
        Self::at("", "", fault)
    }

    pub(super) fn at(method: &str, part: &str, fault: Fault) -> Self {
        Self {
            method: method.to_owned(),
            part: part.to_owned(),
            fault,
            nth: None,
        }
    }

    pub(super) fn nth(self, nth: usize) -> Self {
        Self {
            nth: Some(nth),
            ..self
        }
    }

    fn strikes(&self, seen: &Seen) -> bool {
        (self.method.is_empty() || seen.method == self.method.as_str())
            && seen.path.contains(&self.part)
    }
}

/// The faults that are on.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<When>);

impl Faults {
    pub(super) fn only(&mut self, when: When) {
        self.0 = vec![when];
    }

    pub(super) fn add(&mut self, when: When) {
        self.0.push(when);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that strikes a request; one that was set for a single request is then used up.
    pub(super) fn find(&mut self, seen: &Seen) -> Option<Fault> {
        let mut found = None;
        self.0.retain_mut(|when| {
            if !when.strikes(seen) {
                return true;
            }
            if let Some(nth @ 2..) = when.nth {
                when.nth = Some(nth - 1);
                return true;
            }
            found = found.or(Some(when.fault));
            when.nth.is_none()
        });
        found
    }
}
