//! Who is found by which address.

use std::collections::HashMap;

use axum::{Json, extract::State};
use serde::Serialize;

use super::account::{Account, rules};
use crate::{
    error::Result,
    http::{
        App,
        extract::{ClientSource, LargeJson},
    },
    identity::lookup::Lookup,
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

/// `GET /_matrix/identity/v2/hash_details`
pub(crate) async fn hash_details(app: State<App>, _: Account) -> Result<Json<HashDetails>> {
    let rules = rules(&app)?;
    Ok(Json(HashDetails {
        lookup_pepper: rules.pepper().await?.value,
        algorithms: rules.algorithms().collect(),
    }))
}

/// `POST /_matrix/identity/v2/lookup`
pub(crate) async fn look_up(
    app: State<App>,
    account: Account,
    ClientSource(source): ClientSource,
    LargeJson(mut body): LargeJson,
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
