//! Who is found by which address.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::request::Parts,
};
use serde::Serialize;

use super::account::{Account, rules};
use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{ClientSource, LargeJson, Object, skip_large_body},
    },
    identity::lookup::Lookup,
    in_flight::Entered,
};

/// The answer of `hash_details`.
#[derive(Debug, Serialize)]
pub(crate) struct HashDetails {
    lookup_pepper: String,
    algorithms: Vec<&'static str>,
}

/// The answer of `lookup`.
#[derive(Debug, Serialize)]
pub(crate) struct Mappings {
    mappings: HashMap<String, String>,
}

/// `GET /_matrix/identity/v2/hash_details` (Identity Service API, "Association lookup").
pub(crate) async fn hash_details(app: State<App>, _: Account) -> Result<Json<HashDetails>> {
    let rules = rules(&app)?;
    Ok(Json(HashDetails {
        lookup_pepper: rules.pepper().await?.value,
        algorithms: rules.algorithms().collect(),
    }))
}

/// `POST /_matrix/identity/v2/lookup` (Identity Service API, "Association lookup").
pub(crate) async fn look_up(
    app: State<App>,
    ClientSource(source): ClientSource,
    Asked(account, mut body): Asked,
) -> Result<Json<Mappings>> {
    let lookup = Lookup {
        algorithm: body.string("algorithm")?.to_owned(),
        pepper: body.string("pepper")?.to_owned(),
        addresses: body.take_strings("addresses")?,
    };
    let looking = rules(&app)?.look_up(&account.user_id, source, lookup);
    let mappings = looking.await?;
    Ok(Json(Mappings { mappings }))
}

/// Who asks, and what. The body is large and is sent for a while: who is refused is told when it has come.
pub(crate) struct Asked(Account, Object);

impl FromRequest<App> for Asked {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        match admit(&mut parts, app).await {
            Ok((account, _reading)) => {
                let request = Request::from_parts(parts, body);
                let LargeJson(body) = LargeJson::from_request(request, app).await?;
                Ok(Self(account, body))
            }
            Err(refused) => {
                skip_large_body(body).await;
                Err(refused)
            }
        }
    }
}

/// Who asks, and leave to read what: one account's bodies that do not come must not take all turns.
async fn admit<'a>(
    parts: &mut Parts,
    app: &'a App,
) -> Result<(Account, Option<Entered<'a, String>>)> {
    let account = Account::from_request_parts(parts, app).await?;
    let reading = app.validation.limiter.begin_lookup(&account.user_id)?;
    Ok((account, reading))
}
