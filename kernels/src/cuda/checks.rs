//! What of a step's inputs an op follows into memory, named so that it is looked at once a step, and again at every replay.

use tensor::CacheSpec;

use crate::inputs::Inputs;

/// One thing to be sure of before a kernel reads the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Tokens are rows of a table this long.
    Tokens { vocab: usize },
    /// Rows of logits are tokens of the step.
    LogitTokens,
    /// Slots are the cache's, positions below `longest`.
    Write { cache: CacheSpec, longest: usize },
    /// Every position has a block of the cache.
    Read { cache: CacheSpec },
}

impl Check {
    /// # Errors
    /// A sentence on what is wrong with the inputs.
    pub fn run(&self, inputs: &Inputs) -> Result<(), String> {
        match self {
            Self::Tokens { vocab } => inputs.check_tokens(*vocab),
            Self::LogitTokens => inputs.check_logit_tokens(),
            Self::Write { cache, longest } => inputs.check_write(cache, *longest).map(drop),
            Self::Read { cache } => inputs.check_read(cache).map(drop),
        }
    }
}
