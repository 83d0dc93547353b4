//! The parts that are cargo's own: format, lints, compiling, tests.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use super::built::Program;
use super::{Context, Counts, command, goldens, skipped};

pub(super) fn fmt(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["fmt", "--all", "--check"]))
}

pub(super) fn clippy(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

pub(super) fn build(context: &Context) -> Result<Counts> {
    Ok(Counts::one(context.built().map_err(|error| println!("{error:#}")).is_ok()))
}

/// A command that is one check: it succeeds or fails.
fn one(command: &mut Command) -> Result<Counts> {
    Ok(Counts::one(command::run(command)?.status.success()))
}

/// All tests but those of whole models, which run once per instruction set. As many harnesses run at a time as there are cores,
/// and each is shown when it ends.
pub(super) fn tests(context: &Context) -> Result<Counts> {
    let harnesses: Vec<_> = context.built()?.tests().filter(|program| program.package != goldens::PACKAGE).collect();
    skipped::clear(context)?;
    super::emulator::refresh(context)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut counts = Counts::default();
        while let Some(harness) = harnesses.get(next.fetch_add(1, Ordering::Relaxed)) {
            counts.merge(one_harness(context, harness)?);
        }
        Ok(counts)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = Counts::default();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut ended = threads.into_iter().map(|thread| thread.join().expect("no harness's reader panics"));
        ended.try_for_each(|worked: Result<Counts>| worked.map(|more| counts.merge(more)))
    })?;
    counts.move_to_skipped(skipped::count(context)?);
    Ok(counts)
}

fn one_harness(context: &Context, harness: &Program) -> Result<Counts> {
    let mut command = harness.command();
    prepare(context, &mut command);
    let output = command.output().with_context(|| format!("cannot start {}", harness.path.display()))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("-- {} {}\n{}", harness.package, harness.target, text.trim_end());
    Ok(outcome(&text, output.status.success()))
}

/// Tells a harness where the default model and the emulator are.
fn prepare(context: &Context, command: &mut Command) {
    super::model::name_to(context, command);
    super::emulator::offer(context, command);
}

/// Runs a test harness and counts what it says. A harness that fails without a failed test counts as one.
pub(super) fn counted(context: &Context, command: &mut Command) -> Result<Counts> {
    skipped::clear(context)?;
    super::emulator::refresh(context)?;
    prepare(context, command);
    let output = command::run(command)?;
    let mut counts = outcome(&output.text, output.status.success());
    counts.move_to_skipped(skipped::count(context)?);
    Ok(counts)
}

/// The counts of all runs in `text`, and a failure where the harness itself did not end well.
fn outcome(text: &str, succeeded: bool) -> Counts {
    let mut counts = Counts::default();
    text.lines().filter_map(summary).for_each(|line| counts.merge(line));
    if !succeeded && counts.failed == 0 {
        counts.failed = 1;
    }
    counts
}

/// The counts in a line that sums up a run: `test result: ok. 4 passed; 0 failed; 1 ignored; ...`.
fn summary(line: &str) -> Option<Counts> {
    let rest = line.trim_start().strip_prefix("test result:")?;
    let words: Vec<&str> = rest.split([' ', ';', ',']).filter(|word| !word.is_empty()).collect();
    let before =
        |word: &str| words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse::<u64>().ok());
    let count = |word: &str| before(word).unwrap_or(0);
    Some(Counts { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harness_that_dies_counts_as_a_failure() {
        let text = "test result: ok. 4 passed; 0 failed; 0 ignored\ntest result: ok. 2 passed; 0 failed; 1 ignored\n";
        assert_eq!(outcome(text, true), Counts { passed: 6, failed: 0, skipped: 1 });
        assert_eq!(outcome(text, false), Counts { passed: 6, failed: 1, skipped: 1 });
        assert_eq!(outcome("test result: FAILED. 0 passed; 2 failed", false).failed, 2);
    }

    #[test]
    fn summaries_are_read() {
        let counts = |passed, failed, skipped| Some(Counts { passed, failed, skipped });
        for (line, expected) in [
            (
                "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
                counts(4, 0, 1),
            ),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", counts(3, 2, 0)),
            ("test a::b ... ok", None),
            ("", None),
        ] {
            assert_eq!(summary(line), expected, "{line}");
        }
    }
}
