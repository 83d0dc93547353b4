//! Shows that the simulator bites: each deliberate mistake in the scheduler is noticed within a few hundred seeds.

use sched::{Fault, inject};
use sim::{Failure, Options, run};

const SEEDS: u64 = 600;

fn first_failure(fault: Option<Fault>) -> Option<Failure> {
    inject(fault);
    let runs = (0..SEEDS).flat_map(|seed| [(seed, 1), (seed, 2)]);
    let failure = runs.map(|(seed, depth)| run(seed, depth, Options::default())).find_map(Result::err);
    inject(None);
    failure
}

#[test]
fn every_mistake_is_noticed() {
    let faults = [
        Fault::WrongBlock,
        Fault::HashWithoutParent,
        Fault::HashWithoutSalt,
        Fault::UncountedShare,
        Fault::KeepComputed,
        Fault::AbortLeak,
        Fault::AbortTwice,
        Fault::EarlyPublish,
        Fault::PublishNonFinite,
        Fault::ReadWholePrompt,
        Fault::StaleResult,
        Fault::KeepPrefixAfterLoss,
        Fault::ForgetDrop,
        Fault::IgnoreStop,
    ];
    // The mistakes end in panics that are caught; their messages would only fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<_> = faults.into_iter().map(|fault| (fault, first_failure(Some(fault)))).collect();
    let sound = first_failure(None);
    drop(std::panic::take_hook());
    for (fault, failure) in &found {
        match failure {
            Some(failure) => println!("{fault:?}: {failure}"),
            None => println!("{fault:?}: not noticed"),
        }
    }
    assert_eq!(sound, None, "without a mistake the same seeds hold");
    let missed: Vec<_> = found.iter().filter(|(_, failure)| failure.is_none()).map(|(fault, _)| fault).collect();
    assert!(missed.is_empty(), "not noticed within {SEEDS} seeds: {missed:?}");
}
