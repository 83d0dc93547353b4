//! Drives requests by their arrival and collects what became of each, in the order in which they were sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Arrival, Client, Failure, Recording, Sample};

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub output_len: u32,
    pub result: Result<Recording, Failure>,
}

/// All requests of one measurement.
#[derive(Debug)]
pub struct Run {
    /// In the order of the samples.
    pub outcomes: Vec<Outcome>,
    /// From the first request to the end of the last.
    pub duration: Duration,
    /// Requests that were sent beside them.
    pub beside: Vec<Result<Recording, Failure>>,
}

/// Requests that are sent one at a time while the others run, with a pause as long as each took; none after one that fails.
pub(crate) type Extra = Box<dyn Iterator<Item = Sample> + Send>;

/// Sends each sample when it arrives and there is room, and waits for all. `on_done` hears of each as it ends.
pub async fn run(
    client: Arc<Client>,
    samples: Vec<Sample>,
    arrival: Arrival,
    seed: u64,
    beside: Extra,
    on_done: impl Fn(&Outcome) + Send + Sync + 'static,
) -> Run {
    let offsets = arrival.offsets(samples.len(), seed);
    let room = Arc::new(Semaphore::new(arrival.max_concurrency.unwrap_or(Semaphore::MAX_PERMITS)));
    let (on_done, mut tasks) = (Arc::new(on_done), JoinSet::new());
    let started = Instant::now();
    let is_over = Arc::new(AtomicBool::new(false));
    let beside = tokio::spawn(send_beside(Arc::clone(&client), beside, Arc::clone(&is_over)));
    for (idx, (sample, offset)) in samples.into_iter().zip(offsets).enumerate() {
        if !offset.is_zero() {
            tokio::time::sleep_until((started + offset).into()).await;
        }
        let permit = Arc::clone(&room).acquire_owned().await.expect("nobody closes the semaphore");
        let (client, on_done) = (Arc::clone(&client), Arc::clone(&on_done));
        tasks.spawn(async move {
            let outcome = Outcome { output_len: sample.output_len, result: client.ask(&sample).await };
            drop(permit);
            on_done(&outcome);
            (idx, outcome)
        });
    }
    let mut outcomes = tasks.join_all().await;
    let duration = started.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let beside = beside.await.expect("nothing in it panics");
    outcomes.sort_unstable_by_key(|(idx, _)| *idx);
    Run { outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect(), duration, beside }
}

async fn send_beside(client: Arc<Client>, samples: Extra, is_over: Arc<AtomicBool>) -> Vec<Result<Recording, Failure>> {
    let mut results = Vec::new();
    for sample in samples {
        let result = client.ask(&sample).await;
        let pause = result.as_ref().ok().map(Recording::e2el);
        results.push(result);
        let Some(pause) = pause else { break };
        tokio::time::sleep(pause).await;
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    results
}
