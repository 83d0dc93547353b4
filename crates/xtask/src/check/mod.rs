//! `cargo xtask check`: everything the project promises, part by part, with counts.
//!
//! A part that fails does not stop the later ones; only what does not compile ends the run.

mod built;
mod cargo;
mod clients;
mod command;
mod emulator;
mod goldens;
mod harness;
mod kernels;
mod model;
mod report;
mod server;
mod simulation;
mod skipped;
mod venv;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Result, bail};

pub(crate) use built::Built;
pub use report::Counts;
use report::{Ended, PartReport};

/// One part of the check.
struct Part {
    name: &'static str,
    about: &'static str,
    /// Minutes it may take on two cores, with everything built or downloaded anew. It is not stopped, but the table says so.
    allowance: f64,
    run: fn(&Context) -> Result<Counts>,
}

const PARTS: &[Part] = &[
    Part { name: "fmt", about: "rustfmt has nothing to change", allowance: 0.5, run: cargo::fmt },
    Part {
        name: "kernels",
        about: "every CUDA kernel compiles for every GPU, within its budget",
        allowance: 4.0,
        run: kernels::run,
    },
    Part { name: "clippy", about: "no lint in any target of the workspace", allowance: 5.0, run: cargo::clippy },
    Part { name: "tidy", about: "the house rules", allowance: 0.1, run: |context| crate::tidy::run(&context.root) },
    Part { name: "build", about: "all binaries and tests compile", allowance: 10.0, run: cargo::build },
    Part { name: "model", about: "the default model is in the cache", allowance: 3.0, run: model::fetch },
    Part { name: "emu", about: "CUDA kernels on the emulator, under sanitizers", allowance: 9.0, run: emulator::run },
    Part { name: "tests", about: "all crates' own tests", allowance: 4.0, run: cargo::tests },
    Part { name: "goldens", about: "whole models, once per instruction set", allowance: 6.0, run: goldens::run },
    Part { name: "sim", about: "pinned and fresh seeds, at depth 1 and 2", allowance: 2.0, run: simulation::run },
    Part { name: "clients", about: "the OpenAI SDK's two majors against a server", allowance: 4.0, run: clients::run },
];

/// The part without which none of the later ones means anything.
const BUILD: &str = "build";

/// What parts share.
pub(crate) struct Context {
    root: PathBuf,
    built: OnceLock<Built>,
}

impl Context {
    fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// What the workspace compiles to; compiled once, at the first call.
    fn built(&self) -> Result<&Built> {
        match self.built.get() {
            Some(built) => Ok(built),
            None => Built::of(&self.root).map(|built| self.built.get_or_init(|| built)),
        }
    }
}

/// Prints the parts.
pub fn list() -> bool {
    for part in PARTS {
        println!("{:<8} {} ({} min)", part.name, part.about, part.allowance);
    }
    true
}

/// Runs the parts named in `only`, or all, and prints the table. True when nothing failed.
pub fn run(root: &Path, only: &[String]) -> Result<bool> {
    if let Some(unknown) = only.iter().find(|name| PARTS.iter().all(|part| part.name != **name)) {
        bail!("there is no part {unknown}; `cargo xtask check --list` names them");
    }
    let context = Context { root: root.to_owned(), built: OnceLock::new() };
    let mut reports = Vec::new();
    for part in PARTS.iter().filter(|part| only.is_empty() || only.iter().any(|name| name == part.name)) {
        println!("\n==== {}: {}", part.name, part.about);
        let report = run_part(part, &context);
        let stop = part.name == BUILD && report.counts.failed > 0;
        reports.push(report);
        if stop {
            println!("it does not compile: the rest is not run");
            break;
        }
    }
    Ok(report::print(&reports))
}

fn run_part(part: &Part, context: &Context) -> PartReport {
    let started = Instant::now();
    let (counts, ended) = match (part.run)(context) {
        Ok(counts) => (counts, Ended::Itself),
        Err(error) => {
            println!("{}: {error:#}", part.name);
            (Counts { failed: 1, ..Counts::default() }, Ended::Error)
        }
    };
    PartReport {
        name: part.name,
        counts,
        ended,
        minutes: started.elapsed().as_secs_f64() / 60.0,
        allowance: part.allowance,
    }
}
