//! YaRN's settings: how far a rotation is stretched, which pairs keep their frequency, and how much larger q and k become.

/// Pairs that turn more than `beta_fast` times within the original context keep their frequency, those below `beta_slow` turns are
/// divided by `factor`, and between them lies a ramp over the pair's index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    pub factor: f32,
    pub original_max_position_embeddings: usize,
    pub beta_fast: f32,
    pub beta_slow: f32,
    /// Multiplies cos and sin.
    pub attention_factor: f32,
    /// The ramp's ends are whole pairs.
    pub truncate: bool,
}

impl Yarn {
    pub(crate) const BETA_FAST: f32 = 32.0;
    pub(crate) const BETA_SLOW: f32 = 1.0;

    /// The paper's `0.1 ln(factor) + 1`, its logarithm weighed by `mscale`; 1 where nothing is stretched.
    pub(crate) fn magnitude(factor: f32, mscale: f32) -> f32 {
        if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
    }
}
