//! Every backend as an executor, so that a test runs its rows on all of them.

use std::path::Path;

use contract::Executor;
use kernels::cpu::{Activations, Cpu, CpuOptions, Isa};
use kernels::cuda::Cuda;
use kernels::reference::Reference;
use runner::{ModelRunner, RunnerOptions};
use weights::Checkpoint;

/// A device to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Reference,
    Cpu,
    /// With activations of 8 bits.
    CpuInt8,
    /// The first GPU, or the emulator of one.
    Cuda,
    /// The same, without recorded steps.
    CudaEager,
}

impl Device {
    /// Those that compute in f32 where they are asked to.
    pub const EXACT: [Device; 2] = [Device::Reference, Device::Cpu];

    /// Every device here; `test` says so where there is no GPU.
    pub fn all(test: &str) -> Vec<Device> {
        Self::EXACT.into_iter().chain(Self::gpu(test)).collect()
    }

    /// The GPU, or a word on why `test` does without. `TOKENMILL_TEST_GPU=off` where another run covers it.
    pub fn gpu(test: &str) -> Option<Device> {
        if std::env::var("TOKENMILL_TEST_GPU").is_ok_and(|value| value == "off") {
            return None;
        }
        match Cuda::new(0) {
            Ok(_) => Some(Self::Cuda),
            Err(error) => {
                testkit::skip(test, &error.to_string());
                None
            }
        }
    }

    /// Loads the checkpoint at `path`.
    ///
    /// # Panics
    /// If it cannot be loaded.
    pub fn load(self, path: &Path, options: RunnerOptions) -> Box<dyn Executor> {
        self.run(&Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}")), options)
    }

    /// Runs `checkpoint`. The CPU takes the instruction set that `TOKENMILL_ISA` names, else its best.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn run(self, checkpoint: &Checkpoint, options: RunnerOptions) -> Box<dyn Executor> {
        match self {
            Self::Reference => Box::new(ModelRunner::new(Reference::new(), checkpoint, options).expect("loads")),
            Self::Cuda => Box::new(ModelRunner::new(cuda(), checkpoint, options).expect("loads")),
            Self::CudaEager => Box::new(ModelRunner::new(cuda().eager(), checkpoint, options).expect("loads")),
            Self::Cpu => Box::new(ModelRunner::new(cpu(2), checkpoint, options).expect("loads")),
            Self::CpuInt8 => {
                Box::new(ModelRunner::new(cpu_with(2, Activations::Int8), checkpoint, options).expect("loads"))
            }
        }
    }
}

fn cuda() -> Cuda {
    Cuda::new(0).expect("a GPU")
}

/// The CPU backend on `threads`.
pub fn cpu(threads: usize) -> Cpu {
    cpu_with(threads, Activations::default())
}

fn cpu_with(threads: usize, activations: Activations) -> Cpu {
    let isa = std::env::var("TOKENMILL_ISA").ok().map(|name| name.parse::<Isa>().expect("TOKENMILL_ISA is known"));
    Cpu::new(CpuOptions { threads: Some(threads), isa, activations }).expect("this processor has the instruction set")
}
