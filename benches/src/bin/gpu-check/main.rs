//! `gpu-check`: what only a GPU can show, in one command without a network: instructions against the emulator's answers, the
//! kernels' tests, NVIDIA's sanitizer, each op beside its roofline, whole models, and a peer. Ten minutes at most.
//!
//! Needs what `cargo xtask pack` puts beside it; what is missing is skipped, with a reason. Writes one JSON file, and the logs
//! and results of all steps beside it.

mod places;
mod plan;
mod rooflines;
mod scale;
mod step;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use loadgen::{Date, Machine, Program};
use serde_json::{Value, json};

use places::Places;
use plan::Plan;
use scale::{FULL, Scale, TINY};
use step::Outcome;

/// Shows on a GPU what no other machine can.
#[derive(Parser)]
#[command(name = "gpu-check", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    check: CheckArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Folder of the record, logs and results.
    #[arg(long, default_value = "gpu-check-out")]
    out: PathBuf,
    /// Folder with tokenmill, kernels-tests, configs and models; this program's own when left out.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Seconds for everything.
    #[arg(long, default_value_t = 570)]
    budget: u64,
    /// Only steps whose names begin with one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Shapes that the emulator computes in seconds.
    #[arg(long)]
    tiny: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Measure each op beside its roofline, and nothing else.
    Rooflines {
        /// The JSON file to write.
        result: PathBuf,
        #[arg(long)]
        tiny: bool,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli { command: Some(Command::Rooflines { result, tiny }), .. } => measure(&result, scale(tiny)).map(|()| true),
        Cli { check, .. } => run(&check),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn scale(is_tiny: bool) -> &'static Scale {
    if is_tiny { &TINY } else { &FULL }
}

fn measure(result: &Path, scale: &Scale) -> Result<()> {
    write(result, &rooflines::run(scale)?)
}

/// True when nothing failed.
fn run(args: &CheckArgs) -> Result<bool> {
    let started = Instant::now();
    let this = std::env::current_exe().context("this program has a path")?;
    let beside =
        args.beside.clone().or_else(|| this.parent().map(Path::to_owned)).context("this program lies in a folder")?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let plan = Plan { places: &Places::new(beside), scale: scale(args.tiny), out: &args.out, this };
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| name.starts_with(only.as_str()));
    let (budget, mut outcomes, mut records) = (Duration::from_secs(args.budget), Vec::new(), Vec::new());
    for step in plan.steps().into_iter().filter(|step| is_wanted(&step.name)) {
        let name = step.name.clone();
        let (outcome, record) = step.run(&args.out, budget.saturating_sub(started.elapsed()))?;
        outcomes.push((name, outcome));
        records.push(record);
        // After each step: what was found is kept, whatever ends the next one.
        write(&args.out.join("gpu-check.json"), &record_of(&records, args, started.elapsed()))?;
    }
    println!();
    outcomes.iter().for_each(|(name, outcome)| println!("{name:<24} {}", outcome.word()));
    println!("{:.0} s; {}", started.elapsed().as_secs_f64(), args.out.join("gpu-check.json").display());
    Ok(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Passed | Outcome::Skipped)))
}

fn record_of(steps: &[Value], args: &CheckArgs, elapsed: Duration) -> Value {
    let program = Program::this(env!("CARGO_PKG_VERSION"));
    json!({
        "date": Date::now().to_string(),
        "machine": Machine::here(),
        "gpu": kernels::cuda::Cuda::new(0).map_or_else(|why| why.to_string(), |cuda| cuda.describe()),
        "tiny": args.tiny,
        "version": program.version,
        "commit": program.commit,
        "built": program.built,
        "command": program.command,
        "seconds": elapsed.as_secs_f64(),
        "steps": steps,
    })
}

fn write(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}
