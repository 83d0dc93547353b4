//! How a benchmark runs: TOKENMILL_THREADS, TOKENMILL_ISA and TOKENMILL_ACTIVATIONS, as the program's options.

use std::str::FromStr;

use kernels::cpu::{Cpu, CpuOptions};

/// The backend that the environment asks for.
///
/// # Panics
/// If it asks for what is not there.
pub fn cpu() -> Cpu {
    let options = CpuOptions {
        threads: variable("TOKENMILL_THREADS"),
        isa: variable("TOKENMILL_ISA"),
        activations: variable("TOKENMILL_ACTIVATIONS").unwrap_or_default(),
    };
    Cpu::new(options).expect("the CPU backend starts")
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} cannot be {value:?}")))
}
