//! Tokens to text, one token at a time. Never shows half a character, and never looks back.
//!
//! A push costs the token's own bytes: the only state is the unfinished character (at most three bytes) and how many
//! leading spaces the tokenizer's decoder still drops.

use std::sync::Arc;

use crate::Tokenizer;

/// The incremental detokenizer of one sequence. What it writes, joined, equals [`Tokenizer::decode`] of all its tokens.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    characters: Characters,
}

impl Detokenizer {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        let characters = Characters::new(tokenizer.strip_left());
        Self { tokenizer, skip_special_tokens, characters }
    }

    /// As `new`, for a text whose beginning stands elsewhere: a leading space is kept.
    pub fn continuing(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        Self { tokenizer, skip_special_tokens, characters: Characters::new(0) }
    }

    /// Appends the characters that `token` completes.
    pub fn push(&mut self, token: u32, out: &mut String) {
        if !(self.skip_special_tokens && self.tokenizer.is_special(token)) {
            self.characters.push(self.tokenizer.piece(token), out);
        }
    }

    /// The sequence has ended: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        self.characters.finish(out);
    }
}

/// Bytes to whole characters, with U+FFFD for what can never become one.
#[derive(Clone, Debug)]
pub(crate) struct Characters {
    /// The beginning of a character.
    pending: Vec<u8>,
    strip_left: usize,
}

impl Characters {
    pub(crate) fn new(strip_left: usize) -> Self {
        Self { pending: Vec::new(), strip_left }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        let bytes = self.strip(bytes);
        if self.pending.is_empty() {
            let rest = write_whole(bytes, out);
            self.pending.extend_from_slice(rest);
        } else {
            self.pending.extend_from_slice(bytes);
            let rest = write_whole(&self.pending, out).len();
            self.pending.drain(..self.pending.len() - rest);
        }
    }

    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }

    fn strip<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while self.strip_left > 0 && !bytes.is_empty() {
            match bytes.strip_prefix(b" ") {
                Some(rest) => (bytes, self.strip_left) = (rest, self.strip_left - 1),
                None => self.strip_left = 0,
            }
        }
        bytes
    }
}

/// Writes all whole characters and returns the unfinished rest.
fn write_whole<'a>(mut bytes: &'a [u8], out: &mut String) -> &'a [u8] {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return &[];
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        out.push_str(std::str::from_utf8(valid).expect("it was found valid up to here"));
        let Some(bad) = error.error_len() else { return rest };
        out.push(char::REPLACEMENT_CHARACTER);
        bytes = &rest[bad..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_torn_bytes_agrees_with_the_lossy_whole() {
        let texts: [&[u8]; 6] = [
            b"",
            "h\u{e9}\u{65e5}\u{1f600}!".as_bytes(),
            b"\xff\xfe",
            b"a\xe6\x97",
            b"\xe6a\x97\xa5\xf0\x9f\x98",
            b"\xf0\x9f\xe6\x97\xa5\xc3",
        ];
        for bytes in texts {
            for cuts in 0..1u32 << bytes.len().saturating_sub(1) {
                let (mut characters, mut out) = (Characters::new(0), String::new());
                let mut start = 0;
                for end in 1..=bytes.len() {
                    if end == bytes.len() || cuts >> (end - 1) & 1 == 1 {
                        characters.push(&bytes[start..end], &mut out);
                        start = end;
                    }
                }
                characters.finish(&mut out);
                assert_eq!(out, String::from_utf8_lossy(bytes), "{bytes:?} cut by {cuts:b}");
            }
        }
    }

    #[test]
    fn leading_spaces_are_dropped_once() {
        for (strip, pieces, text) in [
            (1, vec![" a", " b"], "a b"),
            (1, vec!["", " ", " b"], " b"),
            (1, vec!["a", " b"], "a b"),
            (2, vec!["   x"], " x"),
            (0, vec![" a"], " a"),
        ] {
            let (mut characters, mut out) = (Characters::new(strip), String::new());
            for piece in &pieces {
                characters.push(piece.as_bytes(), &mut out);
            }
            assert_eq!(out, text, "{strip} of {pieces:?}");
        }
    }
}
