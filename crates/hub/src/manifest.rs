//! What the cache knows of one revision of one model: a small JSON file beside the model's files.
//!
//! A digest over gigabytes at each start would cost seconds, so a start compares size and modification time with the
//! stamp taken when the digest was right, and hashes only where they differ. That catches replaced, truncated and edited
//! files; bits that rot on the disk leave both as they were, which is what `verify` is for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::HubError;
use crate::error::at;

const FILE: &str = ".tokenmill.json";

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Manifest {
    /// The name under which the model is served.
    pub(crate) name: String,
    /// `owner/name` on the hub.
    pub(crate) id: String,
    pub(crate) revision: String,
    pub(crate) files: BTreeMap<String, Stamp>,
    /// What was asked for (a file, or "" for the model as a whole), and the files that make it up.
    pub(crate) selections: BTreeMap<String, Vec<String>>,
}

/// One file as it was when its digest was right.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// Nanoseconds since 1970.
    pub(crate) modified: u64,
    /// Where it came from.
    pub(crate) source: String,
}

impl Stamp {
    pub(crate) fn new(path: &Path, sha256: String, source: &str) -> Result<Self, HubError> {
        let (size, modified) = size_and_time(path).map_err(at(path))?;
        Ok(Self { size, sha256, modified, source: source.to_owned() })
    }

    /// Does the file look as it did?
    pub(crate) fn fits(&self, path: &Path) -> bool {
        size_and_time(path).is_ok_and(|found| found == (self.size, self.modified))
    }
}

fn size_and_time(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Ok((metadata.len(), modified))
}

impl Manifest {
    /// `None` where there is none that can be read: then nothing is known, and everything is fetched again.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Replaces the manifest in one step.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), HubError> {
        let json = serde_json::to_vec_pretty(self).expect("a manifest is strings and numbers");
        replace(&folder.join(FILE), &json)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|stamp| stamp.size).sum()
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), HubError> {
    let mut name = path.file_name().expect("the path names a file").to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new: PathBuf = path.with_file_name(name);
    fs::write(&new, contents).map_err(at(&new))?;
    fs::rename(&new, path).map_err(at(path))
}
