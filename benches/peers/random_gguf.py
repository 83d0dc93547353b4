#!/usr/bin/env python3
"""Writes a Llama of random weights as a GGUF file in which every matrix is of one format, for engines to be timed on.

    pip install gguf
    benches/peers/random_gguf.py benches/configs/llama-3.2-1b OUT.gguf

Shapes come from the folder's config.json; vocabulary and rotary positions are plain ones: the file is to be run, not read.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np

BLOCK = 32


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=pathlib.Path, help="folder with a config.json of a Llama")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--format", choices=["Q4_0", "Q8_0"], default="Q4_0")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def matrix(rows, cols, code_bytes, random):
    """Blocks of a scale and codes: values of a few hundredths."""
    blocks = np.empty((rows, cols // BLOCK, 2 + code_bytes), np.uint8)
    scales = random.uniform(0.002, 0.006, blocks.shape[:2]).astype("<f2")
    blocks[..., :2] = scales[..., None].view(np.uint8)
    blocks[..., 2:] = random.integers(0, 256, (*blocks.shape[:2], code_bytes), np.uint8)
    return blocks.reshape(rows, -1)


def tokens(count):
    """Bytes as GPT-2 spells them, one merge, and names for the rest."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + idx for idx in range(256 - len(printable))]
    known = [chr(code) for code in [*printable, *others]] + ["ab"]
    return known + [f"token{idx}" for idx in range(len(known), count)]


def main():
    args = arguments()
    config = json.loads((args.config / "config.json").read_text())
    kind = gguf.GGMLQuantizationType[args.format]
    code_bytes = gguf.GGML_QUANT_SIZES[kind][1] - 2
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_rows = config["num_key_value_heads"] * head_dim
    random = np.random.default_rng(args.seed)

    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name(args.config.name)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens(config["vocab_size"]))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_context_length(min(config["max_position_embeddings"], 8192))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])

    def linear(name, rows, cols):
        writer.add_tensor(f"{name}.weight", matrix(rows, cols, code_bytes, random), raw_dtype=kind)

    def norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))

    linear("token_embd", config["vocab_size"], hidden)
    if not config["tie_word_embeddings"]:
        linear("output", config["vocab_size"], hidden)
    norm("output_norm")
    for layer in range(config["num_hidden_layers"]):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        linear(f"{block}.attn_q", heads * head_dim, hidden)
        linear(f"{block}.attn_k", kv_rows, hidden)
        linear(f"{block}.attn_v", kv_rows, hidden)
        linear(f"{block}.attn_output", hidden, heads * head_dim)
        norm(f"{block}.ffn_norm")
        linear(f"{block}.ffn_gate", inner, hidden)
        linear(f"{block}.ffn_up", inner, hidden)
        linear(f"{block}.ffn_down", hidden, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=True)
    writer.close()
    print(f"{args.out.stat().st_size / 1e6:.0f} MB of weights in {args.out}")


if __name__ == "__main__":
    main()
