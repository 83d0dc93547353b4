//! `tokenmill bench`: honest figures, with a file per thing that is measured.

mod dummy;
mod latency;
mod offline;
mod serve;
mod startup;
mod throughput;

use std::path::Path;

use anyhow::{Context, Result};
use loadgen::{Date, LoadAverage, Machine, Program};
use serde_json::{Value, json};

use crate::args::BenchCommand;

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

/// Prints a result's own keys, and saves it with where it comes from.
fn finish(mut result: Value, before: Option<LoadAverage>, save: Option<&Path>) -> Result<()> {
    println!("{result:#}");
    if let (Some(result), Value::Object(provenance)) = (result.as_object_mut(), provenance(before)) {
        result.extend(provenance);
    }
    save.map_or(Ok(()), |path| write(path, &format!("{result:#}\n")))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
