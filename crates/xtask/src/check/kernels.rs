//! Compiles every CUDA kernel for every architecture into target/kernels, where builds look for it, and holds each to its budget:
//! registers, static shared memory, no spills, no stack, and the instructions that it was written for, and none that it must not have.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fatbin::{Image, Recipe};
use serde::Deserialize;

use super::{Context, Counts, venv};

const BUDGETS: &str = "kernels/budgets.toml";
/// `kernels/budgets.toml`.
#[derive(Deserialize)]
struct Budgets {
    /// Instructions that no kernel may contain.
    forbidden: Vec<String>,
    /// What names of instructions stand for.
    instructions: BTreeMap<String, Meaning>,
    kernels: BTreeMap<String, Budget>,
}

/// An instruction, or one an architecture.
#[derive(Deserialize)]
#[serde(untagged)]
enum Meaning {
    Anywhere(String),
    By(BTreeMap<String, String>),
}

/// What a kernel may take and must contain.
#[derive(Deserialize)]
struct Budget {
    registers: u64,
    #[serde(default)]
    shared: u64,
    instructions: Vec<String>,
    /// Registers on one architecture.
    #[serde(flatten)]
    registers_on: BTreeMap<String, u64>,
}

/// A kernel on an architecture, as in `sm_90a`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Compiled {
    name: String,
    arch: String,
}

/// What a compiled kernel takes.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    registers: u64,
    shared: u64,
    stack: u64,
    spills: u64,
}

pub(super) fn run(context: &Context) -> Result<Counts> {
    let toolkit = toolkit(context)?;
    let budgets = Budgets::read(&context.root)?;
    let (package, store) = (context.root.join("kernels"), context.target().join("kernels"));
    fs::create_dir_all(&store).context("target/ can be written")?;
    let recipe = Recipe::new(&package, fatbin::ARCHS)?;
    let image = |source: &Path| -> Result<Image> {
        let found =
            recipe.find(source, &store).map_or_else(|| recipe.compile(&toolkit.join("bin/nvcc"), source, &store), Ok);
        println!("{}", source.strip_prefix(&package).unwrap_or(source).display());
        Ok(found?)
    };
    let conformance = fatbin::files(&package.join("cuda/conformance"), "cu")?;
    fatbin::on_all_cores(&conformance, image).into_iter().collect::<Result<Vec<_>>>()?;
    let sources = fatbin::files(&package.join("cuda"), "cu")?;
    let reports = fatbin::on_all_cores(&sources, |source| check(&image(source)?, &toolkit, &budgets));
    let mut counts = Counts::default();
    for line in reports.into_iter().collect::<Result<Vec<_>>>()?.concat() {
        let passed = line.starts_with("ok");
        if !passed {
            println!("{line}");
        }
        counts.add(passed);
    }
    println!("{} kernels x {} architectures", budgets.kernels.len(), fatbin::ARCHS.len());
    ensure!(
        counts.passed + counts.failed >= (budgets.kernels.len() * fatbin::ARCHS.len()) as u64,
        "a budget names a kernel that is not there"
    );
    Ok(counts)
}

/// A folder with `bin/nvcc`, at `target/nvcc`, where the build looks for it too.
fn toolkit(context: &Context) -> Result<PathBuf> {
    let python = venv::python(context, "cuda", &context.root.join("kernels/toolkit.txt"))?;
    let packages =
        Command::new(python).args(["-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]).output()?;
    let packages = PathBuf::from(String::from_utf8(packages.stdout)?.trim());
    let (home, link) = (packages.join("nvidia/cu13"), context.target().join("nvcc"));
    ensure!(home.join("bin/nvcc").is_file(), "the wheels have no nvcc at {}", home.display());
    if fs::read_link(&link).ok() != Some(home.clone()) {
        fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(&home, &link).context("target/nvcc cannot be linked")?;
        // A build script that looked before the compiler was there looks again.
        let script = context.root.join("kernels/build.rs");
        fs::File::open(script).and_then(|file| file.set_modified(std::time::SystemTime::now()))?;
    }
    Ok(link)
}

/// The names of all kernels.
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    Ok(Budgets::read(root)?.kernels.into_keys().collect())
}

/// One line for each kernel and architecture.
fn check(image: &Image, toolkit: &Path, budgets: &Budgets) -> Result<Vec<String>> {
    let code = disassembly(&image.path, toolkit)?;
    let lines = usages(&image.said).into_iter().map(|(kernel, usage)| {
        let verdict = budgets.judge(&kernel, &usage, code.get(&kernel).map_or("", String::as_str));
        let what = format!("{} on {}", kernel.name, kernel.arch);
        verdict.map_or_else(|why| format!("FAIL  {what}: {why}"), |()| format!("ok    {what}: {usage:?}"))
    });
    Ok(lines.collect())
}

impl Budgets {
    fn read(root: &Path) -> Result<Self> {
        toml::from_str(&fs::read_to_string(root.join(BUDGETS))?).with_context(|| format!("{BUDGETS} cannot be read"))
    }

    fn judge(&self, kernel: &Compiled, usage: &Usage, code: &str) -> Result<(), String> {
        let budget = self.kernels.get(&kernel.name).ok_or_else(|| format!("has no budget in {BUDGETS}"))?;
        if usage.stack > 0 || usage.spills > 0 {
            return Err(format!("has {} bytes of stack and spills {}", usage.stack, usage.spills));
        }
        let registers = *budget.registers_on.get(&kernel.arch).unwrap_or(&budget.registers);
        for (what, taken, allowed) in
            [("registers", usage.registers, registers), ("bytes of shared memory", usage.shared, budget.shared)]
        {
            if taken > allowed {
                return Err(format!("takes {taken} {what}, {allowed} are allowed"));
            }
        }
        if let Some(instruction) = self.forbidden.iter().find(|instruction| has(code, instruction)) {
            return Err(format!("has {instruction}"));
        }
        for name in &budget.instructions {
            let instruction = self.meaning(name, &kernel.arch)?;
            if !has(code, instruction) {
                return Err(format!("has no {instruction}"));
            }
        }
        Ok(())
    }

    fn meaning<'a>(&'a self, name: &'a str, arch: &str) -> Result<&'a str, String> {
        match self.instructions.get(name) {
            None => Ok(name),
            Some(Meaning::Anywhere(instruction)) => Ok(instruction),
            Some(Meaning::By(archs)) => {
                archs.get(arch).map(String::as_str).ok_or_else(|| format!("needs to know what {name} is there"))
            }
        }
    }
}

/// Whether a listing has an instruction that begins so: `LD.E.64` is an `LD.E`, and `LDG.E` is none.
fn has(code: &str, instruction: &str) -> bool {
    let ends = |at: usize| !code[at + instruction.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let starts = |at: usize| !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
    code.match_indices(instruction).any(|(at, _)| starts(at) && ends(at))
}

/// What ptxas says of each kernel.
fn usages(said: &str) -> Vec<(Compiled, Usage)> {
    let mut usages: Vec<(Compiled, Usage)> = Vec::new();
    let before = |line: &str, word: &str| -> u64 {
        let number = line.split(word).next().and_then(|head| head.split_whitespace().last());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    for line in said.lines() {
        if line.contains("entry function '") {
            let mut quoted = line.split('\'').skip(1).step_by(2).map(str::to_owned);
            if let (Some(name), Some(arch)) = (quoted.next(), quoted.next()) {
                usages.push((Compiled { name, arch }, Usage::default()));
            }
        }
        let Some((_, usage)) = usages.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            usage.stack = before(line, " bytes stack frame");
            usage.spills = before(line, " bytes spill stores") + before(line, " bytes spill loads");
        } else if line.contains(" registers") {
            usage.registers = before(line, " registers");
            usage.shared = before(line, " bytes smem");
        }
    }
    usages
}

/// Each kernel's instructions.
fn disassembly(image: &Path, toolkit: &Path) -> Result<BTreeMap<Compiled, String>> {
    let mut path = OsString::from(toolkit.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new(toolkit.join("bin/cuobjdump")).arg("-sass").arg(image).env("PATH", path).output();
    let output = output.context("cannot start cuobjdump")?;
    ensure!(output.status.success(), "cuobjdump failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(listings(&String::from_utf8_lossy(&output.stdout)))
}

/// The listings of an image: `code for sm_80` comes before the functions of that architecture.
fn listings(text: &str) -> BTreeMap<Compiled, String> {
    let archs = text.split("code for ").skip(1).filter_map(|part| part.split_once('\n'));
    let of = |arch: &str, functions: &str| -> Vec<(Compiled, String)> {
        let functions = functions.split("Function : ").skip(1).filter_map(|part| part.split_once('\n'));
        let owned = |(name, code): (&str, &str)| {
            (Compiled { name: name.trim().to_owned(), arch: arch.trim().to_owned() }, code.to_owned())
        };
        functions.map(owned).collect()
    };
    archs.flat_map(|(arch, functions)| of(arch, functions)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &str, arch: &str) -> Compiled {
        Compiled { name: name.to_owned(), arch: arch.to_owned() }
    }

    #[test]
    fn listings_are_told_apart_by_architecture() {
        let section =
            |arch: &str, code: &str| format!("arch = {arch}\n\tcode for {arch}\n\t\tFunction : one\n  {code} ;\n");
        let listings = listings(&(section("sm_80", "HMMA") + &section("sm_90a", "QGMMA")));
        let names: Vec<_> = listings.keys().collect();
        assert_eq!(names, [&on("one", "sm_80"), &on("one", "sm_90a")]);
        assert!(listings[&on("one", "sm_80")].contains("HMMA") && !listings[&on("one", "sm_80")].contains("QGMMA"));
    }

    #[test]
    fn ptxas_reports_are_read() {
        let said = "ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
                    ptxas info    : Function properties for one\n    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                    ptxas info    : Used 80 registers, used 1 barriers\n\
                    ptxas info    : Compiling entry function 'two' for 'sm_80'\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes \
                    spill loads\nptxas info    : Used 24 registers, 128 bytes smem\n";
        let usage = |registers, shared, stack, spills| Usage { registers, shared, stack, spills };
        assert_eq!(
            usages(said),
            [(on("one", "sm_80"), usage(80, 0, 8, 16)), (on("two", "sm_80"), usage(24, 128, 0, 0))]
        );
    }

    #[test]
    fn a_budget_is_kept_or_named() {
        let budgets: Budgets = toml::from_str(
            "forbidden = ['LDL', 'LD.E']\n[instructions]\nMMA = { sm_80 = 'HMMA', sm_89 = 'QMMA' }\nCOPY = 'LDGSTS.128'\n\
             [kernels]\none = { registers = 64, sm_89 = 48, shared = 128, instructions = ['MMA', 'COPY'] }\n",
        )
        .expect("it is written right");
        let usage = |registers, shared, stack| Usage { registers, shared, stack, spills: 0 };
        let (small, hmma, qmma) = (usage(48, 128, 0), "  HMMA.16816 LDGSTS.128 LDG.E", "QMMA.16832 ; LDGSTS.128 ;");
        for (kernel, usage, code, expected) in [
            (on("one", "sm_80"), &small, hmma, Ok(())),
            (on("one", "sm_80"), &usage(65, 0, 0), hmma, Err("takes 65 registers, 64 are allowed")),
            (on("one", "sm_89"), &usage(49, 0, 0), qmma, Err("takes 49 registers, 48 are allowed")),
            (on("one", "sm_80"), &usage(8, 132, 0), hmma, Err("takes 132 bytes of shared memory, 128 are allowed")),
            (on("one", "sm_80"), &usage(8, 0, 8), hmma, Err("has 8 bytes of stack and spills 0")),
            (on("one", "sm_89"), &small, qmma, Ok(())),
            (on("one", "sm_89"), &small, hmma, Err("has no QMMA")),
            (on("one", "sm_80"), &small, "HMMA LDGSTS.12", Err("has no LDGSTS.128")),
            (on("one", "sm_90a"), &small, hmma, Err("needs to know what MMA is there")),
            (on("one", "sm_80"), &small, "HMMA LDGSTS.128 LDL.LU", Err("has LDL")),
            (on("one", "sm_80"), &small, "HMMA LDGSTS.128 LD.E.64", Err("has LD.E")),
            (on("two", "sm_80"), &small, hmma, Err("has no budget in kernels/budgets.toml")),
        ] {
            assert_eq!(budgets.judge(&kernel, usage, code), expected.map_err(str::to_owned), "{kernel:?} {code}");
        }
    }
}
