//! The parts that are cargo's own: format, lints, compiling, tests.

use std::process::Command;

use anyhow::Result;

use super::harness::{self, Harness};
use super::{Context, Counts, command, goldens};

pub(super) fn fmt(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["fmt", "--all", "--check"]))
}

pub(super) fn clippy(context: &Context) -> Result<Counts> {
    one(&mut context.cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

pub(super) fn build(context: &Context) -> Result<Counts> {
    Ok(Counts::one(context.built().map_err(|error| println!("{error:#}")).is_ok()))
}

/// A command that is one check: it succeeds or fails.
fn one(command: &mut Command) -> Result<Counts> {
    Ok(Counts::one(command::run(command)?.status.success()))
}

/// All tests but those of whole models, which run once per instruction set.
pub(super) fn tests(context: &Context) -> Result<Counts> {
    let programs = context.built()?.tests().filter(|program| program.package != goldens::PACKAGE);
    harness::run(context, programs.map(|program| Harness::new(program, "")).collect())
}
