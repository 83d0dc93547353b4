//! Randomness without state: a hash of the seed and the position, so that a text does not depend on its row, its batch
//! or on how often it was preempted.

/// 64 uniform bits for the token at `position` of a sequence with this seed.
pub fn noise(seed: u64, position: u32) -> u64 {
    mix(mix(seed) ^ mix(u64::from(position).wrapping_add(0x6a09_e667_f3bc_c908)))
}

/// A permutation of the 64-bit numbers that scatters neighbours (the finalizer of SplitMix64 behind its increment).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::noise;

    #[test]
    fn every_bit_is_fair_along_seeds_and_along_positions() {
        const DRAWS: u32 = 4096;
        for along_seeds in [false, true] {
            for bit in 0..64 {
                let draw = |i: u32| if along_seeds { noise(u64::from(i), 7) } else { noise(7, i) };
                let ones = (0..DRAWS).filter(|&i| draw(i) >> bit & 1 == 1).count() as f64;
                let sigmas = (ones - f64::from(DRAWS) / 2.0) / (f64::from(DRAWS) / 4.0).sqrt();
                assert!(sigmas.abs() < 4.5, "bit {bit}: {sigmas} sigmas off");
            }
        }
    }

    #[test]
    fn the_noise_is_fixed_for_good() {
        assert_ne!(noise(0, 1), noise(1, 0));
        assert_eq!(noise(42, 17), noise(42, 17));
    }
}
