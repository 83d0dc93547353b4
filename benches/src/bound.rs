//! How fast a piece of work could be on this machine at most.

use std::time::Duration;

use kernels::cpu::Peaks;

/// Work of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    /// Multiply-adds of bytes (activations in two planes cost two each), of bf16, and of f32.
    pub int8_macs: f64,
    pub bf16_macs: f64,
    pub f32_macs: f64,
    /// Bytes that come from memory where no cache holds them.
    pub bytes: f64,
}

/// The best time of a benchmark's calls.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    pub best: Duration,
}

impl Bound {
    pub fn macs(&self) -> f64 {
        self.int8_macs + self.bf16_macs + self.f32_macs
    }

    /// The least time that arithmetic takes.
    pub fn compute_seconds(&self, peaks: &Peaks) -> f64 {
        let seconds = |macs: f64, gmacs: f64| macs / gmacs / 1e9;
        seconds(self.int8_macs, peaks.int8_gmacs)
            + seconds(self.bf16_macs, peaks.bf16_gmacs)
            + seconds(self.f32_macs, peaks.f32_gmacs)
    }

    /// The least time that reading memory takes.
    pub fn memory_seconds(&self, peaks: &Peaks) -> f64 {
        self.bytes / peaks.read_gbs / 1e9
    }
}

impl Timed {
    /// One line: rates reached, beside what the machine allows. Above 100% of the memory's rate a cache holds the data.
    pub fn report(&self, name: &str, bound: &Bound, peaks: &Peaks) -> String {
        let seconds = self.best.as_secs_f64();
        let percent = |least: f64| 100.0 * least / seconds;
        format!(
            "{name:<34} {:>9.1} us {:>7.1} GMAC/s {:>4.0}% of compute {:>7.1} GB/s {:>4.0}% of DRAM",
            seconds * 1e6,
            bound.macs() / seconds / 1e9,
            percent(bound.compute_seconds(peaks)),
            bound.bytes / seconds / 1e9,
            percent(bound.memory_seconds(peaks)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_both_limits() {
        let peaks = Peaks { int8_gmacs: 400.0, bf16_gmacs: 200.0, f32_gmacs: 100.0, read_gbs: 20.0 };
        let bound = Bound { int8_macs: 4e6, bytes: 1e6, ..Bound::default() };
        let line = Timed { best: Duration::from_micros(100) }.report("x", &bound, &peaks);
        assert!(line.contains("40.0 GMAC/s   10% of compute    10.0 GB/s   50% of DRAM"), "{line}");
    }
}
