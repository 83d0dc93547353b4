//! The CUDA kernels on the emulator: its own tests, then the kernels' tests in other orders of lanes and of kernels, and under
//! sanitizers. (The plain order is part of all tests, which find the emulator by themselves.)

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Context, Counts, cargo, command, kernels};
use crate::emu::{self, Sanitizer};
use crate::pack::{self, Programs};

const ALL: &[&str] = &["cuda::tests"];
/// Under the thread sanitizer all tests would take minutes: one with every matmul's tile, one with all of attention, one with all of
/// sampling.
const UNDER_THREADS: &[&str] = &[
    "cuda::tests::dense::sums_agree",
    "cuda::tests::attention::mixed_steps_agree",
    "cuda::tests::sample::rows_beyond_the_kernels_are_sampled_by_the_host",
];

pub(super) fn run(context: &Context) -> Result<Counts> {
    let mut counts = emu::test(&context.root, None)?;
    let folder = emu::build(&context.root, None)?;
    // The program itself: a sanitizer shall watch it, and not cargo.
    let program = context.built()?.library_tests("kernels")?;
    // Blocks of 8.6 have the least shared memory, and nothing overlaps there; the other orders are on 9.0.
    for (order, capability) in [("reverse", "8.6"), ("random", "9.0"), ("early", "9.0")] {
        println!("-- {order} order, compute capability {capability}");
        let mut command = program.command();
        command.args(ALL).env("LD_LIBRARY_PATH", &folder).env("TOKENMILL_EMU_ORDER", order).env("TOKENMILL_EMU_CAPABILITY", capability);
        counts.merge(whole(context, &mut command)?);
    }
    for (sanitizer, names) in [(Sanitizer::Address, ALL), (Sanitizer::Thread, UNDER_THREADS)] {
        println!("-- {sanitizer:?} sanitizer");
        let folder = emu::build(&context.root, Some(sanitizer))?;
        let mut command = program.command();
        emu::watch(sanitizer, &folder, command.args(names))?;
        let run = if names == ALL { whole } else { cargo::counted };
        counts.merge(run(context, &mut command)?);
    }
    counts.merge(gpu_check(context, &folder)?);
    Ok(counts)
}

/// Counts the tests that `command` runs, and one more: that among them they launch every kernel.
fn whole(context: &Context, command: &mut Command) -> Result<Counts> {
    let path = context.target().join("emu-launched.txt");
    std::fs::remove_file(&path).ok();
    let mut counts = cargo::counted(context, command.env("TOKENMILL_EMU_LAUNCHED", &path))?;
    let launched = std::fs::read_to_string(&path).unwrap_or_default();
    let names = kernels::names(&context.root)?;
    let missing = missing(&names, &launched);
    if !missing.is_empty() {
        println!("never launched: {}", missing.join(", "));
    }
    counts.add(missing.is_empty());
    Ok(counts)
}

/// Those of `names` that are no line of `launched`.
fn missing<'a>(names: &'a [String], launched: &str) -> Vec<&'a str> {
    let launched: BTreeSet<&str> = launched.lines().collect();
    names.iter().map(String::as_str).filter(|name| !launched.contains(name)).collect()
}

/// The command for machines with a GPU, on shapes for the emulator: each of its steps counts.
fn gpu_check(context: &Context, emulator: &Path) -> Result<Counts> {
    let (built, pack) = (context.built()?, context.target().join("gpu-check-tiny"));
    std::fs::remove_dir_all(&pack).ok();
    let programs = Programs {
        tokenmill: &built.binary("tokenmill")?.path,
        gpu_check: &built.binary("benches")?.path,
        kernels_tests: &built.library_tests("kernels")?.path,
    };
    pack::lay_out(&context.root, &programs, &pack, |from, to| std::os::unix::fs::symlink(from, to))?;
    let mut command = context.command(pack.join("gpu-check"));
    command.arg("--tiny").arg("--beside").arg(&pack).arg("--out").arg(pack.join("out"));
    let ended = command::run(command.env("LD_LIBRARY_PATH", emulator))?.status;
    let record: Value = serde_json::from_slice(&std::fs::read(pack.join("out/gpu-check.json"))?)?;
    let mut counts = Counts::default();
    for step in record["steps"].as_array().into_iter().flatten() {
        match step["outcome"].as_str() {
            Some("skipped") => counts.skipped += 1,
            outcome => counts.add(outcome == Some("passed")),
        }
    }
    ensure!(ended.success() == (counts.failed == 0), "gpu-check ended with {ended}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_no_test_launches_are_named() {
        let names = ["norm", "norm_add", "sample"].map(str::to_owned);
        assert_eq!(missing(&names, "norm_add\nsample\nwrapper\n"), ["norm"]);
        assert!(missing(&names, "sample\nnorm\nnorm_add\n").is_empty());
    }
}
