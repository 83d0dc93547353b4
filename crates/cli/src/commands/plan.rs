//! `tokenmill plan`: where the memory goes.

use anyhow::Result;
use runner::RunnerError;

use crate::args::PlanArgs;
use crate::assemble;
use crate::say::say;

pub fn run(args: &PlanArgs) -> Result<()> {
    let planned = assemble::plan(&args.model).inspect_err(|error| {
        let shortage = error.downcast_ref::<RunnerError>().and_then(RunnerError::shortage);
        shortage.into_iter().for_each(say);
    });
    let (files, device, plan) = planned?;
    say(format_args!("model    {}\ndevice   {device}\n{plan}", files.name));
    Ok(())
}
