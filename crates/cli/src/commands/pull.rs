//! `tokenmill pull`: a model into the cache.

use anyhow::Result;

use crate::args::PullArgs;
use crate::progress::Bar;

/// Prints the path of the model, alone on standard output, so that scripts can use it.
pub fn run(args: &PullArgs) -> Result<()> {
    let files = hub::resolve(args.model.as_deref(), &hub::HubOptions::from_env()?, &Bar::new())?;
    crate::say::say(files.path.display());
    Ok(())
}
