//! `tokenmill plan`: where the memory goes.

use anyhow::Result;

use crate::args::PlanArgs;
use crate::assemble;

pub fn run(args: &PlanArgs) -> Result<()> {
    let (files, device, plan) = assemble::plan(&args.model)?;
    println!("model    {}", files.name);
    println!("device   {device}");
    println!("{plan}");
    Ok(())
}
