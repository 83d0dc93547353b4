//! Whole models against the reference tools' answers, once per instruction set that this processor has.

use anyhow::Result;

use super::harness::{self, Harness};
use super::{Context, Counts};

pub(super) const PACKAGE: &str = "tests";

/// Runs [`PACKAGE`] for each instruction set; one that the processor lacks is counted as skipped.
pub(super) fn run(context: &Context) -> Result<Counts> {
    let (mut counts, mut harnesses) = (Counts::default(), Vec::new());
    for (isa, here) in instruction_sets() {
        if !here {
            println!("SKIPPED goldens with {isa}: this processor does not have it");
            counts.skipped += 1;
            continue;
        }
        let is_first = harnesses.is_empty();
        for program in context.built()?.tests().filter(|program| program.package == PACKAGE) {
            let mut harness = Harness::new(program, &format!(" with {isa}"));
            harness.command.env("TOKENMILL_ISA", isa);
            if !is_first {
                // The reference backend and GPUs have none of these instruction sets: once is enough.
                harness.command.args(["--skip", "on_the_reference_backend"]).env("TOKENMILL_TEST_GPU", "off");
            }
            harnesses.push(harness);
        }
    }
    counts.merge(harness::run(context, harnesses)?);
    Ok(counts)
}

/// The kernels' names for instruction sets, and whether they run here.
fn instruction_sets() -> [(&'static str, bool); 3] {
    [("avx512", has_avx512()), ("avx2", has_avx2()), ("portable", true)]
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}
