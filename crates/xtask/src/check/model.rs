//! The default model's file, fetched by the product itself and named to the tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Counts};

/// Tests read the model's path from here.
pub(super) const VARIABLE: &str = "TOKENMILL_TEST_MODEL";

/// Builds the binary and pulls the default model into the cache; its path is kept for the parts that follow.
pub(super) fn fetch(context: &Context) -> Result<Counts> {
    let mut pull = context.cargo(&["run", "--quiet", "--package", "tokenmill", "--", "pull"]);
    println!("$ tokenmill pull");
    let output = pull.stderr(std::process::Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "tokenmill pull failed; tests of the default model will be skipped");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(path.is_file(), "tokenmill pull printed {}, which is no file", path.display());
    fs::write(record(context), path.to_string_lossy().as_bytes()).context("cannot write target/default-model.txt")?;
    println!("{}", path.display());
    Ok(Counts::one(true))
}

/// Tells `command` where the model is, if it was ever fetched. A path given from outside stays.
pub(super) fn name_to(context: &Context, command: &mut Command) {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    if let Ok(path) = fs::read_to_string(record(context)) {
        command.env(VARIABLE, path);
    }
}

fn record(context: &Context) -> PathBuf {
    context.target().join("default-model.txt")
}
