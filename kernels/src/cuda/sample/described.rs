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

    /// Words of rows and lists.
    pub fn words(&self) -> usize {
        self.rows * ROW_WORDS + self.list_words()
    }

    /// Words of lists.
    pub fn list_words(&self) -> usize {
        self.rows * (self.mask_words() + EDITS_PER_ROW)
    }

    /// Words of one bit a token.
    fn mask_words(&self) -> usize {
        self.vocab.div_ceil(32)
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

/// A step's rows, described. What they list lies behind them, from the front of the room for lists, and grammars' masks, which come
/// later, from its back.
#[derive(Default)]
pub(super) struct Described {
    /// The rows, idle ones behind them, then the lists.
    pub words: Vec<u32>,
    capacity: Capacity,
    /// Idle ones among them.
    pub num_rows: usize,
    /// One a row.
    pub answers: Vec<Answer>,
    /// Rows whose masks come later.
    masked: Vec<usize>,
    /// Likeliest tokens that are wanted of all rows.
    pub num_best: usize,
    pub has_edits: bool,
    pub has_draws: bool,
    dropped: Vec<u32>,
}

impl Described {
    /// Starts a step of `num_rows` rows; those that are not pushed stay idle.
    pub fn clear(&mut self, capacity: Capacity, num_rows: usize) {
        self.words.clear();
        self.words.reserve(capacity.words());
        self.words.resize(num_rows * ROW_WORDS, IDLE);
        self.answers.clear();
        self.masked.clear();
        (self.capacity, self.num_rows, self.num_best) = (capacity, num_rows, 0);
        (self.has_edits, self.has_draws) = (false, false);
    }

    pub fn has_log_probs(&self) -> bool {
        self.answers.iter().any(|answer| matches!(answer, Answer::LogProbs(_)))
    }

    /// Whether `rows` are those that were described, with the masks that were to come.
    pub fn is_of(&self, rows: &[Row<'_>]) -> bool {
        let on_device = |idx: &usize| has_mask(&rows[*idx]) && self.answers[*idx] != Answer::OnHost;
        rows.len() == self.answers.len() && (0..rows.len()).filter(on_device).eq(self.masked.iter().copied())
    }

    /// Where the grammars' masks go, in words from the first row on.
    pub fn masks(&self) -> Range<usize> {
        let end = self.num_rows * ROW_WORDS + self.capacity.list_words();
        end - self.masked.len() * self.capacity.mask_words()..end
    }

    /// Writes the grammars' masks, those of `rows`.
    pub fn write_masks(&self, words: &mut [u32], rows: &[Row<'_>]) {
        let places = words.chunks_exact_mut(self.capacity.mask_words()).rev();
        places.zip(&self.masked).for_each(|(words, &idx)| write_mask(words, self.capacity.vocab, &rows[idx]));
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
        if has_mask(row) {
            self.masked.push(idx);
        }
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
        let num_best = num_best(row).map_or(0, |best| best.min(self.capacity.vocab as u32)) as usize;
        let has_room = num_best <= MAX_BEST && self.num_best + num_best <= self.capacity.num_best();
        if let Some(known) = row.known {
            return has_room && (known as usize) < self.capacity.vocab;
        }
        let (params, counts) = (row.params, counts(row).count());
        let edits = params.bad_words.len() + params.stop_token_ids.len() + 2 * (params.logit_bias.len() + counts);
        has_room
            && self.list_len() + (self.masked.len() + 1) * self.capacity.mask_words() + edits
                <= self.capacity.list_words()
            && params.logit_bias.is_sorted_by(|a, b| a.0 < b.0)
    }

    fn describe(&mut self, row: &Row<'_>) -> SampleRow {
        let num_best = num_best(row).map(|best| best.min(self.capacity.vocab as u32));
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
        let edits = self.list_len() as u32;
        let num_out = self.push_dropped(row);
        let num_biases = self.push_pairs(row.params.logit_bias.iter().map(|&(token, bias)| (token, bias.to_bits())));
        let num_counts = self.push_pairs(counts(row));
        let described = SampleRow { mask, edits, num_out, num_biases, num_counts, ..described };
        let Some(Draw { inverse, top_k, top_p, floor, noise }) = Draw::of(row) else { return described };
        SampleRow { kind: DRAW, inverse, top_k, top_p, floor, noise, ..described }
    }

    /// Where the row's mask will be; one of allowed tokens alone is written at once.
    fn push_mask(&mut self, row: &Row<'_>) -> u32 {
        let (start, mask_words) = (self.list_len(), self.capacity.mask_words());
        if has_mask(row) {
            return (self.capacity.list_words() - (self.masked.len() + 1) * mask_words) as u32;
        }
        if row.params.allowed_token_ids.is_empty() {
            return NONE;
        }
        let first = self.words.len();
        self.words.resize(first + mask_words, 0);
        write_mask(&mut self.words[first..], self.capacity.vocab, row);
        start as u32
    }

    fn push_dropped(&mut self, row: &Row<'_>) -> u32 {
        self.dropped.clear();
        self.dropped.extend(dropped(row).filter(|&token| (token as usize) < self.capacity.vocab));
        self.dropped.sort_unstable();
        self.dropped.dedup();
        self.words.extend_from_slice(&self.dropped);
        self.dropped.len() as u32
    }

    fn push_pairs(&mut self, pairs: impl Iterator<Item = (u32, u32)>) -> u32 {
        let (first, vocab) = (self.words.len(), self.capacity.vocab);
        self.words.extend(pairs.filter(|pair| (pair.0 as usize) < vocab).flat_map(|(token, value)| [token, value]));
        ((self.words.len() - first) / 2) as u32
    }

    /// Where the next list starts.
    fn list_len(&self) -> usize {
        self.words.len() - self.num_rows * ROW_WORDS
    }
}

/// Whether a grammar's mask comes before the row is sampled.
fn has_mask(row: &Row<'_>) -> bool {
    row.mask.is_some() && row.known.is_none()
}

/// One bit a token: of the grammar's mask, of the allowed tokens, or of those in both.
fn write_mask(words: &mut [u32], vocab: usize, row: &Row<'_>) {
    let allowed = &row.params.allowed_token_ids;
    words.fill(if allowed.is_empty() { u32::MAX } else { 0 });
    for &token in allowed.iter().filter(|&&token| (token as usize) < vocab) {
        words[token as usize / 32] |= 1 << (token % 32);
    }
    if let Some(mask) = row.mask {
        let mask = mask.iter().copied().chain(std::iter::repeat(0));
        words.iter_mut().zip(mask).for_each(|(word, mask)| *word &= mask);
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

    /// A row of three tokens, one of them twice.
    fn row<'a>(params: &'a SamplingParams, counts: &'a Counts) -> Row<'a> {
        Row { tokens: &TOKENS, prompt_len: 1, counts: Some(counts), ..Row::alone(0, params) }
    }
    const TOKENS: [u32; 3] = [5, 99, 5];

    fn counts() -> Counts {
        let mut counts = Counts::default();
        counts.rebuild(&TOKENS, 1, 0);
        counts
    }

    fn described(rows: &[Row<'_>]) -> Described {
        let mut described = Described::default();
        described.clear(CAPACITY, CAPACITY.rows);
        rows.iter().for_each(|row| described.push(row));
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
        let (plain, counts) = (SamplingParams::default(), counts());
        let described = described(&[row(&plain, &counts), row(&params, &counts)]);
        assert_eq!(described.answers, [Answer::Token, Answer::LogProbs(0..70)]);
        assert_eq!(words(&described, 0).0, [DRAW, 0, 0, NONE, 0, NONE, 0, 0, 0, 0]);
        let (row, lists) = words(&described, 1);
        assert_eq!(row, [GREEDY, 0, 0, 70, 0, 0, 3, 3, 1, 1]);
        assert_eq!(lists, [2, 6, 0, 2, 8, 9, 3, 1.0f32.to_bits(), 5, 1]);
        assert_eq!(words(&described, 2).0[0], IDLE);
        assert!(described.masks().is_empty());
    }

    #[test]
    fn masks_come_later_from_the_back_of_the_lists() {
        let allowed = SamplingParams { allowed_token_ids: vec![1, 33, 34, 70], ..SamplingParams::greedy() };
        let (plain, counts) = (SamplingParams::greedy(), counts());
        let [first, second] = [row(&allowed, &counts), row(&plain, &counts)];
        let rows = |masks: [&'static [u32]; 2]| {
            [
                Row { mask: Some(masks[0]), ..row(&allowed, &counts) },
                Row { mask: Some(masks[1]), ..row(&plain, &counts) },
            ]
        };
        let described = described(&rows([&[], &[]]));
        let end = CAPACITY.list_words() as u32;
        assert_eq!([0, 1].map(|idx| words(&described, idx).0[5]), [end - 3, end - 6]);
        assert_eq!(described.masks(), CAPACITY.words() - 6..CAPACITY.words());
        assert!(words(&described, 0).1.is_empty(), "nothing of them is known yet");
        let (rows, mut masks) = (rows([&[!0, 4], &[7, 8, 9]]), [1; 6]);
        described.write_masks(&mut masks, &rows);
        assert_eq!(masks, [7, 8, 9, 2, 4, 0]);
        assert!(described.is_of(&rows));
        assert!(!described.is_of(&rows[..1]) && !described.is_of(&[first, second]));
    }

    #[test]
    fn a_row_that_wants_too_much_stays_idle() {
        let wants =
            |best| SamplingParams { prompt_logprobs: Some(best), logit_bias: vec![(1, 1.0); 2], ..Default::default() };
        let (some, all, counts) = (wants(30), wants(70), counts());
        let known = |params, known| Row { known: Some(known), mask: Some(&[]), ..row(params, &counts) };
        let rows = [known(&some, 69), known(&all, 3), known(&all, 70)];
        let described = described(&rows);
        assert_eq!(described.answers, [Answer::LogProbs(0..30), Answer::OnHost, Answer::OnHost]);
        assert_eq!(words(&described, 0).0, [KNOWN, 0, 69, 30, 0, NONE, 0, 0, 0, 0]);
        assert_eq!(words(&described, 1).0[0], IDLE);
        assert!(described.is_of(&rows) && described.masks().is_empty());
    }
}
