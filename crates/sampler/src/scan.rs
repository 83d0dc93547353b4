//! The first look at a row of logits: is it sound, and where are its peaks.

/// Logits that share one peak.
pub const CHUNK: usize = 64;
const LANES: usize = 16;

/// The greatest logit, overall and of each chunk of [`CHUNK`] tokens.
#[derive(Debug, Default)]
pub struct Scan {
    pub peak: f32,
    pub peaks: Vec<f32>,
}

impl Scan {
    /// Looks at `logits`. False where one is NaN or +infinity, or where none is above -infinity.
    pub fn read(&mut self, logits: &[f32]) -> bool {
        let mut sound = true;
        self.peaks.clear();
        self.peaks.extend(logits.chunks(CHUNK).map(|chunk| {
            let (peak, chunk_sound) = peak(chunk);
            sound &= chunk_sound;
            peak
        }));
        self.peak = self.peaks.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        sound && self.peak > f32::NEG_INFINITY
    }

    /// The first token of the greatest logit.
    pub fn argmax(&self, logits: &[f32]) -> usize {
        let chunk = self.peaks.iter().position(|&peak| peak == self.peak).expect("the peak is one of the peaks");
        let rest = &logits[chunk * CHUNK..];
        chunk * CHUNK + rest.iter().position(|&logit| logit == self.peak).expect("the chunk holds its peak")
    }
}

/// The greatest logit of a chunk, and whether all are numbers below +infinity.
fn peak(chunk: &[f32]) -> (f32, bool) {
    let mut peaks = [f32::NEG_INFINITY; LANES];
    let mut faults = [false; LANES];
    let (full, rest) = chunk.as_chunks::<LANES>();
    for part in full {
        for lane in 0..LANES {
            peaks[lane] = if part[lane] > peaks[lane] { part[lane] } else { peaks[lane] };
            faults[lane] |= !matches!(part[lane].partial_cmp(&f32::INFINITY), Some(std::cmp::Ordering::Less));
        }
    }
    let peak = peaks.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let sound = !faults.contains(&true) && rest.iter().all(|&logit| logit < f32::INFINITY);
    (peak, sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_is_scanned_whole() {
        for len in [1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            for at in [0, len / 2, len - 1] {
                let mut logits = vec![-1.0; len];
                logits[at] = 2.0;
                let mut scan = Scan::default();
                assert!(scan.read(&logits));
                assert_eq!((scan.peak, scan.argmax(&logits)), (2.0, at), "{len} logits");
                for fault in [f32::NAN, f32::INFINITY] {
                    logits[at] = fault;
                    assert!(!scan.read(&logits), "{fault} at {at} of {len}");
                }
                logits[at] = f32::NEG_INFINITY;
                assert_eq!(scan.read(&logits), len > 1, "-infinity at {at} of {len}");
            }
        }
    }

    #[test]
    fn the_lowest_token_wins_a_tie() {
        let mut logits = vec![0.0; 200];
        (logits[70], logits[130]) = (3.0, 3.0);
        let mut scan = Scan::default();
        scan.read(&logits);
        assert_eq!(scan.argmax(&logits), 70);
    }
}
