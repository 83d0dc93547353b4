//! Embeds the images of `cuda/*.cu`: those that `cargo xtask kernels` left in target/kernels, or what nvcc makes here. With neither the
//! build goes on without machine code and warns, and `--device cuda` says so.
//!
//! NVCC, CUDA_HOME, PATH, /usr/local/cuda and target/nvcc (`cargo xtask kernels` puts it there) are tried in this order; one that does not
//! know all architectures is passed over. TOKENMILL_CUDA: `off` builds without, `require` fails without. TOKENMILL_CUDA_ARCHS: "80,90a" instead of all.
//! TOKENMILL_FATBINS: a folder of images, as target/kernels is one, to take instead.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs};

use fatbin::Recipe;

/// Kernels that the tests alone have.
const CONFORMANCE: &str = "cuda/conformance";
/// What stands for the machine code where there is no compiler; the emulator in `emu` takes it.
const NO_CODE: &str = "tokenmill-emu";

fn main() {
    for variable in ["NVCC", "CUDA_HOME", "TOKENMILL_CUDA", "TOKENMILL_CUDA_ARCHS", "TOKENMILL_FATBINS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-changed=build.rs");
    let mode = env::var("TOKENMILL_CUDA").unwrap_or_default();
    let sources = sources();
    let images = if mode == "off" { vec![None; sources.len()] } else { images(&sources, mode == "require") };
    let no_code = out_dir().join("none");
    fs::write(&no_code, NO_CODE).expect("OUT_DIR can be written");
    let rows = sources.iter().zip(&images).map(|(source, image)| {
        let text = fs::read_to_string(source).expect("a source that was just listed");
        let (stem, names) = (source.file_stem().expect("a source has a name").to_string_lossy(), kernel_names(&text));
        let only = if source.starts_with(CONFORMANCE) { "#[cfg(test)] " } else { "" };
        format!("    {only}({stem:?}, include_bytes!({:?}), &{names:?}),\n", image.as_ref().unwrap_or(&no_code))
    });
    let table = format!(
        "/// Name, image, kernels.\n\
         pub(super) static MODULES: &[(&str, &[u8], &[&str])] = &[\n{}];\n",
        rows.collect::<String>()
    );
    fs::write(out_dir().join("modules.rs"), table).expect("OUT_DIR can be written");
}

/// An image of each source; none where no store has it and nothing compiles it, which `require` forbids.
fn images(sources: &[PathBuf], require: bool) -> Vec<Option<PathBuf>> {
    let archs = env::var("TOKENMILL_CUDA_ARCHS").unwrap_or_else(|_| fatbin::ARCHS.join(","));
    let archs: Vec<&str> = archs.split(',').map(str::trim).collect();
    let package = env::current_dir().expect("cargo runs this in the package's folder");
    let recipe = Recipe::new(&package, &archs).expect("the headers can be read");
    let prepared = env::var_os("TOKENMILL_FATBINS").map_or_else(|| package.join("../target/kernels"), PathBuf::from);
    let (nvcc, out) = (LazyLock::new(|| find_nvcc(&recipe)), out_dir());
    let images = fatbin::on_all_cores(sources, |source| {
        let found = recipe.find(source, &prepared).or_else(|| recipe.find(source, &out));
        let compiled = || {
            let nvcc =
                nvcc.as_ref().ok_or_else(|| format!("there is no nvcc that knows sm_{}", archs.join(", sm_")))?;
            recipe.compile(nvcc, source, &out).map_err(|error| error.to_string())
        };
        found.map_or_else(compiled, Ok).map(|image| image.path)
    });
    if let Some(why) = images.iter().find_map(|image| image.as_ref().err()) {
        assert!(!require, "TOKENMILL_CUDA=require, but {why}; `cargo xtask kernels` fetches a compiler");
        let why: Vec<&str> = why.lines().take(4).collect();
        println!(
            "cargo::warning=built without kernels for GPUs: {}; `cargo xtask kernels` fetches a compiler, and with \
             TOKENMILL_CUDA=off no word is said",
            why.join(" ")
        );
    }
    let images: Vec<Option<PathBuf>> = images.into_iter().map(Result::ok).collect();
    images.iter().flatten().for_each(|image| println!("cargo::rerun-if-changed={}", image.display()));
    images
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"))
}

fn sources() -> Vec<PathBuf> {
    let folders = ["cuda", CONFORMANCE].map(Path::new);
    folders.iter().flat_map(|folder| fatbin::files(folder, "cu").expect("the folder can be listed")).collect()
}

/// Names of the `extern "C" __global__` functions, those of instance macros included.
fn kernel_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let sizes = |instances: &str| -> Vec<&str> {
        source.lines().filter_map(|line| line.strip_prefix(instances)?.strip_prefix('(')?.strip_suffix(')')).collect()
    };
    for (at, _) in source.match_indices("extern \"C\" __global__") {
        let head = source[at..].split('{').next().expect("split yields one piece at least");
        let head = head.rsplit_once('(').expect("a kernel has parameters").0.trim_end();
        let name = head.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '#').next().expect("as above");
        match name.strip_suffix("##D") {
            Some(family) => {
                let instances = source[..at].rsplit("#define ").next().expect("as above").split('(').next();
                names.extend(sizes(instances.expect("as above")).iter().map(|size| format!("{family}{size}")));
            }
            None => names.push(name.to_owned()),
        }
    }
    names
}

fn find_nvcc(recipe: &Recipe) -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = env::var("NVCC").map(PathBuf::from).into_iter().collect();
    candidates.extend(env::var("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc")));
    candidates.extend(env::split_paths(&env::var("PATH").unwrap_or_default()).map(|folder| folder.join("nvcc")));
    candidates.push(PathBuf::from("/usr/local/cuda/bin/nvcc"));
    candidates.push(PathBuf::from("../target/nvcc/bin/nvcc"));
    candidates.into_iter().find(|nvcc| recipe.suits(nvcc))
}
