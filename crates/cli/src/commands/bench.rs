//! `tokenmill bench`: honest figures, with a file per thing that is measured.

mod dummy;
mod latency;
mod offline;
mod serve;
mod startup;
mod throughput;

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use loadgen::{Date, LoadAverage, Machine, Program};
use serde_json::{Value, json};

use crate::args::BenchCommand;
use crate::say::say;

pub fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Serve(args) => serve::run(args),
        BenchCommand::Throughput(args) => throughput::run(args),
        BenchCommand::Latency(args) => latency::run(args),
        BenchCommand::Startup(args) => startup::run(args),
        BenchCommand::Dummy(args) => dummy::run(args),
    }
}

/// What every result says of where it comes from, as the last keys of an object; `before` is the load before it.
fn provenance(before: Option<LoadAverage>) -> Value {
    let program = Program::this(env!("CARGO_PKG_VERSION"));
    json!({
        "date": Date::now().to_string(),
        "machine": Machine::here(),
        "load_average_before": before,
        "load_average_after": Machine::load_average(),
        "version": program.version,
        "commit": program.commit,
        "built": program.built,
        "command": program.command,
    })
}

/// How far a measurement is; on a terminal only.
fn bar(len: usize, what: String) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {per_sec} {eta}").expect("the template is right");
    let bar = ProgressBar::new(len as u64).with_style(style).with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Prints a result's own keys, and saves it with where it comes from.
fn finish(mut result: Value, before: Option<LoadAverage>, save: Option<&Path>) -> Result<()> {
    say(format_args!("{result:#}"));
    if let (Some(result), Value::Object(provenance)) = (result.as_object_mut(), provenance(before)) {
        result.extend(provenance);
    }
    save.map_or(Ok(()), |path| write(path, &format!("{result:#}\n")))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
