//! Compiles `cuda/*.cu` where there is an nvcc, and embeds what came out: machine code for each architecture, and PTX for those to
//! come. Without nvcc the build goes on without machine code, and `--device cuda` says so.
//!
//! NVCC, CUDA_HOME, PATH, /usr/local/cuda and target/nvcc (`cargo xtask kernels` puts it there) are tried in this order.
//! TOKENMILL_CUDA: `off` builds without, `require` fails without. TOKENMILL_CUDA_ARCHS: "80,90a" instead of all.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

const ARCHS: &str = "80,86,89,90a,100a,120a";
/// PTX of the oldest, for architectures that are not named.
const PTX: &str = "80";
/// Kernels that the tests alone have.
const CONFORMANCE: &str = "cuda/conformance";
/// What stands for the machine code where there is no compiler; the emulator in `emu` takes it.
const NO_CODE: &str = "tokenmill-emu";

fn main() {
    for variable in ["NVCC", "CUDA_HOME", "TOKENMILL_CUDA", "TOKENMILL_CUDA_ARCHS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-changed=build.rs");
    let mode = env::var("TOKENMILL_CUDA").unwrap_or_default();
    let nvcc = (mode != "off").then(find_nvcc).flatten();
    if nvcc.is_none() && mode == "require" {
        panic!("TOKENMILL_CUDA=require, but there is no nvcc; `cargo xtask kernels` fetches one");
    }
    let sources = sources();
    let images: Vec<PathBuf> = thread::scope(|scope| {
        let nvcc = nvcc.as_deref();
        let images: Vec<_> = sources.iter().map(|source| scope.spawn(move || image(nvcc, source))).collect();
        images.into_iter().map(|image| image.join().expect("no compilation panics but to fail the build")).collect()
    });
    let rows = sources.iter().zip(&images).map(|(source, image)| {
        let text = fs::read_to_string(source).expect("a source that was just listed");
        let names = kernel_names(&text);
        let only = if source.starts_with(CONFORMANCE) { "#[cfg(test)] " } else { "" };
        format!("    {only}({:?}, include_bytes!({:?}), &{names:?}),\n", stem(source), image.display().to_string())
    });
    let table = format!(
        "/// Name, image, kernels.\n\
         pub(super) static MODULES: &[(&str, &[u8], &[&str])] = &[\n{}];\n",
        rows.collect::<String>()
    );
    fs::write(out_dir().join("modules.rs"), table).expect("OUT_DIR can be written");
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"))
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a source has a name").to_string_lossy().into_owned()
}

fn sources() -> Vec<PathBuf> {
    let entries = ["cuda", CONFORMANCE].into_iter().flat_map(|folder| fs::read_dir(folder).expect("the folder exists"));
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let mut sources: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "cu")).collect();
    sources.sort();
    sources
}

/// Names of the `extern "C" __global__` functions, those of instance macros included.
fn kernel_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let sizes: Vec<&str> =
        source.lines().filter_map(|line| line.strip_prefix("INSTANCES(")?.strip_suffix(')')).collect();
    for (at, _) in source.match_indices("extern \"C\" __global__") {
        let head = source[at..].split('{').next().expect("split yields one piece at least");
        let head = head.rsplit_once('(').expect("a kernel has parameters").0.trim_end();
        let name = head.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '#').next().expect("as above");
        match name.strip_suffix("##D") {
            Some(family) => names.extend(sizes.iter().map(|size| format!("{family}{size}"))),
            None => names.push(name.to_owned()),
        }
    }
    names
}

fn image(nvcc: Option<&Path>, source: &Path) -> PathBuf {
    let image = out_dir().join(stem(source)).with_extension("fatbin");
    let Some(nvcc) = nvcc else {
        fs::write(&image, NO_CODE).expect("OUT_DIR can be written");
        return image;
    };
    let archs = env::var("TOKENMILL_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.to_owned());
    let mut command = Command::new(nvcc);
    command.args([
        "-std=c++17",
        "-O3",
        "--fatbin",
        "-lineinfo",
        "-Xptxas",
        "-v",
        "-Xfatbin",
        "-compress-all",
        "-Icuda/include",
    ]);
    for arch in archs.split(',').map(str::trim) {
        command.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    }
    command.arg(format!("-gencode=arch=compute_{PTX},code=compute_{PTX}")).arg("-o").arg(&image).arg(source);
    let output = command.output().expect("nvcc was just found");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nvcc failed on {}:\n{said}", source.display());
    image
}

fn find_nvcc() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = env::var("NVCC").map(PathBuf::from).into_iter().collect();
    candidates.extend(env::var("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc")));
    candidates.extend(env::split_paths(&env::var("PATH").unwrap_or_default()).map(|folder| folder.join("nvcc")));
    candidates.push(PathBuf::from("/usr/local/cuda/bin/nvcc"));
    candidates.push(PathBuf::from("../target/nvcc/bin/nvcc"));
    candidates.into_iter().find(|path| path.is_file())
}
