//! Probes: is the process there, does it take requests, does it make progress.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use engine::{Health, State};
use serde_json::{Value, json};

use crate::app::App;

/// The process answers.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// New requests are welcome.
pub(super) async fn readyz(Shared(app): Shared<Arc<App>>) -> Response {
    report(app.engine.health(), |health| health.state == State::Ready && health.overdue.is_none())
}

/// The engine runs and makes progress; one that finishes its last requests is healthy.
pub(super) async fn health(Shared(app): Shared<Arc<App>>) -> Response {
    report(app.engine.health(), |health| health.state != State::Stopped && health.overdue.is_none())
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

fn report(health: Health, good: impl Fn(&Health) -> bool) -> Response {
    let status = if good(&health) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = match (health.overdue, health.state) {
        (Some(_), _) => "stalled",
        (None, State::Ready) => "ok",
        (None, State::Draining) => "draining",
        (None, State::Stopped) => "stopped",
    };
    let stalled_s = health.overdue.map(|age| age.as_secs_f64());
    (status, Json(json!({"status": word, "step_age_seconds": stalled_s}))).into_response()
}
