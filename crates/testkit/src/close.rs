//! Comparing numbers.

/// `|actual - expected| <= absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub absolute: f32,
    pub relative: f32,
}

/// Panics with the first place and the worst one where `actual` is not close to `expected`. A NaN on either side is
/// never close.
///
/// # Panics
/// If lengths differ or any pair is not close.
pub fn check_close(what: &str, actual: &[f32], expected: &[f32], tolerance: Tolerance) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths");
    let excess = |idx: usize| {
        let (a, e) = (actual[idx], expected[idx]);
        let allowed = tolerance.absolute + tolerance.relative * e.abs();
        // Written so that a NaN counts as bad.
        if (a - e).abs() <= allowed { None } else { Some((a - e).abs() - allowed) }
    };
    let bad: Vec<usize> = (0..actual.len()).filter(|&idx| excess(idx).is_some()).collect();
    let Some(&first) = bad.first() else { return };
    let by_excess = |a: &&usize, b: &&usize| excess(**a).unwrap_or(0.0).total_cmp(&excess(**b).unwrap_or(0.0));
    let worst = *bad.iter().max_by(by_excess).expect("there is a first one");
    panic!(
        "{what}: {} of {} differ; first at {first}: {} against {}; worst at {worst}: {} against {}",
        bad.len(),
        actual.len(),
        actual[first],
        expected[first],
        actual[worst],
        expected[worst]
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

    #[test]
    fn close_is_close() {
        check_close("exact", &[1.0, -0.0], &[1.0, 0.0], EXACT);
        check_close("within", &[1.05], &[1.0], Tolerance { absolute: 0.01, relative: 0.05 });
    }

    #[test]
    #[should_panic(expected = "1 of 2 differ; first at 1")]
    fn a_nan_is_never_close() {
        check_close("nan", &[1.0, f32::NAN], &[1.0, 0.0], Tolerance { absolute: f32::MAX, relative: 0.0 });
    }
}
