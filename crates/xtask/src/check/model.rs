//! The default model's file, fetched by the product itself and named to the tests.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{Context, Counts};

/// Tests read the model's path from here.
const VARIABLE: &str = "TOKENMILL_TEST_MODEL";

/// Pulls the default model into the cache; its path is kept for the parts that follow. A file that
/// was named from outside is taken instead.
pub(super) fn fetch(context: &Context) -> Result<Counts> {
    if let Some(path) = given() {
        println!("{VARIABLE} names {}", path.display());
        return Ok(Counts::one(path.is_file()));
    }
    println!("$ tokenmill pull");
    let mut pull = context.command(&context.built()?.binary("tokenmill")?.path);
    let output = pull.arg("pull").stderr(Stdio::inherit()).output().context("cannot start tokenmill")?;
    ensure!(output.status.success(), "tokenmill pull failed; tests of the default model will be skipped");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(path.is_file(), "tokenmill pull printed {}, which is no file", path.display());
    fs::write(record(context), path.to_string_lossy().as_bytes()).context("cannot write target/default-model.txt")?;
    println!("{}", path.display());
    Ok(Counts::one(true))
}

/// The model's file, if it is named from outside or was ever fetched.
pub(super) fn path(context: &Context) -> Option<PathBuf> {
    given().or_else(|| fs::read_to_string(record(context)).ok().map(PathBuf::from)).filter(|path| path.is_file())
}

/// Tells `command` where the model is.
pub(super) fn name_to(context: &Context, command: &mut Command) {
    if let Some(path) = path(context) {
        command.env(VARIABLE, path);
    }
}

fn given() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

fn record(context: &Context) -> PathBuf {
    context.target().join("default-model.txt")
}
