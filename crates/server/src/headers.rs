//! The headers of every answer: a request id, the time it took, the API's version; and one log line.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::ids;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const VERSION: HeaderName = HeaderName::from_static("openai-version");
/// The version of the API that the official one still reports.
const API_VERSION: HeaderValue = HeaderValue::from_static("2020-10-01");
const MAX_REQUEST_ID_BYTES: usize = 512;

pub(crate) async fn add(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers().get(&REQUEST_ID));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let elapsed_ms = started.elapsed().as_millis() as u64;
    tracing::info!(id = id.to_str().unwrap_or_default(), %method, path, status = response.status().as_u16(), elapsed_ms);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(PROCESSING_MS, elapsed_ms.into());
    headers.insert(VERSION, API_VERSION);
    response
}

/// The client's own id if it is safe to repeat, or a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let safe = |id: &&HeaderValue| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    given.filter(safe).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&ids::unique("req_")).expect("hexadecimal digits are valid in a header")
    })
}
