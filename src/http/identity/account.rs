//! Whose request it is.

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{Bearer, ClientSource},
    },
    identity::IdentityRules,
    secret::AccessToken,
};

/// The access token of a request, whosever it is.
#[derive(Clone, Debug)]
pub(crate) struct Token(pub(crate) AccessToken);

impl FromRequestParts<App> for Token {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        token(parts, app).await.map(Self)
    }
}

/// The user of a request, who has accepted the terms.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) user_id: String,
}

impl FromRequestParts<App> for Account {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let token = token(parts, app).await?;
        let Ok(ClientSource(source)) = ClientSource::from_request_parts(parts, app).await;
        let user_id = rules(app)?.account(&token, source).await?;
        Ok(Self { user_id })
    }
}

/// The user of a request, whatever they have accepted.
#[derive(Clone, Debug)]
pub(crate) struct AccountBeforeTerms {
    pub(crate) user_id: String,
}

impl FromRequestParts<App> for AccountBeforeTerms {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let token = token(parts, app).await?;
        let Ok(ClientSource(source)) = ClientSource::from_request_parts(parts, app).await;
        let account = rules(app)?.account_before_terms(&token, source).await?;
        Ok(Self {
            user_id: account.user_id,
        })
    }
}

/// The rules of the identity server; its routes are there with them alone.
pub(crate) fn rules(app: &App) -> Result<&IdentityRules> {
    app.identity.as_deref().ok_or(Error::Unrecognized)
}

/// The path whose query may have the access token always. Synapse shows it nowhere else there when somebody is invited by an
/// address, and whom it cannot find so it cannot invite: an address that is bound has no invitations.
const WITH_TOKEN_IN_QUERY: &str = "/_matrix/identity/v2/hash_details";

/// The access token of a request: from the header, or from the query where the operator takes what the API had before 2019.
pub(crate) async fn token(parts: &mut Parts, app: &App) -> Result<AccessToken> {
    let Ok(Bearer(token)) = Bearer::from_request_parts(parts, app).await;
    let from_query = || {
        let is_taken = legacy(app) || parts.uri.path() == WITH_TOKEN_IN_QUERY;
        let query = parts.uri.query().filter(|_| is_taken)?;
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let (_, token) = pairs.find(|(key, _)| key == "access_token")?;
        AccessToken::parse(&token).ok()
    };
    token.or_else(from_query).ok_or(Error::Unauthorized)
}

/// Whether what the API had before 2019 is taken.
pub(crate) fn legacy(app: &App) -> bool {
    app.identity
        .as_ref()
        .is_some_and(|rules| rules.settings.legacy)
}
