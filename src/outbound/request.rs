//! One request as the HTTP client has it, and why there was no answer.

use std::error::Error as _;

use http::{HeaderValue, header};

use super::{Call, CallError, Destination, LONGEST_CAUSE, resolve};
use crate::matrix_error::on_one_line;

/// The request, dialled at `port`.
pub(super) fn build(
    client: &reqwest::Client,
    call: &Call<'_>,
    port: u16,
) -> Result<reqwest::Request, CallError> {
    let url = format!("https://{}:{port}{}", call.to.host, call.path);
    let mut builder = client
        .request(call.method.clone(), url)
        .header(header::ACCEPT, "application/json");
    if let Some(host) = &call.to.host_header {
        builder = builder.header(header::HOST, host);
    }
    if let Some(body) = &call.body {
        builder = builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.clone());
    }
    let bearer = call
        .bearer
        .map(|token| format!("Bearer {}", token.reveal()));
    if let Some(text) = bearer.as_deref().or(call.authorization) {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            CallError::Failed("the Authorization header has letters that none may have".to_owned())
        })?;
        value.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, value);
    }
    builder.build().map_err(|why| failure(&call.to, why))
}

/// What the log is told. It holds no query.
pub(super) fn failure(server: &Destination, why: reqwest::Error) -> CallError {
    // The URL has the query, and that has secrets.
    let why = why.without_url();
    if let Some(sentence) = resolve::refusal(&why) {
        return CallError::Failed(on_one_line(&sentence, LONGEST_CAUSE));
    }
    if why.is_timeout() {
        return CallError::TimedOut(format!("{server} did not answer in time"));
    }
    let what = if why.is_connect() {
        "can not be reached"
    } else {
        "broke off"
    };
    CallError::Failed(format!("{server} {what}: {}", innermost(&why)))
}

/// What lies at the bottom of an error.
pub(crate) fn innermost(why: &reqwest::Error) -> String {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    on_one_line(&text, LONGEST_CAUSE)
}
