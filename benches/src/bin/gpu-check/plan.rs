//! Which steps the check has, in the order in which they matter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::places::Places;
use crate::scale::Scale;
use crate::step::{Step, Work};

/// Formats of the weights of the large model.
const QUANTIZATIONS: &[Option<&str>] = &[None, Some("fp8"), Some("int4")];

/// Where things are, how large they are, and where results go.
pub struct Plan<'a> {
    pub places: &'a Places,
    pub scale: &'a Scale,
    pub out: &'a Path,
    /// This very program.
    pub this: PathBuf,
}

impl Plan<'_> {
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = vec![self.machine(), self.kernel_tests()];
        steps.extend(["memcheck", "racecheck"].map(|tool| self.sanitizer(tool)));
        steps.push(self.rooflines());
        steps.extend(self.default_model());
        QUANTIZATIONS.iter().for_each(|quantization| steps.extend(self.large_model(*quantization)));
        steps.push(self.transformers());
        steps
    }

    fn machine(&self) -> Step {
        let work = self.places.installed("nvidia-smi").map(|program| {
            let mut command = Command::new(program);
            command.args([
                "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit",
                "--format=csv",
            ]);
            Work { command, result: None }
        });
        step("machine", 20, work)
    }

    /// The kernels against the reference, and each instruction against the emulator.
    fn kernel_tests(&self) -> Step {
        let work = self.places.packed("kernels-tests").map(|program| {
            let mut command = Command::new(program);
            command.args(self.scale.tests).arg("--nocapture");
            command.env("TOKENMILL_WRAPPERS_OUT", self.out.join("wrappers.txt"));
            Work { command, result: None }
        });
        step("kernel-tests", 120, work)
    }

    fn sanitizer(&self, tool: &str) -> Step {
        let work = self.places.installed("compute-sanitizer").and_then(|sanitizer| {
            let program = self.places.packed("kernels-tests")?;
            let mut command = Command::new(sanitizer);
            command.args(["--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]);
            command.arg(program).args(self.scale.watched_tests).args(["--test-threads", "1"]);
            Ok(Work { command, result: None })
        });
        step(tool, 90, work)
    }

    fn rooflines(&self) -> Step {
        let result = self.out.join("rooflines.json");
        let mut command = Command::new(&self.this);
        command.arg("rooflines").arg(&result);
        if self.scale.is_tiny {
            command.arg("--tiny");
        }
        step("rooflines", 120, Ok(Work { command, result: Some(result) }))
    }

    fn default_model(&self) -> [Step; 2] {
        let model = self.places.model();
        let model = match self.scale.is_tiny {
            true => self.places.packed("tiny"),
            false => model,
        };
        self.latency("default-model", model, &[])
    }

    /// Decode and prefill of made-up weights in the shapes of a large model.
    fn large_model(&self, quantization: Option<&str>) -> [Step; 2] {
        let config = self.places.packed(if self.scale.is_tiny { "tiny" } else { "configs/llama-3.1-8b" });
        let mut options = vec!["--load-format", "dummy"];
        options.extend(quantization.iter().flat_map(|format| ["--quantization", format]));
        self.latency(&format!("dummy-{}", quantization.unwrap_or("bf16")), config, &options)
    }

    /// `tokenmill bench latency` twice: answers to short prompts of several batches, and first tokens of long prompts.
    fn latency(&self, name: &str, model: Result<PathBuf, String>, options: &[&str]) -> [Step; 2] {
        let scale = self.scale;
        let length = scale.output_len.to_string();
        let decode = ["--batch-size", scale.batches, "--input-len", "8", "--output-len", length.as_str()];
        let prefill = ["--batch-size", "1", "--input-len", scale.prompts, "--output-len", "1"];
        [("decode", decode), ("prefill", prefill)].map(|(what, load)| {
            let result = self.out.join(format!("{name}-{what}.json"));
            let work = self.places.packed("tokenmill").and_then(|program| {
                let mut command = Command::new(program);
                command.args(["bench", "latency"]).arg(model.clone()?).args(options).args(load);
                command.args([
                    "--device",
                    "cuda",
                    "--num-iters",
                    "3",
                    "--num-iters-warmup",
                    "1",
                    "--max-num-seqs",
                    "256",
                ]);
                command.args(["--max-num-batched-tokens", if scale.is_tiny { "64" } else { "8192" }]);
                // A model whose positions end earlier says so itself.
                if name.starts_with("dummy") {
                    command.args(["--max-model-len", &scale.max_model_len.to_string()]);
                }
                if scale.is_tiny {
                    command.args(["--kv-cache-memory", "4MiB"]);
                }
                command.arg("--save-json").arg(&result);
                Ok(Work { command, result: Some(result.clone()) })
            });
            step(&format!("{name}-{what}"), 60, work)
        })
    }

    /// The same made-up weights in transformers: the same greedy tokens, and its speed.
    fn transformers(&self) -> Step {
        let result = self.out.join("transformers.json");
        let work = self.places.python().and_then(|python| {
            let mut command = Command::new(python);
            command.arg(self.places.packed("transformers_peer.py")?).arg(self.places.packed("tokenmill")?);
            command.arg(self.places.packed("configs")?).arg(&result);
            Ok(Work { command, result: Some(result) })
        });
        step("transformers", 150, work)
    }
}

fn step(name: &str, limit: u64, work: Result<Work, String>) -> Step {
    Step { name: name.to_owned(), limit: Duration::from_secs(limit), work }
}
