//! One generated file per kernel file: it includes the kernel file and makes its kernels known by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::compile::{Compiler, files, newer_than_all};
use super::kernels;

/// Most threads that a block has anywhere; the bound of a kernel without one.
const MAX_THREADS: &str = "1024";

/// Writes the files that are not up to date; returns all, in the order of their sources.
pub fn generate(compiler: &Compiler, sources: &[PathBuf], prefix: &str) -> Result<Vec<PathBuf>> {
    sources.iter().map(|source| generate_one(compiler, source, prefix)).collect()
}

fn generate_one(compiler: &Compiler, source: &Path, prefix: &str) -> Result<PathBuf> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let unit = compiler.generated().join(format!("{prefix}-{stem}.cpp"));
    // A header may declare kernels through a macro.
    let folder = source.parent().unwrap_or(source);
    let mut inputs = files(&folder.join("include"), "cuh")?;
    inputs.push(source.to_owned());
    if !newer_than_all(&unit, &inputs) {
        let text = unit_text(source, &kernels::find(&compiler.preprocess(source)?))?;
        fs::write(&unit, text).with_context(|| format!("cannot write {}", unit.display()))?;
    }
    Ok(unit)
}

/// The names of the kernels that generated files make known, by source.
pub fn kernels(folder: &Path, prefix: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for path in files(folder, "cpp")? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(source) = stem.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')) {
            found.insert(format!("{source}.cu"), names(&fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}

fn names(unit: &str) -> Vec<String> {
    let marks = unit.lines().filter_map(|line| line.strip_prefix("EMU_KERNEL("));
    marks.filter_map(|mark| mark.split(',').next()).map(str::to_owned).collect()
}

/// A namespace without a name keeps what kernel files define apart, as modules do on the device: two of them may well give
/// different functions one name.
fn unit_text(source: &Path, kernels: &[kernels::Kernel]) -> Result<String> {
    if kernels.is_empty() {
        bail!("{} declares no extern \"C\" __global__ function", source.display());
    }
    let mut text = format!("namespace {{\n#include \"{}\"\n", source.display());
    for kernel in kernels {
        let max_threads = kernel.max_threads.as_deref().unwrap_or(MAX_THREADS);
        text.push_str(&format!("EMU_KERNEL({}, ({max_threads}))\n", kernel.name));
    }
    text.push_str("}  // namespace\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_its_kernels() {
        let kernel = |max_threads: Option<&str>| kernels::Kernel {
            name: "copy".to_owned(),
            max_threads: max_threads.map(str::to_owned),
        };
        let text = |kernel| unit_text(Path::new("/x/copy.cu"), &[kernel]).expect("it has a kernel");
        assert!(text(kernel(None)).contains("#include \"/x/copy.cu\"\nEMU_KERNEL(copy, (1024))\n"));
        assert!(text(kernel(Some("4 * 32"))).contains("EMU_KERNEL(copy, (4 * 32))"));
        assert_eq!(names(&text(kernel(None))), ["copy"]);
        assert!(unit_text(Path::new("/x/copy.cu"), &[]).is_err());
    }
}
