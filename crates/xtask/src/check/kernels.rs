//! Compiles every CUDA kernel for every architecture, and holds each to its budget: registers, no spills, no stack, and the
//! instructions that it was written for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, Counts, venv};

const BUDGETS: &str = "kernels/budgets.toml";
/// As `kernels/build.rs` has them.
const ARCHS: [&str; 6] = ["80", "86", "89", "90a", "100a", "120a"];

/// What a kernel may take and must contain; by its name in `kernels/budgets.toml`.
struct Budget {
    registers: u64,
    instructions: Vec<String>,
}

/// What a compiled kernel takes.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    registers: u64,
    stack: u64,
    spills: u64,
}

/// One source for one architecture.
#[derive(Clone)]
struct Job {
    source: PathBuf,
    arch: &'static str,
}

pub(super) fn run(context: &Context) -> Result<Counts> {
    let toolkit = toolkit(context)?;
    let budgets = budgets(&context.root.join(BUDGETS))?;
    let out = context.target().join("kernels");
    fs::create_dir_all(&out).context("target/ can be written")?;
    let jobs = jobs(&context.root.join("kernels/cuda"))?;
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let reports = thread::scope(|scope| {
        let (jobs, toolkit, budgets, out) = (&jobs, &toolkit, &budgets, &out);
        let work = move |worker: usize| -> Result<Vec<String>> {
            let mine = jobs.iter().skip(worker).step_by(workers);
            mine.map(|job| check(job, toolkit, budgets, out)).collect::<Result<Vec<_>>>().map(|all| all.concat())
        };
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no check panics")).collect::<Result<Vec<_>>>()
    })?;
    let mut counts = Counts::default();
    for line in reports.concat() {
        let passed = line.starts_with("ok");
        if !passed {
            println!("{line}");
        }
        counts.add(passed);
    }
    println!("{} kernels x {} architectures", budgets.len(), ARCHS.len());
    ensure!(
        counts.passed + counts.failed >= (budgets.len() * ARCHS.len()) as u64,
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

fn jobs(folder: &Path) -> Result<Vec<Job>> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut sources: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    sources.retain(|path| path.extension().is_some_and(|kind| kind == "cu"));
    sources.sort();
    Ok(sources.into_iter().flat_map(|source| ARCHS.map(|arch| Job { source: source.clone(), arch })).collect())
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

/// One line a kernel.
fn check(job: &Job, toolkit: &Path, budgets: &BTreeMap<String, Budget>, out: &Path) -> Result<Vec<String>> {
    let stem = job.source.file_stem().expect("a source has a name").to_string_lossy().into_owned();
    let cubin = out.join(format!("{stem}.sm_{}.cubin", job.arch));
    let mut nvcc = Command::new(toolkit.join("bin/nvcc"));
    nvcc.args(["-std=c++17", "-O3", "-cubin", "-Xptxas", "-v", "-I"]).arg(job.source.with_file_name("include"));
    nvcc.arg(format!("-gencode=arch=compute_{0},code=sm_{0}", job.arch)).arg("-o").arg(&cubin).arg(&job.source);
    let output = nvcc.output().context("cannot start nvcc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("nvcc failed on {stem}.cu for sm_{}:\n{said}", job.arch);
    }
    let code = disassembly(&cubin, toolkit)?;
    let lines = usages(&said).into_iter().map(|(kernel, usage)| {
        let verdict = match budgets.get(&kernel) {
            None => Err("has no budget in kernels/budgets.toml".to_owned()),
            Some(budget) => judge(budget, &usage, code.get(&kernel).map_or("", String::as_str)),
        };
        let what = format!("{kernel} on sm_{}", job.arch);
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
fn usages(said: &str) -> Vec<(String, Usage)> {
    let mut usages: Vec<(String, Usage)> = Vec::new();
    let before = |line: &str, word: &str| -> u64 {
        let number = line.split(word).next().and_then(|head| head.split_whitespace().last());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    for line in said.lines() {
        if let Some(name) = line.split("entry function '").nth(1).and_then(|rest| rest.split('\'').next()) {
            usages.push((name.to_owned(), Usage::default()));
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
fn disassembly(cubin: &Path, toolkit: &Path) -> Result<BTreeMap<String, String>> {
    let mut path = OsString::from(toolkit.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new(toolkit.join("bin/cuobjdump")).arg("-sass").arg(cubin).env("PATH", path).output();
    let output = output.context("cannot start cuobjdump")?;
    ensure!(output.status.success(), "cuobjdump failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let functions = text.split("Function : ").skip(1).filter_map(|part| part.split_once('\n'));
    Ok(functions.map(|(name, code)| (name.trim().to_owned(), code.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptxas_reports_are_read() {
        let said = "ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
                    ptxas info    : Function properties for one\n    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                    ptxas info    : Used 80 registers, used 1 barriers\n\
                    ptxas info    : Compiling entry function 'two' for 'sm_80'\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes \
                    spill loads\nptxas info    : Used 24 registers, 128 bytes smem\n";
        let usage = |registers, stack, spills| Usage { registers, stack, spills };
        assert_eq!(usages(said), [("one".to_owned(), usage(80, 8, 16)), ("two".to_owned(), usage(24, 0, 0))]);
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
