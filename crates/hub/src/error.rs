//! What can go wrong between a model's name and its files, in sentences that say what to do.

use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum HubError {
    #[error("\"{spec}\" is no model: {reason}")]
    Spec { spec: String, reason: String },
    #[error("there is no file or folder {}", path.display())]
    NoSuchPath { path: PathBuf },
    /// Every source was tried, or none may be.
    #[error("{model} could not be fetched.{attempts}\n{advice}", attempts = list_attempts(attempts))]
    NoSource { model: String, attempts: Vec<Attempt>, advice: String },
    #[error("the disk is full: {} needs {} more bytes; free some space, or set TOKENMILL_CACHE to a larger disk",
        path.display(), needed.map_or("some".to_owned(), |bytes| bytes.to_string()))]
    DiskFull { path: PathBuf, needed: Option<u64> },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("no cache folder is known on this system; set TOKENMILL_CACHE to one")]
    NoCacheFolder,
    #[error("{name} is not in the cache; `tokenmill models` lists what is")]
    NotCached { name: String },
    #[error("the model catalog cannot be read: {0}")]
    Catalog(String),
}

/// What one source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub source: String,
    pub reason: String,
}

fn list_attempts(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  {}: {}", attempt.source, attempt.reason)).collect()
}

/// Names the path that an I/O error is about.
pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.into();
    |source| HubError::Io { path, source }
}
