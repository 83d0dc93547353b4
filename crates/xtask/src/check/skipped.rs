//! Tests that could not run add a line to `target/skipped.txt`; see the test kit.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Context;

fn path(context: &Context) -> PathBuf {
    context.target().join("skipped.txt")
}

pub(super) fn clear(context: &Context) -> Result<()> {
    match fs::remove_file(path(context)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot empty target/skipped.txt"),
        _ => Ok(()),
    }
}

/// Prints the lines and counts them.
pub(super) fn count(context: &Context) -> Result<u64> {
    let text = match fs::read_to_string(path(context)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        text => text.context("cannot read target/skipped.txt")?,
    };
    text.lines().for_each(|line| println!("SKIPPED {line}"));
    Ok(text.lines().count() as u64)
}
