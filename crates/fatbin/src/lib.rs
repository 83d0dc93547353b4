//! CUDA sources to images, each with machine code for every architecture and PTX for those to come. `cargo xtask kernels` compiles
//! them into a store, once for all profiles; the build script of `kernels` embeds what it finds there, and compiles what it does not.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

/// Architectures with machine code.
pub const ARCHS: &[&str] = &["80", "86", "89", "90a", "100a", "120a"];
/// PTX of the oldest, for architectures that are not named.
const PTX: &str = "80";
/// What each kernel is of.
const OPTIONS: &[&str] = &["-std=c++17", "-O3", "-lineinfo", "-Xptxas=-v", "-Xfatbin=-compress-all"];
const HEADERS: &str = "cuda/include";

/// How sources become images.
pub struct Recipe {
    /// The package of kernels, with `cuda/include`.
    package: PathBuf,
    options: Vec<String>,
    headers: Vec<u8>,
}

/// A compiled source.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    /// What ptxas says of its kernels.
    pub said: String,
}

impl Recipe {
    /// For `archs` such as `90a`.
    ///
    /// # Errors
    /// If the headers of `package` cannot be read.
    pub fn new(package: &Path, archs: &[&str]) -> Result<Self> {
        // What 8.6 has beyond 8.0 no source can say: the front half of the work is done once for both.
        let front = |arch| if arch == "86" { "80" } else { arch };
        let code = archs.iter().map(|arch| format!("-gencode=arch=compute_{},code=sm_{arch}", front(arch)));
        let options = OPTIONS.iter().map(|&option| option.to_owned()).chain(code);
        let options = options.chain([format!("-gencode=arch=compute_{PTX},code=compute_{PTX}")]).collect();
        let headers = files(&package.join(HEADERS), "cuh")?.iter().map(fs::read).collect::<Result<Vec<_>>>()?.concat();
        Ok(Self { package: package.to_owned(), options, headers })
    }

    /// The image of `source` in the folder `store`, if it is of these very sources and options.
    #[must_use]
    pub fn find(&self, source: &Path, store: &Path) -> Option<Image> {
        let path = image(source, store);
        let log = fs::read_to_string(path.with_extension("log")).ok()?;
        let (key, said) = log.split_once('\n')?;
        let is_current = path.is_file() && key == self.key(source).ok()?;
        is_current.then(|| Image { path, said: said.to_owned() })
    }

    /// Whether `nvcc` is there and knows the architectures and options: it says so without a source.
    #[must_use]
    pub fn suits(&self, nvcc: &Path) -> bool {
        let output = Command::new(nvcc).args(&self.options).args(["--fatbin", "--dryrun", "any.cu"]).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Compiles `source` into the folder `store`, which exists.
    ///
    /// # Errors
    /// If `nvcc` cannot be started or fails, with what it says.
    pub fn compile(&self, nvcc: &Path, source: &Path, store: &Path) -> Result<Image> {
        let path = image(source, store);
        let mut command = Command::new(nvcc);
        command.args(&self.options).arg("--fatbin").arg("-I").arg(self.package.join(HEADERS));
        let output = command.arg("-o").arg(&path).arg(source).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(Error::other(format!("nvcc failed on {}:\n{said}", source.display())));
        }
        fs::write(path.with_extension("log"), format!("{}\n{said}", self.key(source)?))?;
        Ok(Image { path, said })
    }

    /// FNV-1a of all that decides an image but the compiler's version.
    fn key(&self, source: &Path) -> Result<String> {
        let source = fs::read(source)?;
        let parts = self.options.iter().map(String::as_bytes).chain([source.as_slice(), &self.headers]);
        let hash = parts
            .flatten()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Ok(format!("{hash:016x}"))
    }
}

fn image(source: &Path, store: &Path) -> PathBuf {
    store.join(source.file_name().expect("a source has a name")).with_extension("fatbin")
}

/// The files of `folder` whose names end in `extension`, by name.
///
/// # Errors
/// If the folder cannot be listed.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut paths: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    paths.sort();
    Ok(paths)
}

/// `work` on each source, on all cores, the largest first; results in the sources' order.
pub fn on_all_cores<T: Send>(sources: &[PathBuf], work: impl Fn(&Path) -> T + Sync) -> Vec<T> {
    let mut queue: Vec<usize> = (0..sources.len()).collect();
    queue.sort_by_key(|&idx| fs::metadata(&sources[idx]).map_or(0, |file| file.len()));
    let (queue, done) = (Mutex::new(queue), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("no worker panics here").pop();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(idx) = next() {
                    let result = work(&sources[idx]);
                    done.lock().expect("no worker panics here").push((idx, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics here");
    done.sort_by_key(|(idx, _)| *idx);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("fatbin-{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join(HEADERS)).unwrap();
            Self(folder)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// A compiler that says a word and writes what it was given.
    #[cfg(unix)]
    fn nvcc(folder: &Folder, verdict: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let script = "#!/bin/sh\nall=$*\necho words >&2\nwhile [ $# -gt 1 ]; do [ $1 = -o ] && out=$2; shift; done\n[ -n \"$out\" ] && cp $1 $out\n";
        let path = folder.write("nvcc", &format!("{script}{verdict}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    #[cfg(unix)]
    fn an_image_is_found_until_something_changes() {
        let folder = Folder::new("found");
        let (source, header) = (folder.write("a.cu", "one"), folder.write("cuda/include/h.cuh", "head"));
        let recipe = |archs: &[&str]| Recipe::new(&folder.0, archs).unwrap();
        assert!(recipe(ARCHS).find(&source, &folder.0).is_none());
        let image = recipe(ARCHS).compile(&nvcc(&folder, "exit 0"), &source, &folder.0).unwrap();
        assert_eq!((fs::read(&image.path).unwrap().as_slice(), image.said.as_str()), (&b"one"[..], "words\n"));
        let found = recipe(ARCHS).find(&source, &folder.0).expect("nothing changed");
        assert_eq!((found.path, found.said), (image.path.clone(), image.said));
        assert!(recipe(&["80"]).find(&source, &folder.0).is_none(), "other architectures");
        fs::write(&header, "tail").unwrap();
        assert!(recipe(ARCHS).find(&source, &folder.0).is_none(), "another header");
        fs::write(&header, "head").unwrap();
        fs::write(&source, "two").unwrap();
        assert!(recipe(ARCHS).find(&source, &folder.0).is_none(), "another source");
        fs::write(&source, "one").unwrap();
        assert!(recipe(ARCHS).find(&source, &folder.0).is_some());
        fs::remove_file(image.path).unwrap();
        assert!(recipe(ARCHS).find(&source, &folder.0).is_none(), "no image");
    }

    #[test]
    #[cfg(unix)]
    fn a_compilers_words_are_its_error() {
        let folder = Folder::new("words");
        let source = folder.write("a.cu", "one");
        let recipe = Recipe::new(&folder.0, ARCHS).unwrap();
        let error = recipe.compile(&nvcc(&folder, "exit 1"), &source, &folder.0).unwrap_err().to_string();
        assert!(error.contains("a.cu:\nwords"), "{error}");
        assert!(recipe.find(&source, &folder.0).is_none());
    }

    #[test]
    #[cfg(unix)]
    fn a_compiler_that_knows_too_little_is_passed_over() {
        let folder = Folder::new("suits");
        let nvcc = nvcc(&folder, r#"case "$all" in *sm_90a*) exit 1;; esac"#);
        let suits = |archs: &[&str]| Recipe::new(&folder.0, archs).unwrap().suits(&nvcc);
        assert!(suits(&["80", "86"]) && !suits(&["80", "90a"]));
        assert!(!Recipe::new(&folder.0, &["80"]).unwrap().suits(Path::new("/nowhere/nvcc")));
    }

    #[test]
    fn results_keep_the_order_of_sources() {
        let folder = Folder::new("order");
        let sources: Vec<_> = (0..9).map(|idx| folder.write(&format!("{idx}.cu"), &"x".repeat(idx * 7 % 5))).collect();
        assert_eq!(files(&folder.0, "cu").unwrap(), sources);
        assert_eq!(on_all_cores(&sources, Path::to_owned), sources);
    }
}
