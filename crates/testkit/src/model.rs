//! The default model's file, which a test may find or do without, loudly.

use std::io::Write;
use std::path::PathBuf;

/// The file named by `TOKENMILL_TEST_MODEL`; without it, says so and counts `test` as skipped.
pub fn default_model(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("TOKENMILL_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        skip(test, "TOKENMILL_TEST_MODEL names no file; `cargo xtask check` fetches the default model and sets it");
    }
    path
}

/// Says that `test` did not run, and adds a line to `target/skipped.txt`, which `cargo xtask check` counts.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    let path = crate::root().join("target/skipped.txt");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    if let Ok(mut file) = file {
        writeln!(file, "{test}: {why}").expect("a line can be added to target/skipped.txt");
    }
}
