//! The incremental detokenizer against whole decoding, here and in the reference library.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{fixture, random, smollm2, tiny_llama};
use text::{Detokenizer, Tokenizer};

/// Special tokens, and tokens that are no whole characters.
fn troublesome(tokenizer: &Tokenizer) -> Vec<u32> {
    (0..tokenizer.vocab_size() as u32)
        .filter(|&token| tokenizer.is_special(token) || std::str::from_utf8(&tokenizer.token_bytes(token)).is_err())
        .collect()
}

/// Random tokens; one in four is of the `troublesome`.
fn random_tokens(tokenizer: &Tokenizer, troublesome: &[u32], seed: &mut u64) -> Vec<u32> {
    let any = |seed: &mut u64| match random(seed, 4) {
        0 => troublesome[random(seed, troublesome.len())],
        _ => random(seed, tokenizer.vocab_size() + 2) as u32,
    };
    (0..random(seed, 40)).map(|_| any(seed)).collect()
}

#[test]
fn pieces_join_to_the_decoded_whole() {
    let mut seed = 3;
    for tokenizer in [tiny_llama(), smollm2().tokenizer.clone()] {
        let torn = troublesome(&tokenizer);
        for round in 0..500 {
            let (tokens, skip) = (random_tokens(&tokenizer, &torn, &mut seed), round % 2 == 0);
            let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), skip);
            let mut text = String::new();
            tokens.iter().for_each(|&token| detokenizer.push(token, &mut text));
            detokenizer.finish(&mut text);
            assert_eq!(text, tokenizer.decode(&tokens, skip), "{tokens:?}");
            let shown = tokens.iter().filter(|&&token| !skip || !tokenizer.is_special(token));
            let bytes: Vec<u8> = shown.flat_map(|&token| tokenizer.token_bytes(token)).collect();
            assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn decoding_agrees_with_the_reference_library() {
    let (ours, mut seed) = (tiny_llama(), 11);
    let reference = tokenizers::Tokenizer::from_bytes(fixture("tiny/llama/tokenizer.json")).unwrap();
    let torn = troublesome(&ours);
    for round in 0..500 {
        let tokens: Vec<u32> = random_tokens(&ours, &torn, &mut seed)
            .into_iter()
            .filter(|&token| (token as usize) < ours.vocab_size())
            .collect();
        let skip = round % 2 == 0;
        assert_eq!(ours.decode(&tokens, skip), reference.decode(&tokens, skip).unwrap(), "{tokens:?}");
    }
}

#[test]
fn a_character_over_several_tokens_appears_when_it_is_whole() {
    let tokenizer = tiny_llama();
    let tokens = tokenizer.encode("a😀b", false).unwrap();
    let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), true);
    let mut shown = Vec::new();
    for &token in &tokens {
        let mut text = String::new();
        detokenizer.push(token, &mut text);
        shown.push(text);
    }
    assert_eq!(shown, ["a", "", "", "", "😀", "b"]);
    let mut rest = String::new();
    detokenizer.push(tokens[1], &mut rest);
    detokenizer.finish(&mut rest);
    assert_eq!(rest, "\u{fffd}");
}
