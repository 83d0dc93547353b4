//! The CUDA kernels on the emulator: its own tests, then the kernels' tests under sanitizers, and in other orders of lanes and of
//! kernels. (The plain order is part of all tests, which find the emulator by themselves.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::harness::{self, Harness};
use super::{Context, Counts, command, kernels};
use crate::emu::{self, Sanitizer};
use crate::pack::{self, Programs};

/// Under the thread sanitizer all tests would take many minutes: these launch a kernel of each source at least, as few times as they can.
const WATCHED: &str = include_str!("../../../../kernels/src/cuda/tests/watched.txt");

/// One way to run the kernels' tests.
struct Way<'a> {
    name: String,
    tests: Vec<&'a str>,
    /// A kernel for each of these must be launched.
    wanted: &'a Wanted,
    variables: Vec<(&'static str, String)>,
}

/// Kernels by what they stand for: themselves, or their source.
type Wanted = BTreeMap<String, Vec<String>>;

pub(super) fn run(context: &Context) -> Result<Counts> {
    let mut counts = emu::test(&context.root, None)?;
    let plain = emu::build(&context.root, None)?;
    let each = kernels::names(&context.root)?.into_iter().map(|name| (name.clone(), vec![name])).collect();
    let by_source = emu::kernels_by_source(&plain)?;
    let mut ways = Vec::new();
    for (sanitizer, tests, wanted) in
        [(Sanitizer::Address, vec!["cuda::tests"], &each), (Sanitizer::Thread, WATCHED.lines().collect(), &by_source)]
    {
        let variables = emu::variables(Some(sanitizer), &emu::build(&context.root, Some(sanitizer))?)?;
        ways.push(Way { name: format!("{sanitizer:?} sanitizer"), tests, wanted, variables });
    }
    // Blocks of 8.6 have the least shared memory, and nothing overlaps there; the other orders are on 9.0.
    for (order, capability) in [("early", "9.0"), ("random", "9.0"), ("reverse", "8.6")] {
        let mut variables = emu::variables(None, &plain)?;
        variables.push(("TOKENMILL_EMU_ORDER", order.to_owned()));
        variables.push(("TOKENMILL_EMU_CAPABILITY", capability.to_owned()));
        ways.push(Way { name: format!("{order} order"), tests: vec!["cuda::tests"], wanted: &each, variables });
    }
    counts.merge(run_all(context, &ways)?);
    counts.merge(gpu_check(context, &plain)?);
    Ok(counts)
}

/// Counts the tests of all ways, and one more each: that among them they launch all that is wanted.
fn run_all(context: &Context, ways: &[Way<'_>]) -> Result<Counts> {
    // The program itself: a sanitizer shall watch it, and not cargo.
    let program = context.built()?.library_tests("kernels")?;
    let launched = |way: &Way<'_>| context.target().join(format!("emu-launched-{}.txt", way.name.replace(' ', "-")));
    let mut harnesses = Vec::new();
    for way in ways {
        std::fs::remove_file(launched(way)).ok();
        let mut harness = Harness::new(program, &format!(", {}", way.name));
        harness.command.args(&way.tests).envs(way.variables.iter().map(|(name, value)| (name, value)));
        // A thread for each: the ways fill the cores, and none ends with a test that keeps one core waiting.
        harness.command.env("RUST_TEST_THREADS", "1").env("TOKENMILL_EMU_LAUNCHED", launched(way));
        harnesses.push(harness);
    }
    let mut counts = harness::run(context, harnesses)?;
    for way in ways {
        let missing = missing(way.wanted, &std::fs::read_to_string(launched(way)).unwrap_or_default());
        if !missing.is_empty() {
            println!("{} never launched: {}", way.name, missing.join(", "));
        }
        counts.add(missing.is_empty());
    }
    Ok(counts)
}

/// What of `wanted` has no kernel among the lines of `launched`.
fn missing<'a>(wanted: &'a Wanted, launched: &str) -> Vec<&'a str> {
    let launched: BTreeSet<&str> = launched.lines().collect();
    let absent = |names: &[String]| names.iter().all(|name| !launched.contains(name.as_str()));
    wanted.iter().filter(|(_, names)| absent(names)).map(|(what, _)| what.as_str()).collect()
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
            Some("missing" | "skipped") => counts.skipped += 1,
            outcome => counts.add(outcome == Some("passed")),
        }
    }
    ensure!(ended.success() == (counts.failed == 0), "gpu-check ended with {ended}");
    Ok(counts)
}

/// Brings the emulator, where there is one, up to the kernels as they are now.
pub(super) fn refresh(context: &Context) -> Result<()> {
    if context.target().join("emu").exists() {
        emu::build(&context.root, None)?;
    }
    Ok(())
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
        let wanted =
            |what: &str, names: &[&str]| (what.to_owned(), names.iter().map(|&name| name.to_owned()).collect());
        let wanted = Wanted::from([wanted("norm.cu", &["norm", "norm_add"]), wanted("sample", &["sample"])]);
        assert_eq!(missing(&wanted, "norms\nsample\nwrapper\n"), ["norm.cu"]);
        assert!(missing(&wanted, "sample\nnorm_add\n").is_empty());
    }
}
