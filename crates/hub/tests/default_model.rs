//! The real default model from whichever real source this machine reaches.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::time::Instant;

use common::TempDir;
use hub::{HubOptions, Progress, Step, resolve, verify};

/// Prints each step with the seconds since the start.
struct Printed {
    start: Instant,
    bytes: Cell<u64>,
}

impl Progress for Printed {
    fn step(&self, step: Step<'_>) {
        match step {
            Step::Received { bytes } => self.bytes.set(self.bytes.get() + bytes),
            step => eprintln!("{:7.2} s {:>10} bytes  {step:?}", self.start.elapsed().as_secs_f64(), self.bytes.get()),
        }
    }
}

#[test]
#[ignore = "fetches 98 MB from outside; run with --ignored --nocapture"]
fn the_default_model_can_be_fetched_and_is_right() {
    let temp = TempDir::new();
    let options = HubOptions { cache_dir: temp.0.clone(), ..HubOptions::from_env().unwrap() };
    let progress = Printed { start: Instant::now(), bytes: Cell::new(0) };
    let files = resolve(None, &options, &progress).unwrap();
    let found = Instant::now();
    assert_eq!(resolve(None, &options, &progress).unwrap(), files);
    eprintln!("found again in {:.1} ms", found.elapsed().as_secs_f64() * 1e3);
    assert!(verify(&options, &progress).unwrap()[0].is_right);
}
