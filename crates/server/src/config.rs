//! What an operator may set about the HTTP side; knows no engine.

use std::time::Duration;

/// How the server presents itself and what it lets in.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Names that requests may use for the model; answers and `/metrics` use the first. Never empty.
    pub served_model_names: Vec<String>,
    /// Where not empty, every route but the probes asks for one of these as a bearer token.
    pub api_keys: Vec<String>,
    /// Refuse fields that this server does not know instead of ignoring them.
    pub strict_params: bool,
    /// Where requests without a seed of their own draw theirs from; `None` is a new one with each start.
    pub seed: Option<u64>,
    /// How long running requests may go on after the stop signal.
    pub shutdown_timeout: Duration,
    pub max_body_bytes: usize,
    pub limits: RequestLimits,
    pub timeouts: Timeouts,
}

/// What one request may ask for. The engine has limits of its own beside these.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    pub max_n: u32,
    /// Prompts of one completion request.
    pub max_prompts: usize,
    pub max_top_logprobs: u32,
    pub max_stop_strings: usize,
    pub max_stop_bytes: usize,
    /// Entries of `logit_bias`, and of each list of tokens or words.
    pub max_token_entries: usize,
    pub max_json_depth: usize,
}

/// How long the server waits for a client.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a whole request head; an idle connection is closed after as long.
    pub read_headers: Duration,
    /// For a whole body.
    pub read_body: Duration,
    /// Silence on a stream before a comment keeps it alive.
    pub keep_alive: Duration,
}

impl ServerConfig {
    /// The defaults for one served name.
    pub fn new(served_model_name: impl Into<String>) -> Self {
        Self {
            served_model_names: vec![served_model_name.into()],
            api_keys: Vec::new(),
            strict_params: false,
            seed: None,
            shutdown_timeout: Duration::from_secs(30),
            max_body_bytes: 32 << 20,
            limits: RequestLimits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_n: 16,
            max_prompts: 256,
            max_top_logprobs: 20,
            max_stop_strings: 4,
            max_stop_bytes: 256,
            max_token_entries: 1024,
            max_json_depth: 128,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            read_headers: Duration::from_secs(60),
            read_body: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
        }
    }
}
