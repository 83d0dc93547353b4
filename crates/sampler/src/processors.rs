//! What changes logits before a token is picked, in vLLM's order: allowed tokens, grammar mask, bad words, minimum
//! length, bias, penalties. (Temperature, top-k, top-p and min-p belong to the pick.)

use contract::{SamplingParams, TokenId};

use crate::Row;

const OUT: f32 = f32::NEG_INFINITY;

/// Changes `logits` as `row` asks; true if it asked for anything.
pub fn apply(logits: &mut [f32], row: &Row<'_>) -> bool {
    let params = row.params;
    let has_penalties = has_penalties(params);

    keep_allowed(logits, &params.allowed_token_ids);
    if let Some(mask) = row.mask {
        keep_masked(logits, mask);
    }
    dropped(row).for_each(|token| drop_token(logits, token));
    add_bias(logits, &params.logit_bias);
    if has_penalties {
        penalize(logits, row);
    }
    has_penalties
        || keeps_running(row)
        || row.mask.is_some()
        || !(params.allowed_token_ids.is_empty() && params.bad_words.is_empty() && params.logit_bias.is_empty())
}

/// Whether a row with these parameters needs its token counts.
pub fn has_penalties(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0
}

/// `allowed` is sorted; empty allows all.
fn keep_allowed(logits: &mut [f32], allowed: &[TokenId]) {
    if allowed.is_empty() {
        return;
    }
    let mut next = 0;
    let vocab = logits.len();
    for token in allowed.iter().map(|&token| token as usize).take_while(|&token| token < vocab) {
        if token >= next {
            logits[next..token].fill(OUT);
            next = token + 1;
        }
    }
    logits[next..].fill(OUT);
}

/// Tokens beyond the mask are out.
fn keep_masked(logits: &mut [f32], mask: &[u32]) {
    let words = mask.iter().copied().chain(std::iter::repeat(0));
    for (chunk, word) in logits.chunks_mut(u32::BITS as usize).zip(words) {
        if word != u32::MAX {
            for (bit, logit) in chunk.iter_mut().enumerate() {
                *logit = if word >> bit & 1 == 1 { *logit } else { OUT };
            }
        }
    }
}

/// Tokens that are out by themselves, some perhaps twice: those that would complete a bad word, and those that would stop a row
/// that keeps running.
pub fn dropped<'a>(row: &Row<'a>) -> impl Iterator<Item = TokenId> + use<'a> {
    let output = output(row);
    let words = row.params.bad_words.iter().filter_map(|word| word.split_last());
    let completing = words.filter(move |(_, before)| output.ends_with(before)).map(|(&last, _)| last);
    let stops = if keeps_running(row) { row.params.stop_token_ids.as_slice() } else { &[] };
    completing.chain(stops.iter().copied())
}

fn keeps_running(row: &Row<'_>) -> bool {
    (output(row).len() as u64) < u64::from(row.params.min_tokens)
}

fn output<'a>(row: &Row<'a>) -> &'a [TokenId] {
    &row.tokens[row.prompt_len.min(row.tokens.len())..]
}

fn drop_token(logits: &mut [f32], token: TokenId) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = OUT;
    }
}

fn add_bias(logits: &mut [f32], bias: &[(TokenId, f32)]) {
    for &(token, bias) in bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
}

/// Repetition over prompt and output, frequency and presence over the output.
fn penalize(logits: &mut [f32], row: &Row<'_>) {
    let params = row.params;
    for count in row.counts.expect("a row with penalties comes with its counts").iter() {
        let Some(logit) = logits.get_mut(count.token as usize) else { continue };
        let repetition = params.repetition_penalty;
        *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        if count.output > 0 {
            *logit -= params.frequency_penalty * count.output as f32 + params.presence_penalty;
        }
    }
}
