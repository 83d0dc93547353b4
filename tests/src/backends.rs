//! Every backend as an executor, so that a test runs its rows on all of them.

use std::path::Path;

use contract::Executor;
use kernels::cpu::{Activations, Cpu, CpuOptions, Isa};
use kernels::reference::Reference;
use runner::{ModelRunner, RunnerOptions};
use weights::Checkpoint;

/// A device to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Reference,
    Cpu,
}

impl Device {
    pub const ALL: [Device; 2] = [Device::Reference, Device::Cpu];

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
            Self::Cpu => Box::new(ModelRunner::new(cpu(2), checkpoint, options).expect("loads")),
        }
    }
}

/// The CPU backend on `threads`.
pub fn cpu(threads: usize) -> Cpu {
    let isa = std::env::var("TOKENMILL_ISA").ok().map(|name| name.parse::<Isa>().expect("TOKENMILL_ISA is known"));
    Cpu::new(CpuOptions { threads: Some(threads), isa, activations: Activations::default() })
        .expect("this processor has the instruction set")
}
