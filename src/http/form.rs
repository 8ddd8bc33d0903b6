//! The fields of a form that a page of ours sends.

use std::fmt;

use axum::{
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::extract::read_body;
use crate::error::{Error, Result};

const FORM: &str = "application/x-www-form-urlencoded";

/// The fields of a form; none if the body is empty. `Debug` shows nothing of them.
pub(crate) struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    /// Reads a body. What is no UTF-8 is refused, not repaired: a password would become another one.
    fn parse(body: &[u8]) -> Result<Self> {
        let no_text = || Error::invalid("The form is not UTF-8.");
        let text = str::from_utf8(body).map_err(|_| no_text())?;
        let mut fields = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let is_there = |(other, _): &(String, _)| *other == *name;
            if fields.iter().any(is_there) {
                return Err(Error::invalid("A field of the form stands twice."));
            }
            fields.push((name.to_string(), value));
        }
        Ok(Self(fields))
    }

    /// A field as it was typed; `None` if it is not there.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| value.as_str())
    }

    /// Whether there is no field at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Form({} fields)", self.0.len())
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let content_type = request.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next();
        let is_form = essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(FORM));
        let body = read_body(request).await?;
        if body.is_empty() || is_form {
            Self::parse(&body)
        } else {
            Err(Error::invalid(format!("The form must be {FORM}.")))
        }
    }
}

fn decoded(text: &str) -> Result<Zeroizing<String>> {
    let blanks = Zeroizing::new(text.replace('+', " "));
    let decoded = percent_decode_str(&blanks).decode_utf8();
    let decoded = decoded.map_err(|_| Error::invalid("The form is not UTF-8."))?;
    Ok(Zeroizing::new(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_typed() {
        let form = Form::parse(b"new_password=a+b%2B%26%C3%A4&empty=&bare").unwrap();
        assert_eq!(form.value("new_password"), Some("a b+&ä"));
        assert_eq!(form.value("empty"), Some(""));
        assert_eq!(form.value("bare"), Some(""));
        assert_eq!(form.value("none"), None);
        assert!(Form::parse(b"").unwrap().is_empty());
        assert!(!format!("{form:?}").contains("new_password"));
    }

    #[test]
    fn what_would_be_guessed_is_refused() {
        for bad in [&b"a=%FF"[..], b"a=\xff", b"a=1&a=2"] {
            assert!(matches!(Form::parse(bad), Err(Error::InvalidParam(_))));
        }
    }
}
