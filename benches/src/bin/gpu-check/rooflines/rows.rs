//! What works row by row: norms, and picking tokens.

use std::time::Instant;

use anyhow::Result;
use benches::Work;
use contract::SamplingParams;
use kernels::cuda::Cuda;
use sampler::{Row, Sampled};
use tensor::{ActSet, Backend, Encoding, NormSpec, StepInputs, StepKey};

use super::{Bench, ROUNDS, noise, plain_inputs};

/// Picks of one measurement.
const PICKS: usize = 50;

impl Bench<'_> {
    pub(super) fn small_ops(&mut self) -> Result<()> {
        let cols = self.scale.hidden;
        for &tokens in self.scale.tokens {
            self.start_over()?;
            let x = self.cuda.vector(&noise(tokens * cols))?;
            let spec = NormSpec { gain: self.cuda.vector(&vec![1.0; cols])?, eps: 1e-5, size: cols };
            for (wants, name) in [(Encoding::Bf16, "norm"), (Encoding::E4m3Token, "norm to fp8")] {
                let mut op = |b: &mut Cuda, (): &(), _| drop(b.norm(&x, &spec, ActSet::of(wants)));
                let seconds = self.seconds(&plain_inputs(tokens), &mut |_| (), &mut op)?;
                self.record(name, tokens, Work::norm(tokens, cols), seconds)?;
                self.start_over()?;
            }
        }
        Ok(())
    }

    /// Picks, each with the way of its tokens to the host, as a step ends with it.
    pub(super) fn sampling(&mut self) -> Result<()> {
        let drawn = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
        for &rows in self.scale.sampled {
            for (name, params) in [("pick greedily", &SamplingParams::greedy()), ("draw, top-p 0.95", &drawn)] {
                self.start_over()?;
                let seconds = self.pick(rows, params)?;
                self.record(name, rows, Work::pick(rows, self.scale.vocab), seconds)?;
            }
        }
        Ok(())
    }

    fn pick(&mut self, rows: usize, params: &SamplingParams) -> Result<f64> {
        let logits = self.cuda.vector(&noise(rows * self.scale.vocab))?;
        let inputs = StepInputs { logit_tokens: (0..rows as u32).collect(), ..plain_inputs(rows) };
        let row = |idx| Row { position: idx as u32, tokens: &[7], prompt_len: 1, ..Row::alone(idx, params) };
        let mut rows: Vec<_> = (0..rows).map(row).collect();
        for key in [StepKey::Plan, StepKey::Eager] {
            self.cuda.step(key, &inputs, &rows, &mut |_| logits.clone())?;
        }
        let mut sampled = Sampled::default();
        let picks = if self.scale.is_tiny { 2 } else { PICKS };
        let mut rounds = Vec::new();
        for _ in 0..=ROUNDS {
            let started = Instant::now();
            for _ in 0..picks {
                sampled.clear();
                self.cuda.sample(&logits, &mut rows, &mut sampled)?;
            }
            rounds.push(started.elapsed().as_secs_f64() / picks as f64);
        }
        rounds.sort_unstable_by(f64::total_cmp);
        Ok(rounds[ROUNDS / 2])
    }
}
