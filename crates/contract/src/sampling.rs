//! How one sequence picks its tokens. Every row has its own.

use crate::TokenId;

/// Sampling parameters of one sequence, validated by whoever builds them. They cross the seam once, with `AddRow`.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// Relative to the likeliest token; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of every token seen in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens in the output; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the output; 0 is off.
    pub frequency_penalty: f32,
    /// Added to logits; sorted by token.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// When not empty, every other token is out; sorted.
    pub allowed_token_ids: Vec<TokenId>,
    /// Sequences of tokens that must not be completed.
    pub bad_words: Vec<Vec<TokenId>>,
    /// Below this many output tokens no stop token may be sampled.
    pub min_tokens: u32,
    /// Tokens that end the sequence: the model's own end tokens (unless the client ignores them) and the client's.
    pub stop_token_ids: Vec<TokenId>,
    /// Noise is a function of (seed, position) and of nothing else.
    pub seed: u64,
    /// Log probabilities of the sampled token and this many best ones.
    pub logprobs: Option<u32>,
    /// The same for every prompt token but the first.
    pub prompt_logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            allowed_token_ids: Vec::new(),
            bad_words: Vec::new(),
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            seed: 0,
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

impl SamplingParams {
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}
