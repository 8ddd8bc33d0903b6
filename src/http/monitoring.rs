//! Whether the server lives, and whether it can work.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::App;
use crate::error::Error;

/// `GET /_threepid/health/live` and `/_threepid/health/ready`.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_threepid/health/live", get(live))
        .route("/_threepid/health/ready", get(ready))
}

/// 200 as long as the process answers.
async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 if the store reads and writes, else 503. A failing relay is told, but makes nothing unready: messages queue.
async fn ready(State(app): State<App>) -> Result<Json<Value>, Error> {
    app.validation.store.check().await?;
    let backlog = app.validation.store.backlog().await?;
    Ok(Json(
        json!({ "status": "ok", "outbox": backlog, "relay": app.deliveries.health() }),
    ))
}
