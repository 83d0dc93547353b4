//! Runs the simulator's own binary, which is compiled apart: this crate builds in seconds on a cold machine, and can still
//! report when the engine does not compile.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Replays one seed with its trace, at one depth or at both. True when it passes.
pub fn replay(root: &Path, seed: u64, depth: Option<u32>) -> Result<bool> {
    let mut arguments = vec!["replay".to_owned(), seed.to_string()];
    arguments.extend(depth.map(|depth| depth.to_string()));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["run", "--quiet", "--package", "sim", "--"]).args(arguments);
    Ok(command.status().context("cannot start cargo")?.success())
}
