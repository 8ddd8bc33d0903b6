//! Matrix errors of other servers, of which only what is safe to pass on is left.

use std::time::Duration;

use serde_json::Value;

/// The longest `errcode` that is passed on.
const LONGEST_ERRCODE: usize = 255;
/// How much of an `error` is passed on, in characters.
const LONGEST_ERROR: usize = 1000;
/// The longest that anybody is told to wait.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// A Matrix error (Client-Server API, "Standard error response").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatrixError {
    /// Letters, digits, `_` and `.` alone.
    pub(crate) errcode: String,
    /// On one line, shortened; what the caller says where the server says nothing.
    pub(crate) error: String,
    /// `retry_after_ms`.
    pub(crate) retry_after: Option<Duration>,
}

impl MatrixError {
    /// Reads the body of an answer; `None` if it has no `errcode`, or one that breaks its grammar.
    pub(crate) fn read(body: &Value, without_words: &str) -> Option<Self> {
        let errcode = body["errcode"].as_str()?;
        let error = body["error"].as_str().filter(|error| !error.is_empty());
        let wait = body["retry_after_ms"].as_u64().map(Duration::from_millis);
        is_errcode(errcode).then(|| Self {
            errcode: errcode.to_owned(),
            error: on_one_line(error.unwrap_or(without_words), LONGEST_ERROR),
            retry_after: wait.map(|wait| wait.min(LONGEST_WAIT)),
        })
    }
}

fn is_errcode(text: &str) -> bool {
    (1..=LONGEST_ERRCODE).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

/// The first `most` characters of what another server wrote, on one line.
pub(crate) fn on_one_line(text: &str, most: usize) -> String {
    let breaks = |letter: char| letter.is_control() || "\u{2028}\u{2029}".contains(letter);
    text.chars()
        .take(most)
        .map(|letter| if breaks(letter) { ' ' } else { letter })
        .collect()
}
