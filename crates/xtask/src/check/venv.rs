//! Python environments under `target/`, one per set of requirements, made once and kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Context, command};

/// The requirements an environment was made of, kept beside it.
const STAMP: &str = "requirements.txt";

/// The python of the environment `target/venv-<name>`, which has what `requirements` lists.
pub(super) fn python(context: &Context, name: &str, requirements: &Path) -> Result<PathBuf> {
    let folder = context.target().join(format!("venv-{name}"));
    let python = folder.join("bin/python");
    let wanted = fs::read_to_string(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == wanted) && python.exists() {
        return Ok(python);
    }
    let made = command::run(context.command("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    ensure!(made.status.success(), "python3 cannot make an environment; is its venv module installed?");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    let installed = command::run(context.command(&python).args(install).arg(requirements))?;
    ensure!(installed.status.success(), "pip cannot install {}", requirements.display());
    fs::write(folder.join(STAMP), wanted).context("cannot mark the environment as made")?;
    Ok(python)
}
