//! How long prompt and output may be.

use crate::SubmitError;

/// The two bounds of one sequence's length, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Prompt and output.
    pub max_model_len: u32,
    /// Tokens with KV: all but the one sampled last.
    pub max_kv_tokens: u32,
}

impl Room {
    /// A text of `bytes` has at least `bytes / max_token_bytes` tokens.
    pub fn check_bytes(self, bytes: usize, max_token_bytes: usize, max_tokens: u32) -> Result<(), SubmitError> {
        let prompt_tokens = bytes.div_ceil(max_token_bytes.max(1)) as u64;
        if prompt_tokens > u64::from(self.max_model_len) {
            return Err(self.too_long(prompt_tokens, max_tokens));
        }
        Ok(())
    }

    /// The output tokens that a prompt may have: what was asked, or the default, or whatever there is room for.
    pub fn max_tokens(self, prompt: usize, asked: Option<u32>, default: Option<u32>) -> Result<u32, SubmitError> {
        let prompt_tokens = prompt as u64;
        let wanted = prompt_tokens + u64::from(asked.unwrap_or(1));
        if wanted > u64::from(self.max_model_len) {
            return Err(self.too_long(prompt_tokens, asked.unwrap_or(1)));
        }
        let kv_tokens = wanted.saturating_sub(1).max(prompt_tokens);
        if kv_tokens > u64::from(self.max_kv_tokens) {
            return Err(self.too_large(kv_tokens));
        }
        let room = self.max_model_len.min(self.max_kv_tokens + 1) - prompt_tokens as u32;
        Ok(asked.unwrap_or_else(|| default.map_or(room, |default| default.min(room))))
    }

    fn too_long(self, prompt_tokens: u64, max_tokens: u32) -> SubmitError {
        SubmitError::ContextLength { max_model_len: self.max_model_len, prompt_tokens, max_tokens }
    }

    fn too_large(self, kv_tokens: u64) -> SubmitError {
        let message = format!(
            "This request needs KV memory for {kv_tokens} tokens, and the server has memory for {}. Ask for fewer \
             tokens, or shorten the prompt.",
            self.max_kv_tokens
        );
        SubmitError::Invalid { param: "max_tokens", message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { max_model_len: 100, max_kv_tokens: 80 };

    #[test]
    fn the_output_fits_beside_the_prompt() {
        for (prompt, asked, default, max_tokens) in [
            (1, None, None, Some(80)),
            (80, None, None, Some(1)),
            (81, None, None, None),
            (10, Some(5), None, Some(5)),
            (10, Some(71), None, Some(71)),
            (10, Some(72), None, None),
            (80, Some(0), None, Some(0)),
            (81, Some(0), None, None),
            (10, None, Some(7), Some(7)),
            (79, None, Some(7), Some(2)),
            (usize::MAX >> 1, Some(u32::MAX), None, None),
        ] {
            let found = ROOM.max_tokens(prompt, asked, default).ok();
            assert_eq!(found, max_tokens, "prompt {prompt}, asked {asked:?}, default {default:?}");
        }
    }

    #[test]
    fn the_context_may_be_filled_to_the_last_token() {
        let room = Room { max_model_len: 100, max_kv_tokens: 100 };
        for (prompt, asked, fits) in [
            (100, Some(0), true),
            (99, Some(1), true),
            (100, Some(1), false),
            (100, None, false),
            (101, Some(0), false),
        ] {
            assert_eq!(room.max_tokens(prompt, asked, None).is_ok(), fits, "prompt {prompt}, asked {asked:?}");
        }
    }

    #[test]
    fn bytes_refuse_only_what_cannot_fit() {
        for (bytes, fits) in [(0, true), (400, true), (401, false), (usize::MAX, false)] {
            assert_eq!(ROOM.check_bytes(bytes, 4, 1).is_ok(), fits, "{bytes} bytes");
        }
    }
}
