//! Chat completions: a role first, then content, then one finish reason per choice.

use std::collections::VecDeque;

use engine::{Delta, Finish, TokenId};
use serde::Serialize;
use serde_json::Value;

use super::logprobs::{ChatLogprobs, PromptLogprobs};
use super::{Extras, Piece, Shape, StopReason, finish_reason};
use crate::generation::Step;

pub(crate) struct ChatShape {
    /// Which choices have their role.
    begun: Vec<bool>,
    /// Text of the client's that each choice begins with.
    echo: String,
    with_logprobs: bool,
    with_token_ids: bool,
    /// Goes with the first piece.
    extras: Extras,
}

/// What of the request matters to the form of its answer.
pub(crate) struct ChatOptions {
    pub n: u32,
    pub echo: String,
    pub with_logprobs: bool,
    /// The prompt's own, if token ids were asked for.
    pub prompt_token_ids: Option<Vec<TokenId>>,
}

impl ChatShape {
    pub fn new(options: ChatOptions) -> Self {
        Self {
            begun: vec![false; options.n as usize],
            echo: options.echo,
            with_logprobs: options.with_logprobs,
            with_token_ids: options.prompt_token_ids.is_some(),
            extras: Extras { prompt_token_ids: options.prompt_token_ids, prompt_logprobs: None },
        }
    }

    fn delta(&mut self, delta: Delta, out: &mut VecDeque<Piece<ChatDelta>>) {
        let begun = &mut self.begun[delta.index as usize];
        if !std::mem::replace(begun, true) {
            let role = ChatDelta { delta: Message::role(self.echo.clone()), ..ChatDelta::new(delta.index) };
            out.push_back(Piece { extras: std::mem::take(&mut self.extras), ..Piece::of(role) });
        }
        let index = delta.index;
        let logprobs = self.with_logprobs && !delta.logprobs.is_empty();
        let token_ids = self.with_token_ids && !delta.tokens.is_empty();
        if !delta.text.is_empty() || logprobs || token_ids {
            out.push_back(Piece::of(ChatDelta {
                delta: Message { role: None, content: Some(delta.text) },
                logprobs: logprobs.then(|| delta.logprobs.into_iter().collect()),
                token_ids: token_ids.then_some(delta.tokens),
                ..ChatDelta::new(index)
            }));
        }
        if let Some(finish) = delta.finish {
            out.push_back(Piece::of(ChatDelta::finish(index, finish)));
        }
    }
}

impl Shape for ChatShape {
    type Delta = ChatDelta;
    type Choice = ChatChoice;

    const ANSWER_OBJECT: &'static str = "chat.completion";
    const PIECE_OBJECT: &'static str = "chat.completion.chunk";
    const SERVICE_TIER: Option<&'static str> = Some("default");

    fn step(&mut self, step: Step, out: &mut VecDeque<Piece<ChatDelta>>) {
        match step {
            Step::Prompt { logprobs, .. } => {
                self.extras.prompt_logprobs = Some(PromptLogprobs::from(logprobs.as_slice()));
            }
            Step::Delta { delta, .. } => self.delta(delta, out),
            Step::Ended(_) => {}
        }
    }

    fn index(delta: &ChatDelta) -> u32 {
        delta.index
    }
}

/// A choice within a piece.
#[derive(Debug, Serialize)]
pub(crate) struct ChatDelta {
    index: u32,
    delta: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<TokenId>>,
}

#[derive(Debug, Default, Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

impl Message {
    fn role(content: String) -> Self {
        Self { role: Some("assistant"), content: Some(content) }
    }
}

impl ChatDelta {
    fn new(index: u32) -> Self {
        let delta = Message::default();
        Self { index, delta, logprobs: None, finish_reason: None, stop_reason: None, token_ids: None }
    }

    fn finish(index: u32, finish: Finish) -> Self {
        Self {
            finish_reason: Some(finish_reason(&finish)),
            stop_reason: finish.matched.map(StopReason::from),
            ..Self::new(index)
        }
    }
}

/// A choice of a whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChoice {
    index: u32,
    message: WholeMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<TokenId>>,
}

#[derive(Debug, Serialize)]
struct WholeMessage {
    role: &'static str,
    content: String,
    refusal: Option<String>,
    annotations: Vec<Value>,
}

impl From<ChatDelta> for ChatChoice {
    fn from(first: ChatDelta) -> Self {
        let content = first.delta.content.unwrap_or_default();
        Self {
            index: first.index,
            message: WholeMessage { role: "assistant", content, refusal: None, annotations: Vec::new() },
            logprobs: first.logprobs,
            finish_reason: first.finish_reason,
            stop_reason: first.stop_reason,
            token_ids: first.token_ids,
        }
    }
}

impl Extend<ChatDelta> for ChatChoice {
    fn extend<I: IntoIterator<Item = ChatDelta>>(&mut self, deltas: I) {
        for delta in deltas {
            self.message.content.push_str(delta.delta.content.as_deref().unwrap_or_default());
            if let Some(more) = delta.logprobs {
                self.logprobs.get_or_insert_with(|| ChatLogprobs::from_iter([])).content.extend(more.content);
            }
            if let Some(more) = delta.token_ids {
                self.token_ids.get_or_insert_default().extend(more);
            }
            self.finish_reason = delta.finish_reason.or(self.finish_reason);
            self.stop_reason = delta.stop_reason.or(self.stop_reason.take());
        }
    }
}
