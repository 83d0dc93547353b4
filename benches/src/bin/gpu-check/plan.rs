//! Which steps the check has, in the order in which they matter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::places::Places;
use crate::scale::{Batch, Scale};
use crate::step::{Step, Work};

/// Where things are, how large they are, and where results go.
pub struct Plan<'a> {
    pub places: &'a Places,
    pub scale: &'a Scale,
    /// What is kept.
    pub out: &'a Path,
    /// Results of single steps, which the record takes in.
    pub scratch: &'a Path,
    /// This very program.
    pub this: PathBuf,
}

/// One engine and the batches that it is timed on.
struct Timed<'a> {
    name: &'a str,
    options: &'a [&'a str],
    batches: &'a [Batch],
    iterations: usize,
    times: Times,
}

/// Seconds.
#[derive(Clone, Copy)]
struct Times {
    planned: u64,
    limit: u64,
}

const FP8: &[&str] = &["--quantization", "fp8"];
const INT4: &[&str] = &["--quantization", "int4"];
const FP8_BY_LIBRARY: &[&str] = &["--quantization", "fp8", "--no-batch-invariant"];
/// Weights and KV cache of 8 bits.
const ALL_FP8: &[&str] = &["--quantization", "fp8", "--kv-cache-dtype", "fp8"];
const ALL_FP8_BY_LIBRARY: &[&str] = &["--quantization", "fp8", "--kv-cache-dtype", "fp8", "--no-batch-invariant"];

impl Plan<'_> {
    /// What all others need: a GPU that answers.
    pub fn device(&self) -> Step {
        step("device", within(5, 40), Ok(self.own("device")))
    }

    /// In the order in which they matter: the last ones run in time that the others leave.
    pub fn steps(&self) -> Vec<Step> {
        let Scale { few_rows, many_rows, ref throughput, .. } = *self.scale;
        let all = &self.scale.batches();
        let dummy = |name, options, batches, times| self.dummy(Timed { name, options, batches, iterations: 3, times });
        let load = |name, options| {
            self.dummy(Timed { name, options, batches: throughput, iterations: 1, times: within(65, 110) })
        };
        vec![
            self.machine(),
            self.conformance(),
            self.kernel_tests(),
            dummy("dummy-bf16", &[], all, within(40, 70)),
            dummy("dummy-fp8", FP8, all, within(45, 70)),
            load("throughput-fp8", ALL_FP8),
            dummy("dummy-int4", INT4, all, within(50, 80)),
            self.rooflines(),
            self.default_model(),
            self.sanitizer("memcheck"),
            self.sanitizer("racecheck"),
            dummy("dummy-bf16-cublaslt", &["--no-batch-invariant"], many_rows, within(25, 50)),
            dummy("dummy-fp8-cublaslt", FP8_BY_LIBRARY, many_rows, within(30, 50)),
            self.transformers(),
            dummy("dummy-bf16-eager", &["--enforce-eager"], few_rows, within(25, 50)),
            load("throughput-fp8-cublaslt", ALL_FP8_BY_LIBRARY),
        ]
    }

    fn machine(&self) -> Step {
        let work = self.places.installed("nvidia-smi").map(|program| {
            let mut command = Command::new(program);
            command.args([
                "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit",
                "--format=csv",
            ]);
            Work { command, result: None }
        });
        Step { needs_gpu: false, ..step("machine", within(2, 20), work) }
    }

    /// Each instruction against the emulator's answers; the card's own go to a file.
    fn conformance(&self) -> Step {
        let work = self.kernels_tests(&["cuda::tests::wrappers"]).map(|mut work| {
            work.command.env("TOKENMILL_WRAPPERS_OUT", self.out.join("wrappers.txt"));
            work
        });
        step("conformance", within(5, 40), work)
    }

    /// The kernels against the reference.
    fn kernel_tests(&self) -> Step {
        let work = self.kernels_tests(self.scale.tests).map(|mut work| {
            work.command.envs(self.places.with_cublaslt().ok().map(|path| ("LD_LIBRARY_PATH", path)));
            work
        });
        step("kernel-tests", within(40, 110), work)
    }

    fn kernels_tests(&self, names: &[&str]) -> Result<Work, String> {
        let mut command = Command::new(self.places.packed("kernels-tests")?);
        command.args(names).arg("--nocapture");
        Ok(Work { command, result: None })
    }

    fn sanitizer(&self, tool: &str) -> Step {
        let work = self.places.installed("compute-sanitizer").and_then(|sanitizer| {
            let program = self.places.packed("kernels-tests")?;
            let mut command = Command::new(sanitizer);
            command.args(["--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]);
            command.arg(program).args(self.scale.watched_tests()).args(["--test-threads", "1"]);
            Ok(Work { command, result: None })
        });
        step(tool, within(30, 60), work)
    }

    fn rooflines(&self) -> Step {
        let mut work = self.own("rooflines");
        work.command.envs(self.places.with_cublaslt().ok().map(|path| ("LD_LIBRARY_PATH", path)));
        step("rooflines", within(70, 120), Ok(work))
    }

    /// This program's own measurement of that name.
    fn own(&self, name: &str) -> Work {
        let result = self.result(name);
        let mut command = Command::new(&self.this);
        command.arg(name).arg(&result).args(self.scale.is_tiny.then_some("--tiny"));
        Work { command, result: Some(result) }
    }

    fn default_model(&self) -> Step {
        let model = if self.scale.is_tiny { self.places.packed("tiny") } else { self.places.model() };
        let (batches, times) = (self.scale.default_model, within(15, 40));
        self.timed(model, Timed { name: "default-model", options: &[], batches, iterations: 3, times })
    }

    /// Made-up weights in the shapes of a large model.
    fn dummy(&self, timed: Timed<'_>) -> Step {
        let config = self.places.packed(if self.scale.is_tiny { "tiny" } else { "configs/llama-3.1-8b" });
        let length = if self.scale.is_tiny { "64" } else { "8448" };
        let options = [&["--load-format", "dummy", "--max-model-len", length], timed.options].concat();
        self.timed(config, Timed { options: &options, ..timed })
    }

    /// One process: the model is loaded once for all batches.
    fn timed(&self, model: Result<PathBuf, String>, timed: Timed<'_>) -> Step {
        let result = self.result(timed.name);
        let work = self.places.packed("tokenmill").and_then(|program| {
            let mut command = Command::new(program);
            command.args(["bench", "latency"]).arg(model?).args(timed.options).args(self.scale.engine);
            let shapes: Vec<String> = timed.batches.iter().map(Batch::to_string).collect();
            command.args(["--device", "cuda", "--shapes", &shapes.join(",")]);
            command.args(["--num-iters", &timed.iterations.to_string()]);
            command.args(["--num-iters-warmup", if timed.iterations == 1 { "0" } else { "1" }]);
            command.arg("--save-json").arg(&result);
            if timed.options.contains(&"--no-batch-invariant") {
                command.env("LD_LIBRARY_PATH", self.places.with_cublaslt()?);
            }
            Ok(Work { command, result: Some(result) })
        });
        step(timed.name, timed.times, work)
    }

    /// The same made-up weights in transformers: the same greedy tokens, and its speed.
    fn transformers(&self) -> Step {
        let result = self.result("transformers");
        let work = self.places.installed("python3").and_then(|python| {
            let mut command = Command::new(python);
            command.arg(self.places.packed("transformers_peer.py")?).arg(self.places.packed("tokenmill")?);
            command.arg(self.places.packed("configs")?).arg(&result);
            command.envs([("HF_HUB_OFFLINE", "1"), ("PYTHONUNBUFFERED", "1")]);
            Ok(Work { command, result: Some(result) })
        });
        step("transformers", within(90, 150), work)
    }

    fn result(&self, name: &str) -> PathBuf {
        self.scratch.join(format!("{name}.json"))
    }
}

fn within(planned: u64, limit: u64) -> Times {
    Times { planned, limit }
}

fn step(name: &str, times: Times, work: Result<Work, String>) -> Step {
    let [planned, limit] = [times.planned, times.limit].map(Duration::from_secs);
    Step { name: name.to_owned(), planned, limit, needs_gpu: true, work }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::FULL;

    #[test]
    fn what_matters_fits_into_the_budget() {
        let folder = Path::new("/nowhere");
        let places = &Places::new(folder.to_owned());
        let plan = Plan { places, scale: &FULL, out: folder, scratch: folder, this: folder.to_owned() };
        let steps: Vec<Step> = [plan.device()].into_iter().chain(plan.steps()).collect();
        let until = steps.iter().position(|step| step.name == "transformers").expect("it is a step");
        let planned: Duration = steps[..=until].iter().map(|step| step.planned).sum();
        assert!(planned <= Duration::from_secs(crate::BUDGET_SECONDS), "{planned:?}");
        assert!(steps.iter().all(|step| step.planned < step.limit));
    }
}
