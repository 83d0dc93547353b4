//! What lies beside the check and on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder as `cargo xtask pack` fills it.
pub struct Places {
    folder: PathBuf,
}

impl Places {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// A file or folder that was packed.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn packed(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.folder.join(name);
        if path.exists() {
            Ok(path)
        } else {
            Err(format!("{name} is not beside the check; `cargo xtask pack` brings it"))
        }
    }

    /// The default model, whose file has a name of its own.
    pub fn model(&self) -> Result<PathBuf, String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| has_extension(path, "gguf")).collect();
        found.sort();
        found.into_iter().next().ok_or_else(|| "there is no .gguf file beside the check".to_owned())
    }

    /// A program that the machine has.
    pub fn installed(&self, name: &str) -> Result<PathBuf, String> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&paths).chain([PathBuf::from("/usr/local/cuda/bin")]);
        let mut candidates = folders.map(|folder| folder.join(name));
        candidates.find(|path| path.is_file()).ok_or_else(|| format!("{name} is not installed"))
    }

    /// A Python that has the modules of the peers.
    pub fn python(&self) -> Result<PathBuf, String> {
        let python = self.installed("python3")?;
        let tried =
            Command::new(&python).args(["-c", "import torch, transformers; assert torch.cuda.is_available()"]).output();
        match tried {
            Ok(output) if output.status.success() => Ok(python),
            _ => Err("python3 has no torch with CUDA, or no transformers".to_owned()),
        }
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}
