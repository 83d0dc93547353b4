//! Admission: turns what a client asked into what the scheduler takes, or says why not. Pure and on the caller's thread;
//! cheap refusals come before expensive work.

mod limits;
mod params;

use std::sync::Arc;

use contract::{SamplingParams, TokenId};
use sched::{Chains, Layout, NewRequest};
use text::{ChatInput, TextError, TextModel};

use crate::{ChatPrompt, EngineConfig, GenerateRequest, Prompt, SubmitError};
use limits::Room;

/// What requests are checked against.
pub(crate) struct Admission {
    config: EngineConfig,
    text: Arc<TextModel>,
    layout: Layout,
    room: Room,
}

/// A request that may run, and what its response needs to know of it.
pub(crate) struct Admitted {
    pub request: NewRequest,
    pub text: Arc<TextModel>,
    /// As the first choice samples, with all stop tokens.
    pub sampling: Arc<SamplingParams>,
    pub client_stop_tokens: Vec<TokenId>,
    pub stop: Vec<String>,
    pub include_stop: bool,
    pub skip_special_tokens: bool,
}

impl Admission {
    pub fn new(config: EngineConfig, text: Arc<TextModel>, layout: Layout, max_model_len: u32) -> Self {
        let room = Room { max_model_len, max_kv_tokens: layout.max_kv_tokens() };
        Self { config, text, layout, room }
    }

    pub fn text(&self) -> &Arc<TextModel> {
        &self.text
    }

    pub fn max_model_len(&self) -> u32 {
        self.room.max_model_len
    }

    /// `number` is drawn only for requests that pass.
    pub fn admit(&self, request: GenerateRequest, number: impl FnOnce() -> u64) -> Result<Admitted, SubmitError> {
        params::check(&request, &self.config, self.text.tokenizer.vocab_size())?;
        let asked = request.max_tokens;
        let prompt = self.tokenize(&request.prompt, asked.unwrap_or(1))?;
        let max_tokens = self.room.max_tokens(prompt.len(), asked, self.config.default_max_tokens)?;
        if request.sampling.min_tokens > max_tokens {
            let message = format!("min_tokens is {} and max_tokens only {max_tokens}.", request.sampling.min_tokens);
            return Err(SubmitError::Invalid { param: "min_tokens", message });
        }
        let number = number();
        let mut chains = Chains::new(&self.layout, &self.salt(request.cache_salt.as_deref(), number));
        chains.extend(&prompt);
        let client_stop_tokens = request.sampling.stop_token_ids.clone();
        let choices = self.choices(request.sampling, request.n, request.ignore_eos, &request.bad_words)?;
        Ok(Admitted {
            text: Arc::clone(&self.text),
            sampling: Arc::clone(&choices[0]),
            client_stop_tokens,
            stop: request.stop,
            include_stop: request.include_stop_str_in_output,
            skip_special_tokens: request.skip_special_tokens,
            request: NewRequest {
                request: number,
                priority: request.priority,
                prompt,
                chains,
                max_tokens,
                sampling: choices,
                adapter: None,
            },
        })
    }

    /// Without prefix caching a request still shares with itself: with its other choices, and after a preemption.
    fn salt(&self, cache_salt: Option<&str>, number: u64) -> Vec<u8> {
        match cache_salt {
            _ if !self.config.enable_prefix_caching => [&b"request:"[..], &number.to_le_bytes()].concat(),
            Some(salt) => [b"salt:", salt.as_bytes()].concat(),
            None => Vec::new(),
        }
    }

    fn choices(
        &self,
        mut sampling: SamplingParams,
        n: u32,
        ignore_eos: bool,
        bad_words: &[String],
    ) -> Result<Vec<Arc<SamplingParams>>, SubmitError> {
        if !ignore_eos {
            sampling.stop_token_ids.extend_from_slice(&self.text.eos_token_ids);
        }
        sampling.stop_token_ids.sort_unstable();
        sampling.stop_token_ids.dedup();
        sampling.allowed_token_ids.sort_unstable();
        sampling.allowed_token_ids.dedup();
        sampling.logit_bias.sort_unstable_by_key(|&(token, _)| token);
        for word in bad_words {
            self.ban(word, &mut sampling.bad_words)?;
        }
        let choice = |index: u32| {
            let seed = sampling.seed.wrapping_add(u64::from(index));
            let prompt_logprobs = sampling.prompt_logprobs.filter(|_| index == 0);
            Arc::new(SamplingParams { seed, prompt_logprobs, ..sampling.clone() })
        };
        Ok((0..n).map(choice).collect())
    }

    /// A word has one spelling at the beginning of a text and another after a space.
    fn ban(&self, word: &str, banned: &mut Vec<Vec<TokenId>>) -> Result<(), SubmitError> {
        for spelling in [word.to_owned(), format!(" {}", word.trim_start())] {
            let tokens = self.text.tokenizer.encode(&spelling, false).map_err(|error| invalid("bad_words", &error))?;
            if !tokens.is_empty() && !banned.contains(&tokens) {
                banned.push(tokens);
            }
        }
        Ok(())
    }

    fn tokenize(&self, prompt: &Prompt, max_tokens: u32) -> Result<Vec<TokenId>, SubmitError> {
        let tokens = match prompt {
            Prompt::Chat(chat) => self.render(chat, max_tokens)?,
            Prompt::Text(text) => self.encode(text, true, max_tokens)?,
            Prompt::Tokens(tokens) => {
                params::check_tokens("prompt", tokens, self.text.tokenizer.vocab_size())?;
                tokens.clone()
            }
        };
        if tokens.is_empty() {
            let message = "The prompt is empty; it needs at least one token.".to_owned();
            return Err(SubmitError::Invalid { param: "prompt", message });
        }
        Ok(tokens)
    }

    /// Refused by its size in bytes before it is tokenized, if that alone is too much.
    pub fn encode(&self, text: &str, add_special: bool, max_tokens: u32) -> Result<Vec<TokenId>, SubmitError> {
        self.room.check_bytes(text.len(), self.text.tokenizer.max_token_bytes(), max_tokens)?;
        self.text.tokenizer.encode(text, add_special).map_err(|error| invalid("prompt", &error))
    }

    /// As `encode`, for a conversation.
    pub fn render(&self, chat: &ChatPrompt, max_tokens: u32) -> Result<Vec<TokenId>, SubmitError> {
        let template = self.text.template.as_ref().ok_or_else(|| SubmitError::Invalid {
            param: "messages",
            message: "This model has no chat template; use a text prompt.".to_owned(),
        })?;
        let input = ChatInput {
            messages: &chat.messages,
            tools: &chat.tools,
            add_generation_prompt: chat.add_generation_prompt,
            continue_final_message: chat.continue_final_message,
            kwargs: &chat.kwargs,
        };
        let rendered = template.render(&input).map_err(|error| invalid("messages", &error))?;
        self.room.check_bytes(rendered.text().len(), self.text.tokenizer.max_token_bytes(), max_tokens)?;
        self.text.tokenizer.encode_rendered(&rendered).map_err(|error| invalid("messages", &error))
    }
}

fn invalid(param: &'static str, error: &TextError) -> SubmitError {
    SubmitError::Invalid { param, message: error.to_string() }
}
