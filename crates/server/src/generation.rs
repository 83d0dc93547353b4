//! The engine's responses to one HTTP request, merged into one sequence of steps; knows no JSON.
//!
//! Dropping it drops the responses, which aborts them in the engine: that is all there is to a client going away.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use engine::{Delta, Event, TokenLogprob, Usage};

use crate::error::ApiError;
use crate::metrics::{Meter, Metrics};

/// One part for each prompt that has not ended.
pub(crate) struct Generation {
    parts: Vec<Part>,
    /// The part that was asked last.
    turn: usize,
}

/// What happened next. `prompt` counts the prompts of the request.
pub(crate) enum Step {
    /// Log probabilities of a prompt's tokens; before any delta of that prompt.
    Prompt {
        prompt: usize,
        logprobs: Vec<Option<TokenLogprob>>,
    },
    Delta {
        prompt: usize,
        delta: Delta,
    },
    /// A prompt's choices have all finished.
    Ended(Usage),
}

impl Generation {
    pub fn new(responses: Vec<engine::Response>, metrics: &Arc<Metrics>) -> Self {
        let part = |(prompt, response)| Part { prompt, response, meter: Meter::new(Arc::clone(metrics)) };
        Self { parts: responses.into_iter().enumerate().map(part).collect(), turn: 0 }
    }

    /// The next step of any prompt. An error is the last: it takes the other prompts with it.
    pub async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Prompts take turns.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Step, ApiError>>> {
        for _ in 0..self.parts.len() {
            self.turn = (self.turn + 1) % self.parts.len();
            let Poll::Ready(step) = self.parts[self.turn].poll_next(cx) else { continue };
            match step {
                Ok(Step::Ended(_)) => drop(self.parts.swap_remove(self.turn)),
                Err(_) => self.parts.clear(),
                Ok(_) => {}
            }
            return Poll::Ready(Some(step));
        }
        if self.parts.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

struct Part {
    prompt: usize,
    response: engine::Response,
    meter: Meter,
}

impl Part {
    /// Its last step is the count or an error.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ApiError>> {
        let prompt = self.prompt;
        Poll::Ready(match ready!(self.response.poll_next(cx)) {
            Some(Event::Prompt(logprobs)) => Ok(Step::Prompt { prompt, logprobs }),
            Some(Event::Delta(delta)) => {
                self.meter.delta(&delta);
                Ok(Step::Delta { prompt, delta })
            }
            Some(Event::Failed(error)) => {
                self.meter.failed();
                Err(error.into())
            }
            None => {
                let usage = self.response.usage();
                self.meter.ended(usage, self.response.timing());
                Ok(Step::Ended(usage))
            }
        })
    }
}
