//! Builds GGUF files byte by byte, and folders to put files in.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

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
