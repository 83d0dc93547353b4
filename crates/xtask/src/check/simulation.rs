//! Many seeds of the simulator, at depth 1 and 2: those that once found something, and fresh ones.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::harness::{self, Harness};
use super::{Context, Counts};

const PINNED: &str = "tests/sim/seeds.txt";
const NUM_FRESH: u64 = 200;

pub(super) fn run(context: &Context) -> Result<Counts> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let first_fresh = since_1970.as_secs() * 1000;
    let arguments = ["seeds".to_owned(), PINNED.to_owned(), first_fresh.to_string(), NUM_FRESH.to_string()];
    let mut command = context.command(&context.built()?.binary("sim")?.path);
    command.args(arguments);
    harness::run(context, vec![Harness { title: "sim".to_owned(), command }])
}
