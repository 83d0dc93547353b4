//! The parts that are cargo's own: format, lints, compiling, tests.

use std::process::{Command, Stdio};

use anyhow::Result;

use super::command;
use super::skipped;
use super::{Context, Counts};

pub(super) fn fmt(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["fmt", "--all", "--check"]))
}

pub(super) fn clippy(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

pub(super) fn build(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["test", "--quiet", "--workspace", "--lib", "--bins", "--tests", "--no-run"]))
}

/// A command that is one check: it succeeds or fails.
fn one(command: &mut Command) -> Result<Counts> {
    Ok(Counts::one(command::run(command)?.status.success()))
}

/// All tests but those of whole models, which run once per instruction set.
pub(super) fn tests(context: &Context) -> Result<Counts> {
    let packages = ["--workspace", "--exclude", "tests"];
    if has_nextest(context) {
        let arguments = [&["nextest", "run", "--no-fail-fast"][..], &packages].concat();
        return counted(context, &mut context.cargo(&arguments));
    }
    let arguments = [&["test", "--no-fail-fast", "--lib", "--bins", "--tests"][..], &packages].concat();
    counted(context, &mut context.cargo(&arguments))
}

fn has_nextest(context: &Context) -> bool {
    let mut command = context.cargo(&["nextest", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs a test harness and counts what it says. A harness that fails without a failed test counts as one.
pub(super) fn counted(context: &Context, command: &mut Command) -> Result<Counts> {
    skipped::clear(context)?;
    super::model::name_to(context, command);
    super::emulator::offer(context, command);
    let output = command::run(command)?;
    let mut counts = totals(&output.text);
    if !output.status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    counts.move_to_skipped(skipped::count(context)?);
    Ok(counts)
}

/// The counts of all runs in `text`. Nextest shows the harness of each test that failed: where it sums up, only that counts.
fn totals(text: &str) -> Counts {
    let is_nextest = text.lines().any(|line| line.trim_start().starts_with("Summary ["));
    let lines = text.lines().filter(|line| !is_nextest || line.trim_start().starts_with("Summary ["));
    lines.filter_map(summary).fold(Counts::default(), |mut sum, line| {
        sum.merge(line);
        sum
    })
}

/// The counts in a line that sums up a run: cargo's `test result: ok. 4 passed; 0 failed; 1 ignored; ...`, or nextest's
/// `Summary [ 1.2s] 5 tests run: 4 passed (1 slow), 1 failed, 0 skipped`.
fn summary(line: &str) -> Option<Counts> {
    let line = line.trim_start();
    let rest = line.strip_prefix("test result:").or_else(|| line.strip_prefix("Summary ["))?;
    let words: Vec<&str> = rest.split([' ', ';', ',']).filter(|word| !word.is_empty()).collect();
    let before =
        |word: &str| words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse::<u64>().ok());
    let count = |word: &str| before(word).unwrap_or(0);
    Some(Counts { passed: count("passed"), failed: count("failed"), skipped: count("ignored") + count("skipped") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_nextest_quotes_counts_once() {
        let text = "    test result: FAILED. 0 passed; 1 failed; 0 ignored\n  Summary [ 1.0s] 9 tests run: 8 passed, 1 failed\n";
        assert_eq!(totals(text), Counts { passed: 8, failed: 1, skipped: 0 });
        let text = "test result: ok. 4 passed; 0 failed; 0 ignored\ntest result: ok. 2 passed; 0 failed; 1 ignored\n";
        assert_eq!(totals(text), Counts { passed: 6, failed: 0, skipped: 1 });
    }

    #[test]
    fn both_harnesses_are_counted() {
        let counts = |passed, failed, skipped| Some(Counts { passed, failed, skipped });
        for (line, expected) in [
            (
                "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
                counts(4, 0, 1),
            ),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", counts(3, 2, 0)),
            ("     Summary [   1.234s] 34 tests run: 33 passed (1 slow), 1 failed, 2 skipped", counts(33, 1, 2)),
            ("test a::b ... ok", None),
            ("", None),
        ] {
            assert_eq!(summary(line), expected, "{line}");
        }
    }
}
