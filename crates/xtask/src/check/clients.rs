//! The API as its own clients see it: both majors of the OpenAI SDK against one server.

use std::process::Command;

use anyhow::Result;

use super::server::Server;
use super::{Context, Counts, command, venv};

const SDKS: [&str; 2] = ["openai2", "openai3"];
const FOLDER: &str = "tests/clients/python";

/// The clients' tests, and that the server ends in order on SIGTERM.
pub(super) fn run(context: &Context) -> Result<Counts> {
    let server = Server::start(context)?;
    let mut counts = Counts::default();
    for sdk in SDKS {
        println!("-- {sdk}");
        match pytest(context, sdk, &server.base_url()) {
            Ok(more) => counts.merge(more),
            Err(error) => {
                println!("{sdk}: {error:#}");
                counts.failed += 1;
            }
        }
    }
    let status = server.stop()?;
    println!("the server ended with {status}");
    counts.add(status.success());
    Ok(counts)
}

fn pytest(context: &Context, sdk: &str, base_url: &str) -> Result<Counts> {
    let requirements = context.root.join(FOLDER).join(format!("requirements-{sdk}.txt"));
    let python = venv::python(context, sdk, &requirements)?;
    let mut command: Command = context.command(python);
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", FOLDER]);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("TOKENMILL_BASE_URL", base_url).env("TOKENMILL_EXPECT", "smollm2");
    let output = command::run(&mut command)?;
    let mut counts = output.text.lines().rev().find_map(summary).unwrap_or_default();
    if !output.status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// The counts in pytest's last line: `3 failed, 12 passed, 1 skipped in 0.51s`.
fn summary(line: &str) -> Option<Counts> {
    let line = line.trim_matches(['=', ' ']);
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let count = |word: &str| words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse::<u64>().ok());
    words.contains(&"in").then_some(())?;
    let [passed, failed, errors] = ["passed", "failed", "errors"].map(count);
    let (error, skipped) = (count("error"), count("skipped"));
    [passed, failed, errors, error, skipped].iter().any(Option::is_some).then(|| Counts {
        passed: passed.unwrap_or(0),
        failed: failed.unwrap_or(0) + errors.or(error).unwrap_or(0),
        skipped: skipped.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pytests_last_line_is_counted() {
        let counts = |passed, failed, skipped| Some(Counts { passed, failed, skipped });
        for (line, expected) in [
            ("12 passed in 0.51s", counts(12, 0, 0)),
            ("===== 3 failed, 12 passed, 1 skipped in 61.20s (0:01:01) =====", counts(12, 3, 1)),
            ("1 passed, 2 errors in 0.1s", counts(1, 2, 0)),
            ("no tests ran in 0.01s", None),
            ("FAILED test_chat.py::test_a - assert 1 passed", None),
        ] {
            assert_eq!(summary(line), expected, "{line}");
        }
    }
}
