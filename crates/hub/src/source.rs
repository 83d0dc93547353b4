//! What a source of files is, how it fails, and how often it is asked again.

use std::io::Read;
use std::thread;

use crate::{HubError, Progress, Retry, Step};

/// A file as the catalog or the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) file: String,
    pub(crate) size: Option<u64>,
    /// In lowercase hexadecimal. The hub has none for small text files.
    pub(crate) sha256: Option<String>,
}

/// Somewhere that files come from.
pub(crate) trait Source {
    /// For people.
    fn name(&self) -> String;

    /// Begins to read `wanted`, from byte `offset` on if the source can.
    fn open(&self, wanted: &Wanted, offset: u64) -> Result<Stream, Failure>;
}

/// Bytes that arrive.
pub(crate) struct Stream {
    /// Where in the file they begin: the offset asked for, or 0.
    pub(crate) offset: u64,
    /// Size of the whole file.
    pub(crate) total: Option<u64>,
    pub(crate) bytes: Box<dyn Read>,
}

/// Why a file did not come.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work in a moment.
    Cut(String),
    /// Nobody answers. A host that sent bytes a moment ago may come back; one that never did will not within seconds.
    Unreachable(String),
    /// What is stored so far is of no use to this source.
    Unusable(String),
    /// This source will not have it.
    Source(String),
    /// This machine cannot take it; no other source will help.
    Here(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Here(error)
    }
}

/// Does `ask` until it works, it is clear that it will not, or the attempts are used up.
pub(crate) fn with_retries<T>(
    retry: Retry,
    progress: &dyn Progress,
    ask: impl Fn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut failed = 0;
    loop {
        match ask() {
            Err(Failure::Cut(reason)) if failed + 1 < retry.attempts => {
                failed += 1;
                wait(retry, failed, &reason, progress);
            }
            result => return result,
        }
    }
}

/// Before the attempt that follows `failed` ones in a row.
pub(crate) fn wait(retry: Retry, failed: u32, reason: &str, progress: &dyn Progress) {
    progress.step(Step::Retrying { reason });
    thread::sleep(retry.backoff * 2u32.saturating_pow(failed - 1).min(64));
}
