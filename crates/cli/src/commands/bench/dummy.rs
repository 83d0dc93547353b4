//! `tokenmill bench dummy`: the weights that no engine needs to be given, as a file for those that do.

use anyhow::Result;

use crate::args::BenchDummyArgs;
use crate::size::ByteSize;

pub(super) fn run(args: &BenchDummyArgs) -> Result<()> {
    let bytes = weights::export_dummy(&args.model, args.seed, &args.out)?;
    println!("{} of weights in {}", ByteSize(bytes), args.out.display());
    Ok(())
}
