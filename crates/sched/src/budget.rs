//! The budget of one step, in tokens and in cost; plain integers that someone else fitted to a clock.
//!
//! A decode always costs what it costs. A prefill chunk is cut so that the step stays under the cost that is left,
//! because every running stream waits for it: no prompt stalls a stream. With no decode in the step nobody waits, and
//! only tokens count.

/// What a step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBudget {
    pub tokens: u32,
    /// Upper bound of the cost of a step that decodes.
    pub cost: u64,
    pub prices: Prices,
    /// The first prefill chunk of a step may have this many tokens whatever it costs, so that prompts move on.
    pub min_chunk: u32,
}

/// A linear model of a step's cost, in any unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    pub per_step: u64,
    pub per_token: u64,
    /// Per pair of a token and a position that it attends to.
    pub per_attended: u64,
}

impl StepBudget {
    /// Bounded by tokens alone.
    pub fn of_tokens(tokens: u32) -> Self {
        Self { tokens, cost: u64::MAX, prices: Prices::default(), min_chunk: 1 }
    }
}

impl Prices {
    /// The cost of `len` tokens from position `start`, without the step's own.
    pub fn chunk(&self, start: u32, len: u32) -> u64 {
        let attended = attended(start, len);
        self.per_token.saturating_mul(u64::from(len)).saturating_add(self.per_attended.saturating_mul(attended))
    }
}

/// Pairs of a token and a position that it attends to, itself included.
pub(crate) fn attended(start: u32, len: u32) -> u64 {
    let (start, len) = (u64::from(start), u64::from(len));
    len * start + len * (len + 1) / 2
}

/// What is left of a step's budget while it is planned. One token and one logit row are set aside for each decode, so
/// that a prefill of better rank cannot take them.
pub(crate) struct Left {
    tokens: u32,
    logit_rows: u32,
    cost: u64,
    prices: Prices,
    min_chunk: u32,
    reserved: u32,
    decodes: bool,
}

impl Left {
    /// `decodes` are the positions of the tokens to decode.
    pub fn new(budget: &StepBudget, max_tokens: u32, max_logit_rows: u32, decodes: impl Iterator<Item = u32>) -> Self {
        let tokens = budget.tokens.min(max_tokens);
        let mut cost = budget.cost.saturating_sub(budget.prices.per_step);
        let mut reserved = 0;
        for position in decodes {
            cost = cost.saturating_sub(budget.prices.chunk(position, 1));
            reserved += 1;
        }
        Self {
            tokens,
            logit_rows: max_logit_rows,
            cost,
            prices: budget.prices,
            min_chunk: budget.min_chunk.max(1),
            reserved: reserved.min(tokens).min(max_logit_rows),
            decodes: reserved > 0,
        }
    }

    /// Whether one more decode may run.
    pub fn decode_fits(&self) -> bool {
        self.tokens > 0 && self.logit_rows > 0
    }

    /// Takes what was set aside for a decode.
    pub fn take_decode(&mut self) {
        self.tokens -= 1;
        self.logit_rows -= 1;
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Tokens that no decode will need.
    pub fn tokens(&self) -> u32 {
        self.tokens - self.reserved
    }

    pub fn logit_rows(&self) -> u32 {
        self.logit_rows - self.reserved
    }

    /// The longest prefill chunk from `start` of at most `len` tokens.
    pub fn prefill_len(&self, start: u32, len: u32) -> u32 {
        let len = len.min(self.tokens());
        if !self.decodes {
            return len;
        }
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.prices.chunk(start, middle) <= self.cost { low = middle } else { high = middle - 1 }
        }
        low.max(self.min_chunk.min(len))
    }

    pub fn take_prefill(&mut self, start: u32, len: u32, logit_rows: u32) {
        self.tokens -= len;
        self.logit_rows -= logit_rows;
        self.cost = self.cost.saturating_sub(self.prices.chunk(start, len));
        self.min_chunk = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: Prices = Prices { per_step: 100, per_token: 10, per_attended: 1 };

    fn left(tokens: u32, cost: u64, decodes: &[u32]) -> Left {
        let budget = StepBudget { tokens, cost, prices: PRICES, min_chunk: 2 };
        Left::new(&budget, 1000, 8, decodes.iter().copied())
    }

    #[test]
    fn a_chunk_is_cut_by_cost_only_beside_decodes() {
        for (what, decodes, cost, start, len) in [
            ("nobody decodes", &[][..], 0, 0, 50),
            ("all fits", &[0], 10_000, 0, 49),
            ("ten tokens cost 10 * 10 + 55", &[0], 100 + 11 + 155, 0, 10),
            ("one unit less", &[0], 100 + 11 + 154, 0, 9),
            ("later tokens attend to more", &[0], 100 + 11 + 155, 20, 4),
            ("nothing is left but the minimum", &[0], 0, 0, 2),
        ] {
            assert_eq!(left(50, cost, decodes).prefill_len(start, 100), len, "{what}");
        }
    }

    #[test]
    fn only_the_first_chunk_has_a_minimum() {
        let mut left = left(50, 0, &[0]);
        left.take_prefill(0, 2, 0);
        assert_eq!(left.prefill_len(0, 100), 0);
    }

    #[test]
    fn decodes_keep_their_tokens_and_logit_rows() {
        let mut left = left(3, u64::MAX, &[5, 6]);
        assert_eq!((left.tokens(), left.logit_rows()), (1, 6));
        left.take_prefill(0, 1, 1);
        for _ in 0..2 {
            assert!(left.decode_fits());
            left.take_decode();
        }
        assert!(!left.decode_fits());
    }

    #[test]
    fn more_decodes_than_budget_leave_nothing() {
        let left = left(2, u64::MAX, &[1, 2, 3]);
        assert_eq!((left.tokens(), left.prefill_len(0, 9)), (0, 0));
    }
}
