//! Folders as the hub lays them out: the tiny checkpoints whole, and folders that lie.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{FAMILIES, expected_tensors, folder, tiny};
use quant::Format;
use weights::{Checkpoint, MoeConfig, RopeScaling, TokenizerSource};

#[test]
fn every_tensor_of_the_tiny_checkpoints_reads() {
    for family in FAMILIES {
        let checkpoint = Checkpoint::open(&tiny(family)).unwrap();
        let config = checkpoint.config();
        let mut total = 0;
        for (name, rows, cols) in expected_tensors(config) {
            let tensor = checkpoint.tensor(&name).unwrap();
            assert_eq!((tensor.rows, tensor.cols, tensor.format), (rows, cols, Format::Bf16), "{family}: {name}");
            assert!(tensor.stored().dequantize().iter().all(|value| value.is_finite()), "{family}: {name}");
            total += tensor.bytes.len() as u64;
        }
        assert_eq!(checkpoint.total_bytes(), total, "{family} has no other tensors");
        assert_eq!(checkpoint.has("lm_head.weight"), !config.tie_word_embeddings);
        checkpoint.release();
    }
}

#[test]
fn their_configs_say_what_transformers_wrote() {
    let open = |family: &str| Checkpoint::open(&tiny(family)).unwrap().config().clone();
    let llama = open("llama");
    assert_eq!((llama.architecture.as_str(), llama.num_heads, llama.num_kv_heads, llama.head_dim), ("llama", 4, 2, 16));
    assert_eq!((llama.bos_token_id, llama.eos_token_ids.as_slice()), (Some(1), [2].as_slice()));
    assert_eq!((llama.rope.theta, llama.rope.scaling), (10_000.0, RopeScaling::None));
    let scaling = open("llama3rope").rope.scaling;
    let original_max_position_embeddings = 64;
    let (factor, low_freq_factor, high_freq_factor) = (8.0, 1.0, 4.0);
    assert_eq!(
        scaling,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings }
    );
    let mistral = open("mistral");
    assert_eq!((mistral.architecture.as_str(), mistral.sliding_window), ("mistral", Some(16)));
    let (qwen3, mixtral) = (open("qwen3_moe"), open("mixtral"));
    assert_eq!((qwen3.architecture.as_str(), qwen3.head_dim, mixtral.head_dim), ("qwen3_moe", 32, 16));
    let moe = MoeConfig { num_experts: 8, experts_per_token: 2, intermediate_size: 64, renormalize: true };
    assert_eq!(qwen3.moe, Some(moe));
    let moe = MoeConfig { num_experts: 4, intermediate_size: 128, renormalize: false, ..moe };
    assert_eq!((mixtral.moe, open("qwen2").moe), (Some(moe), None));
}

#[test]
fn their_text_sides_are_whole() {
    let source = Checkpoint::open(&tiny("llama")).unwrap().text_source().unwrap();
    assert!(source.chat_template().unwrap().contains("messages"));
    let TokenizerSource::Json { tokenizer_json, special } = source.tokenizer else { panic!("a folder has JSON") };
    assert_eq!(tokenizer_json, std::fs::read(tiny("llama").join("tokenizer.json")).unwrap());
    assert_eq!((special.bos.as_deref(), special.eos.as_deref()), (Some("<bos>"), Some("<eos>")));
}

#[test]
fn the_default_template_comes_first() {
    let folder = folder("templates");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(tiny("llama").join(file), folder.join(file)).unwrap();
    }
    let named = r#"{"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}"#;
    std::fs::write(folder.join("tokenizer_config.json"), named).unwrap();
    let source = Checkpoint::open(&folder).unwrap().text_source().unwrap();
    let sources: Vec<&str> = source.chat_templates.iter().map(|template| template.source.as_str()).collect();
    assert_eq!((sources, source.chat_template()), (vec!["D", "R"], Some("D")));
}

/// A safetensors file of one bf16 tensor `[2]`.
fn one_tensor(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0x80, 0x3f, 0, 0xc0]].concat()
}

/// Copies the tiny llama's config to a folder of its own.
fn with_config(name: &str) -> std::path::PathBuf {
    let folder = folder(name);
    std::fs::copy(tiny("llama").join("config.json"), folder.join("config.json")).unwrap();
    folder
}

fn index(folder: &Path, weight_map: &str) {
    std::fs::write(folder.join("model.safetensors.index.json"), format!(r#"{{"weight_map":{weight_map}}}"#)).unwrap();
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = with_config("shards");
    std::fs::write(folder.join("one.safetensors"), one_tensor("a")).unwrap();
    std::fs::write(folder.join("two.safetensors"), one_tensor("b")).unwrap();
    index(&folder, r#"{"a":"one.safetensors","b":"two.safetensors"}"#);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for name in ["a", "b"] {
        assert_eq!(checkpoint.tensor(name).unwrap().stored().dequantize(), [1.0, -2.0]);
    }
    assert_eq!(checkpoint.total_bytes(), 8);
    assert!(checkpoint.tensor("c").unwrap_err().to_string().contains("has no tensor c"));
}

#[test]
fn an_index_that_lies_is_told_why() {
    for (name, map, message) in [
        ("missing", r#"{"a":"gone.safetensors"}"#, "gone.safetensors: cannot be read"),
        ("traversal", r#"{"a":"../x.safetensors"}"#, r#"names the shard "../x.safetensors", which is not the name"#),
        ("absolute", r#"{"a":"/x.safetensors"}"#, "which is not the name of a .safetensors file in its folder"),
        ("elsewhere", r#"{"b":"one.safetensors"}"#, "tensor b: the index places it in one.safetensors, but it is not"),
        ("syntax", r#"[]"#, "model.safetensors.index.json: cannot be understood"),
    ] {
        let folder = with_config(&format!("index-{name}"));
        std::fs::write(folder.join("one.safetensors"), one_tensor("a")).unwrap();
        index(&folder, map);
        let error = Checkpoint::open(&folder).err().unwrap_or_else(|| panic!("{name} was read")).to_string();
        assert!(error.contains(message), "{name}: {error} does not say: {message}");
    }
}

#[test]
fn folders_that_are_not_whole_are_told_why() {
    let empty = folder("empty");
    let no_config = folder("no-config");
    std::fs::write(no_config.join("model.safetensors"), one_tensor("a")).unwrap();
    let broken = with_config("broken");
    std::fs::write(broken.join("model.safetensors"), &one_tensor("a")[..20]).unwrap();
    let other = empty.join("model.bin");
    std::fs::write(&other, "x").unwrap();
    for (path, message) in [
        (empty.join("gone"), "gone: cannot be read"),
        (empty, "has neither model.safetensors nor model.safetensors.index.json"),
        (other, "is neither a .gguf file, a .safetensors file nor a folder"),
        (no_config, "config.json: cannot be read"),
        (broken, "model.safetensors: is not a whole safetensors file"),
    ] {
        let error = Checkpoint::open(&path).err().expect("it is not whole").to_string();
        assert!(error.contains(message), "{error} does not say: {message}");
    }
}

#[test]
fn one_file_opens_beside_its_config() {
    let checkpoint = Checkpoint::open(&tiny("llama").join("model.safetensors")).unwrap();
    assert_eq!(checkpoint.config().vocab_size, 512);
    assert!(checkpoint.text_source().is_ok());
}
