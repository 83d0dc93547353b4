//! Counts, and the table at the end.

/// How many checks went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Counts {
    pub fn one(passed: bool) -> Self {
        let mut counts = Self::default();
        counts.add(passed);
        counts
    }

    pub fn add(&mut self, passed: bool) {
        if passed { self.passed += 1 } else { self.failed += 1 }
    }

    pub fn merge(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Tests that said they did not run were counted as passed by their harness.
    pub fn move_to_skipped(&mut self, skipped: u64) {
        self.passed = self.passed.saturating_sub(skipped);
        self.skipped += skipped;
    }
}

/// How a part came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Itself,
    /// It could not go on; its counts are one failure.
    Error,
}

pub(super) struct PartReport {
    pub name: &'static str,
    pub counts: Counts,
    pub ended: Ended,
    pub minutes: f64,
    pub allowance: f64,
}

/// Prints a line per part and the sum alone on the last line. True when nothing failed.
pub(super) fn print(reports: &[PartReport]) -> bool {
    println!("\n{:<8} {:>8} {:>8} {:>8} {:>8} {:>10}", "part", "passed", "failed", "skipped", "minutes", "allowance");
    let mut sum = Counts::default();
    for report in reports {
        println!("{}", line(report));
        sum.merge(report.counts);
    }
    println!("{}", last_line(sum));
    sum.failed == 0
}

fn line(report: &PartReport) -> String {
    let Counts { passed, failed, skipped } = report.counts;
    let late = if report.minutes > report.allowance { "  over its allowance" } else { "" };
    let error = if report.ended == Ended::Error { "  ended by an error" } else { "" };
    let (name, minutes, allowance) = (report.name, report.minutes, report.allowance);
    format!("{name:<8} {passed:>8} {failed:>8} {skipped:>8} {minutes:>8.1} {allowance:>10.1}{late}{error}")
}

fn last_line(sum: Counts) -> String {
    format!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_happened() {
        let counts = Counts { passed: 3, failed: 1, skipped: 2 };
        let report = PartReport { name: "tests", counts, ended: Ended::Itself, minutes: 5.0, allowance: 4.0 };
        assert_eq!(line(&report), "tests           3        1        2      5.0        4.0  over its allowance");
        assert_eq!(last_line(counts), "3 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn skipped_tests_are_not_passed_ones() {
        let mut counts = Counts { passed: 3, failed: 0, skipped: 1 };
        counts.move_to_skipped(2);
        assert_eq!(counts, Counts { passed: 1, failed: 0, skipped: 3 });
    }
}
