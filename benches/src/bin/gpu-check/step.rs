//! One step of the check: a program with a limit of time, whose output is kept.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(20);
/// Of a program's output in the record; the whole is in its log.
const KEPT_LINES: usize = 40;

/// Something to run, or why it cannot be.
pub struct Step {
    pub name: String,
    pub limit: Duration,
    pub work: Result<Work, String>,
}

/// A program, and where its result will be.
pub struct Work {
    pub command: Command,
    /// A file of JSON that the program writes.
    pub result: Option<std::path::PathBuf>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    TimedOut,
    Skipped,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Skipped => "skipped",
        }
    }
}

impl Step {
    /// Runs it within what is `left` of the whole check's time, with a log in `folder`. Returns its part of the record.
    pub fn run(self, folder: &Path, left: Duration) -> Result<(Outcome, Value)> {
        let limit = self.limit.min(left);
        let mut work = match self.work {
            _ if limit.is_zero() => return Ok(skipped(&self.name, "no time is left")),
            Err(why) => return Ok(skipped(&self.name, &why)),
            Ok(work) => work,
        };
        let shown = describe(&work.command);
        println!("-- {} (up to {} s)\n$ {shown}", self.name, limit.as_secs());
        let log = folder.join(format!("{}.log", self.name));
        let started = Instant::now();
        let outcome = execute(&mut work.command, &log, limit)?;
        let seconds = started.elapsed().as_secs_f64();
        let said = std::fs::read(&log).unwrap_or_default();
        let said = last_lines(&String::from_utf8_lossy(&said));
        let result =
            work.result.and_then(|path| std::fs::read(path).ok()).and_then(|text| serde_json::from_slice(&text).ok());
        println!("{said}\n{}: {} in {seconds:.1} s", self.name, outcome.word());
        let record = json!({
            "step": self.name, "outcome": outcome.word(), "seconds": seconds, "limit_seconds": limit.as_secs_f64(),
            "command": shown, "output": said, "result": result.unwrap_or(Value::Null),
        });
        Ok((outcome, record))
    }
}

fn skipped(name: &str, why: &str) -> (Outcome, Value) {
    println!("-- {name}: SKIPPED: {why}");
    (Outcome::Skipped, json!({ "step": name, "outcome": Outcome::Skipped.word(), "why": why }))
}

/// Runs to the end, or kills at the limit.
fn execute(command: &mut Command, log: &Path, limit: Duration) -> Result<Outcome> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            std::fs::write(log, format!("cannot be started: {error}"))?;
            return Ok(Outcome::Failed);
        }
    };
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Outcome::Passed } else { Outcome::Failed });
        }
        if Instant::now() >= deadline {
            // A program that has just ended needs no end.
            child.kill().ok();
            child.wait()?;
            return Ok(Outcome::TimedOut);
        }
        thread::sleep(POLL);
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(KEPT_LINES)..].join("\n")
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let name = script.replace(|c: char| !c.is_alphanumeric(), "-");
        Step { name, limit: Duration::from_secs(60), work: Ok(Work { command, result: None }) }
    }

    #[test]
    fn a_step_passes_fails_or_is_skipped() {
        let folder = std::env::temp_dir();
        let left = Duration::from_secs(60);
        for (step, left, outcome, key, text) in [
            (shell("echo one"), left, Outcome::Passed, "output", "one"),
            (shell("echo two >&2; exit 3"), left, Outcome::Failed, "output", "two"),
            (shell("while :; do :; done"), Duration::from_millis(1), Outcome::TimedOut, "output", ""),
            (shell("echo three"), Duration::ZERO, Outcome::Skipped, "why", "no time is left"),
            (
                Step { work: Err("it is not here".to_owned()), ..shell("") },
                left,
                Outcome::Skipped,
                "why",
                "it is not here",
            ),
        ] {
            let (found, record) = step.run(&folder, left).expect("a folder that can be written");
            assert_eq!((found, &record[key], &record["outcome"]), (outcome, &json!(text), &json!(outcome.word())));
        }
    }

    #[test]
    fn long_outputs_lose_their_beginning() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let kept = last_lines(&text);
        assert!(kept.starts_with("60\n") && kept.ends_with("\n99"), "{kept}");
    }
}
