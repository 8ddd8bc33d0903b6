//! `requestToken` of the Client-Server API, for its three purposes.

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{
    error::Result,
    http::{
        App,
        extract::{Bearer, ClientOrigin, ClientSource, MatrixJson, Object},
    },
    next_link::{NextLink, NextLinkPolicy},
    secret::{AccessToken, ClientSecret},
    session::Purpose,
    source::Source,
    threepid::{Medium, Threepid},
    validation::{Opened, TokenRequest, Validate},
};

/// The answer of all `requestToken` endpoints (Client-Server API, `RequestTokenResponse`).
#[derive(Serialize)]
pub(crate) struct Reply {
    sid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit_url: Option<String>,
    #[serde(flatten)]
    number: Option<NumberReply>,
}

/// What clients show of a phone number. Not specified, but typed in matrix-js-sdk.
#[derive(Serialize)]
struct NumberReply {
    msisdn: String,
    intl_fmt: String,
    success: bool,
}

impl From<Opened> for Reply {
    fn from(opened: Opened) -> Self {
        Self {
            sid: opened.sid.to_string(),
            submit_url: opened.submit_url.map(String::from),
            number: opened.number.map(|number| NumberReply {
                msisdn: number.msisdn,
                intl_fmt: number.intl_fmt,
                success: true,
            }),
        }
    }
}

/// `POST /_matrix/client/v3/register/email/requestToken` (Client-Server API, "Account registration").
pub(crate) async fn register_email(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request(&app, Medium::Email, Purpose::Register, &body, source.0).await
}

/// `POST /_matrix/client/v3/account/password/email/requestToken` (Client-Server API, "Password management").
pub(crate) async fn password_email(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request(&app, Medium::Email, Purpose::Password, &body, source.0).await
}

/// `POST /_matrix/client/v3/account/3pid/email/requestToken` (Client-Server API, "Adding account administrative contact
/// information"). With an access token, which it does not ask for, the session serves that account alone.
pub(crate) async fn add_email(
    app: State<App>,
    source: ClientSource,
    asker: Asker,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    add(&app, Medium::Email, &body, source.0, &asker).await
}

/// `POST /_matrix/client/v3/register/msisdn/requestToken` (Client-Server API, "Account registration").
pub(crate) async fn register_msisdn(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request(&app, Medium::Msisdn, Purpose::Register, &body, source.0).await
}

/// `POST /_matrix/client/v3/account/password/msisdn/requestToken` (Client-Server API, "Password management"). Off unless
/// the operator turns it on.
pub(crate) async fn password_msisdn(
    app: State<App>,
    source: ClientSource,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    request(&app, Medium::Msisdn, Purpose::Password, &body, source.0).await
}

/// `POST /_matrix/client/v3/account/3pid/msisdn/requestToken` (Client-Server API, "Adding account administrative contact
/// information"). With an access token, which it does not ask for, the session serves that account alone.
pub(crate) async fn add_msisdn(
    app: State<App>,
    source: ClientSource,
    asker: Asker,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Reply>> {
    add(&app, Medium::Msisdn, &body, source.0, &asker).await
}

async fn request(
    app: &App,
    medium: Medium,
    purpose: Purpose,
    body: &Object,
    source: Source,
) -> Result<Json<Reply>> {
    let request = read(app, medium, purpose, body, source)?;
    if purpose == Purpose::Password {
        // Nobody needs a mail about what can not be done.
        app.account.check_password_change()?;
    }
    let opened = app.validation.request_token(request).await?;
    Ok(Json(opened.into()))
}

/// Whoever asks to add an address, if they say.
type Asker = (Bearer, ClientOrigin);

async fn add(
    app: &App,
    medium: Medium,
    body: &Object,
    source: Source,
    (Bearer(token), ClientOrigin(origin)): &Asker,
) -> Result<Json<Reply>> {
    let mut request = read(app, medium, Purpose::Add, body, source)?;
    if app.account.accounts.is_there() && token.is_some() {
        let (limiter, now) = (&app.validation.limiter, app.validation.clock.now());
        // Counted before the homeserver is asked, and once more with the request itself.
        limiter.count_request(source, now)?;
        let requester = app.account.requester(token.as_ref(), origin).await?;
        limiter.give_request_back(source);
        request.user_id = Some(requester.user_id);
    }
    let opened = app.validation.request_token(request).await?;
    Ok(Json(opened.into()))
}

/// Reads the body of a `requestToken`.
pub(in crate::http) fn read(
    app: &App,
    medium: Medium,
    purpose: Purpose,
    body: &Object,
    source: Source,
) -> Result<TokenRequest> {
    check_types(app, medium, purpose, body)?;
    let asked = match medium {
        Medium::Email => Asked::email(body),
        Medium::Msisdn => Asked::msisdn(body),
    };
    asked?.parse(purpose, &app.validation.settings.next_links, source)
}

/// That what names an identity server is text, where an identity server may be asked.
fn check_types(app: &App, medium: Medium, purpose: Purpose, body: &Object) -> Result<()> {
    let validate = app.validation.settings.of(medium).validates.of(purpose);
    if matches!(validate, Validate::ClientChoice | Validate::IdentityServer) {
        body.optional_string("id_server")?;
        body.optional_string("id_access_token")?;
    }
    Ok(())
}

/// Reads the body of an email `requestToken`, for hosts that bring their own HTTP.
///
/// # Errors
/// [`Error::NotJson`](crate::Error::NotJson), [`Error::BadJson`](crate::Error::BadJson),
/// [`Error::MissingParam`](crate::Error::MissingParam), [`Error::InvalidParam`](crate::Error::InvalidParam),
/// [`Error::InvalidAddress`](crate::Error::InvalidAddress).
pub fn read_email_request(
    purpose: Purpose,
    body: &[u8],
    next_links: &NextLinkPolicy,
    source: Source,
) -> Result<TokenRequest> {
    Asked::email(&Object::parse(body)?)?.parse(purpose, next_links, source)
}

/// Reads the body of a phone number's `requestToken`, for hosts that bring their own HTTP.
///
/// # Errors
/// As [`read_email_request`].
pub fn read_msisdn_request(
    purpose: Purpose,
    body: &[u8],
    next_links: &NextLinkPolicy,
    source: Source,
) -> Result<TokenRequest> {
    Asked::msisdn(&Object::parse(body)?)?.parse(purpose, next_links, source)
}

/// The values of a body: all there that must be, each of its type.
struct Asked<'a> {
    client_secret: &'a str,
    address: Address<'a>,
    send_attempt: i64,
    next_link: Option<&'a str>,
    id_server: Option<String>,
    id_access_token: Option<AccessToken>,
}

/// An address as it was typed.
enum Address<'a> {
    Email(&'a str),
    Msisdn {
        country: &'a str,
        phone_number: &'a str,
    },
}

impl<'a> Asked<'a> {
    fn email(body: &'a Object) -> Result<Self> {
        let client_secret = body.string("client_secret")?;
        let email = Address::Email(body.string("email")?);
        Self::read(body, client_secret, email)
    }

    fn msisdn(body: &'a Object) -> Result<Self> {
        let client_secret = body.string("client_secret")?;
        let number = Address::Msisdn {
            country: body.string("country")?,
            phone_number: body.string("phone_number")?,
        };
        Self::read(body, client_secret, number)
    }

    fn read(body: &'a Object, client_secret: &'a str, address: Address<'a>) -> Result<Self> {
        let id_access_token = body.lenient_string("id_access_token");
        Ok(Self {
            client_secret,
            address,
            send_attempt: body.count("send_attempt")?,
            next_link: body.optional_string("next_link")?,
            // Old clients send them always: where we validate, nothing about them is an error (MSC2263).
            id_server: body.lenient_string("id_server"),
            id_access_token: id_access_token.map(|token| AccessToken::given(&token)),
        })
    }

    fn parse(
        self,
        purpose: Purpose,
        next_links: &NextLinkPolicy,
        source: Source,
    ) -> Result<TokenRequest> {
        let client_secret = ClientSecret::parse(self.client_secret)?;
        let threepid = match self.address {
            Address::Email(email) => Threepid::email(email)?,
            Address::Msisdn {
                country,
                phone_number,
            } => Threepid::msisdn(country, phone_number)?,
        };
        let next_link = self.next_link.map(|link| NextLink::parse(link, next_links));
        Ok(TokenRequest {
            purpose,
            client_secret,
            threepid,
            send_attempt: self.send_attempt,
            next_link: next_link.transpose()?,
            id_server: self.id_server,
            id_access_token: self.id_access_token,
            source,
            user_id: None,
        })
    }
}
