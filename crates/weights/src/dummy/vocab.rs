//! A tokenizer where there is none: every byte is a token, and the other tokens of the model say nothing.

use crate::{GgufVocab, TextSource, TokenizerSource};

/// The 256 bytes, spelled as byte-level vocabularies spell them.
pub(super) fn bytes() -> TextSource {
    let mut spare = (256..).filter_map(char::from_u32);
    let mut spell = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => spare.next().expect("there are more characters than bytes"),
    };
    let tokens = (0..=255).map(|byte| spell(byte).to_string()).collect();
    let vocab = GgufVocab { model: "gpt2".to_owned(), tokens, ..GgufVocab::default() };
    TextSource { tokenizer: TokenizerSource::Gguf(vocab), chat_templates: Vec::new() }
}
