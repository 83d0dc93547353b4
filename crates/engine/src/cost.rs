//! Fits the scheduler's prices to the time that earlier steps took: elapsed ≈ a + b · tokens + c · attended.
//!
//! Least squares with exponential forgetting over the last hundred steps or so, with a small ridge, since a run of equal
//! steps cannot tell the three apart. A coefficient that comes out negative is left out and the others are fitted again.

use contract::SchedulerOutput;
use sched::Prices;

const FORGET: f64 = 0.99;
const RIDGE: f64 = 1e-3;
/// Brings the three features to the same order of magnitude.
const SCALE: [f64; 3] = [1.0, 1.0 / 64.0, 1.0 / 16384.0];

/// What a step computes, as far as its cost goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub tokens: u32,
    attended: u64,
}

impl Load {
    pub fn of(plan: &SchedulerOutput) -> Self {
        let attended = plan.work.iter().map(|work| {
            let (start, len) = (u64::from(work.start), u64::from(work.len));
            len * start + len * (len + 1) / 2
        });
        Self { tokens: plan.num_tokens(), attended: attended.sum() }
    }
}

/// The running fit: normal equations of the three coefficients, in nanoseconds.
#[derive(Default)]
pub(crate) struct CostModel {
    products: [[f64; 3]; 3],
    targets: [f64; 3],
}

impl CostModel {
    pub fn observe(&mut self, load: Load, elapsed_us: u32) {
        let features = [1.0, f64::from(load.tokens), load.attended as f64];
        let features: [f64; 3] = std::array::from_fn(|i| features[i] * SCALE[i]);
        let elapsed = f64::from(elapsed_us) * 1e3;
        for i in 0..3 {
            self.targets[i] = self.targets[i] * FORGET + features[i] * elapsed;
            for j in 0..3 {
                self.products[i][j] = self.products[i][j] * FORGET + features[i] * features[j];
            }
        }
    }

    /// In nanoseconds; all zero until something was observed.
    pub fn prices(&self) -> Prices {
        let mut used = [true; 3];
        let fit = loop {
            let fit = self.solve(used);
            let worst = (0..3).filter(|&i| fit[i] < 0.0).min_by(|&a, &b| fit[a].total_cmp(&fit[b]));
            match worst {
                Some(i) => used[i] = false,
                None => break fit,
            }
        };
        Prices {
            per_step: (fit[0] * SCALE[0]) as u64,
            per_token: (fit[1] * SCALE[1]) as u64,
            per_attended: (fit[2] * SCALE[2]) as u64,
        }
    }

    /// Gauss elimination over the features in use; the ridge keeps every pivot positive.
    fn solve(&self, used: [bool; 3]) -> [f64; 3] {
        let mut rows: [[f64; 4]; 3] = std::array::from_fn(|i| {
            std::array::from_fn(|j| match (used[i], j) {
                (true, 3) => self.targets[i],
                (true, j) if i == j => self.products[i][j] + RIDGE,
                (true, j) if used[j] => self.products[i][j],
                (false, j) if i == j => 1.0,
                _ => 0.0,
            })
        });
        for pivot in 0..3 {
            for row in 0..3 {
                if row != pivot {
                    let factor = rows[row][pivot] / rows[pivot][pivot];
                    let scaled = rows[pivot].map(|value| value * factor);
                    rows[row].iter_mut().zip(scaled).for_each(|(value, scaled)| *value -= scaled);
                }
            }
        }
        std::array::from_fn(|i| rows[i][3] / rows[i][i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(steps: impl IntoIterator<Item = (u32, u64)>, elapsed_us: impl Fn(u32, u64) -> u64) -> Prices {
        let mut model = CostModel::default();
        for (tokens, attended) in steps {
            model.observe(Load { tokens, attended }, elapsed_us(tokens, attended) as u32);
        }
        model.prices()
    }

    #[test]
    fn a_linear_cost_is_found() {
        let steps = (0..200u32).map(|i| (1 + i * 37 % 512, u64::from(i * 7919 % 100_000)));
        let prices = observed(steps, |tokens, attended| 2000 + 300 * u64::from(tokens) + attended / 10);
        let near = |found: u64, wanted: u64| found.abs_diff(wanted) * 50 <= wanted;
        assert!(near(prices.per_step, 2_000_000), "{prices:?}");
        assert!(near(prices.per_token, 300_000), "{prices:?}");
        assert!(near(prices.per_attended, 100), "{prices:?}");
    }

    #[test]
    fn equal_steps_predict_themselves() {
        let prices = observed((0..50).map(|_| (8, 800)), |_, _| 5000);
        let predicted = prices.per_step + 8 * prices.per_token + 800 * prices.per_attended;
        assert!(predicted.abs_diff(5_000_000) < 100_000, "{prices:?} predict {predicted} ns");
    }

    #[test]
    fn no_price_is_negative_and_none_is_known_at_first() {
        assert_eq!(CostModel::default().prices(), Prices::default());
        let falling = observed((1..100u32).map(|i| (i, 0)), |tokens, _| u64::from(1000 - tokens));
        assert_eq!(falling.per_token, 0);
        assert!(falling.per_step > 0);
    }
}
