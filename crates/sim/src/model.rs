//! The pretended model: how a token becomes KV, KV becomes a state, and a state becomes the next token. Executor and
//! oracle share this file and nothing else.

use contract::{Logprob, SamplingParams, TokenId};

use crate::rng::mix;

/// What a slot holds before anyone wrote to it, and after a row's numbers went bad.
pub(crate) const POISON: u64 = 0xdead_dead_dead_dead;

/// The KV of one token in one group. Tenants differ, so that a block shared across salts shows.
pub(crate) fn kv(token: TokenId, position: u32, tenant: u32, group: usize) -> u64 {
    mix(u64::from(token) << 32 | u64::from(position)) ^ mix(u64::from(tenant) << 8 | group as u64)
}

/// Everything that attention has read in one group, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    pub fn read(&mut self, kv: u64) {
        self.0 = (self.0.rotate_left(7) ^ kv).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The groups' states as one.
    pub fn join(states: impl Iterator<Item = State>) -> u64 {
        states.fold(0, |joined, state| mix(joined ^ state.0))
    }
}

/// The next token after `state`, for a row with `output_len` tokens of output.
pub(crate) fn sample(state: u64, position: u32, output_len: u32, params: &SamplingParams, vocab: u32) -> TokenId {
    let noise = if params.is_greedy() { 0 } else { mix(params.seed ^ mix(u64::from(position))) };
    let drawn = mix(state ^ noise);
    let token = |drawn: u64| match params.allowed_token_ids.len() as u64 {
        0 => (drawn % u64::from(vocab)) as TokenId,
        allowed => params.allowed_token_ids[(drawn % allowed) as usize],
    };
    let is_banned = |token: TokenId| output_len < params.min_tokens && params.stop_token_ids.contains(&token);
    let mut tries = (0..u64::from(vocab) * 2).map(|step| token(drawn.wrapping_add(step)));
    tries.find(|&token| !is_banned(token)).unwrap_or_else(|| token(drawn))
}

/// Log probabilities of `token` and of `top` others after `state`.
pub(crate) fn logprobs(state: u64, token: TokenId, top: u32, vocab: u32) -> impl Iterator<Item = Logprob> {
    let of = move |token: TokenId, rank: u32| {
        let drawn = mix(state ^ u64::from(token)) % 1000;
        Logprob { token, logprob: -(drawn as f32) / 100.0, rank }
    };
    let best = move |rank: u32| of((mix(state).wrapping_add(u64::from(rank)) % u64::from(vocab)) as TokenId, rank);
    std::iter::once(of(token, 1)).chain((1..=top).map(best))
}

/// What a simulated request carries in its sampling seed, because nothing else of it reaches the device:
/// tenant (32 bits), poisoned (1), unused (7), position where it turns (8), choice and serial number (16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    pub tenant: u32,
    /// From this position on the row's KV and logits are not finite.
    pub poison_at: Option<u8>,
}

impl Tag {
    /// The seed of choice 0 of a request.
    pub fn seed(self, serial: u8) -> u64 {
        let poison = self.poison_at.map_or(0, |at| 1 << 31 | u64::from(at) << 16);
        u64::from(self.tenant) << 32 | poison | u64::from(serial) << 8
    }

    pub fn of(seed: u64) -> Self {
        let poison_at = (seed >> 31 & 1 == 1).then_some((seed >> 16) as u8);
        Self { tenant: (seed >> 32) as u32, poison_at }
    }

    pub(crate) fn is_poisoned_at(self, position: u32) -> bool {
        self.poison_at.is_some_and(|at| position >= u32::from(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_seed_and_the_choice() {
        for tag in
            [Tag::default(), Tag { tenant: u32::MAX, poison_at: Some(0) }, Tag { tenant: 3, poison_at: Some(255) }]
        {
            for choice in [0, 15] {
                assert_eq!(Tag::of(tag.seed(255) + choice), tag);
            }
        }
    }

    #[test]
    fn no_stop_token_before_the_minimum() {
        let params =
            SamplingParams { min_tokens: 2, stop_token_ids: vec![0, 1, 2], temperature: 0.0, ..Default::default() };
        for state in 0..200 {
            assert_eq!(sample(state, 0, 1, &params, 4), 3);
        }
        assert!((0..200).any(|state| sample(state, 0, 2, &params, 4) < 3));
    }
}
