//! What happens when clients leave, queues fill, devices fail and engines stop.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use contract::ExecutorError;
use engine::{EngineConfig, Event, State, SubmitError};

use crate::support::{answer, request, start, start_hooked, text_model};

#[test]
fn a_dropped_response_aborts_its_request() {
    let (release, hold): (_, Receiver<()>) = channel();
    let hold = Mutex::new(hold);
    let engine = start_hooked(move || {
        hold.lock().expect("nobody panics").recv().ok();
        Ok(())
    });
    let mut response = engine.submit(request("dropped", 100)).expect("valid");
    release.send(()).expect("the engine waits");
    response.blocking_next();
    drop(response);
    drop(engine.submit(request("dropped at once", 100)));
    drop(release);
    engine.shutdown(Duration::from_secs(60));
    let stats = engine.stats();
    assert_eq!((stats.requests_finished, stats.requests_aborted, stats.kv_blocks_used), (0, 2, 0));
}

#[test]
fn a_full_queue_refuses_and_a_draining_engine_finishes() {
    let full = start(EngineConfig { max_num_queued_reqs: 0, ..EngineConfig::default() });
    let refused = full.submit(request("x", 1)).err();
    assert!(matches!(refused, Some(SubmitError::Overloaded { queued: 0, .. })), "{refused:?}");

    let engine = start(EngineConfig::default());
    let mut response = engine.submit(request("x", 30)).expect("valid");
    engine.drain();
    assert_eq!(engine.health().state, State::Draining);
    assert_eq!(engine.submit(request("x", 1)).err(), Some(SubmitError::Draining));
    engine.shutdown(Duration::from_secs(60));
    assert_eq!(engine.health().state, State::Stopped);
    assert_eq!(engine.submit(request("x", 1)).err(), Some(SubmitError::Stopped));
    assert_eq!(std::iter::from_fn(|| response.blocking_next()).count(), 30, "what was running has finished");
}

#[test]
fn an_executor_that_cannot_be_built_is_a_sentence() {
    let outcome = engine::start(EngineConfig::default(), text_model(), || Err("no such device".to_owned()));
    assert_eq!(outcome.err().map(|error| error.to_string()), Some("no such device".to_owned()));
}

#[test]
fn a_panic_in_a_step_fails_its_requests_and_the_engine_goes_on() {
    let mut waits = 0;
    let engine = start_hooked(move || {
        waits += 1;
        assert_ne!(waits, 3, "a bug");
        Ok(())
    });
    let failed = answer(&engine, request("unlucky", 10));
    assert_eq!((failed.tokens.len(), failed.finish), (2, None));
    assert!(failed.failed.is_some_and(|message| message.contains("internal error")));
    let next = answer(&engine, request("lucky", 10));
    assert_eq!((next.tokens.len(), next.failed), (10, None));
    assert_eq!(engine.health().state, State::Ready);
}

#[test]
fn a_loss_is_replayed_and_nobody_notices() {
    let expected = answer(&start(EngineConfig::default()), request("replayed", 30));
    let mut waits = 0;
    let engine = start_hooked(move || {
        waits += 1;
        if waits % 7 == 0 { Err(ExecutorError::Lost("a device error".to_owned())) } else { Ok(()) }
    });
    // Lost three times in 21 steps is one time too often; ten tokens lose the device only once.
    assert_eq!(answer(&engine, request("replayed", 10)).text, expected.text[..10]);
    assert_eq!(engine.stats().executor_losses, 1);
}

#[test]
fn a_device_that_never_comes_back_stops_the_engine() {
    let engine = start_hooked(|| Err(ExecutorError::Lost("gone".to_owned())));
    let mut failures = 0;
    while engine.health().state == State::Ready {
        match engine.submit(request("x", 1)) {
            Ok(mut response) => failures += usize::from(matches!(response.blocking_next(), Some(Event::Failed(_)))),
            Err(error) => assert_eq!(error, SubmitError::Stopped),
        }
    }
    assert!(failures >= 3, "each request fails after three losses, the engine after nine: {failures}");
    assert_eq!(engine.health().state, State::Stopped);
}

#[test]
fn a_hanging_step_is_overdue_for_whoever_asks() {
    let (release, hold): (_, Receiver<()>) = channel();
    let hold = Mutex::new(hold);
    let engine = start_hooked(move || {
        hold.lock().expect("nobody panics").recv().ok();
        Ok(())
    });
    assert_eq!(engine.health().overdue, None, "an idle engine is never overdue");
    let mut response = engine.submit(request("x", 1)).expect("valid");
    while engine.health().overdue.is_none() {
        std::thread::yield_now();
    }
    drop(release);
    while response.blocking_next().is_some() {}
    engine.shutdown(Duration::from_secs(60));
    assert_eq!(engine.health().overdue, None);
}

#[test]
fn a_shutdown_without_patience_fails_what_still_runs() {
    let (release, hold): (_, Receiver<()>) = channel();
    let hold = Mutex::new(hold);
    let engine = start_hooked(move || {
        hold.lock().expect("nobody panics").recv().ok();
        Ok(())
    });
    let mut response = engine.submit(request("x", 100)).expect("valid");
    release.send(()).expect("the engine waits");
    assert!(matches!(response.blocking_next(), Some(Event::Delta(_))));
    let stopping = engine.clone();
    let shutdown = std::thread::spawn(move || stopping.shutdown(Duration::ZERO));
    while engine.health().state == State::Ready {
        std::thread::yield_now();
    }
    // Steps go on one by one until the message to stop has arrived.
    while release.send(()).is_ok() {}
    shutdown.join().expect("the shutdown returns");
    let events: Vec<_> = std::iter::from_fn(|| response.blocking_next()).collect();
    assert!(
        matches!(events.last(), Some(Event::Failed(error)) if error.message.contains("shutting down")),
        "{events:?}"
    );
}
