//! What a client asks and what it gets back; the server translates HTTP to and from these.

use std::time::Duration;

use contract::{SamplingParams, TokenId};
use serde_json::{Map, Value};
use thiserror::Error;

/// One request. Numbers are in the range that their fields say, or `submit` refuses with the parameter's name.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// Sequences forked from one prefill, at least 1.
    pub n: u32,
    /// Output tokens; `None` is as many as the context leaves room for.
    pub max_tokens: Option<u32>,
    /// `stop_token_ids` are the client's; `submit` adds the model's end tokens unless `ignore_eos`. Sequence `i` of `n`
    /// samples with `seed + i`.
    pub sampling: SamplingParams,
    pub ignore_eos: bool,
    /// Words that must not appear; `submit` tokenizes them into `sampling.bad_words`.
    pub bad_words: Vec<String>,
    pub stop: Vec<String>,
    pub include_stop_str_in_output: bool,
    pub skip_special_tokens: bool,
    /// Lower runs first under the priority policy.
    pub priority: i32,
    /// Requests share cached prefixes only within one salt.
    pub cache_salt: Option<String>,
}

impl GenerateRequest {
    /// One choice with the defaults of the API; set the rest by struct update.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            n: 1,
            max_tokens: None,
            sampling: SamplingParams::default(),
            ignore_eos: false,
            bad_words: Vec::new(),
            stop: Vec::new(),
            include_stop_str_in_output: false,
            skip_special_tokens: true,
            priority: 0,
            cache_salt: None,
        }
    }
}

/// What to continue.
#[derive(Clone, Debug)]
pub enum Prompt {
    Chat(ChatPrompt),
    /// Tokenized with the model's own special tokens around it.
    Text(String),
    Tokens(Vec<TokenId>),
}

/// A conversation for the chat template, in the shape that templates expect.
#[derive(Clone, Debug, Default)]
pub struct ChatPrompt {
    pub messages: Vec<Value>,
    pub tools: Vec<Value>,
    pub add_generation_prompt: bool,
    pub continue_final_message: bool,
    /// Extra variables of the template.
    pub kwargs: Map<String, Value>,
}

/// One event of a response, in order. `Failed` is the last; otherwise the stream ends after each choice has finished.
#[derive(Clone, Debug)]
pub enum Event {
    /// First, if prompt logprobs were asked for: one entry per prompt token, the first of them `None`.
    Prompt(Vec<Option<TokenLogprob>>),
    Delta(Delta),
    Failed(RequestError),
}

/// What one step added to one choice.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Which of the `n` choices.
    pub index: u32,
    /// Whole characters only; may be empty while a character or a possible stop string is incomplete.
    pub text: String,
    pub tokens: Vec<TokenId>,
    /// One per entry of `tokens`, if asked for.
    pub logprobs: Vec<TokenLogprob>,
    pub finish: Option<Finish>,
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    pub reason: FinishReason,
    pub matched: Option<StopMatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    Stop,
    Length,
}

/// What the client asked to stop at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopMatch {
    Token(TokenId),
    String(String),
}

/// A token with its log probability and the best alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: TokenId,
    pub text: String,
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// Best first; as many as were asked for.
    pub top: Vec<TokenLogprob>,
}

/// Final counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Prompt tokens whose KV came from the prefix cache.
    pub cached_tokens: u32,
}

/// When things happened to a request, from its submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// First scheduled.
    pub scheduled: Option<Duration>,
    pub first_token: Option<Duration>,
    pub finished: Option<Duration>,
}

/// Why a request was not taken.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SubmitError {
    #[error("{message}")]
    Invalid { param: &'static str, message: String },
    /// `prompt_tokens` is a lower bound where the prompt was refused by its size in bytes, before it was tokenized.
    #[error(
        "This model's maximum context length is {max_model_len} tokens. However, your request has at least \
         {prompt_tokens} input tokens and asks for {max_tokens} output tokens. Please shorten the prompt or ask for \
         fewer tokens."
    )]
    ContextLength { max_model_len: u32, prompt_tokens: u64, max_tokens: u32 },
    #[error("The server has {queued} requests waiting, which is its limit. Please retry later.")]
    Overloaded { queued: u32, retry_after: Duration },
    #[error("The server is shutting down and takes no new requests.")]
    Draining,
    #[error("The engine has stopped.")]
    Stopped,
}

/// Why a running request failed; nobody else is touched.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct RequestError {
    pub message: String,
}
