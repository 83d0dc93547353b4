//! `tokenmill`: the composition root, the only crate that sees both towers.
//!
//! `args` says what can be asked, `commands` has a file per subcommand, `assemble` puts an engine together.

mod args;
mod assemble;
mod commands;
mod config_file;
mod progress;
mod say;
mod size;
mod text_side;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let argv = match config_file::expand(std::env::args_os().collect(), |name| std::env::var_os(name).is_some()) {
        Ok(argv) => argv,
        Err(error) => return fail(&error),
    };
    let cli = Cli::parse_from(argv);
    init_logging(cli.log.as_deref());
    let done = match cli.command {
        Command::Serve(args) => commands::serve::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
        Command::Models(args) => commands::models::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Bench(command) => commands::bench::run(&command),
    };
    done.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("tokenmill: {error:#}");
    ExitCode::FAILURE
}

fn init_logging(filter: Option<&str>) {
    use std::io::IsTerminal;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter.unwrap_or("warn")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
