//! Whom to ask: address, endpoint, model and key.

use hyper::Uri;
use thiserror::Error;

/// Which of the two endpoints is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endpoint {
    #[default]
    Completions,
    Chat,
}

impl Endpoint {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// A server that speaks OpenAI's API over plain HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the `host` header says, such as `127.0.0.1:8000`.
    pub(crate) authority: String,
    /// What comes before `/v1`; often empty.
    pub(crate) prefix: String,
    pub endpoint: Endpoint,
    pub api_key: Option<String>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    #[error(
        "{0} asks for https, which would put the cost of TLS into every number; measure the server itself over http, \
         through a tunnel if it is far away"
    )]
    Https(String),
    #[error("{0} is no address; one like http://127.0.0.1:8000 is wanted")]
    Malformed(String),
}

impl Target {
    /// From an address like `http://127.0.0.1:8000`, with or without `/v1`.
    ///
    /// # Errors
    /// If it is none, or asks for anything but plain http.
    pub fn parse(base_url: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed(base_url.to_owned());
        if base_url.to_ascii_lowercase().starts_with("https:") {
            return Err(TargetError::Https(base_url.to_owned()));
        }
        let uri: Uri = base_url.parse().map_err(|_| malformed())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(malformed)?;
        // Tables and files name the server; a password has no place there.
        if authority.as_str().contains('@') {
            return Err(malformed());
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            prefix: path.strip_suffix("/v1").unwrap_or(path).to_owned(),
            endpoint: Endpoint::default(),
            api_key: None,
        })
    }

    /// Host and port as they were given.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, host, port, prefix) in [
            ("http://127.0.0.1:8000", "127.0.0.1", 8000, ""),
            ("http://localhost:8000/v1", "localhost", 8000, ""),
            ("http://localhost/v1/", "localhost", 80, ""),
            ("http://gate:9/models/a/v1", "gate", 9, "/models/a"),
            ("http://[::1]:8000/", "::1", 8000, ""),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host.as_str(), target.port, target.prefix.as_str()), (host, port, prefix), "{url}");
        }
    }

    #[test]
    fn what_is_no_address() {
        for url in ["", "127.0.0.1:8000", "localhost", "ftp://a", "http://", "http://a b", "http://me:secret@a"] {
            assert_eq!(Target::parse(url), Err(TargetError::Malformed(url.to_owned())), "{url}");
        }
        for url in ["https://a", "HTTPS://a:1/v1"] {
            assert_eq!(Target::parse(url), Err(TargetError::Https(url.to_owned())));
        }
    }
}
