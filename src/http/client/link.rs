//! The page that a mailed link leads to.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::Response,
};

use crate::{
    error::{Error, Result},
    http::{App, extract::ClientSource, pages},
    next_link::NextLink,
    proof::Code,
    validation::{Validation, View, below},
};

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
/// mails can not validate an address.
pub(crate) async fn show(State(app): State<App>, LinkPath(link): LinkPath) -> Result<Response> {
    let view = app.validation.look_at_link(&link).await?;
    if view.session.validated_at.is_some() {
        return Ok(done_page(&app, &view));
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

/// `POST /_threepid/link/{link}`: the button. The link itself is the secret that keeps forged forms out.
pub(crate) async fn confirm(
    State(app): State<App>,
    LinkPath(link): LinkPath,
    source: ClientSource,
    headers: HeaderMap,
) -> Result<Response> {
    if is_from_elsewhere(&headers, &app.validation) {
        return Err(Error::CrossSite);
    }
    let view = app.validation.submit_link(&link, source.0).await?;
    Ok(done(&app, &view))
}

/// Where a person goes after a validation: on to a listed `next_link`, or to a page that names it.
pub(crate) fn done(app: &App, view: &View) -> Response {
    let listed = app.validation.settings.next_links.is_listed();
    let target = view
        .next_link
        .as_ref()
        .filter(|_| listed)
        .map(|link| link.with_sid(&view.session.told_sid()));
    match target.and_then(|target| HeaderValue::try_from(target).ok()) {
        Some(target) => pages::see_other(target),
        None => done_page(app, view),
    }
}

fn done_page(app: &App, view: &View) -> Response {
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
