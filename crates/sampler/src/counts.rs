//! How often each token occurred in one row: what penalties read, kept up token by token instead of recounted.

use contract::TokenId;

/// Occurrences of the tokens of one row. Only tokens that occurred take room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sorted by token.
    entries: Vec<Count>,
}

/// One token that occurred in the prompt or in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub token: TokenId,
    /// Occurrences in the output; 0 for a token of the prompt alone.
    pub output: u32,
}

impl Counts {
    /// Counts `tokens` anew, of which the first `prompt_len` are prompt; keeps room for `max_len` different tokens.
    pub fn rebuild(&mut self, tokens: &[TokenId], prompt_len: usize, max_len: usize) {
        let (prompt, output) = tokens.split_at(prompt_len.min(tokens.len()));
        self.entries.clear();
        self.entries.reserve(max_len.max(tokens.len()));
        self.entries.extend(prompt.iter().map(|&token| Count { token, output: 0 }));
        self.entries.extend(output.iter().map(|&token| Count { token, output: 1 }));
        self.entries.sort_unstable_by_key(|count| count.token);
        self.entries.dedup_by(|next, kept| {
            let same = next.token == kept.token;
            kept.output += if same { next.output } else { 0 };
            same
        });
    }

    /// One more occurrence in the output.
    pub fn push_output(&mut self, token: TokenId) {
        match self.entries.binary_search_by_key(&token, |count| count.token) {
            Ok(idx) => self.entries[idx].output += 1,
            Err(idx) => self.entries.insert(idx, Count { token, output: 1 }),
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = Count> {
        self.entries.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_token_by_token_equals_counting_anew() {
        let tokens = [5, 3, 5, 9, 3, 3, 0, 7, 9, 9];
        for prompt_len in [0, 1, 4, 9, 10] {
            let (mut whole, mut grown) = (Counts::default(), Counts::default());
            whole.rebuild(&tokens, prompt_len, 0);
            grown.rebuild(&tokens[..prompt_len], prompt_len, 16);
            tokens[prompt_len..].iter().for_each(|&token| grown.push_output(token));
            assert_eq!(whole, grown, "prompt of {prompt_len}");
            let naive = |token| tokens[prompt_len..].iter().filter(|&&t| t == token).count() as u32;
            assert!(whole.iter().all(|count| count.output == naive(count.token)), "prompt of {prompt_len}");
            assert_eq!(whole.iter().map(|count| count.token).collect::<Vec<_>>(), [0, 3, 5, 7, 9]);
        }
    }
}
