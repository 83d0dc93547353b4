//! One step of the check: a program with a limit of time, whose output is kept.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(20);
/// What a program that was killed may take to end: one that waits inside of a driver may never do.
const DYING: Duration = Duration::from_secs(5);
/// How a program ends that finds out that it cannot run here; its last line says why.
const CANNOT: i32 = 77;
/// Of a program's output in the record, where it passed and where it did not.
const KEPT_LINES: usize = 40;
const KEPT_LINES_OF_FAILURES: usize = 400;

/// Something to run, or why it cannot be.
pub struct Step {
    pub name: String,
    /// What it should take, and what it may.
    pub planned: Duration,
    pub limit: Duration,
    pub needs_gpu: bool,
    pub work: Result<Work, String>,
}

/// A program, and where its result will be.
pub struct Work {
    pub command: Command,
    /// A file of JSON that the program writes, maybe again and again.
    pub result: Option<PathBuf>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    TimedOut,
    /// Something that it needs is not here.
    Missing,
    /// It was not its turn any more.
    Skipped,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Missing => "missing",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nothing is wrong, as far as it is known.
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Passed | Self::Missing | Self::Skipped)
    }
}

impl Step {
    /// Runs it within what is `left` of the whole check's time, with its output in `scratch`. Returns its part of the record.
    pub fn run(self, scratch: &Path, left: Duration) -> Result<(Outcome, Value)> {
        let limit = self.limit.min(left);
        let mut work = match self.work {
            Err(why) => return Ok(not_run(&self.name, Outcome::Missing, &why)),
            _ if limit.is_zero() => return Ok(not_run(&self.name, Outcome::Skipped, "no time is left")),
            Ok(work) => work,
        };
        let shown = describe(&work.command);
        println!("-- {} ({} s planned, {} s at most)\n$ {shown}", self.name, self.planned.as_secs(), limit.as_secs());
        let log = scratch.join(format!("{}.log", self.name));
        let started = Instant::now();
        let outcome = execute(&mut work.command, &log, limit)?;
        let seconds = started.elapsed().as_secs_f64();
        let said = std::fs::read(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if outcome == Outcome::Missing {
            return Ok(not_run(&self.name, outcome, said.trim_end().lines().last().unwrap_or_default()));
        }
        let kept = if outcome == Outcome::Passed { KEPT_LINES } else { KEPT_LINES_OF_FAILURES };
        let result =
            work.result.and_then(|path| std::fs::read(path).ok()).and_then(|text| serde_json::from_slice(&text).ok());
        println!("{}\n{}: {} in {seconds:.1} s", last_lines(&said, KEPT_LINES), self.name, outcome.word());
        let record = json!({
            "step": self.name, "outcome": outcome.word(), "seconds": seconds,
            "planned_seconds": self.planned.as_secs_f64(), "limit_seconds": limit.as_secs_f64(),
            "command": shown, "output": last_lines(&said, kept), "result": result.unwrap_or(Value::Null),
        });
        Ok((outcome, record))
    }

    /// The record of a step that is not run.
    pub fn skip(self, why: &str) -> (Outcome, Value) {
        not_run(&self.name, Outcome::Skipped, why)
    }
}

fn not_run(name: &str, outcome: Outcome, why: &str) -> (Outcome, Value) {
    println!("-- {name}: {}: {why}", outcome.word().to_uppercase());
    (outcome, json!({ "step": name, "outcome": outcome.word(), "why": why }))
}

/// Runs to the end, or kills at the limit, with all that it started.
fn execute(command: &mut Command, log: &Path, limit: Duration) -> Result<Outcome> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            std::fs::write(log, format!("cannot be started: {error}"))?;
            return Ok(Outcome::Failed);
        }
    };
    match wait(&mut child, limit)? {
        Some(status) if status.success() => Ok(Outcome::Passed),
        Some(status) if status.code() == Some(CANNOT) => Ok(Outcome::Missing),
        Some(_) => Ok(Outcome::Failed),
        None => {
            let group = format!("kill -KILL -{}", child.id());
            Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status().context("there is no sh")?;
            wait(&mut child, DYING)?;
            Ok(Outcome::TimedOut)
        }
    }
}

/// How it ended; `None` where it has not.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The command with the variables that it is given, as a shell takes it.
fn describe(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy())));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    variables.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let name = script.replace(|c: char| !c.is_alphanumeric(), "-");
        let (planned, limit) = (Duration::from_secs(1), Duration::from_secs(60));
        Step { name, planned, limit, needs_gpu: false, work: Ok(Work { command, result: None }) }
    }

    #[test]
    fn a_step_passes_fails_or_is_not_run() {
        let folder = std::env::temp_dir();
        let left = Duration::from_secs(60);
        for (step, left, outcome, key, text) in [
            (shell("echo one"), left, Outcome::Passed, "output", "one"),
            (shell("echo two >&2; exit 3"), left, Outcome::Failed, "output", "two"),
            (shell("echo no; echo torch is not here; exit 77"), left, Outcome::Missing, "why", "torch is not here"),
            (shell("while :; do :; done"), Duration::from_millis(1), Outcome::TimedOut, "output", ""),
            (shell("echo three"), Duration::ZERO, Outcome::Skipped, "why", "no time is left"),
            (
                Step { work: Err("it is not here".to_owned()), ..shell("") },
                left,
                Outcome::Missing,
                "why",
                "it is not here",
            ),
        ] {
            let (found, record) = step.run(&folder, left).expect("a folder that can be written");
            assert_eq!((found, &record[key], &record["outcome"]), (outcome, &json!(text), &json!(outcome.word())));
        }
    }

    #[test]
    fn what_a_program_started_ends_with_it() {
        let pid = std::env::temp_dir().join(format!("gpu-check-child-{}", std::process::id()));
        let step = shell(&format!("sleep 600 & echo $! > {}; wait", pid.display()));
        let (outcome, _) = step.run(&std::env::temp_dir(), Duration::from_millis(500)).expect("a log can be written");
        let child = std::fs::read_to_string(&pid).expect("the program wrote its child's number");
        let status = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        std::fs::remove_file(&pid).expect("the test's own file");
        assert!(outcome == Outcome::TimedOut && !status.contains(") S "), "it sleeps on: {status}");
    }

    #[test]
    fn long_outputs_lose_their_beginning() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let kept = last_lines(&text, 40);
        assert!(kept.starts_with("60\n") && kept.ends_with("\n99"), "{kept}");
    }
}
