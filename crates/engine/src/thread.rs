//! The engine thread: feeds EngineCore with messages and the time, and parks when there is nothing to do.
//!
//! This is the engine's edge: a panic inside a step ends here, as a failure of the requests that were open. One outside of it, as while
//! the device is brought back, ends the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::State;
use crate::core::{Activity, EngineCore, Fatal};
use crate::inbox::Message;
use crate::shared::Shared;

/// Runs until it is told to stop, nobody can send anything any more, or the executor is beyond help.
pub(crate) fn run(mut core: EngineCore, inbox: &Receiver<Message>, shared: &Shared) {
    let outcome = caught(|| serve(&mut core, inbox, shared));
    let outcome = outcome.unwrap_or_else(|panic| Err(Fatal(format!("A panic outside of a step: {panic}"))));
    shared.advance(State::Stopped);
    core.fail_all("The engine has stopped.");
    shared.publish(core.stats());
    match outcome {
        Ok(()) => tracing::info!("the engine stops"),
        Err(Fatal(reason)) => {
            tracing::error!(reason, "the engine stops; it cannot go on");
            shared.give_up(reason);
        }
    }
}

fn serve(core: &mut EngineCore, inbox: &Receiver<Message>, shared: &Shared) -> Result<(), Fatal> {
    let mut messages = Vec::new();
    let mut deadline = None;
    let mut activity = Activity::Idle;
    loop {
        if activity == Activity::Idle && deadline.is_some() {
            return Ok(());
        }
        if activity == Activity::Idle {
            let Ok(message) = inbox.recv() else { return Ok(()) };
            messages.push(message);
        }
        messages.extend(inbox.try_iter());
        deadline = messages.iter().filter_map(stop).chain(deadline).min();
        if deadline.is_some_and(|deadline| shared.now() >= deadline) {
            core.step(messages.drain(..), shared.now())?;
            core.fail_all("The server is shutting down.");
            return Ok(());
        }
        shared.begin_step();
        let outcome = step(core, &mut messages, shared);
        shared.end_step();
        shared.publish(core.stats());
        activity = outcome?;
    }
}

fn stop(message: &Message) -> Option<Duration> {
    match message {
        Message::Stop { deadline } => Some(*deadline),
        _ => None,
    }
}

fn step(core: &mut EngineCore, messages: &mut Vec<Message>, shared: &Shared) -> Result<Activity, Fatal> {
    caught(|| core.step(messages.drain(..), shared.now())).unwrap_or_else(|panic| {
        messages.clear();
        core.rebuild(&panic)?;
        Ok(Activity::Idle)
    })
}

/// What `work` gives, or what it panicked with.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it has no message").to_owned()
    })
}
