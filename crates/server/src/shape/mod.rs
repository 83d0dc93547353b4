//! From engine steps to the pieces of a streamed answer, and from the pieces to a whole one.
//!
//! One path makes both kinds of answer: a stream writes the pieces as they come (`sse`), anything else adds them up
//! (`fold`). A route differs from another only in its [`Shape`].

pub(crate) mod chat;
pub(crate) mod completion;
mod envelope;
mod logprobs;

use std::collections::VecDeque;

use serde::Serialize;

use crate::error::ApiError;
use crate::generation::{Generation, Step};

pub(crate) use envelope::{Envelope, Extras, Head, UsageJson, unix_seconds};

/// How one route words its choices.
pub(crate) trait Shape: Send + 'static {
    /// A choice within a piece.
    type Delta: Serialize + Send;
    /// A choice of a whole answer.
    type Choice: Serialize + Send + From<Self::Delta> + Extend<Self::Delta>;

    const ANSWER_OBJECT: &'static str;
    const PIECE_OBJECT: &'static str;
    const SERVICE_TIER: Option<&'static str>;

    /// Appends what one step adds, piece by piece.
    fn step(&mut self, step: Step, out: &mut VecDeque<Piece<Self::Delta>>);

    fn index(delta: &Self::Delta) -> u32;

    /// The choices to answer with, out of those that were generated.
    fn pick(&self, choices: Vec<Self::Choice>) -> Vec<Self::Choice> {
        choices
    }
}

/// One piece of an answer: at most one choice's delta, or at the very end the counts.
pub(crate) struct Piece<D> {
    pub choice: Option<D>,
    pub usage: Option<UsageJson>,
    pub extras: Extras,
}

impl<D> Piece<D> {
    pub fn of(choice: D) -> Self {
        Self { choice: Some(choice), usage: None, extras: Extras::default() }
    }
}

/// An answer under way.
pub(crate) struct Answer<S: Shape> {
    pub head: Head,
    pub shape: S,
    generation: Generation,
    ready: VecDeque<Piece<S::Delta>>,
    usage: engine::Usage,
    complete: bool,
}

impl<S: Shape> Answer<S> {
    pub fn new(head: Head, shape: S, generation: Generation) -> Self {
        Self { head, shape, generation, ready: VecDeque::new(), usage: engine::Usage::default(), complete: false }
    }

    /// The next piece; the last has the usage. An error is the end. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Piece<S::Delta>, ApiError>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            if self.complete {
                return None;
            }
            match self.generation.next().await {
                Some(Ok(step)) => self.step(step),
                Some(Err(error)) => {
                    self.complete = true;
                    return Some(Err(error));
                }
                None => {
                    self.complete = true;
                    let usage = Some(UsageJson::from(self.usage));
                    self.ready.push_back(Piece { choice: None, usage, extras: Extras::default() });
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        if let Step::Ended(usage) = step {
            self.usage.prompt_tokens += usage.prompt_tokens;
            self.usage.completion_tokens += usage.completion_tokens;
            self.usage.cached_tokens += usage.cached_tokens;
        }
        self.shape.step(step, &mut self.ready);
    }
}

/// The API's word for why a choice ended.
fn finish_reason(finish: &engine::Finish) -> &'static str {
    match finish.reason {
        engine::FinishReason::Stop => "stop",
        engine::FinishReason::Length => "length",
    }
}

/// Which of the client's own stops ended a choice: a token id, or a string.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum StopReason {
    Token(engine::TokenId),
    String(String),
}

impl From<engine::StopMatch> for StopReason {
    fn from(matched: engine::StopMatch) -> Self {
        match matched {
            engine::StopMatch::Token(token) => Self::Token(token),
            engine::StopMatch::String(string) => Self::String(string),
        }
    }
}
