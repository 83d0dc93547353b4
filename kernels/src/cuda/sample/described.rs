//! Rows to sample as `logits.cuh` has them: a few numbers each, and lists behind them. Knows no device.

use std::ops::Range;

use sampler::{Draw, Row, dropped, has_penalties};

use crate::cuda::params::SampleRow;

/// Words of a described row.
pub(super) const ROW_WORDS: usize = size_of::<SampleRow>() / 4;
/// Likeliest tokens that `select.cuh` can put in order.
const MAX_BEST: usize = 512;
/// Likeliest tokens a row, taken together.
const BEST_PER_ROW: usize = 32;
/// Words of edits a row, taken together: 2,048 tokens that count for penalties.
const EDITS_PER_ROW: usize = 4096;

const NONE: u32 = u32::MAX;
const IDLE: u32 = 0;
const GREEDY: u32 = 1;
const DRAW: u32 = 2;
const KNOWN: u32 = 3;

/// How much one step may want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    pub rows: usize,
    pub vocab: usize,
}

impl Capacity {
    /// The smallest that holds both.
    pub fn cover(self, other: Self) -> Self {
        Self { rows: self.rows.max(other.rows), vocab: self.vocab.max(other.vocab) }
    }

    /// Words of lists.
    pub fn list_words(&self) -> usize {
        self.rows * (self.vocab.div_ceil(32) + EDITS_PER_ROW)
    }

    /// Likeliest tokens.
    pub fn num_best(&self) -> usize {
        self.rows * BEST_PER_ROW
    }
}

/// Where a row's answer will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The row asks for more than the kernels do, and stays idle.
    OnHost,
    Token,
    /// With log probabilities: its own, and the likeliest tokens at these places.
    LogProbs(Range<usize>),
}

/// A step's rows, described.
#[derive(Default)]
pub(super) struct Described {
    /// The rows, idle ones behind them, then the lists.
    pub words: Vec<u32>,
    capacity: Capacity,
    /// Words of rows.
    row_words: usize,
    vocab: usize,
    /// One a row.
    pub answers: Vec<Answer>,
    /// Likeliest tokens that are wanted of all rows.
    pub num_best: usize,
    pub has_edits: bool,
    pub has_draws: bool,
    dropped: Vec<u32>,
}

impl Described {
    /// Starts a step of `rows` rows of `vocab` logits; those that are not pushed stay idle.
    pub fn clear(&mut self, capacity: Capacity, rows: usize, vocab: usize) {
        self.words.clear();
        self.words.reserve(capacity.rows * ROW_WORDS + capacity.list_words());
        self.row_words = rows * ROW_WORDS;
        self.words.resize(self.row_words, IDLE);
        self.answers.clear();
        (self.capacity, self.vocab, self.num_best) = (capacity, vocab, 0);
        (self.has_edits, self.has_draws) = (false, false);
    }

    pub fn has_log_probs(&self) -> bool {
        self.answers.iter().any(|answer| matches!(answer, Answer::LogProbs(_)))
    }

    /// Describes the step's next row.
    pub fn push(&mut self, row: &Row<'_>) {
        let idx = self.answers.len();
        if !self.fits(row) {
            return self.answers.push(Answer::OnHost);
        }
        let first_best = self.num_best;
        let described = self.describe(row);
        self.has_edits |= described.num_out + described.num_biases + described.num_counts > 0;
        self.has_draws |= described.kind == DRAW;
        self.answers.push(match described.num_best {
            NONE => Answer::Token,
            _ => Answer::LogProbs(first_best..self.num_best),
        });
        // SAFETY: numbers without padding, and of this size.
        let words = unsafe { std::mem::transmute::<SampleRow, [u32; ROW_WORDS]>(described) };
        self.words[idx * ROW_WORDS..][..ROW_WORDS].copy_from_slice(&words);
    }

    /// Whether the kernels do what `row` asks, and there is room for it.
    fn fits(&self, row: &Row<'_>) -> bool {
        let num_best = num_best(row).map_or(0, |best| best.min(self.vocab as u32)) as usize;
        let has_room = num_best <= MAX_BEST && self.num_best + num_best <= self.capacity.num_best();
        if let Some(known) = row.known {
            return has_room && (known as usize) < self.vocab;
        }
        let (params, counts) = (row.params, counts(row).count());
        let edits = params.bad_words.len() + params.stop_token_ids.len() + 2 * (params.logit_bias.len() + counts);
        has_room
            && self.list_len() as usize + self.vocab.div_ceil(32) + edits <= self.capacity.list_words()
            && params.logit_bias.is_sorted_by(|a, b| a.0 < b.0)
    }

    fn describe(&mut self, row: &Row<'_>) -> SampleRow {
        let num_best = num_best(row).map(|best| best.min(self.vocab as u32));
        let best = self.num_best as u32;
        self.num_best += num_best.unwrap_or(0) as usize;
        let described = SampleRow {
            noise: 0,
            kind: GREEDY,
            logits: row.logits as u32,
            known: 0,
            num_best: num_best.unwrap_or(NONE),
            best,
            mask: NONE,
            edits: 0,
            num_out: 0,
            num_biases: 0,
            num_counts: 0,
            repetition: row.params.repetition_penalty,
            frequency: row.params.frequency_penalty,
            presence: row.params.presence_penalty,
            inverse: 0.0,
            floor: 0.0,
            top_p: 1.0,
            top_k: 0,
            unused: 0,
        };
        match row.known {
            Some(known) => SampleRow { kind: KNOWN, known, ..described },
            None => self.describe_pick(row, described),
        }
    }

    fn describe_pick(&mut self, row: &Row<'_>, described: SampleRow) -> SampleRow {
        let mask = self.push_mask(row);
        let edits = self.list_len();
        let num_out = self.push_dropped(row);
        let num_biases = self.push_pairs(row.params.logit_bias.iter().map(|&(token, bias)| (token, bias.to_bits())));
        let num_counts = self.push_pairs(counts(row));
        let described = SampleRow { mask, edits, num_out, num_biases, num_counts, ..described };
        let Some(Draw { inverse, top_k, top_p, floor, noise }) = Draw::of(row) else { return described };
        SampleRow { kind: DRAW, inverse, top_k, top_p, floor, noise, ..described }
    }

    /// One bit a token: of the grammar's mask, of the allowed tokens, or of those in both.
    fn push_mask(&mut self, row: &Row<'_>) -> u32 {
        let allowed = &row.params.allowed_token_ids;
        if row.mask.is_none() && allowed.is_empty() {
            return NONE;
        }
        let (start, first) = (self.list_len(), self.words.len());
        let everything = if allowed.is_empty() { u32::MAX } else { 0 };
        self.words.resize(first + self.vocab.div_ceil(32), everything);
        let words = &mut self.words[first..];
        for &token in allowed.iter().filter(|&&token| (token as usize) < self.vocab) {
            words[token as usize / 32] |= 1 << (token % 32);
        }
        if let Some(mask) = row.mask {
            let mask = mask.iter().copied().chain(std::iter::repeat(0));
            words.iter_mut().zip(mask).for_each(|(word, mask)| *word &= mask);
        }
        start
    }

    fn push_dropped(&mut self, row: &Row<'_>) -> u32 {
        self.dropped.clear();
        self.dropped.extend(dropped(row).filter(|&token| (token as usize) < self.vocab));
        self.dropped.sort_unstable();
        self.dropped.dedup();
        self.words.extend_from_slice(&self.dropped);
        self.dropped.len() as u32
    }

    fn push_pairs(&mut self, pairs: impl Iterator<Item = (u32, u32)>) -> u32 {
        let (first, vocab) = (self.words.len(), self.vocab);
        self.words.extend(pairs.filter(|pair| (pair.0 as usize) < vocab).flat_map(|(token, value)| [token, value]));
        ((self.words.len() - first) / 2) as u32
    }

    /// Where the next list starts.
    fn list_len(&self) -> u32 {
        (self.words.len() - self.row_words) as u32
    }
}

/// The log probabilities that a row wants, its own token's left out.
fn num_best(row: &Row<'_>) -> Option<u32> {
    match row.known {
        Some(_) => Some(row.params.prompt_logprobs.unwrap_or(0)),
        None => row.params.logprobs,
    }
}

/// Tokens with their occurrences in the output, where there are penalties.
fn counts<'a>(row: &Row<'a>) -> impl Iterator<Item = (u32, u32)> + use<'a> {
    let counts = if has_penalties(row.params) { row.counts } else { None };
    counts.into_iter().flat_map(|counts| counts.iter()).map(|count| (count.token, count.output))
}

#[cfg(test)]
mod tests {
    use contract::SamplingParams;
    use sampler::Counts;

    use super::*;

    const VOCAB: usize = 70;
    const CAPACITY: Capacity = Capacity { rows: 3, vocab: VOCAB };

    /// Parameters, mask and known token of a row.
    type Wanted<'a> = (&'a SamplingParams, Option<&'a [u32]>, Option<u32>);

    fn described(rows: &[Wanted<'_>]) -> Described {
        let mut counts = Counts::default();
        counts.rebuild(&[5, 99, 5], 1, 0);
        let mut described = Described::default();
        described.clear(CAPACITY, CAPACITY.rows, VOCAB);
        for &(params, mask, known) in rows {
            let (tokens, counts) = (&[5, 99, 5][..], Some(&counts));
            described.push(&Row { logits: 0, params, position: 3, tokens, prompt_len: 1, counts, mask, known });
        }
        described
    }

    /// Words of row `idx`, the noise left out, up to its counts; and the lists.
    fn words(described: &Described, idx: usize) -> (&[u32], &[u32]) {
        let (rows, lists) = described.words.split_at(CAPACITY.rows * ROW_WORDS);
        (&rows[idx * ROW_WORDS + 2..][..10], lists)
    }

    #[test]
    fn lists_lie_behind_the_rows_and_hold_tokens_of_the_vocabulary_only() {
        let params = SamplingParams {
            allowed_token_ids: vec![1, 33, 34, 70],
            bad_words: vec![vec![9], vec![5, 8], vec![4, 7], vec![9]],
            min_tokens: 3,
            stop_token_ids: vec![70, 2],
            logit_bias: vec![(3, 1.0), (71, 1.0)],
            frequency_penalty: 0.5,
            logprobs: Some(80),
            ..SamplingParams::greedy()
        };
        let described = described(&[(&SamplingParams::default(), None, None), (&params, Some(&[!0, 4]), None)]);
        assert_eq!(described.answers, [Answer::Token, Answer::LogProbs(0..70)]);
        assert_eq!(words(&described, 0).0, [DRAW, 0, 0, NONE, 0, NONE, 0, 0, 0, 0]);
        let (row, lists) = words(&described, 1);
        assert_eq!(row, [GREEDY, 0, 0, 70, 0, 0, 3, 3, 1, 1]);
        assert_eq!(lists, [2, 4, 0, 2, 8, 9, 3, 1.0f32.to_bits(), 5, 1]);
        assert_eq!(words(&described, 2).0[0], IDLE);
    }

    #[test]
    fn a_row_that_wants_too_much_stays_idle() {
        let wants =
            |best| SamplingParams { prompt_logprobs: Some(best), logit_bias: vec![(1, 1.0); 2], ..Default::default() };
        let (some, all) = (wants(30), wants(70));
        let described = described(&[(&some, None, Some(69)), (&all, None, Some(3)), (&all, None, Some(70))]);
        assert_eq!(described.answers, [Answer::LogProbs(0..30), Answer::OnHost, Answer::OnHost]);
        assert_eq!(words(&described, 0).0, [KNOWN, 0, 69, 30, 0, NONE, 0, 0, 0, 0]);
        assert_eq!(words(&described, 1).0[0], IDLE);
    }
}
