//! `gpu-check`: what only a GPU can show, in one command without a network: instructions against the emulator's answers, the
//! kernels' tests, NVIDIA's sanitizer, each op beside its roofline, whole models beside their goals, and a peer. Ten minutes at
//! most.
//!
//! Needs what `cargo xtask pack` puts beside it; what is missing is skipped, with a reason. Every step is a process of its own,
//! which is killed at its limit. After each one the record (JSON) and its summary (Markdown) are written anew.

mod device;
mod goals;
mod places;
mod plan;
mod rooflines;
mod scale;
mod step;
mod summary;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use benches::Ceilings;
use clap::Parser;
use loadgen::{Date, Machine, Program};
use serde_json::{Value, json};

use places::Places;
use plan::Plan;
use scale::{FULL, Scale, TINY};
use step::{Outcome, Step};

/// Ten minutes, less what starting and ending take.
const BUDGET_SECONDS: u64 = 570;

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
    /// Folder of the record, its summary, all output, and the card's answers to single instructions.
    #[arg(long, default_value = "gpu-check-out")]
    out: PathBuf,
    /// Folder with tokenmill, kernels-tests, configs and models; this program's own when left out.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Seconds for everything.
    #[arg(long, default_value_t = BUDGET_SECONDS)]
    budget: u64,
    /// Only steps whose names begin with one of these, and the first one, which looks for a GPU.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Shapes that the emulator computes in seconds.
    #[arg(long)]
    tiny: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what GPU there is, and nothing else.
    Device(OneArgs),
    /// Measure each op beside its roofline, and nothing else.
    Rooflines(OneArgs),
}

#[derive(clap::Args)]
struct OneArgs {
    /// The JSON file to write.
    result: PathBuf,
    #[arg(long)]
    tiny: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli { command: Some(Command::Device(args)), .. } => device::run(&args.result).map(|()| true),
        Cli { command: Some(Command::Rooflines(args)), .. } => {
            rooflines::run(scale(args.tiny), &args.result).map(|()| true)
        }
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

/// The whole check under way.
struct Check<'a> {
    args: &'a CheckArgs,
    places: &'a Places,
    started: Instant,
    scratch: PathBuf,
    outcomes: Vec<(String, Outcome)>,
    records: Vec<Value>,
}

/// True when nothing failed.
fn run(args: &CheckArgs) -> Result<bool> {
    let this = std::env::current_exe().context("this program has a path")?;
    let beside =
        args.beside.clone().or_else(|| this.parent().map(Path::to_owned)).context("this program lies in a folder")?;
    let scratch = std::env::temp_dir().join(format!("gpu-check-{}", std::process::id()));
    for folder in [&args.out, &scratch] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(args.out.join("output.txt"), "")?;
    let places = &Places::new(beside);
    let plan = Plan { places, scale: scale(args.tiny), out: &args.out, scratch: &scratch, this };
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| name.starts_with(only.as_str()));
    let (device, steps) = (plan.device(), plan.steps());
    let started = Instant::now();
    let mut check =
        Check { args, places, started, scratch: scratch.clone(), outcomes: Vec::new(), records: Vec::new() };
    let steps: Vec<Step> = steps.into_iter().filter(|step| is_wanted(&step.name)).collect();
    tell_plan(&steps, args.budget);
    check.take(device, None)?;
    let gone = check.no_gpu();
    for step in steps {
        check.take(step, gone.as_deref())?;
    }
    check.tell();
    fs::remove_dir_all(&scratch)?;
    Ok(check.outcomes.iter().all(|(_, outcome)| outcome.is_fine()))
}

/// When each step should begin; one that would end too late runs in time that others leave.
fn tell_plan(steps: &[Step], budget: u64) {
    println!("{budget} s for everything; planned, in seconds:");
    steps.iter().fold(0, |begin, step| {
        let end = begin + step.planned.as_secs();
        let note = if end > budget { ", if others leave the time" } else { "" };
        println!("{begin:>6} to {end:<6} {}{note}", step.name);
        end
    });
}

impl Check<'_> {
    /// Runs a step, unless the GPU that it needs is `gone`, and writes all that is known: it is kept, whatever ends the next one.
    fn take(&mut self, step: Step, gone: Option<&str>) -> Result<()> {
        let name = step.name.clone();
        let left = Duration::from_secs(self.args.budget).saturating_sub(self.started.elapsed());
        let (outcome, record) = match gone {
            Some(why) if step.needs_gpu => step.skip(why),
            _ => step.run(&self.scratch, left)?,
        };
        let log = fs::read(self.scratch.join(format!("{name}.log"))).unwrap_or_default();
        let mut all = fs::File::options().append(true).open(self.args.out.join("output.txt"))?;
        all.write_all(format!("== {name}\n").as_bytes())?;
        all.write_all(&log)?;
        self.outcomes.push((name, outcome));
        self.records.push(record);
        let record = self.record();
        write(&self.args.out.join("gpu-check.json"), &format!("{record:#}\n"))?;
        write(&self.args.out.join("gpu-check.md"), &summary::of(&record))
    }

    /// Why there is no GPU, in the words of the step that looked for one.
    fn no_gpu(&self) -> Option<String> {
        let (_, outcome) = self.outcomes.first()?;
        let said =
            self.records[0]["output"].as_str().and_then(|said| said.lines().last()).unwrap_or("it does not answer");
        (*outcome != Outcome::Passed).then(|| said.trim_start_matches("gpu-check: ").to_owned())
    }

    fn record(&self) -> Value {
        let program = Program::this(env!("CARGO_PKG_VERSION"));
        let gpu = &self.records[0]["result"];
        json!({
            "date": Date::now().to_string(),
            "machine": Machine::here(),
            "gpu": gpu,
            "tiny": self.args.tiny,
            "version": program.version,
            "commit": self.places.commit().or(program.commit),
            "built": program.built,
            "command": program.command,
            "seconds": self.started.elapsed().as_secs_f64(),
            "goals": goals::of(&self.records, scale(self.args.tiny), gpu["name"].as_str().and_then(Ceilings::of)),
            "steps": self.records,
        })
    }

    fn tell(&self) {
        println!();
        self.outcomes.iter().for_each(|(name, outcome)| println!("{name:<24} {}", outcome.word()));
        println!("{:.0} s; {}", self.started.elapsed().as_secs_f64(), self.args.out.join("gpu-check.md").display());
    }
}

/// Whole, or not at all: who cuts the check off finds what was there before.
fn write(path: &Path, text: &str) -> Result<()> {
    let half = path.with_extension("part");
    fs::write(&half, text)
        .and_then(|()| fs::rename(&half, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
