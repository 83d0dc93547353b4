//! Pinned seeds, and as many new ones as fit into a few seconds, at depth 1 and at depth 2.

use std::time::Instant;

use sim::{Options, Report, pinned, run};

fn both_depths(seeds: impl Iterator<Item = u64>) -> Vec<Report> {
    let runs = seeds.flat_map(|seed| [(seed, 1), (seed, 2)]);
    runs.map(|(seed, depth)| run(seed, depth, Options::default()).unwrap_or_else(|failure| panic!("{failure}")))
        .collect()
}

#[test]
fn pinned_seeds_hold() {
    let seeds = pinned(include_str!("../../../tests/sim/seeds.txt"));
    assert!(seeds.len() > 20, "the list of seeds is there");
    both_depths(seeds.into_iter());
}

#[test]
fn many_seeds_hold_and_meet_every_hardship() {
    let began = Instant::now();
    let reports = both_depths(1000..2500);
    let elapsed = began.elapsed().as_secs_f64();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let requests = sum(|report| report.requests);
    println!("{requests} requests in {elapsed:.2} s: {:.0} a second", requests as f64 / elapsed);
    for (what, count) in [
        ("preemptions", sum(|report| report.preemptions)),
        ("prefix hits", sum(|report| report.prefix_hits)),
        ("losses", sum(|report| report.losses)),
        ("failed requests", sum(|report| report.failed_requests)),
        ("aborted requests", sum(|report| report.aborted_requests)),
    ] {
        println!("{count} {what}");
        assert!(count > 100, "the scenarios have no {what} to speak of: {count}");
    }
}

#[test]
fn a_seed_always_plays_the_same() {
    for seed in 0..50 {
        for depth in [1, 2] {
            assert_eq!(run(seed, depth, Options::default()), run(seed, depth, Options::default()));
        }
    }
}

#[test]
fn seed_lists_have_comments() {
    assert_eq!(pinned("# first\n1\n\n 22 # why\n"), [1, 22]);
}
