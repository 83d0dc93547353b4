//! Tokenizers from tokenizer.json and from GGUF fields: the vocabularies we know, and the files we refuse.

#![allow(clippy::unwrap_used)]

mod common;

use common::{smollm2_vocab, tiny_llama};
use text::{GgufVocab, SpecialTokens, TextError, Tokenizer};

#[test]
fn a_tokenizer_json_round_trips_any_text() {
    let tokenizer = tiny_llama();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.end_tokens()), (512, Some(1), [2].as_slice()));
    for text in
        ["", " ", "a", "Hello, world!\n\n  x", "日本語 😀 e\u{301}", "\u{0}\u{7f}\u{fdd0}", "<eos> <|im_start|>"]
    {
        let tokens = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&tokens, false), text);
        assert!(tokens.len() >= text.len() / tokenizer.max_token_bytes());
    }
    assert_eq!(tokenizer.encode("<eos>", false).unwrap(), [2]);
    assert_eq!(
        (tokenizer.token_id("<eos>"), tokenizer.token_text(2), tokenizer.is_special(2)),
        (Some(2), "<eos>".to_owned(), true)
    );
    assert_eq!(
        (tokenizer.token_bytes(512), tokenizer.is_special(512), tokenizer.token_id("nope")),
        (vec![], false, None)
    );
}

#[test]
fn damaged_tokenizer_json_is_an_error() {
    let vocab = r#"{"a": 0, "b": 1}"#;
    let file = |model: &str| {
        format!(
            r#"{{"version": "1.0", "added_tokens": [], "decoder": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}}, "model": {model}}}"#
        )
    };
    for bytes in [
        String::new(),
        "{}".to_owned(),
        "not json".to_owned(),
        file(&format!(r#"{{"type": "BPE", "vocab": {vocab}, "merges": [["a", "c"]]}}"#)),
        file(&format!(r#"{{"type": "BPE", "vocab": {vocab}, "merges": [["a", "b"]]}}"#)),
        file(r#"{"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}"#),
    ] {
        let error = Tokenizer::from_json(bytes.as_bytes(), SpecialTokens::default()).unwrap_err();
        assert!(matches!(error, TextError::TokenizerJson(_)), "{error}");
        assert!(!error.is_input());
    }
}

#[test]
fn damaged_gguf_fields_are_an_error() {
    type Damage = fn(&mut GgufVocab);
    let damages: [(Damage, &str); 9] = [
        (|vocab| vocab.tokens.clear(), "token_type"),
        (|vocab| *vocab = GgufVocab { model: "gpt2".into(), ..GgufVocab::default() }, "no tokens"),
        (|vocab| vocab.model = "bert".into(), "\"bert\""),
        (|vocab| vocab.pre = Some("klingon".into()), "\"klingon\""),
        (|vocab| vocab.merges.push("a".into()), "merge"),
        (|vocab| vocab.merges.push("Ġthe Ġinternational".into()), "merge"),
        (|vocab| vocab.eos = Some(49152), "eos"),
        (|vocab| vocab.scores = vec![0.0], "scores"),
        (|vocab| vocab.model = "llama".into(), "scores"),
    ];
    for (damage, named) in damages {
        let (mut vocab, _) = smollm2_vocab();
        damage(&mut vocab);
        let error = Tokenizer::from_gguf(vocab).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// A byte-level vocabulary of the 256 bytes, the given words, and one control token.
fn byte_vocab(pre: &str, words: &[&str]) -> GgufVocab {
    let (full, _) = smollm2_vocab();
    let mut tokens: Vec<String> = full.tokens.into_iter().filter(|token| token.chars().count() == 1).collect();
    tokens.extend(words.iter().map(|word| word.to_string()));
    tokens.push("<|end|>".to_owned());
    let mut token_types = vec![1; tokens.len()];
    *token_types.last_mut().unwrap() = 3;
    let end = Some(tokens.len() as u32 - 1);
    let model = "gpt2".to_owned();
    GgufVocab { model, pre: Some(pre.to_owned()), tokens, token_types, bos: end, eos: end, ..GgufVocab::default() }
}

#[test]
fn pre_tokenizers_differ_where_they_should() {
    // "12" is a token, with a merge that makes it; whether it is reached shows how digits are cut.
    for (pre, whole_number, adds_bos) in [
        ("default", true, false),
        ("gpt-2", true, false),
        ("smollm", false, false),
        ("llama-bpe", true, true),
        ("qwen2", false, false),
        ("gpt-4o", true, false),
        ("tekken", false, true),
    ] {
        let mut vocab = byte_vocab(pre, &["12"]);
        vocab.merges = vec!["1 2".to_owned()];
        let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
        assert_eq!(tokenizer.encode("12", false).unwrap().len(), if whole_number { 1 } else { 2 }, "{pre}");
        assert_eq!(
            tokenizer.encode("12", true).unwrap().len() - tokenizer.encode("12", false).unwrap().len(),
            usize::from(adds_bos)
        );
        let text = "It's 1234 日本\r\n\r\n  <|end|>  end  ";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).unwrap(), false), text, "{pre}");
    }
}

#[test]
fn qwen2_composes_characters_and_llama3_takes_whole_words() {
    let qwen = Tokenizer::from_gguf(byte_vocab("qwen2", &[])).unwrap();
    assert_eq!(qwen.decode(&qwen.encode("e\u{301}", false).unwrap(), false), "é");
    let llama = Tokenizer::from_gguf(byte_vocab("llama-bpe", &["Ġword"])).unwrap();
    assert_eq!(llama.encode(" word", false).unwrap().len(), 1, "no merge makes it, but it is a token");
    let gpt2 = Tokenizer::from_gguf(byte_vocab("gpt-2", &["Ġword"])).unwrap();
    assert_eq!(gpt2.encode(" word", false).unwrap().len(), 5);
}

#[test]
fn added_and_end_of_text_tokens_follow_the_files_flags() {
    let mut vocab = byte_vocab("gpt-2", &["<think>"]);
    let think = vocab.tokens.iter().position(|token| token == "<think>").unwrap();
    vocab.token_types[think] = 4;
    (vocab.add_bos, vocab.add_eos) = (Some(true), Some(true));
    let end = vocab.eos.unwrap();
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert_eq!(tokenizer.encode("<think>", true).unwrap(), [end, think as u32, end]);
    assert!(!tokenizer.is_special(think as u32));
    assert_eq!(tokenizer.decode(&[end, think as u32], true), "<think>");
}

/// `<unk> <s> </s>`, the 256 bytes, then pieces with their scores.
fn sentence_vocab(pieces: &[(&str, f32)]) -> GgufVocab {
    let mut vocab =
        GgufVocab { model: "llama".to_owned(), bos: Some(1), eos: Some(2), unk: Some(0), ..GgufVocab::default() };
    let mut add = |text: String, score: f32, kind: i32| {
        vocab.tokens.push(text);
        vocab.scores.push(score);
        vocab.token_types.push(kind);
    };
    for (text, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
        add(text.to_owned(), 0.0, kind);
    }
    (0..=255u8).for_each(|byte| add(format!("<0x{byte:02X}>"), 0.0, 6));
    pieces.iter().for_each(|&(text, score)| add(text.to_owned(), score, 1));
    vocab
}

#[test]
fn sentence_pieces_merge_by_score_and_fall_back_to_bytes() {
    let pieces =
        [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("▁a", -3.0), ("▁ab", -4.0)];
    let tokenizer = Tokenizer::from_gguf(sentence_vocab(&pieces)).unwrap();
    let spelled = |text: &str| -> Vec<String> {
        let tokens = tokenizer.encode(text, false).unwrap();
        tokens.iter().map(|&token| tokenizer.token_text(token)).collect()
    };
    assert_eq!(spelled("abc"), [" a", "bc"], "bc has the better score than ab");
    assert_eq!(spelled("ab ab"), [" ab", " ab"]);
    assert_eq!(spelled("é"), [" ", "\u{fffd}", "\u{fffd}"]);
    assert_eq!(tokenizer.encode("a", true).unwrap()[0], 1, "a beginning-of-text token is added by default");
    for text in ["", "a", " a", "  a", "é\n😀", "ab</s>ab"] {
        let tokens = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&tokens, false).replace("</s> ", "</s>"), text, "{tokens:?}");
    }
    let mut vocab = sentence_vocab(&pieces);
    vocab.add_space_prefix = Some(false);
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(" ab</s>ab", false).unwrap(), false), " ab</s>ab");
}
