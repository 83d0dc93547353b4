//! Means and percentiles as numpy computes them, so that figures compare with those of other tools.

/// The distribution of one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub mean: f64,
    /// Of the whole, not of a sample: divided by their number.
    pub std: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Summary {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (count, max) = (values.len() as f64, *values.last()?);
        let mean = values.iter().sum::<f64>() / count;
        let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        let at = |percent| percentile(&values, percent);
        Some(Self { mean, std, p50: at(50.0), p90: at(90.0), p99: at(99.0), max })
    }

    pub fn median(&self) -> f64 {
        self.p50
    }
}

/// The value below which `percent` of `sorted` lie, on the line between its neighbours.
///
/// # Panics
/// If there is none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    assert!(!sorted.is_empty(), "nothing has no percentile");
    let place = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let summary = Summary::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.mean, summary.median(), summary.max), (2.5, 2.5, 4.0));
        assert!((summary.std - 1.25f64.sqrt()).abs() < 1e-12);
        assert!((summary.p90 - 3.7).abs() < 1e-12 && (summary.p99 - 3.97).abs() < 1e-12, "{summary:?}");
    }

    #[test]
    fn one_and_none() {
        assert_eq!(Summary::of(vec![]), None);
        let same = Summary { mean: 7.0, std: 0.0, p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 };
        assert_eq!(Summary::of(vec![7.0]), Some(same));
    }

    #[test]
    fn percentiles_of_a_hundred_and_one() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        for percent in [0.0, 1.0, 50.0, 90.0, 99.0, 100.0] {
            assert!((percentile(&values, percent) - percent).abs() < 1e-9);
        }
    }
}
