//! The page that a mailed link leads to.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::Response,
};

use crate::{
    account::password::{Finished, Wanted},
    error::{Error, Result},
    http::{
        App,
        extract::ClientSource,
        form::Form,
        pages::{self, reset::Problem},
        respond,
    },
    next_link::NextLink,
    password::NewPassword,
    proof::Code,
    session::{Purpose, Session},
    source::Source,
    validation::{Validation, View, below},
};

/// How long the page waits for what a password needs. It is a help: without it the answer to the form says so.
const POLICY_TIME: Duration = Duration::from_secs(1);

/// The link in a path. What is no text is no link of ours.
pub(crate) struct LinkPath(String);

impl<S: Send + Sync> FromRequestParts<S> for LinkPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        read.map(|Path(link)| Self(link))
            .map_err(|_| Error::NoValidSession)
    }
}

/// `GET` and `HEAD /_threepid/link/{link}`: says what will happen. Changes nothing, so that scanners and previews of
/// mails can not validate an address, or reset a password.
pub(crate) async fn show(State(app): State<App>, LinkPath(link): LinkPath) -> Result<Response> {
    let view = app.validation.look_at_link(&link).await?;
    if !is_open(&view.session) {
        return Ok(done_page(&app, &view));
    }
    if app.account.finishes(&view.session) {
        return Ok(finish_page(&app, &view, true, None).await);
    }
    let form_action = form_action(&app.validation, &view);
    let landing = pages::Landing {
        purpose: view.session.purpose,
        address: view.session.threepid.address(),
        account: view.session.user_id.as_deref(),
        form_action: form_action.as_deref(),
    };
    Ok(pages::landing(&app.name, &landing))
}

/// `POST /_threepid/link/{link}`: the button, or a new password. The link itself is the secret that keeps forged forms out.
///
/// With `new_password` the password is set here, and the proof goes to nobody else; without it the session is validated,
/// for whoever asked.
pub(crate) async fn confirm(
    State(app): State<App>,
    LinkPath(link): LinkPath,
    source: ClientSource,
    headers: HeaderMap,
    form: Form,
) -> Result<Response> {
    if is_from_elsewhere(&headers, &app.validation) {
        return Err(Error::CrossSite);
    }
    if let Some(new) = form.value("new_password") {
        return finish(&app, &link, new, &form, source.0).await;
    }
    if form.value("continue") != Some("app") {
        // Nothing else may hand a reset over where a person can choose.
        let view = app.validation.look_at_link(&link).await?;
        if !is_open(&view.session) {
            return Ok(done_page(&app, &view));
        }
        if app.account.finishes(&view.session) {
            let problem = Some(Problem::nothing_chosen());
            return Ok(finish_page(&app, &view, true, problem).await);
        }
        if !form.is_empty() {
            return Err(Error::invalid(
                "The form has neither new_password nor continue.",
            ));
        }
    }
    match app.validation.submit_link(&link, source.0).await {
        Ok(view) => Ok(done(&app, &view)),
        Err(Error::SessionExpired) => begun(&app, &link).await,
        Err(error) => Err(error),
    }
}

/// Whether nobody has proved, or used, anything by it yet.
fn is_open(session: &Session) -> bool {
    session.validated_at.is_none() && session.taken_at.is_none()
}

/// A session that could not be handed over: it is over, or the page has begun to set a password, and it may have done so.
async fn begun(app: &App, link: &str) -> Result<Response> {
    let view = app.validation.look_at_link(link).await?;
    let problem = Problem::of(&Error::ProofHeld);
    Ok(finish_page(app, &view, true, problem).await)
}

/// Sets the password that was typed, or shows the form again with what is wrong.
async fn finish(app: &App, link: &str, new: &str, form: &Form, source: Source) -> Result<Response> {
    let validation = &app.validation;
    validation
        .limiter
        .count_submission(source, validation.clock.now())?;
    let view = validation.look_at_link(link).await?;
    if view.session.taken_at.is_some() {
        return Ok(pages::reset::changed(&app.name, true));
    }
    if view.session.validated_at.is_some() {
        return Ok(pages::reset::handed_over(&app.name));
    }
    if !app.account.finishes(&view.session) {
        let why = "New passwords are not set on this page any more. Open the link again, and go on in your app.";
        return Err(Error::Forbidden(why.into()));
    }
    let logout_devices = form
        .value("logout_devices")
        .is_some_and(|chosen| chosen != "false");
    if form.value("new_password_again") != Some(new) {
        let problem = Some(Problem::not_the_same());
        return Ok(finish_page(app, &view, logout_devices, problem).await);
    }
    let finished = match NewPassword::parse(new) {
        Ok(new) => {
            let wanted = Wanted {
                new,
                logout_devices,
            };
            app.account.finish(&view, wanted, source).await
        }
        Err(error) => Err(error),
    };
    let error = match finished {
        Ok(Finished::Now) => return Ok(pages::reset::changed(&app.name, false)),
        Ok(Finished::Before) => return Ok(pages::reset::changed(&app.name, true)),
        Ok(Finished::HandedOver) => return Ok(pages::reset::handed_over(&app.name)),
        Err(error) => error,
    };
    let Some(problem) = Problem::of(&error) else {
        return Err(error);
    };
    respond::log_cause(&error, problem.status);
    Ok(finish_page(app, &view, logout_devices, Some(problem)).await)
}

/// The page that takes a new password, with what the homeserver demands of one if it says so at once.
async fn finish_page(
    app: &App,
    view: &View,
    logout_devices: bool,
    problem: Option<Problem>,
) -> Response {
    let policy = tokio::time::timeout(POLICY_TIME, app.account.accounts.password_policy()).await;
    let form_action = form_action(&app.validation, view);
    let page = pages::reset::Finish {
        address: view.session.threepid.address(),
        account: view.session.user_id.as_deref().unwrap_or_default(),
        policy: policy.ok().and_then(Result::ok),
        logout_devices,
        problem,
        form_action: form_action.as_deref(),
    };
    pages::reset::finish(&app.name, &page)
}

/// Where a person goes after a validation: on to a listed `next_link`, or to a page that names it.
pub(crate) fn done(app: &App, view: &View) -> Response {
    let listed = app.validation.settings.next_links.is_listed();
    let target = view
        .next_link
        .as_ref()
        .filter(|_| listed && !is_reset(view))
        .map(|link| link.with_sid(&view.session.told_sid()));
    match target.and_then(|target| HeaderValue::try_from(target).ok()) {
        Some(target) => pages::see_other(target),
        None => done_page(app, view),
    }
}

/// Whether the password is set already: then the app that asked has nothing to go on with.
fn is_reset(view: &View) -> bool {
    view.session.purpose == Purpose::Password && view.session.taken_at.is_some()
}

fn done_page(app: &App, view: &View) -> Response {
    if is_reset(view) {
        return pages::reset::changed(&app.name, false);
    }
    let next = view
        .next_link
        .as_ref()
        .map(|link| (link.destination(), link.with_sid(&view.session.told_sid())));
    pages::done(
        &app.name,
        &pages::Done {
            purpose: view.session.purpose,
            code: view.code.as_ref().map(Code::reveal),
            next: next
                .as_ref()
                .map(|(destination, href)| pages::Next { href, destination }),
        },
    )
}

/// Chromium applies `form-action` to the redirect after a form too.
fn form_action(validation: &Validation, view: &View) -> Option<String> {
    let listed = validation.settings.next_links.is_listed();
    view.next_link
        .as_ref()
        .filter(|_| listed)
        .map(NextLink::form_action)
}

/// Whether a form was sent from another page than ours. An absent or `null` origin is ours: `no-referrer` makes it so.
pub(super) fn is_from_elsewhere(headers: &HeaderMap, validation: &Validation) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let cross_site = matches!(
        text("sec-fetch-site"),
        Some("cross-site" | "same-site" | "?")
    );
    let ours = below(&validation.settings.public_url, "")
        .origin()
        .ascii_serialization();
    let foreign_origin =
        text(header::ORIGIN.as_str()).is_some_and(|origin| origin != "null" && origin != ours);
    cross_site || foreign_origin
}
