//! Calls of g++: which sources become which objects, what is up to date, and several at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

/// For every source. Rounding is part of what is tested, so nothing is contracted behind the source's back.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-g1",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
];
/// Half precision by instructions rather than by calls.
#[cfg(target_arch = "x86_64")]
const NATIVE_FLAGS: &[&str] = &["-march=x86-64-v3"];
#[cfg(not(target_arch = "x86_64"))]
const NATIVE_FLAGS: &[&str] = &[];
/// A kernel file is written for another compiler, whose warnings it heeds.
const KERNEL_FLAGS: &[&str] =
    &["-DCUDA_EMU", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-attributes"];

/// Where kernel files find headers.
const KERNEL_INCLUDES: &[&str] = &["kernels/emu/include", "kernels/cuda/include"];

/// A source and what it is compiled to, with all arguments.
pub struct Object {
    pub source: PathBuf,
    pub path: PathBuf,
    arguments: Vec<String>,
}

/// g++ at work in one folder.
pub struct Compiler {
    program: String,
    root: PathBuf,
    folder: PathBuf,
}

impl Compiler {
    /// Looks whether there is one, and makes the folder.
    pub fn find(root: &Path, folder: &Path) -> Result<Self> {
        let program = program();
        if Command::new(&program).arg("--version").output().is_err() {
            bail!("there is no {program}: the emulator is C++, so install g++ or name another compiler in CXX");
        }
        fs::create_dir_all(folder.join("gen")).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::create_dir_all(folder.join("objects"))?;
        Ok(Self { program, root: root.to_owned(), folder: folder.to_owned() })
    }

    pub fn generated(&self) -> PathBuf {
        self.folder.join("gen")
    }

    /// The files of a folder with this extension, in order; none where the folder is not there.
    pub fn sources(&self, folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
        files(&self.root.join(folder), extension)
    }

    pub fn host_object(&self, source: PathBuf, folder: &str, flags: &[&str]) -> Object {
        let prefix = folder.rsplit('/').next().unwrap_or(folder);
        let includes = ["kernels/emu/include", "kernels/emu/src", "kernels/emu/driver"];
        self.object(source, prefix, [FLAGS, NATIVE_FLAGS, flags].concat(), &includes)
    }

    pub fn kernel_object(&self, source: PathBuf, flags: &[&str]) -> Object {
        let first = self.root.join("kernels/emu/include/cuda_emu.h").display().to_string();
        let front = ["-include", first.as_str()];
        let flags = [FLAGS, NATIVE_FLAGS, KERNEL_FLAGS, flags, &front].concat();
        self.object(source, "unit", flags, KERNEL_INCLUDES)
    }

    fn object(&self, source: PathBuf, prefix: &str, flags: Vec<&str>, includes: &[&str]) -> Object {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let path = self.folder.join("objects").join(format!("{prefix}-{stem}.o"));
        let mut arguments: Vec<String> = flags.into_iter().map(str::to_owned).collect();
        arguments.extend(self.include_flags(includes));
        arguments.extend(["-MMD", "-c", "-o"].map(str::to_owned));
        arguments.extend([path.display().to_string(), source.display().to_string()]);
        Object { source, path, arguments }
    }

    fn include_flags(&self, includes: &[&str]) -> Vec<String> {
        includes.iter().map(|folder| format!("-I{}", self.root.join(folder).display())).collect()
    }

    /// Compiles what is not up to date, as many at a time as there are cores.
    pub fn compile(&self, objects: &[Object]) -> Result<()> {
        let stale: Vec<&Object> = objects.iter().filter(|object| !is_fresh(object)).collect();
        let (queue, failures) = (Mutex::new(stale.into_iter()), Mutex::new(Vec::new()));
        let next = || queue.lock().expect("no compiling thread panics").next();
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(object) = next() {
                        if let Err(error) = self.compile_one(object) {
                            failures.lock().expect("no compiling thread panics").push(error);
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().expect("no compiling thread panics");
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn compile_one(&self, object: &Object) -> Result<()> {
        println!("  {}", object.source.strip_prefix(&self.root).unwrap_or(&object.source).display());
        self.call(&object.arguments).with_context(|| format!("cannot compile {}", object.source.display()))?;
        Ok(fs::write(object.path.with_extension("flags"), object.arguments.join("\n"))?)
    }

    /// Links all objects, unless the product is newer than each of them.
    pub fn link(&self, objects: &[Object], flags: &[&str], name: &str) -> Result<PathBuf> {
        let product = self.folder.join(name);
        let mut arguments: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        arguments.extend(["-pthread", "-o"].map(str::to_owned));
        arguments.push(product.display().to_string());
        arguments.extend(objects.iter().map(|object| object.path.display().to_string()));
        let (record, listed) = (self.folder.join(format!("{name}.flags")), arguments.join("\n"));
        let paths: Vec<PathBuf> = objects.iter().map(|object| object.path.clone()).collect();
        if newer_than_all(&product, &paths) && fs::read_to_string(&record).is_ok_and(|old| old == listed) {
            return Ok(product);
        }
        self.call(&arguments).with_context(|| format!("cannot link {}", product.display()))?;
        fs::write(record, listed)?;
        Ok(product)
    }

    /// A kernel file after macros and includes, but with CUDA's keywords as they stand.
    pub fn preprocess(&self, source: &Path) -> Result<String> {
        let mut arguments: Vec<String> =
            ["-E", "-P", "-x", "c++", "-std=c++17", "-DCUDA_EMU"].map(str::to_owned).to_vec();
        arguments.extend(self.include_flags(KERNEL_INCLUDES));
        arguments.push(source.display().to_string());
        self.call(&arguments).with_context(|| format!("cannot read {}", source.display()))
    }

    /// Runs the compiler; what it printed is the error where it fails, and is shown where it warns.
    fn call(&self, arguments: &[String]) -> Result<String> {
        let output = Command::new(&self.program).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("{} failed:\n{said}", self.program);
        }
        eprint!("{said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The compiler of `CXX`, or g++.
fn program() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned())
}

/// The files of `folder` with this extension, in order; none where there is no such folder.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    fatbin::files(folder, extension).with_context(|| format!("cannot list {}", folder.display()))
}

/// Where one of the compiler's own libraries lies.
pub fn library(name: &str) -> Result<String> {
    let program = program();
    let output = Command::new(&program).arg(format!("-print-file-name={name}")).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        path if path == name => bail!("{program} comes without {name}: install its sanitizers"),
        path => Ok(path.to_owned()),
    }
}

/// Whether an object was made by the same arguments from sources that have not changed since.
fn is_fresh(object: &Object) -> bool {
    let same =
        fs::read_to_string(object.path.with_extension("flags")).is_ok_and(|old| old == object.arguments.join("\n"));
    let listed = fs::read_to_string(object.path.with_extension("d"));
    same && listed.is_ok_and(|listed| newer_than_all(&object.path, &dependencies(&listed)))
}

/// The files that a dependency file of the compiler names: `object: source header \` and more lines.
fn dependencies(listed: &str) -> Vec<PathBuf> {
    let names = listed.split_once(": ").map_or("", |(_, names)| names);
    names.split_whitespace().filter(|name| *name != "\\").map(PathBuf::from).collect()
}

/// False too where one of them is gone.
pub fn newer_than_all(product: &Path, sources: &[PathBuf]) -> bool {
    let Some(made) = modified(product) else { return false };
    sources.iter().all(|source| modified(source).is_some_and(|changed| changed <= made))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let listed = "a.o: a.cpp /x/b.h \\\n c.h \\\n /y/d.h\n";
        let names: Vec<_> = dependencies(listed).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(names, ["a.cpp", "/x/b.h", "c.h", "/y/d.h"]);
        assert!(dependencies("").is_empty());
    }

    #[test]
    fn what_is_gone_makes_stale() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(newer_than_all(&here, std::slice::from_ref(&here)));
        assert!(!newer_than_all(&here, &[here.with_extension("gone")]));
        assert!(!newer_than_all(&here.with_extension("gone"), &[]));
    }
}
