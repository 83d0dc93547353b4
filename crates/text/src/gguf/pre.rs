//! How byte-level vocabularies cut text into words, by the names that GGUF files use.
//!
//! The patterns are those of the models' own tokenizer.json files, which is what their vocabularies were trained with.

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::TextError;

/// Settings of one name.
pub(super) struct Pre {
    names: &'static [&'static str],
    words: Words,
    nfc: bool,
    /// A word that is a token as a whole is not merged up to.
    pub(super) ignore_merges: bool,
    /// Unless the file says otherwise.
    pub(super) adds_bos: bool,
}

enum Words {
    /// GPT-2's own pattern.
    Gpt2,
    /// Each digit on its own, then GPT-2's pattern.
    DigitsThenGpt2,
    Pattern(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KNOWN: [Pre; 6] = [
    Pre { names: &["gpt-2", "default"], words: Words::Gpt2, nfc: false, ignore_merges: false, adds_bos: false },
    Pre {
        names: &["smollm", "starcoder"],
        words: Words::DigitsThenGpt2,
        nfc: false,
        ignore_merges: false,
        adds_bos: false,
    },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3"],
        words: Words::Pattern(LLAMA3),
        nfc: false,
        ignore_merges: true,
        adds_bos: true,
    },
    Pre { names: &["qwen2"], words: Words::Pattern(QWEN2), nfc: true, ignore_merges: false, adds_bos: false },
    Pre { names: &["gpt-4o"], words: Words::Pattern(O200K), nfc: false, ignore_merges: true, adds_bos: false },
    Pre { names: &["tekken"], words: Words::Pattern(TEKKEN), nfc: false, ignore_merges: true, adds_bos: true },
];

/// All names, for the error that lists them.
pub(crate) fn known() -> String {
    KNOWN.iter().flat_map(|pre| pre.names).copied().collect::<Vec<_>>().join(", ")
}

pub(super) fn find(name: &str) -> Result<&'static Pre, TextError> {
    static TABLE: [Pre; 6] = KNOWN;
    TABLE.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| TextError::PreTokenizer(name.to_owned()))
}

impl Pre {
    /// Sets normalizer, pre-tokenizer and decoder.
    pub(super) fn apply(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        tokenizer.with_normalizer(self.nfc.then_some(NFC))?;
        let pre_tokenizer = match self.words {
            Words::Gpt2 => PreTokenizerWrapper::ByteLevel(byte_level(true)),
            Words::DigitsThenGpt2 => sequence(Digits::new(true).into(), byte_level(true)),
            Words::Pattern(pattern) => {
                let pattern = SplitPattern::Regex(pattern.to_owned());
                sequence(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into(), byte_level(false))
            }
        };
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        tokenizer.with_decoder(Some(byte_level(true)));
        Ok(())
    }
}

fn byte_level(use_regex: bool) -> ByteLevel {
    ByteLevel::new(false, true, use_regex)
}

fn sequence(first: PreTokenizerWrapper, then: ByteLevel) -> PreTokenizerWrapper {
    PreTokenizerWrapper::Sequence(Sequence::new(vec![first, PreTokenizerWrapper::ByteLevel(then)]))
}
