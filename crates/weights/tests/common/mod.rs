//! Builds GGUF files byte by byte, and folders to put files in; and knows what the tiny checkpoints hold.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use weights::ModelConfig;

/// Every family with a tiny checkpoint.
pub const FAMILIES: [&str; 7] = ["llama", "llama3rope", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"];

/// Type numbers of metadata values.
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;

pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A metadata entry.
pub fn value(key: &str, kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&string(key), &kind.to_le_bytes()[..], bytes].concat()
}

pub fn u32_value(key: &str, number: u32) -> Vec<u8> {
    value(key, U32, &number.to_le_bytes())
}

pub fn f32_value(key: &str, number: f32) -> Vec<u8> {
    value(key, F32, &number.to_le_bytes())
}

pub fn string_value(key: &str, text: &str) -> Vec<u8> {
    value(key, STRING, &string(text))
}

pub fn array_value(key: &str, kind: u32, count: u64, items: &[u8]) -> Vec<u8> {
    value(key, ARRAY, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), items].concat())
}

/// A directory entry; `dims` columns first.
pub fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    [&string(name), &(dims.len() as u32).to_le_bytes()[..], &dims_bytes, &kind.to_le_bytes(), &offset.to_le_bytes()]
        .concat()
}

/// A file of these parts.
#[derive(Clone, Default)]
pub struct Made {
    pub values: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

impl Made {
    /// The smallest llama: hidden 4, one layer of two heads, and a vocabulary of three tokens. `attn_q` is `[4, 4]` f32
    /// with row `r` all `r`.
    pub fn llama() -> Self {
        let key = |name: &str| format!("llama.{name}");
        let tokens: Vec<u8> = ["<s>", "</s>", "a"].iter().flat_map(|token| string(token)).collect();
        let types: Vec<u8> = [3i32, 3, 1].iter().flat_map(|kind| kind.to_le_bytes()).collect();
        let embedding: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let query: Vec<u8> = (0..16).flat_map(|i| ((i / 4) as f32).to_le_bytes()).collect();
        Self {
            values: vec![
                string_value("general.architecture", "llama"),
                u32_value(&key("embedding_length"), 4),
                u32_value(&key("block_count"), 1),
                u32_value(&key("attention.head_count"), 1),
                u32_value(&key("feed_forward_length"), 8),
                u32_value(&key("context_length"), 32),
                f32_value(&key("attention.layer_norm_rms_epsilon"), 1e-5),
                string_value("tokenizer.ggml.model", "gpt2"),
                string_value("tokenizer.chat_template", "{{ messages }}"),
                u32_value("tokenizer.ggml.eos_token_id", 1),
                array_value("tokenizer.ggml.tokens", STRING, 3, &tokens),
                array_value("tokenizer.ggml.token_type", I32, 3, &types),
            ],
            tensors: vec![tensor("token_embd.weight", &[4, 3], 0, 0), tensor("blk.0.attn_q.weight", &[4, 4], 0, 64)],
            data: [&embedding[..], &[0; 16], &query].concat(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = [b"GGUF".as_slice(), &3u32.to_le_bytes()].concat();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.values.len() as u64).to_le_bytes());
        file.extend(self.values.concat());
        file.extend(self.tensors.concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }
}

/// A folder of this test's own, empty.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The repository's tiny checkpoints.
pub fn tiny(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tiny").join(family)
}

/// Every tensor that a model of `config` needs, with its shape.
pub fn expected_tensors(config: &ModelConfig) -> Vec<(String, usize, usize)> {
    let hidden = config.hidden_size;
    let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), config.vocab_size, hidden),
        ("model.norm.weight".to_owned(), 1, hidden),
    ];
    if !config.tie_word_embeddings {
        tensors.push(("lm_head.weight".to_owned(), config.vocab_size, hidden));
    }
    for layer in 0..config.num_layers {
        let mut parts = vec![
            ("input_layernorm", 1, hidden),
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("post_attention_layernorm", 1, hidden),
        ];
        if config.architecture.starts_with("qwen3") {
            parts.extend([("self_attn.q_norm", 1, config.head_dim), ("self_attn.k_norm", 1, config.head_dim)]);
        }
        let name = |part: &str, kind: &str| format!("model.layers.{layer}.{part}.{kind}");
        tensors.extend(parts.into_iter().map(|(part, rows, cols)| (name(part, "weight"), rows, cols)));
        if config.architecture == "qwen2" {
            let biases = [("q", q), ("k", kv), ("v", kv)];
            tensors.extend(biases.map(|(part, size)| (name(&format!("self_attn.{part}_proj"), "bias"), 1, size)));
        }
        tensors.extend(feed_forward_tensors(config).map(|(part, rows, cols)| (name(&part, "weight"), rows, cols)));
    }
    tensors
}

/// Those of one layer's feed-forward part, dense or a mixture.
fn feed_forward_tensors(config: &ModelConfig) -> impl Iterator<Item = (String, usize, usize)> {
    let (hidden, moe) = (config.hidden_size, config.moe);
    let (mixture, [gate, up, down]) = match config.architecture.as_str() {
        "mixtral" => ("block_sparse_moe", ["w1", "w3", "w2"]),
        _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
    };
    let prefixes: Vec<String> = match moe {
        Some(moe) => (0..moe.num_experts).map(|expert| format!("{mixture}.experts.{expert}")).collect(),
        None => vec![mixture.to_owned()],
    };
    let ffn = moe.map_or(config.intermediate_size, |moe| moe.intermediate_size);
    let parts = [(gate, ffn, hidden), (up, ffn, hidden), (down, hidden, ffn)];
    let router = moe.map(|moe| (format!("{mixture}.gate"), moe.num_experts, hidden));
    let parts =
        prefixes.into_iter().flat_map(move |prefix| parts.map(|(part, n, k)| (format!("{prefix}.{part}"), n, k)));
    router.into_iter().chain(parts)
}
