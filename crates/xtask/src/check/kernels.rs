//! Compiles every CUDA kernel for every architecture into target/kernels, where builds look for it, and holds each to its budget:
//! registers, no spills, no stack, and the instructions that it was written for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fatbin::{Image, Recipe};

use super::{Context, Counts, venv};

const BUDGETS: &str = "kernels/budgets.toml";
/// What a kernel may take and must contain; by its name in `kernels/budgets.toml`.
struct Budget {
    registers: u64,
    instructions: Vec<String>,
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
    stack: u64,
    spills: u64,
}

pub(super) fn run(context: &Context) -> Result<Counts> {
    let toolkit = toolkit(context)?;
    let budgets = budgets(&context.root.join(BUDGETS))?;
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
    println!("{} kernels x {} architectures", budgets.len(), fatbin::ARCHS.len());
    ensure!(
        counts.passed + counts.failed >= (budgets.len() * fatbin::ARCHS.len()) as u64,
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
    Ok(budgets(&root.join(BUDGETS))?.into_keys().collect())
}

fn budgets(path: &Path) -> Result<BTreeMap<String, Budget>> {
    let table: toml::Table = fs::read_to_string(path)?.parse()?;
    let budget = |(name, entry): (&String, &toml::Value)| {
        let registers = entry.get("registers").and_then(toml::Value::as_integer);
        let instructions = entry.get("instructions").and_then(toml::Value::as_array).into_iter().flatten();
        let instructions = instructions.filter_map(toml::Value::as_str).map(str::to_owned).collect();
        let registers = registers.with_context(|| format!("{name} needs `registers`"))? as u64;
        Ok((name.clone(), Budget { registers, instructions }))
    };
    table.iter().map(budget).collect()
}

/// One line for each kernel and architecture.
fn check(image: &Image, toolkit: &Path, budgets: &BTreeMap<String, Budget>) -> Result<Vec<String>> {
    let code = disassembly(&image.path, toolkit)?;
    let lines = usages(&image.said).into_iter().map(|(kernel, usage)| {
        let verdict = match budgets.get(&kernel.name) {
            None => Err("has no budget in kernels/budgets.toml".to_owned()),
            Some(budget) => judge(budget, &usage, code.get(&kernel).map_or("", String::as_str)),
        };
        let what = format!("{} on {}", kernel.name, kernel.arch);
        verdict.map_or_else(|why| format!("FAIL  {what}: {why}"), |()| format!("ok    {what}: {usage:?}"))
    });
    Ok(lines.collect())
}

fn judge(budget: &Budget, usage: &Usage, code: &str) -> Result<(), String> {
    if usage.stack > 0 || usage.spills > 0 {
        return Err(format!("has {} bytes of stack and spills {}", usage.stack, usage.spills));
    }
    if usage.registers > budget.registers {
        return Err(format!("takes {} registers, {} are allowed", usage.registers, budget.registers));
    }
    let missing = budget.instructions.iter().find(|instruction| !code.contains(instruction.as_str()));
    missing.map_or(Ok(()), |instruction| Err(format!("has no {instruction}")))
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
        let usage = |registers, stack, spills| Usage { registers, stack, spills };
        assert_eq!(usages(said), [(on("one", "sm_80"), usage(80, 8, 16)), (on("two", "sm_80"), usage(24, 0, 0))]);
    }

    #[test]
    fn a_budget_is_kept_or_named() {
        let budget = Budget { registers: 64, instructions: vec!["HMMA".to_owned()] };
        let usage = |registers, stack| Usage { registers, stack, spills: 0 };
        assert_eq!(judge(&budget, &usage(64, 0), "  HMMA.16816  "), Ok(()));
        assert!(judge(&budget, &usage(65, 0), "HMMA").unwrap_err().contains("65 registers"));
        assert!(judge(&budget, &usage(8, 8), "HMMA").unwrap_err().contains("8 bytes of stack"));
        assert_eq!(judge(&budget, &usage(8, 0), "FFMA"), Err("has no HMMA".to_owned()));
    }
}
