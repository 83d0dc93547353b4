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

#[cfg(test)]
mod tests {
    use tensor::StepInputs;

    use super::*;

    #[test]
    fn a_check_looks_at_the_inputs_that_there_are_now() {
        let mut inputs = Inputs::default();
        let step =
            |token, wanted| StepInputs { token_ids: vec![token], logit_tokens: vec![wanted], ..StepInputs::default() };
        for (check, good, bad, why) in [
            (Check::Tokens { vocab: 10 }, step(9, 0), step(10, 0), "vocabulary"),
            (Check::LogitTokens, step(9, 0), step(9, 1), "logits are wanted of token 1"),
        ] {
            inputs.set(&good).unwrap();
            assert_eq!(check.run(&inputs), Ok(()));
            inputs.set(&bad).unwrap();
            let message = check.run(&inputs).expect_err(why);
            assert!(message.contains(why), "{message}");
        }
    }
}
