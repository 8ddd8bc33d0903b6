//! The pages on which a person who got the mail sets a new password on the spot.

use askama::Template;
use axum::response::Response;
use http::{StatusCode, header::RETRY_AFTER};

use super::{STYLE, shown, whole_seconds};
use crate::{
    error::{Dialect, Error},
    password::PasswordPolicy,
};

/// The page that takes a new password. What was typed is never on it.
#[derive(Debug)]
pub(crate) struct Finish<'a> {
    /// The whole address: who holds the link reads its mails.
    pub(crate) address: &'a str,
    pub(crate) account: &'a str,
    /// What a password needs, as far as it is known.
    pub(crate) policy: Option<PasswordPolicy>,
    /// Whether all devices are to be logged out.
    pub(crate) logout_devices: bool,
    /// What went wrong the last time.
    pub(crate) problem: Option<Problem>,
    /// Where the answer to the second form may redirect to: `NextLink::form_action`.
    pub(crate) form_action: Option<&'a str>,
}

/// What went wrong with a form, for the form that is shown again.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// What happened, in some words.
    pub(crate) what: &'static str,
    /// Why, and what to do.
    pub(crate) why: String,
    /// Whether it is about what was typed.
    pub(crate) is_about_password: bool,
    retry_after: Option<std::time::Duration>,
}

impl Problem {
    /// The two fields do not hold the same.
    pub(crate) fn not_the_same() -> Self {
        Self::typed("The two passwords are not the same. Type the new password twice.")
    }

    /// A form that says nothing of what is wanted.
    pub(crate) fn nothing_chosen() -> Self {
        let why = "Type a new password and press the first button. The second one is for going on in your app.";
        Self {
            is_about_password: false,
            ..Self::typed(why)
        }
    }

    fn typed(why: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            what: "Your password is not changed yet",
            why: why.into(),
            is_about_password: true,
            retry_after: None,
        }
    }

    /// What a person can do about an error by sending the form again; `None` if that would not help.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let again = |why: &str| Self {
            status: error.wire(Dialect::Page).0,
            is_about_password: false,
            ..Self::typed(why)
        };
        Some(match error {
            Error::WeakPassword(why) => Self::typed(why.clone()),
            Error::InvalidParam(_) => {
                Self::typed("The new password is too long. Take a shorter one.")
            }
            Error::HomeserverFailed(_) => again(
                "The homeserver does not answer as it should. Nothing is lost: this page still works. Wait a minute, \
                 type the new password once more, and press the button.",
            ),
            Error::HomeserverTimeout(_) | Error::Unavailable(_) | Error::Internal(_) => Self {
                what: "Perhaps your password is changed, perhaps not",
                ..again(
                    "The server did not answer in time. Nothing is lost: this page still works. Wait a minute, type the \
                     same new password once more, and press the button.",
                )
            },
            Error::ProofHeld => again(
                "A new password is being set on this page already. Wait a minute, then load the page again. If it still \
                 asks for a password, type the very same one once more; for another one, ask for a new mail.",
            ),
            Error::Limited { retry_after } => Self {
                retry_after: Some(*retry_after),
                ..again(
                    "There were too many tries in a short time. Wait some minutes, then try again.",
                )
            },
            _ => return None,
        })
    }
}

#[derive(Template)]
#[template(path = "pages/finish.html")]
struct FinishPage<'a> {
    app_name: &'a str,
    finish: &'a Finish<'a>,
    demands: String,
    least: Option<u32>,
    /// The identifiers of what explains the fields.
    explained_by: &'a str,
}

#[derive(Template)]
#[template(path = "pages/changed.html")]
struct ChangedPage<'a> {
    app_name: &'a str,
    before: bool,
}

#[derive(Template)]
#[template(path = "pages/handed_over.html")]
struct HandedOverPage<'a> {
    app_name: &'a str,
}

/// The page that takes a new password: it changes nothing, and both its buttons post to the same URL.
pub(crate) fn finish(app_name: &str, finish: &Finish<'_>) -> Response {
    let demands = finish.policy.map(|policy| policy.demands());
    let demands = demands.unwrap_or_default();
    let is_wrong = finish
        .problem
        .as_ref()
        .is_some_and(|problem| problem.is_about_password);
    let page = FinishPage {
        app_name,
        finish,
        explained_by: match (demands.is_empty(), is_wrong) {
            (true, false) => "",
            (true, true) => "problem",
            (false, false) => "demands",
            (false, true) => "problem demands",
        },
        demands,
        least: finish
            .policy
            .map(|policy| policy.minimum_length)
            .filter(|least| *least > 0),
    };
    let problem = finish.problem.as_ref();
    let status = problem.map_or(StatusCode::OK, |problem| problem.status);
    let mut response = shown(status, &page, finish.form_action);
    if let Some(wait) = problem.and_then(|problem| problem.retry_after) {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, whole_seconds(wait));
    }
    response
}

/// The page after the password is set; or, with `before`, after a link that had set one before.
pub(crate) fn changed(app_name: &str, before: bool) -> Response {
    let page = ChangedPage { app_name, before };
    shown(StatusCode::OK, &page, None)
}

/// The page for a new password that came too late: the app that asked has the reset.
pub(crate) fn handed_over(app_name: &str) -> Response {
    let page = HandedOverPage { app_name };
    shown(StatusCode::CONFLICT, &page, None)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::tests::{APP, header, html};
    use super::*;

    const POLICY: PasswordPolicy = PasswordPolicy {
        minimum_length: 10,
        require_digit: true,
        require_symbol: false,
        require_lowercase: false,
        require_uppercase: false,
    };

    fn plain() -> Finish<'static> {
        Finish {
            address: "alice@example.com",
            account: "@alice:example.org",
            policy: None,
            logout_devices: true,
            problem: None,
            form_action: None,
        }
    }

    fn after(error: &Error) -> Finish<'static> {
        Finish {
            problem: Problem::of(error),
            policy: Some(POLICY),
            ..plain()
        }
    }

    pub(in crate::http::pages) fn pages() -> Vec<(String, Response)> {
        let limited = Error::Limited {
            retry_after: Duration::from_mins(2),
        };
        let mut pages = vec![
            ("finish".to_owned(), finish(APP, &plain())),
            (
                "finish_with_policy".to_owned(),
                finish(
                    APP,
                    &Finish {
                        policy: Some(POLICY),
                        ..plain()
                    },
                ),
            ),
            (
                "finish_not_the_same".to_owned(),
                finish(
                    APP,
                    &Finish {
                        problem: Some(Problem::not_the_same()),
                        logout_devices: false,
                        ..plain()
                    },
                ),
            ),
            ("changed".to_owned(), changed(APP, false)),
            ("changed_before".to_owned(), changed(APP, true)),
            ("handed_over".to_owned(), handed_over(APP)),
        ];
        for (name, error) in [
            ("weak", Error::WeakPassword("It needs a digit.".into())),
            ("failed", Error::HomeserverFailed("x".to_owned())),
            ("timeout", Error::HomeserverTimeout("x".to_owned())),
            ("held", Error::ProofHeld),
            ("limited", limited),
        ] {
            let page = finish(APP, &after(&error));
            pages.push((format!("finish_{name}"), page));
        }
        pages
    }

    #[tokio::test]
    async fn a_field_points_to_what_is_wrong_with_it() {
        let page = html(finish(APP, &after(&Error::WeakPassword("weak".into())))).await;
        for part in [
            "id=\"problem\" role=\"alert\"",
            "aria-describedby=\"problem demands\"",
            "aria-invalid=\"true\"",
            "autofocus",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let page = html(finish(APP, &plain())).await;
        assert!(!page.contains("aria-invalid=") && !page.contains("id=\"problem\""));
    }

    #[tokio::test]
    async fn every_field_has_its_label() {
        let page = html(finish(APP, &plain())).await;
        for id in ["account", "new", "again", "logout"] {
            assert!(page.contains(&format!("<label for=\"{id}\"")), "{id}");
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[tokio::test]
    async fn hostile_values_stay_text() {
        let hostile = "\"'><script>alert(1)</script>";
        let about = Finish {
            address: hostile,
            account: hostile,
            ..after(&Error::WeakPassword(hostile.into()))
        };
        let page = html(finish(hostile, &about)).await;
        assert!(
            !page.contains("<script") && !page.contains("\"'>"),
            "{page}"
        );
    }

    #[test]
    fn a_limited_form_says_when_to_come_back() {
        let limited = Error::Limited {
            retry_after: Duration::from_secs(90),
        };
        let page = finish(APP, &after(&limited));
        assert_eq!(page.status(), 429);
        assert_eq!(header(&page, "retry-after"), "90");
    }
}
