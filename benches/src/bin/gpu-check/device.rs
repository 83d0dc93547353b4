//! The GPU, asked in a process of its own: a driver that hangs takes no more than that along.

use std::path::Path;

use anyhow::Result;
use benches::Ceilings;
use kernels::cuda::Cuda;
use serde_json::json;
use tensor::Backend;

/// Opens the first GPU, runs nothing but a copy there and back, and writes what it is.
pub fn run(result: &Path) -> Result<()> {
    let mut cuda = Cuda::new(0)?;
    let name = cuda.describe();
    let (sent, mut found) = ([1.0, 2.0, 3.0, 4.0], Vec::new());
    let there = cuda.vector(&sent)?;
    cuda.read(&there, &mut found)?;
    anyhow::ensure!(found == sent, "{name} answers {found:?} where {sent:?} was sent");
    let free = cuda.memory().free;
    let ceilings = Ceilings::of(&name);
    println!("{name}, {} MiB free, ceilings {ceilings:?}", free >> 20);
    let value = json!({
        "name": name,
        "free_bytes": free,
        "bytes_per_second": ceilings.map(|ceilings| ceilings.bytes_per_second),
        "flops_per_second": ceilings.map(|ceilings| ceilings.flops_per_second),
        "fp8_flops_per_second": ceilings.map(|ceilings| ceilings.fp8_flops_per_second),
    });
    crate::write(result, &format!("{value:#}\n"))
}
