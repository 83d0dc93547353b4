//! `cargo xtask emu`: the kernels without a GPU. Compiles the emulator, a driver library on top of it, and every CUDA kernel
//! file as plain C++ into `target/emu/libcuda.so.1`, which a program finds by `LD_LIBRARY_PATH`; and a matmul library beside it.
//!
//! What the emulator does and how to read its reports is in kernels/emu/README.md.

mod compile;
mod kernels;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::check::Counts;
use compile::{Compiler, Object};

const LIBRARY: &str = "libcuda.so.1";
const MATMUL_LIBRARY: &str = "libcublasLt.so";
const TESTS: &str = "emulator-tests";
/// What the generated files of kernels begin with, other than those of tests.
const KERNELS: &str = "kernel";

/// A sanitizer that watches the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sanitizer {
    /// Out of bounds, misaligned, undefined.
    Address,
    /// Races between threads of a block and between blocks.
    Thread,
}

/// One variant of the library, in a folder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Build {
    sanitizer: Option<Sanitizer>,
}

/// What a source is, which decides how it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Kernels, as written for the device.
    Kernel,
    /// The emulator and all that is written for the host.
    Host,
}

const BUILDS: &[Build] = &[
    Build { sanitizer: None },
    Build { sanitizer: Some(Sanitizer::Address) },
    Build { sanitizer: Some(Sanitizer::Thread) },
];

impl Build {
    fn folder(self, root: &Path) -> PathBuf {
        root.join("target").join(match self.sanitizer {
            None => "emu",
            Some(Sanitizer::Address) => "emu-address",
            Some(Sanitizer::Thread) => "emu-thread",
        })
    }

    fn flags(self, kind: Kind) -> Vec<&'static str> {
        match (self.sanitizer, kind) {
            (None, _) => vec!["-O2"],
            (Some(Sanitizer::Address), _) => {
                vec![
                    "-O1",
                    "-fno-omit-frame-pointer",
                    "-fsanitize=address,undefined",
                    "-fno-sanitize-recover=undefined",
                ]
            }
            (Some(Sanitizer::Thread), Kind::Kernel) => vec!["-O1", "-fno-omit-frame-pointer", "-fsanitize=thread"],
            // The emulator's bookkeeping is no race of a kernel: it tells the sanitizer by hand what to know.
            (Some(Sanitizer::Thread), Kind::Host) => vec!["-O2", "-DEMU_THREAD_SANITIZER"],
        }
    }

    fn link_flags(self) -> &'static [&'static str] {
        match self.sanitizer {
            None => &[],
            Some(Sanitizer::Address) => &["-fsanitize=address,undefined"],
            Some(Sanitizer::Thread) => &["-fsanitize=thread"],
        }
    }

    /// Options without which the sanitizer misreads stacks that switch, goes on after its first report, watches a host that is not
    /// compiled for it, or sleeps for a second whenever a process ends.
    fn options(self) -> Option<(&'static str, &'static str)> {
        match self.sanitizer {
            None => None,
            Some(Sanitizer::Address) => Some(("ASAN_OPTIONS", "detect_stack_use_after_return=0:detect_leaks=0")),
            Some(Sanitizer::Thread) => {
                Some(("TSAN_OPTIONS", "halt_on_error=1:ignore_noninstrumented_modules=1:atexit_sleep_ms=0"))
            }
        }
    }

    /// The sanitizer's library, which a host that is not compiled for it must load first.
    fn preloaded(self) -> Option<&'static str> {
        match self.sanitizer {
            None => None,
            Some(Sanitizer::Address) => Some("libasan.so"),
            Some(Sanitizer::Thread) => Some("libtsan.so"),
        }
    }
}

/// Builds both libraries, and returns the folder to name in `LD_LIBRARY_PATH`. What is up to date is left alone.
pub fn build(root: &Path, sanitizer: Option<Sanitizer>) -> Result<PathBuf> {
    let build = Build { sanitizer };
    let folder = build.folder(root);
    let compiler = Compiler::find(root, &folder)?;
    let mut objects = emulator_objects(&compiler, build)?;
    objects.extend(kernel_objects(&compiler, build, "kernels/cuda", KERNELS)?);
    objects.extend(kernel_objects(&compiler, build, "kernels/cuda/conformance", "conformance")?);
    compiler.compile(&objects)?;
    let driver = link(&compiler, build, &objects, &[], LIBRARY)?.display().to_string();
    let objects = host_objects(&compiler, build, "kernels/emu/cublaslt")?;
    compiler.compile(&objects)?;
    link(&compiler, build, &objects, &["-Wl,--no-as-needed", &driver], MATMUL_LIBRARY)?;
    Ok(folder)
}

/// The names of the kernels in each of the sources that `build` has compiled to this folder.
pub fn kernels_by_source(folder: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    units::kernels(&folder.join("gen"), KERNELS)
}

fn link(compiler: &Compiler, build: Build, objects: &[Object], others: &[&str], name: &str) -> Result<PathBuf> {
    let name_flag = format!("-Wl,-soname,{name}");
    let flags = ["-shared", &name_flag].into_iter().chain(others.iter().copied());
    compiler.link(objects, &flags.chain(build.link_flags().iter().copied()).collect::<Vec<_>>(), name)
}

/// What a program, which is not instrumented itself, needs in its environment to run kernels on the library in `folder`.
pub fn variables(sanitizer: Option<Sanitizer>, folder: &Path) -> Result<Vec<(&'static str, String)>> {
    let build = Build { sanitizer };
    let mut variables = vec![("LD_LIBRARY_PATH", folder.display().to_string())];
    variables.extend(build.options().map(|(name, value)| (name, value.to_owned())));
    if let Some(library) = build.preloaded() {
        variables.push(("LD_PRELOAD", compile::library(library)?));
    }
    Ok(variables)
}

/// Builds, and prints how to use what was built.
pub fn build_and_tell(root: &Path, sanitizer: Option<Sanitizer>) -> Result<()> {
    let variables = variables(sanitizer, &build(root, sanitizer)?)?;
    let settings: Vec<_> = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{}", settings.join(" "));
    Ok(())
}

/// Builds and runs the emulator's own tests, in one build or in all.
pub fn test(root: &Path, sanitizer: Option<Sanitizer>) -> Result<Counts> {
    let mut counts = Counts::default();
    for build in BUILDS.iter().filter(|build| sanitizer.is_none() || build.sanitizer == sanitizer) {
        let (passed, failed) = test_build(root, *build)?;
        counts.passed += passed;
        counts.failed += failed;
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(counts)
}

fn test_build(root: &Path, build: Build) -> Result<(u64, u64)> {
    let compiler = Compiler::find(root, &build.folder(root))?;
    let mut objects = emulator_objects(&compiler, build)?;
    objects.extend(kernel_objects(&compiler, build, "kernels/emu/tests", "test")?);
    objects.extend(host_objects(&compiler, build, "kernels/emu/tests")?);
    compiler.compile(&objects)?;
    let program = compiler.link(&objects, build.link_flags(), TESTS)?;
    let name = build.sanitizer.map_or("plain".to_owned(), |sanitizer| format!("{sanitizer:?}").to_lowercase());
    println!("==== {name}");
    let output = Command::new(&program).arg(&name).envs(build.options()).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let last = text.lines().last().and_then(parse_counts);
    last.with_context(|| format!("{} ended without a count: {}", program.display(), output.status))
}

/// Reads `N passed, M failed`.
fn parse_counts(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.split_once(", ")?;
    Some((passed.strip_suffix(" passed")?.parse().ok()?, failed.strip_suffix(" failed")?.parse().ok()?))
}

/// The emulator and the driver.
fn emulator_objects(compiler: &Compiler, build: Build) -> Result<Vec<Object>> {
    let mut objects = host_objects(compiler, build, "kernels/emu/src")?;
    objects.extend(host_objects(compiler, build, "kernels/emu/driver")?);
    Ok(objects)
}

fn host_objects(compiler: &Compiler, build: Build, folder: &str) -> Result<Vec<Object>> {
    let sources = compiler.sources(folder, "cpp")?;
    if sources.is_empty() {
        bail!("{folder} has no .cpp files");
    }
    let flags = build.flags(Kind::Host);
    Ok(sources.into_iter().map(|source| compiler.host_object(source, folder, &flags)).collect())
}

/// Objects of all kernel files in a folder; none where there is no such folder.
fn kernel_objects(compiler: &Compiler, build: Build, folder: &str, prefix: &str) -> Result<Vec<Object>> {
    let sources = compiler.sources(folder, "cu")?;
    let units = units::generate(compiler, &sources, prefix)?;
    let flags = build.flags(Kind::Kernel);
    Ok(units.into_iter().map(|unit| compiler.kernel_object(unit, &flags)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        for (line, counts) in [
            ("3 passed, 0 failed", Some((3, 0))),
            ("12 passed, 4 failed", Some((12, 4))),
            ("12 passed", None),
            ("Segmentation fault", None),
        ] {
            assert_eq!(parse_counts(line), counts, "{line}");
        }
    }
}
