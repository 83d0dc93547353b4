//! Text completions: plain text, possibly with the prompt before it, for one prompt or many.

use std::cmp::Ordering;
use std::collections::VecDeque;

use engine::{Delta, TokenId, TokenLogprob};
use serde::Serialize;

use super::logprobs::{CompletionLogprobs, PromptLogprobs};
use super::{Piece, Shape, StopReason, finish_reason};
use crate::generation::Step;

pub(crate) struct CompletionShape {
    options: CompletionOptions,
    prompts: Vec<PromptState>,
    /// `generated` entries per prompt.
    choices: Vec<ChoiceState>,
}

/// What of the request matters to the form of its answer.
pub(crate) struct CompletionOptions {
    /// Choices to answer with, per prompt.
    pub n: u32,
    /// Choices to generate, per prompt; the best `n` are kept.
    pub generated: u32,
    pub echo: bool,
    pub with_logprobs: bool,
    pub with_prompt_logprobs: bool,
    pub with_token_ids: bool,
}

/// What a choice may have to repeat of its prompt.
pub(crate) struct PromptText {
    pub text: String,
    pub tokens: Vec<TokenId>,
    /// Text of the first token, which no log probability comes with.
    pub first_token: String,
}

struct PromptState {
    text: PromptText,
    logprobs: Vec<Option<TokenLogprob>>,
}

#[derive(Clone, Default)]
struct ChoiceState {
    begun: bool,
    /// Characters of text so far, counted by tokens.
    offset: usize,
    logprob_sum: f64,
    num_tokens: usize,
}

impl CompletionShape {
    pub fn new(options: CompletionOptions, prompts: Vec<PromptText>) -> Self {
        let choices = vec![ChoiceState::default(); prompts.len() * options.generated as usize];
        let prompts = prompts.into_iter().map(|text| PromptState { text, logprobs: Vec::new() }).collect();
        Self { options, prompts, choices }
    }

    fn delta(&mut self, prompt: usize, delta: Delta, out: &mut VecDeque<Piece<CompletionChoice>>) {
        let index = prompt as u32 * self.options.generated + delta.index;
        if !std::mem::replace(&mut self.choices[index as usize].begun, true)
            && let Some(choice) = self.begin(prompt, index)
        {
            out.push_back(Piece::of(choice));
        }
        let logprobs = self.logprobs(index, &delta.logprobs);
        let token_ids = (self.options.with_token_ids && !delta.tokens.is_empty()).then_some(delta.tokens);
        if delta.text.is_empty() && logprobs.is_none() && token_ids.is_none() && delta.finish.is_none() {
            return;
        }
        let (finish_reason, stop_reason) = match delta.finish {
            Some(finish) => (Some(finish_reason(&finish)), finish.matched.map(StopReason::from)),
            None => (None, None),
        };
        let text = delta.text;
        let new = CompletionChoice::new(index);
        out.push_back(Piece::of(CompletionChoice { text, logprobs, finish_reason, stop_reason, token_ids, ..new }));
    }

    /// What comes before the first generated token, if anything does.
    fn begin(&mut self, prompt: usize, index: u32) -> Option<CompletionChoice> {
        let options = &self.options;
        if !(options.echo || options.with_token_ids || options.with_prompt_logprobs) {
            return None;
        }
        let PromptState { text: prompt, logprobs } = &self.prompts[prompt];
        let echo_logprobs = (options.echo && options.with_logprobs)
            .then(|| prompt_columns(prompt, logprobs, &mut self.choices[index as usize].offset));
        Some(CompletionChoice {
            text: if options.echo { prompt.text.clone() } else { String::new() },
            logprobs: echo_logprobs,
            prompt_token_ids: options.with_token_ids.then(|| prompt.tokens.clone()),
            prompt_logprobs: options.with_prompt_logprobs.then(|| PromptLogprobs::from(logprobs.as_slice())),
            ..CompletionChoice::new(index)
        })
    }

    /// Keeps the score, and spells the tokens if the client asked for it.
    fn logprobs(&mut self, index: u32, tokens: &[TokenLogprob]) -> Option<CompletionLogprobs> {
        let state = &mut self.choices[index as usize];
        state.num_tokens += tokens.len();
        state.logprob_sum += tokens.iter().map(|token| f64::from(token.logprob)).sum::<f64>();
        if !self.options.with_logprobs || tokens.is_empty() {
            return None;
        }
        let mut columns = CompletionLogprobs::default();
        for token in tokens {
            state.offset = columns.push(&token.text, Some(token), state.offset);
        }
        Some(columns)
    }

    /// Higher is better: log probability per token.
    fn score(&self, index: u32) -> f64 {
        let state = &self.choices[index as usize];
        state.logprob_sum / state.num_tokens.max(1) as f64
    }

    fn best(&self, mut choices: Vec<CompletionChoice>) -> Vec<CompletionChoice> {
        let by_score = |a: &CompletionChoice, b: &CompletionChoice| {
            self.score(b.index).partial_cmp(&self.score(a.index)).unwrap_or(Ordering::Equal)
        };
        choices.sort_by(by_score);
        choices.truncate(self.options.n as usize);
        choices
    }
}

fn prompt_columns(prompt: &PromptText, logprobs: &[Option<TokenLogprob>], offset: &mut usize) -> CompletionLogprobs {
    let mut columns = CompletionLogprobs::default();
    for token in logprobs {
        let text = token.as_ref().map_or(&prompt.first_token, |token| &token.text);
        *offset = columns.push(text, token.as_ref(), *offset);
    }
    columns
}

impl Shape for CompletionShape {
    type Delta = CompletionChoice;
    type Choice = CompletionChoice;

    const ANSWER_OBJECT: &'static str = "text_completion";
    const PIECE_OBJECT: &'static str = "text_completion";
    const SERVICE_TIER: Option<&'static str> = None;

    fn step(&mut self, step: Step, out: &mut VecDeque<Piece<CompletionChoice>>) {
        match step {
            Step::Prompt { prompt, logprobs } => self.prompts[prompt].logprobs = logprobs,
            Step::Delta { prompt, delta } => self.delta(prompt, delta, out),
            Step::Ended(_) => {}
        }
    }

    fn index(delta: &CompletionChoice) -> u32 {
        delta.index
    }

    fn pick(&self, choices: Vec<CompletionChoice>) -> Vec<CompletionChoice> {
        if self.options.n == self.options.generated {
            return choices;
        }
        let mut groups: Vec<Vec<CompletionChoice>> = self.prompts.iter().map(|_| Vec::new()).collect();
        for choice in choices {
            groups[(choice.index / self.options.generated) as usize].push(choice);
        }
        let best = groups.into_iter().flat_map(|group| self.best(group));
        best.zip(0..).map(|(choice, index)| CompletionChoice { index, ..choice }).collect()
    }
}

/// A choice, whole or within a piece: they have one form.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionChoice {
    index: u32,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<TokenId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<TokenId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

impl CompletionChoice {
    fn new(index: u32) -> Self {
        Self {
            index,
            text: String::new(),
            logprobs: None,
            finish_reason: None,
            stop_reason: None,
            token_ids: None,
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }
}

impl Extend<CompletionChoice> for CompletionChoice {
    fn extend<I: IntoIterator<Item = CompletionChoice>>(&mut self, pieces: I) {
        for piece in pieces {
            self.text.push_str(&piece.text);
            if let Some(more) = piece.logprobs {
                self.logprobs.get_or_insert_default().append(more);
            }
            if let Some(more) = piece.token_ids {
                self.token_ids.get_or_insert_default().extend(more);
            }
            self.finish_reason = piece.finish_reason.or(self.finish_reason);
            self.stop_reason = piece.stop_reason.or(self.stop_reason.take());
        }
    }
}
