//! A stage of `account/password` or of `register` on a page of ours, for clients that do not know it.

use axum::{
    extract::{FromRequestParts, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, request::Parts},
    response::Response,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::link::is_from_elsewhere;
use crate::{
    account::fallback::{PageOf, Step},
    error::{Dialect, Error, Result},
    http::{
        App,
        extract::ClientSource,
        form::Form,
        pages::{
            self,
            fallback::{Fallback, Message, View},
        },
        respond,
    },
    phone,
    source::Source,
    threepid::{Medium, Threepid},
};

/// Stands for the country of a number that begins with `+`, which names its own.
const ANY_COUNTRY: &str = "GB";

/// What stands in a page's query.
pub(crate) struct Asked {
    session: Option<String>,
    /// Whether another message is wanted.
    again: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let pairs = query.map(|Query(pairs)| pairs).unwrap_or_default();
        let value = |name: &str| {
            let found = pairs.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        Ok(Self {
            session: value("session"),
            again: value("again").is_some(),
        })
    }
}

/// `GET /_matrix/client/v3/auth/m.login.email.identity/fallback/web` (Client-Server API, "Fallback"): the page as far as
/// it has come. Changes nothing.
pub(crate) async fn show_email(
    app: State<App>,
    asked: Asked,
    source: ClientSource,
) -> Result<Response> {
    show(&app, Medium::Email, &asked, source.0).await
}

/// `GET /_matrix/client/v3/auth/m.login.msisdn/fallback/web` (Client-Server API, "Fallback"): the same for phone numbers.
pub(crate) async fn show_msisdn(
    app: State<App>,
    asked: Asked,
    source: ClientSource,
) -> Result<Response> {
    show(&app, Medium::Msisdn, &asked, source.0).await
}

/// `POST /_matrix/client/v3/auth/m.login.email.identity/fallback/web` (Client-Server API, "Fallback"): its forms. They ask
/// for a message, show its code, or say that its link was opened.
pub(crate) async fn post_email(
    app: State<App>,
    asked: Asked,
    source: ClientSource,
    headers: HeaderMap,
    form: Form,
) -> Result<Response> {
    post(&app, Medium::Email, &asked, source, (&headers, &form)).await
}

/// `POST /_matrix/client/v3/auth/m.login.msisdn/fallback/web` (Client-Server API, "Fallback"): the same for phone numbers.
pub(crate) async fn post_msisdn(
    app: State<App>,
    asked: Asked,
    source: ClientSource,
    headers: HeaderMap,
    form: Form,
) -> Result<Response> {
    post(&app, Medium::Msisdn, &asked, source, (&headers, &form)).await
}

/// A page that may be shown.
struct Opened {
    page: PageOf,
    /// Whether it is where the app that began it is.
    takes_codes: bool,
}

async fn show(app: &App, medium: Medium, asked: &Asked, source: Source) -> Result<Response> {
    match open(app, medium, asked, source).await? {
        Ok(opened) => page(app, medium, &opened, asked.again, None).await,
        Err(gone) => Ok(gone),
    }
}

async fn post(
    app: &App,
    medium: Medium,
    asked: &Asked,
    source: ClientSource,
    (headers, form): (&HeaderMap, &Form),
) -> Result<Response> {
    if is_from_elsewhere(headers, &app.validation) {
        return Err(Error::CrossSite);
    }
    let opened = match open(app, medium, asked, source.0).await? {
        Ok(opened) => opened,
        Err(gone) => return Ok(gone),
    };
    match act(app, medium, &opened, form, source.0).await {
        Ok(()) => Ok(pages::see_other(here(&opened.page))),
        Err(error) => {
            let (status, _) = error.wire(Dialect::Page);
            respond::log_cause(&error, status);
            let is_address = form.value("step") == Some("address");
            page(app, medium, &opened, is_address, Some(&error)).await
        }
    }
}

/// Does what a form asks for.
async fn act(
    app: &App,
    medium: Medium,
    opened: &Opened,
    form: &Form,
    source: Source,
) -> Result<()> {
    let Opened { page, takes_codes } = opened;
    match form.value("step") {
        Some("address") if !*takes_codes && !has_link(app, medium) => Err(elsewhere()),
        Some("address") => app.account.ask(page, typed(medium, form)?, source).await,
        Some("code") if !*takes_codes => Err(elsewhere()),
        Some("code") => {
            let code = form.value("code").unwrap_or_default();
            app.account.show_code(page, medium, code, source).await
        }
        Some("opened") => match app.account.step(page, medium).await? {
            Step::Message(_) => Err(Error::SessionNotValidated),
            Step::Address | Step::Done => Ok(()),
        },
        _ => Err(Error::invalid("The form is not one of this page.")),
    }
}

fn has_link(app: &App, medium: Medium) -> bool {
    medium == Medium::Email && app.validation.settings.of(medium).contents.has_link()
}

/// What is told where no code is taken.
fn elsewhere() -> Error {
    Error::Forbidden(
        "Your app began this in another network. Open this page on the device on which the app runs, or in the same network."
            .into(),
    )
}

/// The address that was typed.
fn typed(medium: Medium, form: &Form) -> Result<Threepid> {
    let field = |name| form.value(name).unwrap_or_default().trim();
    match medium {
        Medium::Email => Threepid::email(field("email")),
        Medium::Msisdn => {
            let number = field("phone_number");
            let country = match field("country") {
                "" if number.starts_with('+') => ANY_COUNTRY.to_owned(),
                country => country.to_ascii_uppercase(),
            };
            Threepid::msisdn(&country, number)
        }
    }
}

/// The page of the session that the query names; or the one that says that there is none.
async fn open(
    app: &App,
    medium: Medium,
    asked: &Asked,
    source: Source,
) -> Result<Result<Opened, Response>> {
    let named = asked.session.as_deref();
    if let (Some(session), Some(rules)) = (named, &app.registration)
        && let Some((page, takes_codes)) = rules.page_of(session, medium, source).await?
    {
        return Ok(Ok(Opened { page, takes_codes }));
    }
    app.account.check_password_change()?;
    if !app.account.opens_resets(medium) {
        return Err(Error::MediumNotSupported);
    }
    let session = named.and_then(|text| app.account.read_session(text));
    let opened = session.map(|session| Opened {
        page: PageOf::reset(&session),
        takes_codes: app.account.takes_codes(&session, source),
    });
    Ok(opened.ok_or_else(|| {
        let gone = Fallback {
            medium,
            purpose: None,
            view: View::Gone,
            error: None,
        };
        let mut gone = pages::fallback::fallback(&app.name, &gone);
        if named.is_none() {
            *gone.status_mut() = StatusCode::BAD_REQUEST;
        }
        gone
    }))
}

async fn page(
    app: &App,
    medium: Medium,
    opened: &Opened,
    again: bool,
    error: Option<&Error>,
) -> Result<Response> {
    let step = app.account.step(&opened.page, medium).await?;
    let view = match step {
        Step::Done => View::Done,
        Step::Address => View::Address,
        Step::Message(_) if again => View::Address,
        Step::Message(to) => {
            let contents = app.validation.settings.of(medium).contents;
            View::Message(Message {
                to: readable(&to),
                has_link: has_link(app, medium),
                has_code: contents.has_code() && opened.takes_codes,
                session: encoded(&opened.page),
            })
        }
    };
    // What is done needs no word about a form that failed.
    let error = error.filter(|_| !matches!(view, View::Done));
    let about = Fallback {
        medium,
        purpose: Some(opened.page.purpose),
        view,
        error,
    };
    Ok(pages::fallback::fallback(&app.name, &about))
}

fn readable(to: &Threepid) -> String {
    match to.medium() {
        Medium::Email => to.address().to_owned(),
        Medium::Msisdn => phone::facts(to.address()).international,
    }
}

/// The page itself, whatever stands before its path.
fn here(page: &PageOf) -> HeaderValue {
    HeaderValue::try_from(format!("web?session={}", encoded(page)))
        .expect("what is percent-encoded is visible ASCII")
}

/// The session as it stands in a query. That of a registration is the homeserver's, who may have put anything in it.
fn encoded(page: &PageOf) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(&page.session, PLAIN).to_string()
}
