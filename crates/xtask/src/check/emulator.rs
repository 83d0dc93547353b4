//! The CUDA kernels on the emulator: its own tests, then the kernels' tests in other orders of lanes and under sanitizers. (The plain
//! order is part of all tests, which find the emulator by themselves.)

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Counts, cargo};
use crate::emu::{self, Sanitizer};

const ALL: &[&str] = &["cuda::tests"];
/// Under the thread sanitizer all tests would take minutes: one with every matmul's tile and one with all of attention.
const UNDER_THREADS: &[&str] = &["cuda::tests::dense::sums_agree", "cuda::tests::attention::mixed_steps_agree"];

pub(super) fn run(context: &Context) -> Result<Counts> {
    let mut counts = emu::test(&context.root, None)?;
    let folder = emu::build(&context.root, None)?;
    let program = tests(context)?;
    for order in ["reverse", "random"] {
        println!("-- lanes in {order} order");
        let mut command = context.command(&program);
        command.args(ALL).env("LD_LIBRARY_PATH", &folder).env("TOKENMILL_EMU_ORDER", order);
        counts.merge(cargo::counted(context, &mut command)?);
    }
    for (sanitizer, names) in [(Sanitizer::Address, ALL), (Sanitizer::Thread, UNDER_THREADS)] {
        println!("-- {sanitizer:?} sanitizer");
        let folder = emu::build(&context.root, Some(sanitizer))?;
        let mut command = context.command(&program);
        emu::watch(sanitizer, &folder, command.args(names))?;
        counts.merge(cargo::counted(context, &mut command)?);
    }
    Ok(counts)
}

/// The program of the kernels' tests: a sanitizer shall watch it, and not cargo.
fn tests(context: &Context) -> Result<PathBuf> {
    let mut command = context.cargo(&["test", "--package", "kernels", "--lib", "--no-run", "--message-format=json"]);
    let output = command.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the kernels' tests do not compile");
    let messages = String::from_utf8_lossy(&output.stdout);
    let program = messages.split("\"executable\":\"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(Path::new(program.context("cargo names the program that it built")?).to_owned())
}

/// Points `command` to the emulator, where it was built and nothing else was chosen.
pub(super) fn offer(context: &Context, command: &mut Command) {
    let folder = context.target().join("emu");
    let is_chosen = command.get_envs().any(|(name, _)| name == "LD_LIBRARY_PATH");
    if !is_chosen && folder.join("libcuda.so.1").exists() {
        command.env("LD_LIBRARY_PATH", folder);
    }
}
