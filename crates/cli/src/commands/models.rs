//! `tokenmill models`: what the cache holds.

use anyhow::Result;

use crate::args::ModelsArgs;
use crate::say::say;
use crate::size::ByteSize;

pub fn run(args: &ModelsArgs) -> Result<()> {
    let options = hub::HubOptions::from_env()?;
    if let Some(name) = &args.remove {
        let freed = hub::remove(name, &options)?;
        say(format_args!("removed {name}, {} freed", ByteSize(freed)));
        return Ok(());
    }
    let models = hub::list(&options)?;
    if models.is_empty() {
        say("no models in the cache; `tokenmill pull` fetches the default one");
    }
    for model in models {
        say(format_args!("{:<48} {:>10}  {}", model.name, ByteSize(model.bytes).to_string(), model.path.display()));
    }
    Ok(())
}
