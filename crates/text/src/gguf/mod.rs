//! A tokenizer from the fields of a GGUF file. Knows those fields, not the file.

mod pre;
mod sentence;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::TextError;

pub(crate) use pre::known as known_pre_tokenizers;

/// The `tokenizer.ggml.*` fields. Absent arrays are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: "gpt2" (byte-level BPE) or "llama" (SentencePiece-style BPE with scores).
    pub model: String,
    /// `tokenizer.ggml.pre`: how "gpt2" cuts text into words.
    pub pre: Option<String>,
    pub tokens: Vec<String>,
    /// One per token; for "llama", the order of merges.
    pub scores: Vec<f32>,
    /// One per token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// "left right", most important first; for "gpt2".
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: the end of a turn, where it is not `eos`.
    pub eot: Option<u32>,
    pub unk: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
}

impl GgufVocab {
    fn is_type(&self, id: usize, kind: i32) -> bool {
        self.token_types.get(id) == Some(&kind)
    }

    fn text(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    fn check(&self) -> Result<(), TextError> {
        let bad = |what: String| Err(TextError::Gguf(what));
        let count = self.tokens.len();
        for (name, len) in [("token_type", self.token_types.len()), ("scores", self.scores.len())] {
            if len != 0 && len != count {
                return bad(format!("{len} entries of {name} for {count} tokens"));
            }
        }
        let ids = [("bos", self.bos), ("eos", self.eos), ("eot", self.eot), ("unknown", self.unk)];
        for (name, id) in ids.into_iter().filter_map(|(name, id)| Some((name, id?))) {
            if id as usize >= count {
                return bad(format!("the {name} token id {id} is outside the vocabulary of {count}"));
            }
        }
        if count == 0 { bad("there are no tokens".to_owned()) } else { Ok(()) }
    }
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

pub(crate) fn build(vocab: GgufVocab) -> Result<Tokenizer, TextError> {
    vocab.check()?;
    let (mut tokenizer, adds_bos) = match vocab.model.as_str() {
        "gpt2" => byte_level(&vocab)?,
        "llama" => (sentence::build(&vocab)?, true),
        other => return Err(TextError::GgufModel(other.to_owned())),
    };
    add_tokens(&mut tokenizer, &vocab)?;
    let bos = vocab.bos.filter(|_| vocab.add_bos.unwrap_or(adds_bos));
    let eos = vocab.eos.filter(|_| vocab.add_eos.unwrap_or(false));
    surround(&mut tokenizer, bos, eos)?;
    Ok(tokenizer)
}

/// The tokenizer, and whether it adds a beginning-of-text token when the file does not say.
fn byte_level(vocab: &GgufVocab) -> Result<(Tokenizer, bool), TextError> {
    let pre = pre::find(vocab.pre.as_deref().unwrap_or("default"))?;
    let ids = ids(vocab);
    let merges = vocab.merges.iter().map(|merge| merge_of(merge, &ids)).collect::<Result<Vec<_>, _>>()?;
    let bpe = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(pre.ignore_merges).build().map_err(gguf)?;
    let mut tokenizer = Tokenizer::new(bpe);
    pre.apply(&mut tokenizer).map_err(gguf)?;
    Ok((tokenizer, pre.adds_bos))
}

fn ids(vocab: &GgufVocab) -> Vocab {
    vocab.tokens.iter().enumerate().map(|(id, text)| (text.clone(), id as u32)).collect()
}

/// The BPE builder trusts that a merge's result is no longer than the longest token; a damaged file breaks that.
fn merge_of(merge: &str, ids: &Vocab) -> Result<(String, String), TextError> {
    let sides = merge.split_once(' ').filter(|(left, right)| {
        [left.to_string(), right.to_string(), format!("{left}{right}")].iter().all(|text| ids.contains_key(text))
    });
    let (left, right) = sides.ok_or_else(|| TextError::Gguf(format!("the merge \"{merge}\" is not of two tokens")))?;
    Ok((left.to_owned(), right.to_owned()))
}

fn add_tokens(tokenizer: &mut Tokenizer, vocab: &GgufVocab) -> Result<(), TextError> {
    let of_type = |kind: i32, special: bool| {
        let ids = (0..vocab.tokens.len()).filter(move |&id| vocab.is_type(id, kind) && !vocab.tokens[id].is_empty());
        ids.map(move |id| AddedToken::from(vocab.tokens[id].as_str(), special).normalized(false)).collect::<Vec<_>>()
    };
    tokenizer.add_special_tokens(of_type(CONTROL, true)).map_err(gguf)?;
    tokenizer.add_tokens(of_type(USER_DEFINED, false)).map_err(gguf)?;
    Ok(())
}

fn surround(tokenizer: &mut Tokenizer, bos: Option<u32>, eos: Option<u32>) -> Result<(), TextError> {
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    // The template names its tokens by placeholders, as a token's own text may contain a space or a colon.
    let template = [bos.map(|_| "BOS"), Some("$A"), eos.map(|_| "EOS")].into_iter().flatten().collect::<Vec<_>>();
    let tokens = [("BOS", bos), ("EOS", eos)].into_iter().filter_map(|(name, id)| Some((name.to_owned(), id?)));
    let processor = TemplateProcessing::builder()
        .try_single(template.join(" "))
        .map_err(gguf)?
        .special_tokens(tokens.collect::<Vec<_>>())
        .build()
        .map_err(gguf)?;
    tokenizer.with_post_processor(Some(processor));
    Ok(())
}

fn gguf(error: impl std::fmt::Display) -> TextError {
    TextError::Gguf(error.to_string())
}
