//! The step's inputs as kernels read them: copied, tokens of the last step filled in, and checked by each op for
//! what it will follow into memory. An op whose check fails computes nothing.

use tensor::{CacheSpec, GroupInputs, StepInputs};

/// One step's inputs, and what each device row sampled last.
#[derive(Default)]
pub(super) struct Inputs {
    pub step: StepInputs,
    sampled: Vec<u32>,
}

impl Inputs {
    /// Takes a copy of `inputs`, with [`StepInputs::SAMPLED`] replaced.
    pub fn set(&mut self, inputs: &StepInputs) -> Result<(), String> {
        self.step.clone_from(inputs);
        if !self.step.token_ids.contains(&StepInputs::SAMPLED) {
            return Ok(());
        }
        self.check_sequences()?;
        let StepInputs { token_ids, rows, cu_seqlens_q, .. } = &mut self.step;
        for (seq, row) in cu_seqlens_q.windows(2).zip(rows) {
            for token in &mut token_ids[seq[0] as usize..seq[1] as usize] {
                if *token == StepInputs::SAMPLED {
                    *token = self.sampled.get(*row as usize).copied().unwrap_or(StepInputs::SAMPLED);
                }
            }
        }
        Ok(())
    }

    /// Remembers that the row of logits row `logits` sampled `token`.
    pub fn remember(&mut self, logits: usize, token: u32) {
        let StepInputs { rows, cu_seqlens_q, logit_tokens, .. } = &self.step;
        let Some(&at) = logit_tokens.get(logits) else { return };
        let seq = cu_seqlens_q.partition_point(|&start| start <= at).wrapping_sub(1);
        if let Some(&row) = rows.get(seq) {
            let len = self.sampled.len().max(row as usize + 1);
            self.sampled.resize(len, StepInputs::SAMPLED);
            self.sampled[row as usize] = token;
        }
    }

    pub fn check_tokens(&self, vocab: usize) -> Result<(), String> {
        match self.step.token_ids.iter().find(|&&token| token as usize >= vocab) {
            Some(&StepInputs::SAMPLED) => Err("a row continues from a token that it never sampled".to_owned()),
            Some(token) => Err(format!("token {token} is beyond the vocabulary of {vocab}")),
            None => Ok(()),
        }
    }

    pub fn check_logit_tokens(&self) -> Result<(), String> {
        let tokens = self.step.num_tokens();
        match self.step.logit_tokens.iter().find(|&&token| token as usize >= tokens) {
            Some(token) => Err(format!("logits are wanted of token {token}, but the step has {tokens}")),
            None => Ok(()),
        }
    }

    /// One position and slot a token, all within the rotary table and the cache.
    pub fn check_write(&self, cache: &CacheSpec, max_len: usize) -> Result<&GroupInputs, String> {
        let (tokens, group) = (self.step.num_tokens(), self.group(cache)?);
        if self.step.positions.len() != tokens || group.slot_mapping.len() != tokens {
            return Err(format!("{tokens} tokens need as many positions and slots"));
        }
        let slots = cache.blocks * cache.block_size;
        let outside = |&&slot: &&u32| slot != GroupInputs::SKIP && slot as usize >= slots;
        if let Some(slot) = group.slot_mapping.iter().find(outside) {
            return Err(format!("slot {slot} is beyond the cache's {slots}"));
        }
        match self.step.positions.iter().find(|&&position| position as usize >= max_len) {
            Some(position) => Err(format!("position {position} is beyond the longest sequence of {max_len}")),
            None => Ok(group),
        }
    }

    /// Sequences cover the tokens, and every position has a block of the cache.
    pub fn check_read(&self, cache: &CacheSpec) -> Result<&GroupInputs, String> {
        self.check_sequences()?;
        let (group, step) = (self.group(cache)?, &self.step);
        if step.positions.len() != step.num_tokens() || group.block_tables.len() != step.rows.len() * group.stride {
            return Err("a step needs a position a token and a block table a sequence".to_owned());
        }
        if let Some(block) = group.block_tables.iter().find(|&&block| block as usize >= cache.blocks) {
            return Err(format!("block {block} is beyond the cache's {}", cache.blocks));
        }
        let reach = group.stride * cache.block_size;
        match step.positions.iter().find(|&&position| position as usize >= reach) {
            Some(position) => Err(format!("position {position} is beyond its block table of {reach}")),
            None => Ok(group),
        }
    }

    fn group(&self, cache: &CacheSpec) -> Result<&GroupInputs, String> {
        self.step.groups.get(cache.group).ok_or_else(|| format!("the step has no KV group {}", cache.group))
    }

    fn check_sequences(&self) -> Result<(), String> {
        let StepInputs { token_ids, rows, cu_seqlens_q: starts, .. } = &self.step;
        let covers = starts.first() == Some(&0) && starts.last().map(|&end| end as usize) == Some(token_ids.len());
        if rows.len() + 1 != starts.len() || !covers || !starts.is_sorted() {
            return Err("the step's sequences do not cover its tokens".to_owned());
        }
        Ok(())
    }
}

/// The longest sequence that a rotary table of `len` values, cos and sin, reaches; any where nothing rotates.
pub(super) fn max_len(len: usize, rotary_dim: usize) -> usize {
    len.checked_div(rotary_dim).unwrap_or(usize::MAX)
}

/// # Panics
/// If the cache was made for other heads, or queries cannot share keys evenly.
pub(super) fn check_heads(cache: &CacheSpec, num_heads: usize, num_kv_heads: usize, head_dim: usize) {
    assert_eq!((num_kv_heads, head_dim), (cache.num_kv_heads, cache.head_dim), "the cache was made for these heads");
    assert!(num_heads.is_multiple_of(num_kv_heads), "query heads share key heads evenly");
}
