//! What lies beside the check and on the machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

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

    /// The commit that was packed.
    pub fn commit(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("COMMIT")).ok().map(|commit| commit.trim().to_owned())
    }

    /// The default model, whose file has a name of its own.
    pub fn model(&self) -> Result<PathBuf, String> {
        let mut found: Vec<PathBuf> =
            entries(&self.folder).filter(|path| path.extension().is_some_and(|kind| kind == "gguf")).collect();
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

    /// `LD_LIBRARY_PATH` with the folder of cublasLt, which often lies where Python's packages are and nobody looks.
    ///
    /// # Errors
    /// If the machine has none.
    pub fn with_cublaslt(&self) -> Result<OsString, String> {
        let given = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let given: Vec<PathBuf> = std::env::split_paths(&given).filter(|path| !path.as_os_str().is_empty()).collect();
        let system = ["/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"].map(PathBuf::from);
        let found = given.iter().cloned().chain(system).chain(self.python_libraries()).find(|path| has_cublaslt(path));
        let found = found.ok_or_else(|| "cublasLt is not installed".to_owned())?;
        std::env::join_paths(given.into_iter().chain([found])).map_err(|error| error.to_string())
    }

    /// Where pip puts NVIDIA's libraries, for the Python that is found first.
    fn python_libraries(&self) -> Vec<PathBuf> {
        let Ok(python) = self.installed("python3") else { return Vec::new() };
        let Some(home) = python.parent().and_then(Path::parent) else { return Vec::new() };
        let packages = entries(&home.join("lib")).flat_map(|version| {
            ["site-packages", "dist-packages"].map(|packages| version.join(packages).join("nvidia"))
        });
        packages.flat_map(|nvidia| entries(&nvidia)).map(|part| part.join("lib")).collect()
    }
}

/// The library of the CUDA version that the kernels are compiled with.
fn has_cublaslt(folder: &Path) -> bool {
    ["libcublasLt.so.13", "libcublasLt.so"].iter().any(|name| folder.join(name).exists())
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
