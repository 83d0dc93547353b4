//! Text to tokens and tokens to text. Knows where its vocabulary came from only while it is built.
//!
//! Cutting text into tokens is the `tokenizers` crate's work, set up from a tokenizer.json or in memory from a GGUF file's
//! fields. Decoding is our own (see [`Pieces`]), so that it can go token by token.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, Encoding, Model, OffsetType, PreTokenizer};

use crate::detokenizer::Characters;
use crate::gguf::{self, GgufVocab};
use crate::guard::{Guard, reveal_normalized};
use crate::pieces::{Pieces, Spelling};
use crate::{Rendered, TextError};

/// No vocabulary comes near this many ids; a file that claims one is damaged or hostile.
const MAX_VOCAB: usize = 1 << 22;

/// What a tokenizer.json does not say about its special tokens; from tokenizer_config.json and generation_config.json.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    /// Further texts to treat as control tokens.
    pub additional: Vec<String>,
}

/// Immutable and shared; see the [crate's](crate) introduction.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    spelling: Spelling,
    special: HashSet<u32>,
    guard: Arc<Guard>,
    bos: Option<u32>,
    end_tokens: Vec<u32>,
    max_token_bytes: usize,
}

impl Tokenizer {
    /// From a tokenizer.json as the hub has it.
    pub fn from_json(tokenizer_json: &[u8], added_special: SpecialTokens) -> Result<Self, TextError> {
        // The parser indexes with lengths taken from the file, so a hostile one can make it panic.
        let parsed = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(tokenizer_json)));
        let mut inner = parsed
            .map_err(|_| TextError::TokenizerJson("its merges do not fit its vocabulary".to_owned()))?
            .map_err(|error| TextError::TokenizerJson(error.to_string()))?;
        let no_truncation = inner.with_truncation(None).map(|_| ());
        no_truncation.map_err(|error| TextError::TokenizerJson(error.to_string()))?;
        inner.with_padding(None);
        let SpecialTokens { bos, eos, additional } = added_special;
        let known = bos.iter().chain(&eos).chain(&additional).filter(|text| inner.token_to_id(text).is_some());
        let known: Vec<AddedToken> = known.map(|text| AddedToken::from(text.as_str(), true)).collect();
        inner.add_special_tokens(known).map_err(|error| TextError::TokenizerJson(error.to_string()))?;
        let id = |text: Option<String>| text.and_then(|text| inner.token_to_id(&text));
        let (bos, eos) = (id(bos), id(eos));
        Self::new(inner, bos, eos.into_iter().collect())
    }

    /// From the tokenizer fields of a GGUF file.
    pub fn from_gguf(vocab: GgufVocab) -> Result<Self, TextError> {
        let (bos, end_tokens) = (vocab.bos, vocab.eos.into_iter().chain(vocab.eot).collect());
        Self::new(gguf::build(vocab)?, bos, end_tokens)
    }

    fn new(inner: tokenizers::Tokenizer, bos: Option<u32>, end_tokens: Vec<u32>) -> Result<Self, TextError> {
        let spelling = Spelling::of(inner.get_decoder())?;
        let pieces = Pieces::new(&vocab_by_id(&inner)?, spelling);
        let added = inner.get_added_tokens_decoder();
        let special: HashSet<u32> = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let controls = added.values().filter(|token| token.special).map(|token| token.content.as_str());
        let guard = Arc::new(Guard::new(controls));
        let max_token_bytes = pieces.longest().saturating_mul(shrinking(&inner)).max(1);
        Ok(Self { inner, pieces, spelling, special, guard, bos, end_tokens, max_token_bytes })
    }

    /// As the reference tokenizer encodes: control tokens written out in `text` are recognised. With
    /// `add_special_tokens` the tokens that the model wants around a text (often a beginning-of-text token) are added.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(encode_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a rendered chat. The template's markers become control tokens; the same texts in a message do not.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TextError> {
        match rendered.is_marked() {
            false => self.encode(rendered.marked(), false),
            true => self.encode_marked(rendered.marked()).map_err(encode_error),
        }
    }

    /// The pipeline of `encode`, with the guard's marks taken out once control tokens have been found.
    fn encode_marked(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = self.inner.get_added_vocabulary().extract_and_normalize(self.inner.get_normalizer(), text);
        pieces.split(|_, mut text| reveal_normalized(&mut text).map(|()| std::iter::once(text)))?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|text| self.inner.get_model().tokenize(text.get()))?;
        let encoding: Encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of all `tokens`; bytes that form no character become U+FFFD, ids outside the vocabulary nothing.
    pub fn decode(&self, tokens: &[u32], skip_special_tokens: bool) -> String {
        let (mut characters, mut text) = (Characters::new(self.strip_left()), String::new());
        for &token in tokens.iter().filter(|&&token| !(skip_special_tokens && self.is_special(token))) {
            characters.push(self.pieces.bytes(token), &mut text);
        }
        characters.finish(&mut text);
        text
    }

    /// One token's text on its own; U+FFFD stands for a part of a character.
    pub fn token_text(&self, token: u32) -> String {
        String::from_utf8_lossy(self.pieces.bytes(token)).into_owned()
    }

    /// One token's bytes; empty outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.pieces.bytes(token).to_vec()
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of a vocabulary entry, spelled as the vocabulary spells it.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Is it a control token?
    pub fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that the model's files name as the end of a text or a turn.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// A text of `n` bytes has at least `n / max_token_bytes()` tokens. (Spaces that a control token swallows are not
    /// counted.) `usize::MAX` where the normalizer can shrink a text without bound.
    pub fn max_token_bytes(&self) -> usize {
        self.max_token_bytes
    }

    /// What chat templates need to keep users from writing control tokens.
    pub fn guard(&self) -> Arc<Guard> {
        self.guard.clone()
    }

    pub(crate) fn piece(&self, token: u32) -> &[u8] {
        self.pieces.bytes(token)
    }

    pub(crate) fn strip_left(&self) -> usize {
        self.spelling.strip_left()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

fn encode_error(error: tokenizers::Error) -> TextError {
    TextError::Encode(error.to_string())
}

fn vocab_by_id(inner: &tokenizers::Tokenizer) -> Result<Vec<Option<String>>, TextError> {
    let mut vocab = Vec::new();
    for (text, id) in inner.get_vocab(true) {
        let id = id as usize;
        if id >= MAX_VOCAB {
            return Err(TextError::TokenizerJson(format!("token id {id} is larger than any vocabulary")));
        }
        if id >= vocab.len() {
            vocab.resize(id + 1, None);
        }
        vocab[id] = Some(text);
    }
    Ok(vocab)
}

/// By what factor the normalizer can shrink a text, in bytes. Composing (NFC) makes three bytes of nine at most (Hangul).
fn shrinking(inner: &tokenizers::Tokenizer) -> usize {
    let Some(normalizer) = inner.get_normalizer() else { return 1 };
    let json = serde_json::to_value(normalizer).unwrap_or(Value::Null);
    let steps = match json.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.clone(),
        None => vec![json],
    };
    steps.iter().map(shrinking_of_step).fold(1, usize::saturating_mul)
}

fn shrinking_of_step(step: &Value) -> usize {
    let text = |pointer: &str| step.pointer(pointer).and_then(Value::as_str);
    match text("/type") {
        Some("Prepend" | "ByteLevel" | "NFD") => 1,
        Some("NFC") => 3,
        Some("Replace") => match (text("/pattern/String"), text("/content")) {
            (Some(pattern), Some(content)) if content.len() >= pattern.len() => 1,
            _ => usize::MAX,
        },
        _ => usize::MAX,
    }
}
