//! `cargo xtask mutants`: breaks each CUDA kernel in one place at a time, and shows that its tests notice.

mod list;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::check::Built;
use crate::emu::{self, Sanitizer};
use list::MUTANTS;

/// One mistake.
struct Mutant {
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
    /// The tests that notice, of `cuda::tests`.
    tests: &'static str,
    watch: Watch,
}

/// How the emulator runs while it shall notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Plainly,
    /// Kernels up to their wait before those before them.
    Early,
    Under(Sanitizer),
}

const fn mutant(
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
    tests: &'static str,
) -> Mutant {
    Mutant { file, what, from, to, tests, watch: Watch::Plainly }
}

impl Mutant {
    /// Noticed by those alone who watch so.
    const fn watched(self, watch: Watch) -> Self {
        Self { watch, ..self }
    }
}

/// True when each in a file called like `file` is noticed.
pub fn run(root: &Path, file: &str) -> Result<bool> {
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(|mutant| mutant.file.contains(file)).collect();
    ensure!(!mutants.is_empty(), "there are no mutants of a file called like {file:?}");
    let tree = root.join("target/mutants");
    copy_kernels(root, &tree)?;
    let built = Built::of(root)?;
    let tests = &built.library_tests("kernels")?.path;
    for watch in [Watch::Plainly, Watch::Early] {
        ensure!(passes(&tree, tests, "", watch)?, "the tests fail without any mistake: {watch:?}");
    }
    let mut missed = 0;
    for mutant in &mutants {
        let path = tree.join("kernels/cuda").join(mutant.file);
        let source = fs::read_to_string(&path)?;
        ensure!(source.contains(mutant.from), "{} has no {:?}", mutant.file, mutant.from);
        fs::write(&path, source.replacen(mutant.from, mutant.to, 1))?;
        let survived = passes(&tree, tests, mutant.tests, mutant.watch);
        fs::write(&path, source)?;
        let survived = survived?;
        missed += usize::from(survived);
        println!("{:<9} {}: {}", if survived { "MISSED" } else { "noticed" }, mutant.file, mutant.what);
    }
    println!("{} noticed, {missed} missed", mutants.len() - missed);
    Ok(missed == 0)
}

/// A tree with the emulator as it is and the kernels' files anew.
fn copy_kernels(root: &Path, tree: &Path) -> Result<()> {
    let (from, to) = (root.join("kernels"), tree.join("kernels"));
    fs::create_dir_all(to.join("cuda/include"))?;
    fs::create_dir_all(to.join("cuda/conformance"))?;
    fs::remove_file(to.join("emu")).ok();
    std::os::unix::fs::symlink(from.join("emu"), to.join("emu"))?;
    for folder in ["cuda", "cuda/include", "cuda/conformance"] {
        for entry in fs::read_dir(from.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                let copied = to.join(folder).join(path.file_name().context("a file has a name")?);
                // What did not change keeps its time, and is not compiled anew.
                if fs::read(&copied).ok() != Some(fs::read(&path)?) {
                    fs::copy(&path, copied)?;
                }
            }
        }
    }
    Ok(())
}

/// Whether the kernels of `tree` pass the tests called `names`. Kernels that do not compile, or hang, do not.
fn passes(tree: &Path, tests: &Path, names: &str, watch: Watch) -> Result<bool> {
    let sanitizer = if let Watch::Under(sanitizer) = watch { Some(sanitizer) } else { None };
    let folder = emu::build(tree, sanitizer)?;
    let mut command = Command::new("timeout");
    command.arg("300").arg(tests).arg(format!("cuda::tests::{names}")).envs(emu::variables(sanitizer, &folder)?);
    if watch == Watch::Early {
        command.env("TOKENMILL_EMU_ORDER", "early");
    }
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().context("cannot start the tests")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_file_has_a_mutant_and_every_mutant_a_place() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda");
        // The emulator has its own: what is in it is compared on a card.
        let others = ["include/ptx.cuh"];
        for part in ["", "include/"] {
            for entry in fs::read_dir(folder.join(part)).expect("it is there") {
                let path = entry.expect("it can be listed").path();
                let file = format!("{part}{}", path.file_name().expect("it has a name").to_string_lossy());
                let is_known = MUTANTS.iter().any(|mutant| mutant.file == file) || others.contains(&file.as_str());
                assert!(path.is_dir() || is_known, "{file} has no mutant");
            }
        }
        for mutant in MUTANTS {
            let source = fs::read_to_string(folder.join(mutant.file)).expect("a mutant's file is there");
            assert!(source.contains(mutant.from), "{} has no {:?}", mutant.file, mutant.from);
        }
    }
}
