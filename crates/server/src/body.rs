//! Reading a request's body within the server's patience and memory.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::config::ServerConfig;
use crate::error::ApiError;

/// How long a body that is too large is read and thrown away: a client that still writes would see its connection
/// reset instead of the reason.
const DISCARD: Duration = Duration::from_secs(1);

/// The whole body of a JSON request.
pub(crate) async fn read(request: Request, config: &ServerConfig) -> Result<Vec<u8>, ApiError> {
    check_media_type(request.headers())?;
    let limit = config.timeouts.read_body;
    let announced = announced_length(request.headers());
    let body = request.into_body();
    if announced > config.max_body_bytes as u64 {
        return Err(too_large(body, config).await);
    }
    match tokio::time::timeout(limit, collect(body, config)).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::body_timeout(limit)),
    }
}

async fn collect(mut body: Body, config: &ServerConfig) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::malformed("the body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > config.max_body_bytes {
            return Err(too_large(body, config).await);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn too_large(mut body: Body, config: &ServerConfig) -> ApiError {
    let discard = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD.min(config.timeouts.read_body), discard).await;
    ApiError::body_too_large(config.max_body_bytes)
}

/// A request without a content type is taken at its word.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(given.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    Err(ApiError::media_type(&text))
}

/// 0 where nothing is announced; the bytes are counted in any case.
fn announced_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(0)
}
