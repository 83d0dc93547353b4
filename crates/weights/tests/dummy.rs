//! Made-up weights: the same tensors as the model's own file has, and the same values in the file that is written for others.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{folder, tiny};
use weights::{Checkpoint, TokenizerSource, export_dummy};

/// Names and shapes in the model's own file.
fn names(checkpoint: &Checkpoint) -> Vec<String> {
    let layers = (0..checkpoint.config().num_layers).flat_map(|layer| {
        let parts =
            ["input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj"];
        parts.map(|part| format!("model.layers.{layer}.{part}.weight"))
    });
    layers.chain(["model.embed_tokens.weight".to_owned(), "model.norm.weight".to_owned()]).collect()
}

#[test]
fn shapes_are_those_of_the_models_own_file() {
    for family in ["llama", "llama3rope", "mistral"] {
        let (real, dummy) = (Checkpoint::open(&tiny(family)).unwrap(), Checkpoint::dummy(&tiny(family), 0).unwrap());
        assert_eq!((real.config(), real.total_bytes()), (dummy.config(), dummy.total_bytes()), "{family}");
        assert_eq!(real.has("lm_head.weight"), dummy.has("lm_head.weight"));
        for name in names(&real) {
            let (real, dummy) = (real.tensor(&name).unwrap(), dummy.tensor(&name).unwrap());
            assert_eq!((real.rows, real.cols, real.format), (dummy.rows, dummy.cols, dummy.format), "{family}: {name}");
        }
        assert!(dummy.tensor("model.layers.99.mlp.up_proj.weight").is_err());
    }
}

#[test]
fn a_written_file_has_the_same_values() {
    let out = folder("dummy-export");
    let bytes = export_dummy(&tiny("llama"), 7, &out).unwrap();
    let (written, made) = (Checkpoint::open(&out).unwrap(), Checkpoint::dummy(&tiny("llama"), 7).unwrap());
    assert_eq!((written.total_bytes(), made.total_bytes()), (bytes, bytes));
    for name in names(&made) {
        assert_eq!(written.tensor(&name).unwrap().bytes, made.tensor(&name).unwrap().bytes, "{name}");
    }
    assert_eq!(written.text_source().unwrap(), made.text_source().unwrap());
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn a_config_alone_is_enough() {
    let alone = folder("dummy-config");
    fs::copy(tiny("llama").join("config.json"), alone.join("config.json")).unwrap();
    let TokenizerSource::Gguf(vocab) = Checkpoint::dummy(&alone, 0).unwrap().text_source().unwrap().tokenizer else {
        panic!("there is no tokenizer.json");
    };
    assert_eq!((vocab.tokens.len(), vocab.tokens[65].as_str(), vocab.tokens[32].as_str()), (256, "A", "Ġ"));
    fs::remove_dir_all(&alone).unwrap();
    let refused = Checkpoint::dummy(&alone, 0).map(drop).unwrap_err().to_string();
    assert!(refused.contains("no folder with a config.json"), "{refused}");
}
