//! Pages for people: what a mailed link shows, and what came of it. No script, no cookie, nothing from elsewhere.

pub(super) mod fallback;
pub(super) mod reset;

use std::sync::LazyLock;

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, LOCATION, REFERRER_POLICY, RETRY_AFTER,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use sha2::{Digest, Sha256};

use super::respond::whole_seconds;
use crate::{
    clock::Timestamp,
    error::{Dialect, Error},
    messages::readable,
    session::Purpose,
    threepid::Medium,
};

/// The one style of all pages, put into each: a page loads nothing.
const STYLE: &str = include_str!("../../../templates/pages/page.css");

/// The source expression that admits [`STYLE`] alone.
static STYLE_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(STYLE))));

/// What the page of a link tells before anything is done.
#[derive(Debug)]
pub(crate) struct Landing<'a> {
    pub(crate) purpose: Purpose,
    /// The whole address: who holds the link reads its mails.
    pub(crate) address: &'a str,
    /// The account that it is about, if known.
    pub(crate) account: Option<&'a str>,
    /// Where the answer to the button may redirect to: `NextLink::form_action`. Browsers check it against this page.
    pub(crate) form_action: Option<&'a str>,
}

/// What the page tells when the address is proved.
#[derive(Debug)]
pub(crate) struct Done<'a> {
    pub(crate) purpose: Purpose,
    /// The digits, for an app that asks for them.
    pub(crate) code: Option<&'a str>,
    /// Where to go on.
    pub(crate) next: Option<Next<'a>>,
}

/// A `next_link`, offered and not gone to by itself.
#[derive(Debug)]
pub(crate) struct Next<'a> {
    /// The link, with `sid`.
    pub(crate) href: &'a str,
    /// Its host, for people: `NextLink::destination`.
    pub(crate) destination: &'a str,
}

/// A message that was kept instead of sent.
#[derive(Debug)]
pub(crate) struct MailboxEntry<'a> {
    /// `email` or `msisdn`.
    pub(crate) medium: &'a str,
    pub(crate) to: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) text: &'a str,
    pub(crate) at: Timestamp,
}

#[derive(Template)]
#[template(path = "pages/landing.html")]
struct LandingPage<'a> {
    app_name: &'a str,
    landing: &'a Landing<'a>,
}

#[derive(Template)]
#[template(path = "pages/done.html")]
struct DonePage<'a> {
    app_name: &'a str,
    done: &'a Done<'a>,
}

#[derive(Template)]
#[template(path = "pages/failed.html")]
struct FailedPage<'a> {
    app_name: &'a str,
    error: &'a Error,
}

#[derive(Template)]
#[template(path = "pages/prefetched.html")]
struct PrefetchedPage<'a> {
    app_name: &'a str,
}

#[derive(Template)]
#[template(path = "pages/mailbox.html")]
struct MailboxPage<'a> {
    app_name: &'a str,
    mails: Vec<MailboxItem<'a>>,
}

struct MailboxItem<'a> {
    to: String,
    title: &'a str,
    at: String,
    pieces: Vec<Piece<'a>>,
}

/// A part of a mail's text, as the mailbox shows it.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Words(&'a str),
    Link(&'a str),
}

/// The page that a mailed link opens: it changes nothing, and its button posts to the same URL.
pub(crate) fn landing(app_name: &str, landing: &Landing<'_>) -> Response {
    let page = LandingPage { app_name, landing };
    shown(StatusCode::OK, &page, landing.form_action)
}

/// The page after the button, and after a link that was used before.
pub(crate) fn done(app_name: &str, done: &Done<'_>) -> Response {
    shown(StatusCode::OK, &DonePage { app_name, done }, None)
}

/// The page that says what went wrong and what to do next, with the status of [`Error::wire`].
pub(crate) fn failed(app_name: &str, error: &Error) -> Response {
    let (status, _) = error.wire(Dialect::Page);
    let mut page = shown(status, &FailedPage { app_name, error }, None);
    if let Error::Limited { retry_after } = error {
        page.headers_mut()
            .insert(RETRY_AFTER, whole_seconds(*retry_after));
    }
    page
}

/// The page for a browser that loads a link before anyone opened it.
pub(crate) fn prefetched(app_name: &str) -> Response {
    shown(StatusCode::OK, &PrefetchedPage { app_name }, None)
}

/// The page of messages that were kept instead of sent, in the given order.
pub(crate) fn mailbox(app_name: &str, entries: &[MailboxEntry<'_>]) -> Response {
    let mails = entries
        .iter()
        .map(|entry| {
            // A text message has no subject, and its number is written as people write it.
            let is_text = entry.medium == Medium::Msisdn.to_string();
            MailboxItem {
                to: format!("{}{}", if is_text { "+" } else { "" }, entry.to),
                title: if is_text {
                    "Text message"
                } else {
                    entry.subject
                },
                at: readable(entry.at),
                pieces: pieces(entry.text),
            }
        })
        .collect();
    shown(StatusCode::OK, &MailboxPage { app_name, mails }, None)
}

/// Sends the browser on after a form, and tells nobody where it came from.
pub(crate) fn see_other(target: HeaderValue) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(LOCATION, target);
    protect(response.headers_mut(), None);
    response
}

fn shown(status: StatusCode, page: &impl Template, form_action: Option<&str>) -> Response {
    let body = match page.render() {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, Html(body)).into_response();
    protect(response.headers_mut(), form_action);
    response
}

/// The headers of everything that is for people.
fn protect(headers: &mut HeaderMap, form_action: Option<&str>) {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, policy(form_action));
}

fn policy(form_action: Option<&str>) -> HeaderValue {
    // A host may hold ";" and ",", which would begin another directive or policy.
    let admitted = form_action
        .filter(|source| {
            source
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b";,".contains(&byte))
        })
        .map(|source| format!(" {source}"))
        .unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src {}; form-action 'self'{admitted}; base-uri 'none'; frame-ancestors 'none'",
        *STYLE_SOURCE
    );
    HeaderValue::try_from(policy).expect("it is made of visible ASCII characters and blanks")
}

/// The text in parts, with each web address a part of its own.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut words_from = 0;
    let mut at = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        if bare.starts_with("https://") || bare.starts_with("http://") {
            pieces.push(Piece::Words(&text[words_from..at]));
            pieces.push(Piece::Link(bare));
            words_from = at + bare.len();
        }
        at += word.len();
    }
    pieces.push(Piece::Words(&text[words_from..]));
    pieces
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;

    pub(in crate::http::pages) const APP: &str = "Example Chat";
    const NEXT: Next<'static> = Next {
        href: "https://app.example.org/#/register?a=b&sid=S",
        destination: "app.example.org",
    };

    pub(in crate::http::pages) async fn html(response: Response) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    pub(in crate::http::pages) fn header(response: &Response, name: &str) -> String {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    /// What is between the words `from` and `to`.
    pub(in crate::http::pages) fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        let rest = text.split_once(from).unwrap().1;
        rest.split_once(to).unwrap().0
    }

    fn landing_for(purpose: Purpose) -> Response {
        let about = Landing {
            purpose,
            address: "alice@example.com",
            account: (purpose != Purpose::Register).then_some("@alice:example.org"),
            form_action: None,
        };
        landing(APP, &about)
    }

    fn errors() -> [(&'static str, Error); 13] {
        [
            ("expired", Error::SessionExpired),
            ("no_session", Error::NoValidSession),
            ("incorrect", Error::TokenIncorrect),
            (
                "limited",
                Error::Limited {
                    retry_after: Duration::from_millis(90_500),
                },
            ),
            ("cross_site", Error::CrossSite),
            ("invalid", Error::invalid("sid is too long")),
            ("missing", Error::MissingParam("token")),
            ("unavailable", Error::Unavailable("disk full".to_owned())),
            (
                "upstream",
                Error::UpstreamFailed("id.example.org".to_owned()),
            ),
            ("internal", Error::Internal("disk full".to_owned())),
            ("account_gone", Error::AccountGone),
            ("homeserver", Error::HomeserverFailed("x".to_owned())),
            ("other", Error::ProofSpent),
        ]
    }

    fn mails() -> [MailboxEntry<'static>; 3] {
        [
            MailboxEntry {
                medium: "msisdn",
                to: "447700900001",
                subject: "",
                text: "Example Chat: your code is 123456",
                at: Timestamp(1_795_341_660_000),
            },
            MailboxEntry {
                medium: "email",
                to: "alice@example.com",
                subject: "Confirm your email address for Example Chat",
                text: "Hello,\n\nopen this link:\n\nhttps://example.org/_threepid/link/AAAA\n\n12345678\n",
                at: Timestamp(1_795_341_600_123),
            },
            MailboxEntry {
                medium: "email",
                to: "b\"<script>@example.com",
                subject: "<script>alert(1)</script>",
                text: "http://a.org/\"><script> & more",
                at: Timestamp(1_795_341_000_000),
            },
        ]
    }

    fn pages() -> Vec<(String, Response)> {
        let mut pages = Vec::new();
        for purpose in Purpose::ALL {
            pages.push((format!("landing_{purpose}"), landing_for(purpose)));
            let bare = Done {
                purpose,
                code: None,
                next: None,
            };
            pages.push((format!("done_{purpose}"), done(APP, &bare)));
        }
        let full = Done {
            purpose: Purpose::Register,
            code: Some("12345678"),
            next: Some(NEXT),
        };
        pages.push(("done_with_code_and_next_link".to_owned(), done(APP, &full)));
        for (name, error) in errors() {
            pages.push((format!("failed_{name}"), failed(APP, &error)));
        }
        pages.push(("prefetched".to_owned(), prefetched(APP)));
        pages.push(("mailbox".to_owned(), mailbox(APP, &mails())));
        pages.push(("mailbox_empty".to_owned(), mailbox(APP, &[])));
        pages.extend(reset::tests::pages());
        pages
    }

    /// Compares a page with the one that was reviewed.
    pub(in crate::http::pages) async fn snapshot(name: &str, page: Response) {
        let status = page.status();
        let html = html(page).await.replace(STYLE, "[style]");
        insta::with_settings!({
            snapshot_path => "../../../tests/it/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(format!("page_{name}"), format!("{status}\n\n{html}"));
        });
    }

    #[tokio::test]
    async fn every_page_reads_as_reviewed() {
        for (name, page) in pages() {
            snapshot(&name, page).await;
        }
    }

    #[tokio::test]
    async fn the_policy_admits_the_style_of_the_page_and_nothing_else() {
        for (name, page) in pages() {
            let policy = header(&page, "content-security-policy");

            let html = html(page).await;

            let style = between(&html, "<style>", "</style>");
            let source = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(style)));
            assert_eq!(
                policy,
                format!(
                    "default-src 'none'; style-src {source}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
                )
            );
            for word in [" style=", "<script", "src=", "url(", "@import", " on"] {
                let markup = html.replace(style, "");
                let found = markup.split('<').any(|tag| {
                    let tag = tag.split('>').next().unwrap_or_default();
                    format!("<{tag}").contains(word)
                });
                assert!(!found, "{word} in {name}");
            }
        }
    }

    #[test]
    fn every_page_is_kept_by_nobody_and_framed_by_nobody() {
        for (name, page) in pages() {
            for (header_name, wanted) in [
                ("content-type", "text/html; charset=utf-8"),
                ("cache-control", "no-store"),
                ("referrer-policy", "no-referrer"),
                ("x-frame-options", "DENY"),
                ("x-content-type-options", "nosniff"),
                ("x-robots-tag", "noindex"),
                ("cross-origin-opener-policy", "same-origin"),
                ("access-control-allow-origin", ""),
            ] {
                assert_eq!(
                    header(&page, header_name),
                    wanted,
                    "{header_name} of {name}"
                );
            }
        }
    }

    #[tokio::test]
    async fn every_page_has_one_heading_and_its_own_title() {
        for (name, page) in pages() {
            let html = html(page).await;

            assert_eq!(html.matches("<h1>").count(), 1, "{name}");
            assert_eq!(html.matches("<main>").count(), 1, "{name}");
            assert!(html.contains("<html lang=\"en\" dir=\"ltr\">"), "{name}");
            let title = between(&html, "<title>", "</title>");
            assert!(title.trim().len() > " – Example Chat".len() && title.ends_with(APP));
        }
    }

    #[tokio::test]
    async fn hostile_values_stay_text() {
        let hostile = "\"'><script>alert(1)</script>";
        let about = Landing {
            purpose: Purpose::Add,
            address: hostile,
            account: Some(hostile),
            form_action: None,
        };
        let finished = Done {
            purpose: Purpose::Add,
            code: Some(hostile),
            next: Some(Next {
                href: hostile,
                destination: hostile,
            }),
        };
        for page in [
            landing(hostile, &about),
            done(hostile, &finished),
            failed(hostile, &Error::invalid(hostile)),
            prefetched(hostile),
            mailbox(hostile, &mails()),
        ] {
            let html = html(page).await;
            assert!(
                !html.contains("<script") && !html.contains("\"'>"),
                "{html}"
            );
        }
    }

    #[test]
    fn the_policy_lists_where_the_form_may_lead_unless_that_would_say_more() {
        for (source, written) in [
            (
                Some("https://app.example.org"),
                "form-action 'self' https://app.example.org;",
            ),
            (
                Some("io.example.app:"),
                "form-action 'self' io.example.app:;",
            ),
            (Some("https://a;script-src"), "form-action 'self';"),
            (Some("https://a,b"), "form-action 'self';"),
            (Some("https://a b"), "form-action 'self';"),
            (Some("https://a\r\nX: y"), "form-action 'self';"),
            (None, "form-action 'self';"),
        ] {
            let policy = policy(source);
            assert!(policy.to_str().unwrap().contains(written), "{policy:?}");
        }
    }

    #[test]
    fn a_limited_page_says_when_to_come_back() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (90_500, "91")] {
            let page = failed(
                APP,
                &Error::Limited {
                    retry_after: Duration::from_millis(millis),
                },
            );
            assert_eq!(header(&page, "retry-after"), seconds);
        }
    }

    #[tokio::test]
    async fn no_page_tells_what_only_the_log_should_know() {
        for error in [
            Error::Unavailable("disk full".to_owned()),
            Error::Internal("disk full".to_owned()),
        ] {
            assert!(!html(failed(APP, &error)).await.contains("disk full"));
        }
    }

    #[test]
    fn addresses_in_a_text_become_links() {
        use Piece::{Link, Words};
        for (text, wanted) in [
            ("", vec![Words("")]),
            ("no link", vec![Words("no link")]),
            (
                "a\nhttps://b.org/x\nc",
                vec![Words("a\n"), Link("https://b.org/x"), Words("\nc")],
            ),
            (
                "http://b.org",
                vec![Words(""), Link("http://b.org"), Words("")],
            ),
            ("javascript:x https:/", vec![Words("javascript:x https:/")]),
        ] {
            assert_eq!(pieces(text), wanted, "{text:?}");
        }
    }
}
