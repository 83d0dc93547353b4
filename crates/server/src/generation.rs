//! The engine's responses to one HTTP request, merged into one sequence of steps; knows no JSON.
//!
//! Dropping it drops the responses, which aborts them in the engine: that is all there is to a client going away.

use std::sync::Arc;

use engine::{Delta, Event, TokenLogprob, Usage};
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};

use crate::error::ApiError;
use crate::metrics::{Meter, Metrics};

/// One prompt each, in the order of the request.
pub(crate) struct Generation {
    parts: SelectAll<BoxStream<'static, Result<Step, ApiError>>>,
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
        let parts = responses.into_iter().enumerate().map(|(prompt, response)| {
            let part = Part { prompt, response, meter: Meter::new(Arc::clone(metrics)), ended: false };
            stream::unfold(part, Part::advance).boxed()
        });
        Self { parts: stream::select_all(parts) }
    }

    /// The next step of any prompt. An error is the last: it takes the other prompts with it.
    pub async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        let step = self.parts.next().await;
        if matches!(step, Some(Err(_))) {
            self.parts.clear();
        }
        step
    }
}

struct Part {
    prompt: usize,
    response: engine::Response,
    meter: Meter,
    ended: bool,
}

impl Part {
    async fn advance(mut self) -> Option<(Result<Step, ApiError>, Self)> {
        if self.ended {
            return None;
        }
        let prompt = self.prompt;
        let step = match self.response.next().await {
            Some(Event::Prompt(logprobs)) => Ok(Step::Prompt { prompt, logprobs }),
            Some(Event::Delta(delta)) => {
                self.meter.delta(&delta);
                Ok(Step::Delta { prompt, delta })
            }
            Some(Event::Failed(error)) => {
                self.ended = true;
                self.meter.failed();
                Err(error.into())
            }
            None => {
                self.ended = true;
                let usage = self.response.usage();
                self.meter.ended(usage, self.response.timing());
                Ok(Step::Ended(usage))
            }
        };
        Some((step, self))
    }
}
