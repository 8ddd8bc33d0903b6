//! Whether the server lives, and whether it can work.

use axum::{
    Json, Router,
    extract::State,
    routing::{MethodRouter, get},
};
use serde_json::{Value, json};

use super::App;
use crate::{
    error::{Error, Result},
    threepid::Medium,
};

/// `GET /_threepid/health/live` and `/_threepid/health/ready` for the public, who learns no more than that it works.
pub(super) fn public_routes() -> Router<App> {
    routes(get(ready))
}

/// The same for the operator, with how deliveries go.
pub(super) fn internal_routes() -> Router<App> {
    routes(get(ready_with_details))
}

fn routes(ready: MethodRouter<App>) -> Router<App> {
    Router::new()
        .route("/_threepid/health/live", get(live))
        .route("/_threepid/health/ready", ready)
}

/// 200 as long as the process answers.
async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 if the store reads and writes, else 503.
async fn ready(State(app): State<App>) -> Result<Json<Value>> {
    check(&app).await?;
    Ok(Json(json!({ "status": "ok" })))
}

/// The same. A failing relay is told, but makes nothing unready: messages queue.
async fn ready_with_details(State(app): State<App>) -> Result<Json<Value>> {
    check(&app).await?;
    let backlog = app.validation.store.backlog().await?;
    let mut told = json!({ "status": "ok", "outbox": backlog });
    for deliveries in app.deliveries.iter() {
        let next_hop = match deliveries.medium {
            Medium::Email => "relay",
            Medium::Msisdn => "gateway",
        };
        told[next_hop] = json!(deliveries.health());
    }
    Ok(Json(told))
}

/// Whatever the store fails with, the server can not work.
async fn check(app: &App) -> Result<()> {
    let checked = app.validation.store.check().await;
    checked.map_err(|error| Error::Unavailable(error.to_string()))
}
