//! Who may ask: one bearer token for every route but the probes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use crate::app::App;
use crate::error::ApiError;

/// Routes that a load balancer asks without a key.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/health"];

/// Which of the configured keys a request came with; `None` where there are none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub Option<usize>);

impl Caller {
    /// Prefixes are shared within one key only: how fast an answer comes must not tell what others asked.
    pub fn salt(self, client_salt: Option<String>) -> Option<String> {
        match self.0 {
            None => client_salt,
            Some(key) => Some(format!("{key}:{}", client_salt.unwrap_or_default())),
        }
    }
}

/// Refuses what carries no valid key, before a route or a body is looked at.
pub(crate) async fn check(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if !OPEN.contains(&request.uri().path()) {
        match caller(&app.config.api_keys, request.headers()) {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(error) => return error.into_response(),
        };
    }
    next.run(request).await
}

fn caller(keys: &[String], headers: &HeaderMap) -> Result<Caller, ApiError> {
    if keys.is_empty() {
        return Ok(Caller(None));
    }
    let header = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let token = header.and_then(bearer).ok_or_else(|| {
        ApiError::unauthorized("You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.")
    })?;
    let key = find(keys, token).ok_or_else(|| ApiError::unauthorized("Incorrect API key provided."))?;
    Ok(Caller(Some(key)))
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Looks at every key to the end, so that the time says nothing about how much of one was right.
fn find(keys: &[String], token: &[u8]) -> Option<usize> {
    let mut found = None;
    for (idx, key) in keys.iter().enumerate() {
        let equal: Choice = key.as_bytes().ct_eq(token);
        if bool::from(equal) {
            found = Some(idx);
        }
    }
    found
}
