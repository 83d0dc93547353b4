//! The CUDA kernels on the emulator: its own tests, then the kernels' tests in other orders of lanes and under sanitizers. (The plain
//! order is part of all tests, which find the emulator by themselves.)

use std::process::Command;

use anyhow::Result;

use super::{Context, Counts, cargo};
use crate::emu::{self, Sanitizer};
use crate::mutants;

const ALL: &[&str] = &["cuda::tests"];
/// Under the thread sanitizer all tests would take minutes: one with every matmul's tile and one with all of attention.
const UNDER_THREADS: &[&str] = &["cuda::tests::dense::sums_agree", "cuda::tests::attention::mixed_steps_agree"];

pub(super) fn run(context: &Context) -> Result<Counts> {
    let mut counts = emu::test(&context.root, None)?;
    let folder = emu::build(&context.root, None)?;
    // The program itself: a sanitizer shall watch it, and not cargo.
    let program = mutants::tests(&context.root)?;
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

/// Points `command` to the emulator, where it was built and nothing else was chosen.
pub(super) fn offer(context: &Context, command: &mut Command) {
    let folder = context.target().join("emu");
    let is_chosen = command.get_envs().any(|(name, _)| name == "LD_LIBRARY_PATH");
    if !is_chosen && folder.join("libcuda.so.1").exists() {
        command.env("LD_LIBRARY_PATH", folder);
    }
}
