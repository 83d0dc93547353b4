//! The project's own commands: `cargo xtask check`, `tidy`, `sim`, `emu`, `pack` and more. Not part of the product.

mod check;
mod emu;
mod mutants;
mod pack;
mod simulate;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Checks this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything the project promises: format, lints, house rules, tests, goldens, simulation, clients.
    Check {
        /// Only these parts, in the usual order.
        #[arg(long, value_name = "PART", value_delimiter = ',')]
        only: Vec<String>,
        /// Name the parts, and run none.
        #[arg(long)]
        list: bool,
    },
    /// Fetch the CUDA compiler into target/ and compile every kernel for every GPU; builds after it embed them.
    Kernels,
    /// Break each CUDA kernel in one place at a time, and see that its tests notice.
    Mutants {
        /// Only in files whose name has this in it.
        #[arg(default_value = "")]
        file: String,
    },
    /// Build and gather what `gpu-check` needs on a machine with a GPU, into target/gpu-check.
    Pack {
        /// GPU architectures to compile for.
        #[arg(long, default_value = "90a")]
        archs: String,
        /// A model's file to take along.
        #[arg(long)]
        model: Option<PathBuf>,
    },
    /// Run the house rules alone.
    Tidy,
    /// Replay one seed of the simulator, with its trace.
    Sim {
        seed: u64,
        /// Steps in flight, 1 or 2; both when left out.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2))]
        depth: Option<u32>,
    },
    /// Compile the CUDA kernels for the emulator, with a driver library that runs them without a GPU.
    Emu {
        /// Watch the kernels with this sanitizer.
        #[arg(long, value_name = "SANITIZER")]
        sanitize: Option<emu::Sanitizer>,
        /// Run the emulator's own tests instead; under all sanitizers unless one is named.
        #[arg(long)]
        test: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when all that was asked for passed.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Check { list: true, .. } => Ok(check::list()),
        Command::Check { only, .. } => check::run(&root(), &only),
        Command::Kernels => check::run(&root(), &["kernels".to_owned()]),
        Command::Mutants { file } => mutants::run(&root(), &file),
        Command::Pack { archs, model } => pack::run(&root(), &archs, model.as_deref()).map(|()| true),
        Command::Tidy => Ok(tidy::run(&root())?.failed == 0),
        Command::Sim { seed, depth } => simulate::replay(&root(), seed, depth),
        Command::Emu { sanitize, test: true } => Ok(emu::test(&root(), sanitize)?.failed == 0),
        Command::Emu { sanitize, test: false } => emu::build_and_tell(&root(), sanitize).map(|()| true),
    }
}

/// The repository's top folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders deep").to_owned()
}
