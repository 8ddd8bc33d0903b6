//! The pages that do a stage of user-interactive authentication for a client that does not know it (Client-Server API,
//! "Fallback").

use askama::Template;
use axum::response::Response;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_SECURITY_POLICY, RETRY_AFTER},
};
use sha2::{Digest, Sha256};

use super::{STYLE, policy, shown, whole_seconds};
use crate::{
    error::{Dialect, Error},
    session::Purpose,
    threepid::Medium,
};

/// How the client is told (Client-Server API, "Fallback"): the words of the specification.
const SCRIPT: &str = r#"
if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}
"#;

/// What a page of the stage shows.
#[derive(Debug)]
pub(crate) enum View {
    /// Which address it is about to be.
    Address,
    /// A message is on its way.
    Message(Message),
    /// The stage is done.
    Done,
    /// There is no session to do it for.
    Gone,
}

/// A message that is on its way.
#[derive(Debug)]
pub(crate) struct Message {
    /// To whom, as people write it.
    pub(crate) to: String,
    pub(crate) has_link: bool,
    pub(crate) has_code: bool,
    /// The session's name as it stands in a query, for a link that asks for another message.
    pub(crate) session: String,
}

/// A page of the stage.
#[derive(Debug)]
pub(crate) struct Fallback<'a> {
    pub(crate) medium: Medium,
    /// What it is for, if that is known.
    pub(crate) purpose: Option<Purpose>,
    pub(crate) view: View,
    /// What went wrong with the last form.
    pub(crate) error: Option<&'a Error>,
}

#[derive(Template)]
#[template(path = "pages/fallback.html")]
struct FallbackPage<'a> {
    app_name: &'a str,
    medium: Medium,
    signs_up: bool,
    view: &'a View,
    problem: String,
}

/// A page of the stage, with the status of its error.
pub(crate) fn fallback(app_name: &str, about: &Fallback<'_>) -> Response {
    let status = match (&about.view, about.error) {
        (_, Some(error)) => error.wire(Dialect::Page).0,
        (View::Gone, None) => StatusCode::GONE,
        _ => StatusCode::OK,
    };
    let page = FallbackPage {
        app_name,
        medium: about.medium,
        signs_up: about.purpose == Some(Purpose::Register),
        view: &about.view,
        problem: about.error.map(problem).unwrap_or_default(),
    };
    let mut response = shown(status, &page, None);
    let headers = response.headers_mut();
    // Else the browser would part the page from the app that opened it, and that is to be told.
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("unsafe-none"),
    );
    if matches!(about.view, View::Done) {
        headers.insert(CONTENT_SECURITY_POLICY, policy_with_script());
    }
    if let Some(Error::Limited { retry_after }) = about.error {
        headers.insert(RETRY_AFTER, whole_seconds(*retry_after));
    }
    response
}

/// The policy of all pages, and the one script.
fn policy_with_script() -> HeaderValue {
    let source = STANDARD.encode(Sha256::digest(SCRIPT));
    let mut with_script = policy(None).as_bytes().to_vec();
    with_script.extend(format!("; script-src 'sha256-{source}'").into_bytes());
    HeaderValue::try_from(with_script).expect("it is made of visible ASCII characters and blanks")
}

fn problem(error: &Error) -> String {
    match error {
        Error::SessionNotValidated => {
            "The address is not confirmed yet. Open the link in the message, and press there: continue in the app."
                .to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{APP, between, header, html, snapshot};
    use super::*;

    fn message(medium: Medium) -> View {
        View::Message(Message {
            to: match medium {
                Medium::Email => "alice@example.com".to_owned(),
                Medium::Msisdn => "+44 7700 900001".to_owned(),
            },
            has_link: medium == Medium::Email,
            has_code: true,
            session: "AAAA".to_owned(),
        })
    }

    fn page(medium: Medium, view: View, error: Option<&Error>) -> Response {
        let about = Fallback {
            medium,
            purpose: Some(Purpose::Password),
            view,
            error,
        };
        fallback(APP, &about)
    }

    fn pages() -> Vec<(String, Response)> {
        let mut pages = Vec::new();
        for medium in Medium::ALL {
            for (name, view) in [
                ("address", View::Address),
                ("message", message(medium)),
                ("done", View::Done),
                ("gone", View::Gone),
            ] {
                pages.push((
                    format!("fallback_{medium}_{name}"),
                    page(medium, view, None),
                ));
            }
        }
        for (name, error) in [
            ("wrong_code", Error::TokenIncorrect),
            ("not_yet", Error::SessionNotValidated),
        ] {
            let page = page(Medium::Email, message(Medium::Email), Some(&error));
            pages.push((format!("fallback_email_{name}"), page));
        }
        for (name, view) in [
            ("address", View::Address),
            ("message", message(Medium::Email)),
            ("done", View::Done),
        ] {
            let about = Fallback {
                medium: Medium::Email,
                purpose: Some(Purpose::Register),
                view,
                error: None,
            };
            pages.push((format!("fallback_register_{name}"), fallback(APP, &about)));
        }
        pages
    }

    #[tokio::test]
    async fn every_page_of_a_stage_reads_as_reviewed() {
        for (name, page) in pages() {
            snapshot(&name, page).await;
        }
    }

    #[tokio::test]
    async fn the_one_script_is_on_the_last_page_and_admitted_by_its_hash() {
        for (name, page) in pages() {
            let policy = header(&page, "content-security-policy");
            let opener = header(&page, "cross-origin-opener-policy");
            let html = html(page).await;

            assert_eq!(opener, "unsafe-none", "{name}");
            let is_done = name.ends_with("_done");
            assert_eq!(html.contains("<script>"), is_done, "{name}");
            assert_eq!(policy.contains("script-src"), is_done, "{name}");
            if is_done {
                let script = between(&html, "<script>", "</script>");
                let source = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(script)));
                assert!(
                    policy.ends_with(&format!("; script-src {source}")),
                    "{policy}"
                );
                assert!(
                    script.contains("postMessage(\"authDone\", \"*\")"),
                    "{script}"
                );
            }
        }
    }

    #[tokio::test]
    async fn hostile_values_stay_text() {
        let hostile = "\"'><script>alert(1)</script>";
        let view = View::Message(Message {
            to: hostile.to_owned(),
            has_link: true,
            has_code: true,
            session: hostile.to_owned(),
        });
        let error = Error::invalid(hostile);
        let about = Fallback {
            medium: Medium::Email,
            purpose: Some(Purpose::Register),
            view,
            error: Some(&error),
        };
        let page = html(fallback(hostile, &about)).await;
        assert!(
            !page.contains("<script") && !page.contains("\"'>"),
            "{page}"
        );
    }
}
