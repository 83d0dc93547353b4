//! GET with a token, a range, short patience for connecting, and statuses in words.

use std::env;
use std::fs;
use std::io;

use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::HubOptions;
use crate::source::Failure;

/// A client of one hub.
#[derive(Debug)]
pub(crate) struct Http {
    agent: Agent,
    token: Option<String>,
    connect_seconds: u64,
}

impl Http {
    pub(crate) fn new(options: &HubOptions) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.stall_timeout))
            .timeout_per_read(Some(options.stall_timeout))
            .tls_config(TlsConfig::builder().root_certs(root_certs()).build())
            .user_agent(concat!("tokenmill/", env!("CARGO_PKG_VERSION")));
        let connect_seconds = options.connect_timeout.as_secs();
        Self { agent: config.build().new_agent(), token: options.token.clone(), connect_seconds }
    }

    /// The token is dropped at a redirect to another host, as the file servers need none.
    pub(crate) fn get(&self, url: &str, offset: u64) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let response = request.call().map_err(|error| self.no_answer(error))?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            status => Err(refusal(status, self.token.is_some())),
        }
    }

    fn no_answer(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                Failure::Unreachable(format!("it did not answer within {} seconds", self.connect_seconds))
            }
            ureq::Error::Io(error) if is_cut(&error) => Failure::Cut(format!("no answer: {error}")),
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => Failure::Cut(format!("no answer: {error}")),
            ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                Failure::Unreachable(format!("it cannot be reached: {error}"))
            }
            _ => Failure::Source(error.to_string()),
        }
    }
}

/// Was there a connection? Anything else came of looking for the host or knocking at it.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
}

fn refusal(status: u16, has_token: bool) -> Failure {
    match status {
        401 | 403 if has_token => Failure::Source(format!(
            "access denied ({status}); the token in HF_TOKEN may not read this model, or its terms are not accepted yet"
        )),
        401 | 403 => Failure::Source(format!(
            "access denied ({status}); the model is gated, private or does not exist; set HF_TOKEN to a token that may read it"
        )),
        404 => Failure::Source("there is no such model, revision or file (404)".to_owned()),
        416 => Failure::Unusable("the server has fewer bytes than are stored here already (416)".to_owned()),
        408 | 429 | 500..=599 => Failure::Cut(format!("the server answered {status}")),
        _ => Failure::Source(format!("the server answered {status}")),
    }
}

/// Those of `SSL_CERT_FILE` where it is set, as behind a proxy that opens connections; else the usual ones.
fn root_certs() -> RootCerts {
    let pem = env::var_os("SSL_CERT_FILE").and_then(|path| fs::read(path).ok()).unwrap_or_default();
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem).filter_map(certificate).collect();
    if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&certificates) }
}
