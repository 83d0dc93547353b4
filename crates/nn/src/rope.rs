//! Rotary position embedding: the tables, by the scaling that the config names.

use std::f64::consts::PI;

use tensor::{Backend, RopeTable};
use weights::{RopeConfig, RopeScaling, Yarn};

use crate::{Loader, NnError};

/// Resident cos and sin tables, shared by all layers of one kind.
pub struct Rope<B: Backend> {
    pub(crate) table: B::Buf,
    pub(crate) rotary_dim: usize,
}

impl<B: Backend> Rope<B> {
    pub fn new(loader: &mut Loader<'_, B>, config: &RopeConfig, max_len: usize) -> Result<Self, NnError> {
        let table = rope_table(config, max_len);
        let name = || format!("rotary tables of {max_len} positions (--max-model-len asks for fewer)");
        let pack = |error| NnError::Pack { name: name(), error };
        Ok(Self { table: loader.backend.rope_table(&table).map_err(pack)?, rotary_dim: table.rotary_dim })
    }
}

/// cos and sin of `position * frequency` for positions below `max_len`, computed in f64; YaRN's are larger by its attention factor.
pub fn rope_table(config: &RopeConfig, max_len: usize) -> RopeTable {
    let (frequencies, size) = (frequencies(config), magnitude(&config.scaling));
    let angles = || (0..max_len).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
    RopeTable {
        cos: angles().map(|angle| (angle.cos() * size) as f32).collect(),
        sin: angles().map(|angle| (angle.sin() * size) as f32).collect(),
        rotary_dim: config.rotary_dim,
    }
}

/// Radians a position, `[rotary_dim / 2]`.
fn frequencies(config: &RopeConfig) -> Vec<f64> {
    let exponent = |pair: usize| (2 * pair) as f64 / config.rotary_dim as f64;
    let base = (0..config.rotary_dim / 2).map(|pair| f64::from(config.theta).powf(-exponent(pair)));
    base.enumerate().map(|(pair, frequency)| scaled(pair, frequency, config)).collect()
}

fn magnitude(scaling: &RopeScaling) -> f64 {
    if let RopeScaling::Yarn(yarn) = scaling { f64::from(yarn.attention_factor) } else { 1.0 }
}

fn scaled(pair: usize, frequency: f64, config: &RopeConfig) -> f64 {
    match config.scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / f64::from(factor),
        RopeScaling::Factors(ref factors) => frequency / f64::from(factors[pair]),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let turns = original_max_position_embeddings as f64 * frequency / (2.0 * PI);
            let (low, high) = (f64::from(low_freq_factor), f64::from(high_freq_factor));
            let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            keep * frequency + (1.0 - keep) * frequency / f64::from(factor)
        }
        RopeScaling::Yarn(ref yarn) => {
            let keep = 1.0 - ramp(pair as f64, yarn_range(yarn, config));
            keep * frequency + (1.0 - keep) * frequency / f64::from(yarn.factor)
        }
    }
}

/// Where the pairs lie that turn `beta_fast` and `beta_slow` times within the original context. That a dimension, not a pair, is the
/// last allowed is how the reference implementation counts.
fn yarn_range(yarn: &Yarn, config: &RopeConfig) -> (f64, f64) {
    let (dim, context) = (config.rotary_dim as f64, yarn.original_max_position_embeddings as f64);
    let pair_that_turns =
        |times: f32| dim * (context / (f64::from(times) * 2.0 * PI)).ln() / (2.0 * f64::from(config.theta).ln());
    let (fast, slow) = (pair_that_turns(yarn.beta_fast), pair_that_turns(yarn.beta_slow));
    let (fast, slow) = if yarn.truncate { (fast.floor(), slow.ceil()) } else { (fast, slow) };
    (fast.max(0.0), slow.min(dim - 1.0))
}

/// 0 up to the first of `range`, 1 from the second on.
fn ramp(at: f64, (from, to): (f64, f64)) -> f64 {
    let width = if from == to { 0.001 } else { to - from };
    ((at - from) / width).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { theta: 10_000.0, rotary_dim: 8, scaling }
    }

    #[test]
    fn tables_hold_one_row_a_position() {
        let table = rope_table(&config(RopeScaling::None), 3);
        assert_eq!((table.cos.len(), table.sin.len()), (12, 12));
        assert_eq!((table.cos[0], table.sin[0]), (1.0, 0.0));
        assert!((table.sin[8] - 2f32.sin()).abs() < 1e-6, "position 2, the fastest pair");
        assert!((table.cos[11] - 0.002f32.cos()).abs() < 1e-6, "position 2, the slowest pair");
    }

    /// The paper's ramp, by how often a pair turns within the original context, for every theta and size that is even. (Its ends are
    /// not whole pairs there, so neither here.)
    #[test]
    fn yarn_blends_by_turns_within_the_original_context() {
        for (theta, rotary_dim, original, (fast, slow)) in [
            (10_000.0f32, 64, 2048, (32.0f32, 1.0f32)),
            (1e6, 128, 32_768, (32.0, 1.0)),
            (150_000.0, 64, 4096, (32.0, 1.0)),
        ] {
            let yarn = Yarn {
                factor: 16.0,
                original_max_position_embeddings: original,
                beta_fast: fast,
                beta_slow: slow,
                attention_factor: 1.25,
                truncate: false,
            };
            let config = RopeConfig { theta, rotary_dim, scaling: RopeScaling::Yarn(yarn) };
            let turns = |pair: usize| {
                original as f64 / (2.0 * PI * f64::from(theta).powf(2.0 * pair as f64 / rotary_dim as f64))
            };
            for (pair, frequency) in frequencies(&config).into_iter().enumerate() {
                let plain = turns(pair) * 2.0 * PI / original as f64;
                // Linear in the pair is linear in the logarithm of its turns.
                let (fast, slow) = (f64::from(fast).ln(), f64::from(slow).ln());
                let stretched = ((fast - turns(pair).ln()) / (fast - slow)).clamp(0.0, 1.0);
                let expected = plain * (1.0 - stretched) + plain / 16.0 * stretched;
                assert!((frequency / expected - 1.0).abs() < 1e-9, "theta {theta}, pair {pair}");
            }
            let table = rope_table(&config, 2);
            assert_eq!((table.cos[0], table.sin[0]), (1.25, 0.0), "cos and sin grow by the attention factor");
        }
    }

    /// Worked out by hand for theta 10000, 8 dimensions, 64 positions, beta 4 and 1: pairs turn 10.2, 1.02, 0.1 and 0.01 times. The
    /// ramp runs from floor(0.406) to ceil(1.008), so from pair 0 to pair 2.
    #[test]
    fn yarn_with_whole_pairs_matches_numbers_by_hand() {
        let yarn = Yarn {
            factor: 4.0,
            original_max_position_embeddings: 64,
            beta_fast: 4.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
            truncate: true,
        };
        let found = frequencies(&config(RopeScaling::Yarn(yarn)));
        for (found, expected) in found.iter().zip([1.0, 0.1 * (0.5 + 0.5 / 4.0), 0.01 / 4.0, 0.001 / 4.0]) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
    }

    #[test]
    fn llama3_scaling_keeps_fast_pairs_and_stretches_slow_ones() {
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        let (plain, scaled) = (frequencies(&config(RopeScaling::None)), frequencies(&config(llama3)));
        assert_eq!(scaled[0], plain[0], "ten turns in 64 positions");
        assert!((scaled[3] - plain[3] / 8.0).abs() < 1e-12, "a hundredth of a turn");
    }
}
