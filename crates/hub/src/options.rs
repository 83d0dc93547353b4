//! Where models come from and go to, as the environment says.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Catalog, HubError};

const ENDPOINT: &str = "https://huggingface.co";

/// Settings of this crate; [`HubOptions::from_env`] is what users get.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// `TOKENMILL_CACHE`, or the platform's folder for caches.
    pub cache_dir: PathBuf,
    /// `HF_ENDPOINT`: the hub or a mirror of it, without a slash at the end.
    pub endpoint: String,
    /// `HF_TOKEN`, or what the hub's own tools have stored. Sent to `endpoint` and to nobody else.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: only the cache is used.
    pub offline: bool,
    /// Ask the hub even where the cache has the model.
    pub refresh: bool,
    /// The interpreter whose pip fetches wheels.
    pub python: PathBuf,
    /// Added to the environment of that interpreter.
    pub python_env: Vec<(OsString, OsString)>,
    /// For finding and reaching a host; short, so that a machine without the hub gets to the next source soon.
    pub connect_timeout: Duration,
    /// A connection on which nothing arrives for this long counts as cut.
    pub stall_timeout: Duration,
    pub retry: Retry,
    pub catalog: Catalog,
}

/// How often a cut download is taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in a row without a new byte before giving up.
    pub attempts: u32,
    /// Before the second attempt; doubled for each further one.
    pub backoff: Duration,
}

impl HubOptions {
    pub fn from_env() -> Result<Self, HubError> {
        Ok(Self {
            cache_dir: cache_dir().ok_or(HubError::NoCacheFolder)?,
            endpoint: text("HF_ENDPOINT").map_or(ENDPOINT.to_owned(), |url| url.trim_end_matches('/').to_owned()),
            token: text("HF_TOKEN").or_else(stored_token),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            ..Self::new(PathBuf::new())?
        })
    }

    /// Everything as it is without an environment.
    pub fn new(cache_dir: PathBuf) -> Result<Self, HubError> {
        Ok(Self {
            cache_dir,
            endpoint: ENDPOINT.to_owned(),
            token: None,
            offline: false,
            refresh: false,
            python: PathBuf::from("python3"),
            python_env: Vec::new(),
            connect_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(30),
            retry: Retry { attempts: 5, backoff: Duration::from_millis(500) },
            catalog: Catalog::embedded()?,
        })
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// As the hub's own tools read it.
fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

fn cache_dir() -> Option<PathBuf> {
    path("TOKENMILL_CACHE").or_else(|| Some(platform_cache()?.join("tokenmill")))
}

#[cfg(target_os = "macos")]
fn platform_cache() -> Option<PathBuf> {
    Some(env::home_dir()?.join("Library/Caches"))
}

#[cfg(windows)]
fn platform_cache() -> Option<PathBuf> {
    path("LOCALAPPDATA")
}

#[cfg(not(any(target_os = "macos", windows)))]
fn platform_cache() -> Option<PathBuf> {
    path("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")))
}

fn stored_token() -> Option<String> {
    let home = path("HF_HOME").or_else(|| Some(env::home_dir()?.join(".cache/huggingface")))?;
    let file = path("HF_TOKEN_PATH").unwrap_or(home.join("token"));
    let token = std::fs::read_to_string(file).ok()?.trim().to_owned();
    Some(token).filter(|token| !token.is_empty())
}
