//! `cargo xtask pack`: everything that `gpu-check` needs, in one folder that can be carried to a machine with a GPU and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::check::Built;

/// The programs of a pack.
pub struct Programs<'a> {
    pub tokenmill: &'a Path,
    pub gpu_check: &'a Path,
    pub kernels_tests: &'a Path,
}

/// Builds for `archs` (as in `90a`), and fills target/gpu-check; with the model's file where one is given.
pub fn run(root: &Path, archs: &str, model: Option<&Path>) -> Result<()> {
    let released = |arguments: &[&str]| {
        let arguments = [arguments, &["--release", "--quiet"]].concat();
        Built::by(root, &arguments, &[("TOKENMILL_CUDA", "require"), ("TOKENMILL_CUDA_ARCHS", archs)])
    };
    let programs = released(&["build", "--package", "tokenmill", "--package", "benches", "--bins"])?;
    let tests = released(&["test", "--no-run", "--package", "kernels", "--lib"])?;
    let folder = root.join("target/gpu-check");
    fs::remove_dir_all(&folder).ok();
    let programs = Programs {
        tokenmill: &programs.binary("tokenmill")?.path,
        gpu_check: &programs.binary("benches")?.path,
        kernels_tests: &tests.library_tests("kernels")?.path,
    };
    for path in lay_out(root, &programs, &folder, |from, to| fs::copy(from, to).map(drop))? {
        let stripped =
            Command::new("strip").arg(&path).status().context("cannot start strip; is binutils installed?")?;
        ensure!(stripped.success(), "strip failed on {}", path.display());
    }
    fs::write(folder.join("COMMIT"), commit(root)?)?;
    if let Some(model) = model {
        fs::copy(model, folder.join(model.file_name().context("the model is a file")?))?;
    }
    tell(&folder)
}

/// Puts programs, configs, a tiny model and the peer's script into `folder`, each by `bring`. Returns the programs' paths there.
pub fn lay_out(
    root: &Path,
    programs: &Programs<'_>,
    folder: &Path,
    bring: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> Result<Vec<PathBuf>> {
    let named = [
        (programs.tokenmill, "tokenmill"),
        (programs.gpu_check, "gpu-check"),
        (programs.kernels_tests, "kernels-tests"),
    ];
    fs::create_dir_all(folder)?;
    for (from, name) in named {
        bring(from, &folder.join(name)).with_context(|| format!("cannot bring {}", from.display()))?;
    }
    copy_folder(&root.join("benches/configs"), &folder.join("configs"))?;
    copy_folder(&root.join("tests/tiny/llama"), &folder.join("tiny"))?;
    let script = "transformers_peer.py";
    fs::copy(root.join("benches/peers").join(script), folder.join(script))?;
    Ok(named.map(|(_, name)| folder.join(name)).to_vec())
}

/// The commit that was built, with `-dirty` where files differ from it: the repository will not be there.
fn commit(root: &Path) -> Result<String> {
    let arguments = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    let output = Command::new("git").args(arguments).current_dir(root).output().context("cannot start git")?;
    ensure!(output.status.success(), "git knows no commit here");
    Ok(String::from_utf8(output.stdout)?)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Prints what each thing takes, and how to run it there.
fn tell(folder: &Path) -> Result<()> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let bytes = bytes(&entry.path())?;
        total += bytes;
        println!("{:>8.1} MiB  {}", bytes as f64 / f64::from(1 << 20), entry.file_name().to_string_lossy());
    }
    println!("{:>8.1} MiB  {}", total as f64 / f64::from(1 << 20), folder.display());
    println!("there: ./gpu-check --out RESULTS");
    Ok(())
}

fn bytes(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum()
}
