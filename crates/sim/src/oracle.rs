//! What a request must yield, computed token by token from its own tokens and nothing else: no blocks, no batches.

use contract::{Logprob, SamplingParams, TokenId};
use sched::End;

use crate::model::{self, State, Tag};

/// One choice's answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub tokens: Vec<TokenId>,
    pub logprobs: Vec<Logprob>,
    pub prompt_logprobs: Vec<Logprob>,
    /// `None`: its numbers go bad before it ends.
    pub end: Option<End>,
}

pub(crate) struct Oracle {
    pub num_groups: usize,
    pub vocab_size: u32,
    pub max_model_len: u32,
}

impl Oracle {
    pub fn answer(&self, prompt: &[TokenId], max_tokens: u32, params: &SamplingParams) -> Answer {
        let tag = Tag::of(params.seed);
        let mut states = vec![State::default(); self.num_groups];
        let mut read = |token: TokenId, position: u32| {
            let groups = states.iter_mut().enumerate();
            groups.for_each(|(group, state)| state.read(model::kv(token, position, tag.tenant, group)));
            State::join(states.iter().copied())
        };
        let mut answer = Answer::default();
        let prompt_len = prompt.len() as u32;
        let mut state = 0;
        for (position, &token) in prompt.iter().enumerate() {
            state = read(token, position as u32);
            if let (Some(top), Some(&next)) = (params.prompt_logprobs, prompt.get(position + 1)) {
                answer.prompt_logprobs.extend(model::logprobs(state, next, top, self.vocab_size));
            }
        }
        loop {
            let output_len = answer.tokens.len() as u32;
            let len = prompt_len + output_len;
            if tag.is_poisoned_at(len - 1) {
                return answer;
            }
            if output_len >= max_tokens || len >= self.max_model_len {
                answer.end = Some(End::Length);
                return answer;
            }
            let token = model::sample(state, len, output_len, params, self.vocab_size);
            answer.tokens.push(token);
            if let Some(top) = params.logprobs {
                answer.logprobs.extend(model::logprobs(state, token, top, self.vocab_size));
            }
            if output_len >= params.min_tokens && params.stop_token_ids.contains(&token) {
                answer.end = Some(End::Stop);
                return answer;
            }
            if output_len + 1 >= max_tokens || len + 1 >= self.max_model_len {
                answer.end = Some(End::Length);
                return answer;
            }
            state = read(token, len);
        }
    }
}
