//! The one error type of the HTTP surface and its JSON; never carries internals to a client.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{RequestError, SubmitError};
use serde_json::{Value, json};

/// A refusal or failure, as `{"error": {message, type, param, code}}` with its status and retry headers.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry: Retry,
}

#[derive(Clone, Copy, Debug)]
enum Retry {
    /// The status says all there is to say.
    Unsaid,
    After(Duration),
    Never,
}

const INVALID_REQUEST: &str = "invalid_request_error";

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind: INVALID_REQUEST, code: Some(code), param: None, message, retry: Retry::Unsaid }
    }

    fn param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The body is not JSON, or not an object.
    pub fn malformed(reason: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", format!("The JSON body could not be parsed: {reason}."))
    }

    pub fn invalid_type(param: &str, expected: &str, given: &str) -> Self {
        let message = format!("Invalid type for '{param}': expected {expected}, but got {given} instead.");
        Self::new(StatusCode::BAD_REQUEST, "invalid_type", message).param(param)
    }

    pub fn invalid_value(param: &str, reason: impl std::fmt::Display) -> Self {
        let message = format!("Invalid value for '{param}': {reason}.");
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).param(param)
    }

    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::new(StatusCode::BAD_REQUEST, "missing_required_parameter", message).param(param)
    }

    pub fn unsupported(param: &str, reason: impl std::fmt::Display) -> Self {
        let message = format!("Unsupported parameter: '{param}' {reason}.");
        Self::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message).param(param)
    }

    pub fn unknown_param(param: &str) -> Self {
        let message = format!("Unknown parameter: '{param}'.");
        Self::new(StatusCode::BAD_REQUEST, "unknown_parameter", message).param(param)
    }

    pub fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub fn model_not_found(model: &str) -> Self {
        let message = format!("The model '{}' does not exist.", excerpt(model));
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
    }

    pub fn unknown_route(method: &axum::http::Method, path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_url", format!("Unknown URL: {method} {}.", excerpt(path)))
    }

    pub fn method_not_allowed(method: &axum::http::Method, path: &str) -> Self {
        let message = format!("{method} is not allowed on {}; see the Allow header.", excerpt(path));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_supported", message)
    }

    pub fn body_timeout(limit: Duration) -> Self {
        let message = format!("The body did not arrive within {} s.", limit.as_secs_f32());
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {limit} bytes, which is this server's limit.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub fn media_type(given: &str) -> Self {
        let message = format!("Unsupported content type '{}': send application/json.", excerpt(given));
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    fn overloaded(message: String, after: Duration) -> Self {
        Self {
            kind: "requests",
            retry: Retry::After(after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
        }
    }

    fn unavailable(message: String, retry: Retry) -> Self {
        Self {
            kind: "service_unavailable_error",
            retry,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_is_overloaded", message)
        }
    }

    /// Our own mistake; the log has the story.
    pub fn internal() -> Self {
        Self::failed("The server had an error while processing your request.".into())
    }

    fn failed(message: String) -> Self {
        Self { kind: "server_error", ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message) }
    }

    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl ApiError {
    /// `prompt_param` is what this route calls the prompt.
    pub fn refused(error: SubmitError, prompt_param: &str) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Invalid { param, .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).param(param)
            }
            SubmitError::ContextLength { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message).param(prompt_param)
            }
            SubmitError::Overloaded { retry_after, .. } => Self::overloaded(message, retry_after),
            SubmitError::Draining => Self::unavailable(message, Retry::After(Duration::from_secs(1))),
            SubmitError::Stopped => Self::unavailable(message, Retry::Never),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::failed(error.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.retry {
            Retry::Unsaid => {}
            Retry::After(after) => {
                headers.insert(header::RETRY_AFTER, (after.as_millis().div_ceil(1000).max(1) as u64).into());
                headers.insert(HeaderName::from_static("retry-after-ms"), (after.as_millis() as u64).into());
            }
            Retry::Never => {
                headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
            }
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A client's own text, short enough to repeat to it.
pub(crate) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
