//! When requests are sent: all at once or at a Poisson rate, and in either case no more than some at a time.

use std::time::Duration;

use crate::Random;

/// The stream of the seed that arrivals are drawn from; prompts use the streams from 0 on.
const STREAM: u64 = u64::MAX;

/// A rate and a limit; a closed loop is a limit without a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrival {
    /// Requests a second, with exponential gaps; `None` is a burst of all.
    pub request_rate: Option<f64>,
    /// Requests that run at a time. One that arrives when so many run waits, and its times start when it is sent.
    pub max_concurrency: Option<usize>,
}

impl Arrival {
    /// When each of `count` requests arrives, from the start; ascending, the first at once.
    pub fn offsets(&self, count: usize, seed: u64) -> Vec<Duration> {
        let Some(rate) = self.request_rate else { return vec![Duration::ZERO; count] };
        let (mut random, mut now) = (Random::new(seed, STREAM), 0.0);
        let mut next = |idx: usize| {
            if idx > 0 {
                now -= random.unit().ln() / rate;
            }
            Duration::from_secs_f64(now)
        };
        (0..count).map(&mut next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_arrives_at_once() {
        assert_eq!(Arrival::default().offsets(3, 0), [Duration::ZERO; 3]);
        assert!(Arrival::default().offsets(0, 0).is_empty());
    }

    #[test]
    fn gaps_are_exponential() {
        for rate in [0.5, 20.0] {
            let arrival = Arrival { request_rate: Some(rate), max_concurrency: None };
            let offsets = arrival.offsets(40_001, 11);
            let gaps: Vec<f64> = offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * rate).collect();
            let mean = gaps.iter().sum::<f64>() / 40_000.0;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 40_000.0;
            assert!((mean - 1.0).abs() < 0.03, "mean {mean} of 1");
            assert!((variance - 1.0).abs() < 0.08, "an exponential's variance is 1, found {variance}");
            let longer = gaps.iter().filter(|gap| **gap > 1.0).count() as f64 / 40_000.0;
            assert!((longer - (-1.0f64).exp()).abs() < 0.01, "{longer} are longer than the mean");
        }
    }

    #[test]
    fn seeds_repeat() {
        let arrival = Arrival { request_rate: Some(3.0), max_concurrency: Some(1) };
        assert_eq!(arrival.offsets(9, 1), arrival.offsets(9, 1));
        assert_ne!(arrival.offsets(9, 1), arrival.offsets(9, 2));
        assert_eq!(arrival.offsets(9, 1)[0], Duration::ZERO);
    }
}
