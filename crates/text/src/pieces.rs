//! The bytes that each token stands for, in one table. Knows nothing of how text is cut into tokens.
//!
//! Decoding a text is joining these bytes: the two decoder families of language models (byte-level, and SentencePiece's
//! with "▁" for a space and `<0x0A>` for a byte) differ in how a vocabulary entry is written down, and in the spaces that
//! are dropped at the very beginning.

use serde_json::Value;
use tokenizers::DecoderWrapper;

use crate::TextError;

/// How vocabulary entries are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// One printable character per byte, as GPT-2 maps them.
    ByteLevel,
    /// `space` stands for a space; with `byte_fallback`, `<0xXX>` for a byte.
    Sentence { space: char, byte_fallback: bool, strip_left: usize },
}

impl Spelling {
    /// Reads the spelling off the tokenizer's decoder.
    pub(crate) fn of(decoder: Option<&DecoderWrapper>) -> Result<Self, TextError> {
        let Some(decoder) = decoder else { return Err(TextError::Decoder("missing".to_owned())) };
        let json = serde_json::to_value(decoder).map_err(|error| TextError::Decoder(error.to_string()))?;
        let steps = match json.get("decoders").and_then(Value::as_array) {
            Some(steps) => steps.clone(),
            None => vec![json],
        };
        Self::of_steps(&steps).ok_or_else(|| TextError::Decoder(Value::Array(steps).to_string()))
    }

    fn of_steps(steps: &[Value]) -> Option<Self> {
        let (mut space, mut byte_fallback, mut strip_left, mut fused) = (None, false, 0, false);
        for step in steps {
            match step.get("type")?.as_str()? {
                "ByteLevel" if steps.len() == 1 => return Some(Self::ByteLevel),
                "Metaspace" => {
                    space = only_char(step.get("replacement")?.as_str()?);
                    strip_left = usize::from(step.get("prepend_scheme").and_then(Value::as_str) != Some("never"));
                }
                "Replace" if step.get("content")?.as_str()? == " " => {
                    space = only_char(step.get("pattern")?.get("String")?.as_str()?);
                    space?;
                }
                "ByteFallback" => byte_fallback = true,
                "Fuse" => fused = true,
                "Strip" if fused && step.get("content")?.as_str()? == " " && step.get("stop")?.as_u64()? == 0 => {
                    strip_left = step.get("start")?.as_u64()? as usize;
                }
                _ => return None,
            }
        }
        Some(Self::Sentence { space: space?, byte_fallback, strip_left })
    }

    /// Spaces dropped at the beginning of a text.
    pub(crate) fn strip_left(self) -> usize {
        match self {
            Self::ByteLevel => 0,
            Self::Sentence { strip_left, .. } => strip_left,
        }
    }

    fn write_bytes(self, piece: &str, out: &mut Vec<u8>) {
        match self {
            Self::ByteLevel => write_byte_level(piece, out),
            Self::Sentence { space, byte_fallback, .. } => match byte_of(piece).filter(|_| byte_fallback) {
                Some(byte) => out.push(byte),
                None => write_with_spaces(piece, space, out),
            },
        }
    }
}

fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// A piece with a character that stands for no byte (an added token, say) is its own text.
fn write_byte_level(piece: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for char in piece.chars() {
        match byte_level_byte(char) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                return out.extend_from_slice(piece.as_bytes());
            }
        }
    }
}

/// GPT-2 writes printable Latin-1 bytes as themselves and the 68 others as U+0100 and up, in order.
fn byte_level_byte(char: char) -> Option<u8> {
    let code = char as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// `<0x0A>` is the byte 10.
fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

fn write_with_spaces(piece: &str, space: char, out: &mut Vec<u8>) {
    let mut utf8 = [0; 4];
    for char in piece.chars() {
        let char = if char == space { ' ' } else { char };
        out.extend_from_slice(char.encode_utf8(&mut utf8).as_bytes());
    }
}

/// The bytes of every token, end to end.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    /// Token `i` is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    longest: usize,
}

impl Pieces {
    /// `vocab[id]` is the token's entry, `None` where the vocabulary has a gap.
    pub(crate) fn new(vocab: &[Option<String>], spelling: Spelling) -> Self {
        let mut pieces = Self { bytes: Vec::new(), ends: Vec::with_capacity(vocab.len()), longest: 0 };
        for piece in vocab {
            let start = pieces.bytes.len();
            spelling.write_bytes(piece.as_deref().unwrap_or(""), &mut pieces.bytes);
            pieces.longest = pieces.longest.max(pieces.bytes.len() - start);
            pieces.ends.push(pieces.bytes.len() as u32);
        }
        pieces
    }

    /// Empty for an id outside the vocabulary.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        let token = token as usize;
        let Some(&end) = self.ends.get(token) else { return &[] };
        let start = if token == 0 { 0 } else { self.ends[token - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_characters_cover_each_byte_once() {
        let bytes: std::collections::BTreeSet<u8> =
            (0..0x200).filter_map(char::from_u32).filter_map(byte_level_byte).collect();
        assert_eq!(bytes.len(), 256);
        for (char, byte) in [('Ġ', b' '), ('Ċ', b'\n'), ('A', b'A'), ('ł', 0xa0), ('Ń', 0xad), ('ġ', 0x7f)] {
            assert_eq!(byte_level_byte(char), Some(byte), "{char}");
        }
    }

    #[test]
    fn pieces_are_read_as_their_decoder_writes_them() {
        let sentence = Spelling::Sentence { space: '▁', byte_fallback: true, strip_left: 1 };
        let cases: [(Spelling, &str, &[u8]); 7] = [
            (Spelling::ByteLevel, "Ġthe", b" the"),
            (Spelling::ByteLevel, "<|im end|>", b"<|im end|>"),
            (Spelling::ByteLevel, "", b""),
            (sentence, "▁the▁", b" the "),
            (sentence, "<0x0A>", b"\n"),
            (sentence, "<0x0G>", b"<0x0G>"),
            (Spelling::Sentence { space: '▁', byte_fallback: false, strip_left: 0 }, "<0x0A>", b"<0x0A>"),
        ];
        for (spelling, piece, bytes) in cases {
            let pieces = Pieces::new(&[Some(piece.to_owned())], spelling);
            assert_eq!(pieces.bytes(0), bytes, "{piece}");
            assert_eq!(pieces.bytes(1), b"");
        }
    }

    #[test]
    fn decoders_that_are_not_understood_are_named() {
        let decoder = |json: &str| serde_json::from_str::<DecoderWrapper>(json).expect("a decoder");
        let wordpiece = decoder(r###"{"type":"WordPiece","prefix":"##","cleanup":true}"###);
        let error = Spelling::of(Some(&wordpiece)).expect_err("not for language models");
        assert!(error.to_string().contains("WordPiece"), "{error}");
        let llama = decoder(
            r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
                {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#,
        );
        let expected = Spelling::Sentence { space: '▁', byte_fallback: true, strip_left: 1 };
        assert_eq!(Spelling::of(Some(&llama)), Ok(expected));
    }
}
