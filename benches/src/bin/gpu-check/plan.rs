//! Which steps the check has, in the order in which they matter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::places::Places;
use crate::scale::Scale;
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
    shapes: String,
    iterations: &'a str,
    limit: u64,
}

impl Plan<'_> {
    /// What all others need: a GPU that answers.
    pub fn device(&self) -> Step {
        step("device", 40, Ok(self.own("device")))
    }

    pub fn steps(&self) -> Vec<Step> {
        let Scale { decode, prefill, throughput, .. } = *self.scale;
        let both = || format!("{decode},{prefill}");
        let dummy = |name, options, shapes, limit| self.dummy(Timed { name, options, shapes, iterations: "3", limit });
        let load = |name, options| {
            self.dummy(Timed { name, options, shapes: throughput.to_owned(), iterations: "1", limit: 110 })
        };
        vec![
            self.machine(),
            self.conformance(),
            self.kernel_tests(),
            dummy("dummy-bf16", &[], both(), 70),
            dummy("dummy-fp8", &["--quantization", "fp8"], both(), 70),
            load("throughput-fp8", &["--quantization", "fp8", "--kv-cache-dtype", "fp8"]),
            dummy("dummy-int4", &["--quantization", "int4"], both(), 80),
            self.rooflines(),
            self.default_model(),
            self.sanitizer("memcheck"),
            self.sanitizer("racecheck"),
            dummy("dummy-bf16-cublaslt", &["--no-batch-invariant"], both(), 50),
            dummy("dummy-fp8-cublaslt", &["--quantization", "fp8", "--no-batch-invariant"], both(), 50),
            dummy("dummy-bf16-eager", &["--enforce-eager"], decode.to_owned(), 50),
            self.transformers(),
            load(
                "throughput-fp8-cublaslt",
                &["--quantization", "fp8", "--kv-cache-dtype", "fp8", "--no-batch-invariant"],
            ),
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
        Step { needs_gpu: false, ..step("machine", 20, work) }
    }

    /// Each instruction against the emulator's answers; the card's own go to a file.
    fn conformance(&self) -> Step {
        let work = self.kernels_tests(&["cuda::tests::wrappers"]).map(|mut work| {
            work.command.env("TOKENMILL_WRAPPERS_OUT", self.out.join("wrappers.txt"));
            work
        });
        step("conformance", 40, work)
    }

    /// The kernels against the reference.
    fn kernel_tests(&self) -> Step {
        let work = self.kernels_tests(self.scale.tests).map(|mut work| {
            work.command.envs(self.places.with_cublaslt().ok().map(|path| ("LD_LIBRARY_PATH", path)));
            work
        });
        step("kernel-tests", 110, work)
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
            command.arg(program).args(self.scale.watched_tests).args(["--test-threads", "1"]);
            Ok(Work { command, result: None })
        });
        step(tool, 60, work)
    }

    fn rooflines(&self) -> Step {
        let mut work = self.own("rooflines");
        work.command.envs(self.places.with_cublaslt().ok().map(|path| ("LD_LIBRARY_PATH", path)));
        step("rooflines", 120, Ok(work))
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
        let shapes = format!("{},{}", self.scale.decode, self.scale.default_prefill);
        self.timed(model, Timed { name: "default-model", options: &[], shapes, iterations: "3", limit: 40 })
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
            command.args(["--device", "cuda", "--shapes", &timed.shapes, "--num-iters", timed.iterations]);
            command.args(["--num-iters-warmup", if timed.iterations == "1" { "0" } else { "1" }]);
            command.arg("--save-json").arg(&result);
            if timed.options.contains(&"--no-batch-invariant") {
                command.env("LD_LIBRARY_PATH", self.places.with_cublaslt()?);
            }
            Ok(Work { command, result: Some(result) })
        });
        step(timed.name, timed.limit, work)
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
        step("transformers", 150, work)
    }

    fn result(&self, name: &str) -> PathBuf {
        self.scratch.join(format!("{name}.json"))
    }
}

fn step(name: &str, limit: u64, work: Result<Work, String>) -> Step {
    Step { name: name.to_owned(), limit: Duration::from_secs(limit), needs_gpu: true, work }
}
