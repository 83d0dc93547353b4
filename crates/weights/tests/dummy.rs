//! Made-up weights: the same tensors as each family's own file has, and the same values in the file that is written for others.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{FAMILIES, expected_tensors, folder, tiny};
use weights::{Checkpoint, TokenizerSource};

/// Made-up weights of `family`, all of which were asked for.
fn made_up(family: &str, seed: u64) -> Checkpoint {
    let dummy = Checkpoint::dummy(&tiny(family), seed).unwrap();
    for (name, rows, cols) in expected_tensors(dummy.config()) {
        assert!(dummy.has(&name), "{family} has {name}");
        let tensor = dummy.expected(&name, rows, cols).unwrap();
        assert_eq!((tensor.rows, tensor.cols, tensor.bytes.len()), (rows, cols, 2 * rows * cols), "{family}: {name}");
        assert!(tensor.stored().dequantize().iter().all(|value| value.is_finite()), "{family}: {name}");
    }
    dummy
}

#[test]
fn every_family_is_as_large_as_its_own_file() {
    for family in FAMILIES {
        let (real, dummy) = (Checkpoint::open(&tiny(family)).unwrap(), made_up(family, 0));
        assert_eq!((real.config(), real.total_bytes()), (dummy.config(), dummy.total_bytes()), "{family}");
        for name in ["lm_head.weight", "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.o_proj.bias"] {
            assert_eq!(real.has(name), dummy.has(name), "{family}: {name}");
        }
        for name in ["mlp.gate.bias", "mlp.up_proj.bias", "self_attn.k_scale", "self_attn.sinks"] {
            assert!(!dummy.has(&format!("model.layers.0.{name}")), "{family}: {name}");
        }
    }
}

#[test]
fn a_tensor_is_there_once_it_was_asked_for() {
    let dummy = Checkpoint::dummy(&tiny("llama"), 0).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert!(dummy.tensor(name).is_err() && dummy.expected("model.layers.0.self_attn.q_proj.bias", 1, 64).is_err());
    let expected = dummy.expected(name, 3, 5).unwrap().bytes;
    assert_eq!(dummy.tensor(name).unwrap().bytes, expected);
    let refused = Checkpoint::open(&tiny("llama")).unwrap().export(&tiny("llama")).unwrap_err().to_string();
    assert!(refused.contains("only made-up weights"), "{refused}");
}

#[test]
fn a_written_file_has_the_same_values() {
    for family in ["llama", "qwen2", "qwen3_moe"] {
        let (out, made) = (folder(&format!("dummy-{family}")), made_up(family, 7));
        made.export(&out).unwrap();
        let written = Checkpoint::open(&out).unwrap();
        assert_eq!(written.total_bytes(), made.total_bytes());
        for (name, _, _) in expected_tensors(made.config()) {
            assert_eq!(written.tensor(&name).unwrap().bytes, made.tensor(&name).unwrap().bytes, "{family}: {name}");
        }
        assert_eq!(written.text_source().unwrap(), made.text_source().unwrap());
        fs::remove_dir_all(out).unwrap();
    }
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
