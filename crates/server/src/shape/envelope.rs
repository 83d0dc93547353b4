//! What surrounds the choices, the same in every answer and piece.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::{TokenId, Usage};
use serde::Serialize;

use super::logprobs::PromptLogprobs;
use crate::ids;

/// What stays the same throughout one answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub fingerprint: String,
}

impl Head {
    pub fn new(id_prefix: &str, model: String, fingerprint: &str) -> Self {
        let fingerprint = fingerprint.to_owned();
        Self { id: ids::unique(id_prefix), created: unix_seconds(), model, fingerprint }
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A whole answer or one piece of it.
#[derive(Serialize)]
pub(crate) struct Envelope<'a, C> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    pub choices: &'a [C],
    /// `Some(None)` is an explicit null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<&'a UsageJson>>,
    pub system_fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    #[serde(flatten)]
    pub extras: &'a Extras,
}

/// Facts about the prompt that clients of other servers ask for.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Extras {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<TokenId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<PromptLogprobs>,
}

impl Extras {
    /// Takes over what `other` has.
    pub fn merge(&mut self, other: Self) {
        self.prompt_token_ids = other.prompt_token_ids.or(self.prompt_token_ids.take());
        self.prompt_logprobs = other.prompt_logprobs.or(self.prompt_logprobs.take());
    }
}

/// Token counts in the API's words.
#[derive(Debug, Serialize)]
pub(crate) struct UsageJson {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
    audio_tokens: u32,
}

#[derive(Debug, Default, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u32,
    audio_tokens: u32,
    accepted_prediction_tokens: u32,
    rejected_prediction_tokens: u32,
}

impl From<Usage> for UsageJson {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens, audio_tokens: 0 },
            completion_tokens_details: CompletionDetails::default(),
        }
    }
}
