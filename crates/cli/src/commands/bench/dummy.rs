//! `tokenmill bench dummy`: the weights that no engine needs to be given, as a file for those that do.

use anyhow::Result;
use kernels::reference::Reference;
use weights::Checkpoint;

use crate::args::BenchDummyArgs;
use crate::say::say;
use crate::size::ByteSize;

/// Which tensors there are only a model knows: it is loaded, and what it asked for is written.
pub(super) fn run(args: &BenchDummyArgs) -> Result<()> {
    let checkpoint = Checkpoint::dummy(&args.model, args.seed)?;
    models::load(&checkpoint, &mut Reference::new(), 1)?;
    checkpoint.export(&args.out)?;
    say(format_args!("{} of weights in {}", ByteSize(checkpoint.total_bytes()), args.out.display()));
    Ok(())
}
