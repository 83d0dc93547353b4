//! SentencePiece-style vocabularies: merges from scores, bytes as a fallback.
//!
//! SentencePiece merges the adjacent pair whose joined piece has the best score. As a list of merges that is every way to
//! cut each piece in two pieces, best score first.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::{DecoderWrapper, NormalizerWrapper, Tokenizer};

use super::{GgufVocab, gguf, ids};
use crate::TextError;

pub(super) fn build(vocab: &GgufVocab) -> Result<Tokenizer, TextError> {
    if vocab.scores.is_empty() {
        return Err(TextError::Gguf("a \"llama\" tokenizer needs scores".to_owned()));
    }
    let ids = ids(vocab);
    let merges = merges(vocab, &ids);
    let mut builder = BPE::builder().vocab_and_merges(ids, merges).fuse_unk(true).byte_fallback(true);
    if let Some(unk) = vocab.unk.and_then(|id| vocab.text(id)) {
        builder = builder.unk_token(unk.to_owned());
    }
    let mut tokenizer = Tokenizer::new(builder.build().map_err(gguf)?);
    set_spaces(&mut tokenizer, vocab.add_space_prefix.unwrap_or(true)).map_err(gguf)?;
    Ok(tokenizer)
}

fn merges(vocab: &GgufVocab, ids: &Vocab) -> Merges {
    let mut ranked = Vec::new();
    for (id, piece) in vocab.tokens.iter().enumerate().filter(|&(id, _)| vocab.is_mergeable(id)) {
        let mut cuts: Vec<(u32, u32, usize)> = (piece.char_indices().skip(1))
            .filter_map(|(cut, _)| Some((*ids.get(&piece[..cut])?, *ids.get(&piece[cut..])?, cut)))
            .collect();
        cuts.sort_unstable();
        ranked.extend(cuts.into_iter().map(|(_, _, cut)| (id, cut)));
    }
    let key = |&(id, cut): &(usize, usize)| {
        let piece = &vocab.tokens[id];
        (vocab.scores[id], piece[..cut].chars().count(), piece[cut..].chars().count())
    };
    ranked.sort_by(|left, right| {
        let (left, right) = (key(left), key(right));
        right.0.total_cmp(&left.0).then(right.1.cmp(&left.1)).then(right.2.cmp(&left.2))
    });
    let sides = |(id, cut): (usize, usize)| vocab.tokens[id].split_at(cut);
    ranked.into_iter().map(sides).map(|(left, right)| (left.to_owned(), right.to_owned())).collect()
}

impl GgufVocab {
    /// Control, unknown, unused, user-defined and byte pieces are never made by merging.
    fn is_mergeable(&self, id: usize) -> bool {
        self.token_types.get(id).is_none_or(|&kind| kind == 1)
    }
}

fn set_spaces(tokenizer: &mut Tokenizer, prefix: bool) -> tokenizers::Result<()> {
    let mut normalizers: Vec<NormalizerWrapper> = vec![Replace::new(" ", "▁")?.into()];
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new("▁", " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        normalizers.insert(0, Prepend::new("▁".to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(())
}
