//! GGUF files made byte by byte: what a good one reads as, and what a hostile one is told.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Made, array_value, f32_value, folder, string_value, tensor, u32_value, value};
use weights::{Checkpoint, MoeConfig, RopeScaling, TokenizerSource};

fn open(name: &str, bytes: &[u8]) -> Result<Checkpoint, String> {
    let path = folder(name).join("made.gguf");
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).map_err(|error| error.to_string());
    if let Err(error) = &checkpoint {
        assert!(error.contains("made.gguf: "), "the file is not named: {error}");
    }
    checkpoint
}

#[test]
fn a_made_file_reads_as_it_was_made() {
    let checkpoint = open("made", &Made::llama().bytes()).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.hidden_size, config.num_layers, config.num_heads, config.num_kv_heads), (4, 1, 1, 1));
    assert_eq!((config.vocab_size, config.head_dim, config.rope.rotary_dim), (3, 4, 4));
    assert!(config.tie_word_embeddings && config.eos_token_ids == [1] && config.bos_token_id.is_none());
    assert_eq!(checkpoint.total_bytes(), 48 + 64);
    assert!(checkpoint.has("model.embed_tokens.weight") && !checkpoint.has("lm_head.weight"));

    let embedding = checkpoint.tensor("model.embed_tokens.weight").unwrap();
    assert_eq!((embedding.rows, embedding.cols), (3, 4));
    assert_eq!(embedding.stored().dequantize(), (0..12).map(|i| i as f32).collect::<Vec<_>>());

    let missing = checkpoint.tensor("model.norm.weight").unwrap_err().to_string();
    assert!(missing.contains("has no tensor model.norm.weight (output_norm.weight)"), "{missing}");
}

#[test]
fn llamas_rows_come_back_in_order() {
    let checkpoint = open("rows", &Made::llama().bytes()).unwrap();
    let query = checkpoint.tensor("model.layers.0.self_attn.q_proj.weight").unwrap();
    let firsts: Vec<f32> = query.stored().dequantize().chunks(4).map(|row| row[0]).collect();
    assert_eq!(firsts, [0.0, 2.0, 1.0, 3.0]);
    checkpoint.release();
    assert_eq!(checkpoint.tensor("model.layers.0.self_attn.q_proj.weight").unwrap().bytes, query.bytes);
}

/// [`Made::llama`] with two experts, of which a token asks one: a stack of `down` `[2, 2, 4]` whose row `r` is all `r`, and
/// `up` as a matrix an expert.
fn mixture() -> Made {
    let mut made = Made::llama();
    made.values.extend([u32_value("llama.expert_count", 2), u32_value("llama.expert_used_count", 1)]);
    made.tensors.push(tensor("blk.0.ffn_down_exps.weight", &[4, 2, 2], 0, 128));
    made.data.extend((0..16).flat_map(|i| ((i / 4) as f32).to_le_bytes()));
    for expert in 0..2u8 {
        made.tensors.push(tensor(&format!("blk.0.ffn_up.{expert}.weight"), &[4, 2], 0, 192 + 32 * u64::from(expert)));
        made.data.extend([expert; 32]);
    }
    made
}

#[test]
fn experts_are_cut_out_of_their_stacks() {
    let checkpoint = open("experts", &mixture().bytes()).unwrap();
    let config = checkpoint.config();
    let moe = MoeConfig { num_experts: 2, experts_per_token: 1, intermediate_size: 8, renormalize: true };
    assert_eq!((config.architecture.as_str(), config.moe), ("mixtral", Some(moe)));
    for prefix in ["block_sparse_moe.experts.1.w", "mlp.experts.1."] {
        let name = |part: &str| format!("model.layers.0.{prefix}{part}.weight");
        let (down, up) =
            if prefix.ends_with('w') { (name("2"), name("3")) } else { (name("down_proj"), name("up_proj")) };
        assert!(checkpoint.has(&down) && checkpoint.has(&up));
        let down = checkpoint.tensor(&down).unwrap();
        assert_eq!((down.rows, down.cols), (2, 4));
        assert_eq!(down.stored().dequantize(), [2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
        assert!(checkpoint.tensor(&up).unwrap().bytes.iter().all(|byte| *byte == 1));
    }
    for (name, message) in [
        ("mlp.experts.2.down_proj", "its 4 rows have no expert 2 of 2"),
        ("mlp.experts.0.gate_proj", "has no tensor model.layers.0.mlp.experts.0.gate_proj.weight (blk.0.ffn_gate_exps"),
    ] {
        let error = checkpoint.tensor(&format!("model.layers.0.{name}.weight")).unwrap_err().to_string();
        assert!(error.contains(message), "{error} does not say: {message}");
    }
}

#[test]
fn the_vocabulary_is_plain_data() {
    let source = open("vocab", &Made::llama().bytes()).unwrap().text_source().unwrap();
    assert_eq!(source.chat_template(), Some("{{ messages }}"));
    let TokenizerSource::Gguf(vocab) = source.tokenizer else { panic!("a GGUF file has GGUF's fields") };
    assert_eq!((vocab.model.as_str(), vocab.tokens.len(), vocab.token_types), ("gpt2", 3, vec![3, 3, 1]));
    assert_eq!((vocab.eos, vocab.bos, vocab.add_bos), (Some(1), None, None));
}

#[test]
fn stored_rope_factors_win() {
    let mut made = Made::llama();
    made.tensors.push(tensor("rope_freqs.weight", &[2], 0, 128));
    made.data.extend([1.0f32, 8.0].iter().flat_map(|factor| factor.to_le_bytes()));
    let checkpoint = open("rope", &made.bytes()).unwrap();
    assert_eq!(checkpoint.config().rope.scaling, RopeScaling::Factors(vec![1.0, 8.0]));
}

#[test]
fn yarn_has_its_logarithm_beside_the_files_factor() {
    let mut made = Made::llama();
    made.values.push(string_value("llama.rope.scaling.type", "yarn"));
    made.values.push(f32_value("llama.rope.scaling.factor", 4.0));
    made.values.push(f32_value("llama.rope.scaling.attn_factor", 0.5));
    made.values.push(u32_value("llama.rope.scaling.original_context_length", 32));
    let checkpoint = open("yarn-read", &made.bytes()).unwrap();
    let RopeScaling::Yarn(yarn) = checkpoint.config().rope.scaling else { panic!("the file says yarn") };
    assert_eq!((yarn.factor, yarn.original_max_position_embeddings), (4.0, 32));
    assert_eq!((yarn.beta_fast, yarn.beta_slow, yarn.truncate), (32.0, 1.0, true));
    assert!((yarn.attention_factor - 0.5 * 1.138_629_4).abs() < 1e-6, "0.5 (0.1 ln 4 + 1)");
}

/// Replaces the value whose key is `key`.
fn with(key: &str, replacement: Vec<u8>) -> Vec<u8> {
    let mut made = Made::llama();
    made.values.retain(|value| !value[8..].starts_with(key.as_bytes()));
    made.values.push(replacement);
    made.bytes()
}

fn with_tensor(entry: Vec<u8>) -> Vec<u8> {
    let mut made = Made::llama();
    made.tensors.push(entry);
    made.bytes()
}

fn patched(at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = Made::llama().bytes();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

/// Arrays in arrays, `depth` of them.
fn nested(depth: usize) -> Vec<u8> {
    let mut array = [&common::U32.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
    for _ in 1..depth {
        array = [&common::ARRAY.to_le_bytes()[..], &1u64.to_le_bytes(), &array].concat();
    }
    array
}

#[test]
fn hostile_headers_are_told_why() {
    let max = u64::MAX.to_le_bytes();
    let mut twice = Made::llama();
    twice.values.push(u32_value("llama.block_count", 1));
    let mut huge_key = Made::llama();
    huge_key.values.insert(0, [&max[..], b"key"].concat());
    let embedding_twice = {
        let mut made = Made::llama();
        made.tensors.push(tensor("token_embd.weight", &[4], 0, 128));
        made.data.extend([0; 16]);
        made
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "is truncated: the magic number takes 4 bytes at byte 0, and 0 are left"),
        ("magic", patched(0, b"GGML"), "does not begin with GGUF"),
        ("version", patched(4, &1u32.to_le_bytes()), "is GGUF version 1; versions 2 and 3 can be read"),
        ("endian", patched(4, &3u32.to_be_bytes()), "is a big-endian GGUF file"),
        (
            "tensors",
            patched(8, &max),
            "the number of tensors is 18446744073709551615, but the rest of the file has room",
        ),
        ("values", patched(16, &max), "the number of metadata values is 18446744073709551615"),
        ("key", huge_key.bytes(), "a metadata key takes 18446744073709551615 bytes"),
        ("twice", twice.bytes(), "has the metadata value llama.block_count twice"),
        ("kind", with("x", value("x", 77, &[])), "the value x has type 77, which does not exist"),
        ("utf8", with("x", value("x", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 255])), "x is not UTF-8"),
        ("array", with("x", array_value("x", 4, u64::MAX, &[])), "the length of x is 18446744073709551615"),
        ("nested", with("x", value("x", 9, &nested(9))), "the value x nests arrays more than 4 deep"),
        (
            "align",
            with("general.al", u32_value("general.alignment", 24)),
            "general.alignment is 24, but it must be a power",
        ),
        (
            "align0",
            with("general.al", u32_value("general.alignment", 0)),
            "general.alignment is 0, but it must be a power",
        ),
        ("dims", with_tensor(tensor("t", &[1; 5], 0, 0)), "tensor t: has 5 dimensions"),
        (
            "shape",
            with_tensor(tensor("t", &[4, u64::MAX, 2], 0, 0)),
            "tensor t: its shape [4, 18446744073709551615, 2]",
        ),
        ("empty-shape", with_tensor(tensor("t", &[4, 0], 0, 0)), "tensor t: its shape [4, 0] is empty or overflows"),
        ("bytes", with_tensor(tensor("t", &[1 << 40, 1 << 40], 0, 0)), "overflow the address space"),
        ("type", with_tensor(tensor("t", &[32], 20, 0)), "tensor t: its type 20 (IQ4_NL) cannot be read"),
        ("type-unknown", with_tensor(tensor("t", &[32], 4, 0)), "tensor t: its type 4 cannot be read"),
        ("block", with_tensor(tensor("t", &[33], 3, 128)), "tensor t: 33 columns are not whole blocks of Q4_1"),
        (
            "offset",
            with_tensor(tensor("t", &[4], 0, 1 << 40)),
            "tensor t: its 16 bytes at offset 1099511627776 reach past",
        ),
        ("offset-max", with_tensor(tensor("t", &[4], 0, u64::MAX - 31)), "reach past the end of the file"),
        ("unaligned", with_tensor(tensor("t", &[4], 0, 4)), "its offset 4 is not a multiple of the alignment 32"),
        ("overlap", with_tensor(tensor("t", &[4], 0, 32)), "its bytes overlap those of tensor token_embd.weight"),
        ("name-twice", embedding_twice.bytes(), "has the tensor token_embd.weight twice"),
        ("architecture", with("general.architecture", u32_value("x", 0)), "general.architecture is missing"),
        (
            "heads",
            with("llama.attention.head_count", u32_value("llama.attention.head_count", 0)),
            "into 0 attention heads",
        ),
        (
            "heads-odd",
            with("llama.attention.head_count", u32_value("llama.attention.head_count", 3)),
            "into 3 attention heads",
        ),
        ("layers", with("llama.block_count", u32_value("llama.block_count", 0)), "the number of layers is 0"),
        (
            "hidden",
            with("llama.embedding_length", u32_value("llama.embedding_length", 8)),
            "token_embd.weight: has 4 columns",
        ),
        (
            "wrong-type",
            with("llama.block_count", string_value("llama.block_count", "2")),
            "llama.block_count is a string",
        ),
        (
            "experts",
            with("llama.expert_count", u32_value("llama.expert_count", 2)),
            "llama.expert_used_count is missing",
        ),
        ("missing", with("llama.context_length", u32_value("x", 0)), "llama.context_length is missing"),
        ("rope", with("x", string_value("llama.rope.scaling.type", "longrope")), "its rope scaling is longrope"),
        ("yarn", with("x", string_value("llama.rope.scaling.type", "yarn")), "llama.rope.scaling.factor is missing"),
        (
            "eos",
            with("tokenizer.ggml.eos", u32_value("tokenizer.ggml.eos_token_id", 3)),
            "token 3 is outside the vocabulary",
        ),
    ];
    for (name, bytes, message) in cases {
        let error = open(&format!("hostile-{name}"), &bytes).err().unwrap_or_else(|| panic!("{name} was read"));
        assert!(error.contains(message), "{name}: {error} does not say: {message}");
    }
}

#[test]
fn vocabularies_that_contradict_themselves_are_told_why() {
    let cases = [
        ("model", with("tokenizer.ggml.model", u32_value("x", 0)), "tokenizer.ggml.model is missing"),
        ("tokens", with("tokenizer.ggml.tokens", u32_value("x", 0)), "tokenizer.ggml.tokens is missing or empty"),
        ("number", with("tokenizer.ggml.tokens", u32_value("tokenizer.ggml.tokens", 0)), "must be an array of strings"),
        (
            "types",
            with("tokenizer.ggml.token_type", array_value("tokenizer.ggml.token_type", 5, 1, &[1, 0, 0, 0])),
            "tokenizer.ggml.token_type has 1 items for 3 tokens",
        ),
    ];
    for (name, bytes, message) in cases {
        let checkpoint = open(&format!("vocab-{name}"), &bytes).unwrap();
        let error = checkpoint.text_source().unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error} does not say: {message}");
    }
}

/// Opens and, if that works, reads everything.
fn read_everything(path: &std::path::Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    checkpoint.text_source().ok();
    for name in ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"] {
        if let Ok(tensor) = checkpoint.tensor(name) {
            tensor.stored().dequantize();
        }
    }
}

#[test]
fn no_truncation_and_no_flipped_bit_panics() {
    let bytes = Made::llama().bytes();
    let path = folder("fuzz").join("made.gguf");
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(Checkpoint::open(&path).is_err(), "{len} of {} bytes were enough", bytes.len());
    }
    // One bit of each byte in turn, and the sign or the highest bit of its length.
    for (at, mask) in (0..bytes.len()).flat_map(|at| [(at, 1 << (at % 8)), (at, 0x80)]) {
        let mut flipped = bytes.clone();
        flipped[at] ^= mask;
        std::fs::write(&path, &flipped).unwrap();
        read_everything(&path);
    }
}
