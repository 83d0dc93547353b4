//! The served names. A name may hold slashes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let models: Vec<Value> = app.config.served_model_names.iter().map(|name| model(&app, name)).collect();
    Json(json!({"object": "list", "data": models}))
}

pub(super) async fn retrieve(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let name = app.model(Some(id))?;
    Ok(Json(model(&app, &name)))
}

/// `max_model_len` is an addition that clients of other servers read.
fn model(app: &App, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.created,
        "owned_by": "tokenmill",
        "max_model_len": app.engine.max_model_len(),
    })
}
