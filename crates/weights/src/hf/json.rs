//! Small text files beside the weights, read with a bound on their size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::InFile;
use crate::{Problem, WeightsError};

/// The largest tokenizers are near 40 MB.
const MAX_BYTES: u64 = 256 << 20;

/// The file's bytes; an error if there is none.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, WeightsError> {
    let file = File::open(path).in_file(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).in_file(path)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Problem::malformed(format!("is larger than {MAX_BYTES} bytes, which no such file is")).at(path));
    }
    Ok(bytes)
}

/// The file parsed as JSON; an error if there is none.
pub(super) fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, WeightsError> {
    serde_json::from_slice(&bytes(path)?)
        .map_err(|error| Problem::malformed(format!("cannot be understood: {error}")).at(path))
}

/// The file parsed as JSON, if there is one.
pub(super) fn parse_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, WeightsError> {
    if path.exists() { parse(path).map(Some) } else { Ok(None) }
}
