//! Programs of tests: several at a time, each shown when it ends, and counted by what it says.

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::built::Program;
use super::{Context, Counts, emulator, model, skipped};

/// A program of tests, ready to run.
pub(super) struct Harness {
    pub title: String,
    pub command: Command,
}

impl Harness {
    /// Of `program`, run in a way that `how` says.
    pub fn new(program: &Program, how: &str) -> Self {
        Self { title: format!("{} {}{how}", program.package, program.target), command: program.command() }
    }
}

/// Runs as many harnesses at a time as there are cores, and shows each when it ends.
pub(super) fn run(context: &Context, mut harnesses: Vec<Harness>) -> Result<Counts> {
    skipped::clear(context)?;
    emulator::refresh(context)?;
    for harness in &mut harnesses {
        // Where the default model and the emulator are.
        model::name_to(context, &mut harness.command);
        emulator::offer(context, &mut harness.command);
    }
    let waiting = Mutex::new(harnesses.into_iter());
    let next = || waiting.lock().expect("nobody panics with it").next();
    let work = || {
        let mut counts = Counts::default();
        while let Some(harness) = next() {
            counts.merge(run_one(harness)?);
        }
        Ok(counts)
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = Counts::default();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut ended = threads.into_iter().map(|thread| thread.join().expect("no harness's reader panics"));
        ended.try_for_each(|worked: Result<Counts>| worked.map(|more| counts.merge(more)))
    })?;
    counts.move_to_skipped(skipped::count(context)?);
    Ok(counts)
}

fn run_one(mut harness: Harness) -> Result<Counts> {
    let started = Instant::now();
    let output = harness.command.output().with_context(|| format!("cannot start {}", harness.title))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("-- {} ({:.0} s)\n{}", harness.title, started.elapsed().as_secs_f64(), text.trim_end());
    Ok(outcome(&text, output.status.success()))
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
