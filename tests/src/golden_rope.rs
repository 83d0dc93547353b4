//! The rotary frequencies that the tiny goldens were run with.

use std::path::Path;

use half::bf16;
use weights::{Checkpoint, RopeConfig, RopeScaling};

/// Opens a tiny checkpoint as its golden run saw it.
///
/// That run cast the whole model to bf16 and back to f32, which rounded the rotary frequencies too: they are no part of
/// the checkpoint, and reading it gives the exact ones. The difference moves logits by up to 0.003, a hundred times what
/// the comparison allows, so the rounding is repeated here.
///
/// # Panics
/// If the checkpoint cannot be read.
pub fn open_as_golden(folder: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|error| panic!("{error}"));
    let rope = rounded(&checkpoint.config().rope);
    checkpoint.with_rope(rope)
}

/// `rope` with every frequency rounded to bf16, as factors of the unscaled ones.
fn rounded(rope: &RopeConfig) -> RopeConfig {
    let half = rope.rotary_dim / 2;
    let table = nn::rope_table(rope, 2);
    let (cos, sin) = (&table.cos[half..], &table.sin[half..]);
    let factor = |pair: usize| {
        // The angle at position 1 is the frequency.
        let frequency = f64::from(sin[pair]).atan2(f64::from(cos[pair])) as f32;
        let unscaled = f64::from(rope.theta).powf(-((2 * pair) as f64) / rope.rotary_dim as f64);
        (unscaled / f64::from(bf16::from_f32(frequency))) as f32
    };
    RopeConfig { scaling: RopeScaling::Factors((0..half).map(factor).collect()), ..rope.clone() }
}
