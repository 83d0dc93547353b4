//! Rotary position embedding: the tables, by the scaling that the config names.

use std::f64::consts::PI;

use tensor::{Backend, RopeTable};
use weights::{RopeConfig, RopeScaling};

use crate::{Loader, NnError};

/// Resident cos and sin tables, shared by all layers of one kind.
pub struct Rope<B: Backend> {
    pub(crate) table: B::Buf,
    pub(crate) rotary_dim: usize,
}

impl<B: Backend> Rope<B> {
    pub fn new(loader: &mut Loader<'_, B>, config: &RopeConfig, max_len: usize) -> Result<Self, NnError> {
        let table = rope_table(config, max_len);
        let pack = |error| NnError::Pack { name: "rotary tables".to_owned(), error };
        Ok(Self { table: loader.backend.rope_table(&table).map_err(pack)?, rotary_dim: table.rotary_dim })
    }
}

/// cos and sin of `position * frequency` for positions below `max_len`, computed in f64.
pub fn rope_table(config: &RopeConfig, max_len: usize) -> RopeTable {
    let frequencies = frequencies(config);
    let angles = || (0..max_len).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
    RopeTable {
        cos: angles().map(|angle| angle.cos() as f32).collect(),
        sin: angles().map(|angle| angle.sin() as f32).collect(),
        rotary_dim: config.rotary_dim,
    }
}

/// Radians a position, `[rotary_dim / 2]`.
fn frequencies(config: &RopeConfig) -> Vec<f64> {
    let exponent = |pair: usize| (2 * pair) as f64 / config.rotary_dim as f64;
    let base = (0..config.rotary_dim / 2).map(|pair| f64::from(config.theta).powf(-exponent(pair)));
    base.enumerate().map(|(pair, frequency)| scaled(pair, frequency, &config.scaling)).collect()
}

fn scaled(pair: usize, frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / f64::from(factor),
        RopeScaling::Factors(ref factors) => frequency / f64::from(factors[pair]),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let turns = original_max_position_embeddings as f64 * frequency / (2.0 * PI);
            let (low, high) = (f64::from(low_freq_factor), f64::from(high_freq_factor));
            let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            keep * frequency + (1.0 - keep) * frequency / f64::from(factor)
        }
    }
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
