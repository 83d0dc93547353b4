//! GGUF's names and row orders against those of Hugging Face.
//!
//! A llama converter reorders the rows of q and k, so that dimensions which rotate together lie side by side. Within a
//! head of `d` rows, GGUF's row `2j + s` is Hugging Face's row `s * d/2 + j`:
//!
//! ```text
//! Hugging Face   a0 a1 a2 a3 | b0 b1 b2 b3      a_j rotates with b_j
//! GGUF           a0 b0 a1 b1 a2 b2 a3 b3
//! ```
//! Only whole rows move, so quantized blocks stay whole.

use crate::ModelConfig;

/// One matrix of a stack, as a Hugging Face name asks for it.
pub(super) struct Expert {
    pub stack: String,
    /// The name of the matrix in older files, which hold each by itself.
    pub alone: String,
    pub idx: usize,
}

/// The expert that a Hugging Face name asks for, of Mixtral or of the others.
pub(super) fn expert(name: &str) -> Option<Expert> {
    let (layer, part) = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let (_, expert) =
        part.split_once(".experts.").filter(|(mixture, _)| matches!(*mixture, "mlp" | "block_sparse_moe"))?;
    let (idx, part) = expert.split_once('.')?;
    let idx = idx.parse().ok()?;
    let part = match part {
        "gate_proj" | "w1" => "ffn_gate",
        "up_proj" | "w3" => "ffn_up",
        "down_proj" | "w2" => "ffn_down",
        _ => return None,
    };
    Some(Expert {
        stack: format!("blk.{layer}.{part}_exps.weight"),
        alone: format!("blk.{layer}.{part}.{idx}.weight"),
        idx,
    })
}

/// The GGUF name of a Hugging Face tensor that is no expert.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let (stem, suffix) = name.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    let stem = match stem {
        "model.embed_tokens" => "token_embd".to_owned(),
        "model.norm" => "output_norm".to_owned(),
        "lm_head" => "output".to_owned(),
        _ => {
            let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
            layer.parse::<u32>().ok()?;
            format!("blk.{layer}.{}", layer_part(part)?)
        }
    };
    Some(format!("{stem}.{suffix}"))
}

fn layer_part(part: &str) -> Option<&'static str> {
    Some(match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "mlp.gate" | "block_sparse_moe.gate" => "ffn_gate_inp",
        _ => return None,
    })
}

/// How the rows of a tensor lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    Same,
    Interleaved { heads: usize },
}

impl RowOrder {
    /// The order of the tensor of this Hugging Face name.
    pub fn of(name: &str, config: &ModelConfig) -> Self {
        // Of the architectures with this file's names only this one's converter reorders; with experts it is Mixtral.
        if !matches!(config.architecture.as_str(), "llama" | "mixtral") {
            return Self::Same;
        }
        match name.rsplit('.').nth(1) {
            Some("q_proj") => Self::Interleaved { heads: config.num_heads },
            Some("k_proj") => Self::Interleaved { heads: config.num_kv_heads },
            _ => Self::Same,
        }
    }
}

/// Puts `rows` interleaved rows back: within each head, first the even ones, then the odd ones.
pub(super) fn restore_halves(bytes: &[u8], rows: usize, heads: usize) -> Result<Vec<u8>, String> {
    if !rows.is_multiple_of(2 * heads) {
        return Err(format!("its {rows} rows are not {heads} heads of an even number of rows"));
    }
    let (head_rows, row_bytes) = (rows / heads, bytes.len() / rows);
    let mut restored = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(head_rows * row_bytes) {
        for side in 0..2 {
            for row in head.chunks_exact(row_bytes).skip(side).step_by(2) {
                restored.extend_from_slice(row);
            }
        }
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_or_not() {
        for (hf, gguf) in [
            ("model.embed_tokens.weight", Some("token_embd.weight")),
            ("lm_head.weight", Some("output.weight")),
            ("model.norm.weight", Some("output_norm.weight")),
            ("model.layers.12.self_attn.q_proj.bias", Some("blk.12.attn_q.bias")),
            ("model.layers.0.post_attention_layernorm.weight", Some("blk.0.ffn_norm.weight")),
            ("model.layers.0.mlp.down_proj.weight", Some("blk.0.ffn_down.weight")),
            ("model.layers.x.mlp.down_proj.weight", None),
            ("model.layers.0.mlp.down_proj.scale", None),
            ("weight", None),
            ("", None),
        ] {
            assert_eq!(gguf_name(hf).as_deref(), gguf, "{hf}");
        }
    }

    #[test]
    fn experts_are_found_in_their_stacks() {
        for (hf, found) in [
            (
                "model.layers.3.mlp.experts.7.gate_proj.weight",
                Some(("blk.3.ffn_gate_exps.weight", "blk.3.ffn_gate.7.weight")),
            ),
            (
                "model.layers.0.block_sparse_moe.experts.0.w2.weight",
                Some(("blk.0.ffn_down_exps.weight", "blk.0.ffn_down.0.weight")),
            ),
            ("model.layers.0.block_sparse_moe.experts.0.w4.weight", None),
            ("model.layers.0.mlp.experts.x.up_proj.weight", None),
            ("model.layers.0.mlp.experts.up_proj.weight", None),
            ("model.layers.0.mlp.up_proj.weight", None),
        ] {
            let names = expert(hf).map(|expert| (expert.stack, expert.alone));
            let names = names.as_ref().map(|(stack, alone)| (stack.as_str(), alone.as_str()));
            assert_eq!(names, found, "{hf}");
        }
        assert_eq!(gguf_name("model.layers.1.mlp.gate.weight").as_deref(), Some("blk.1.ffn_gate_inp.weight"));
    }

    /// The converter's own words: `reshape(heads, 2, d / 2, cols).swapaxes(1, 2)`.
    fn convert(rows: &[u8], heads: usize) -> Vec<u8> {
        let d = rows.len() / heads;
        let from = |head: usize, j: usize, side: usize| rows[head * d + side * (d / 2) + j];
        (0..heads).flat_map(|h| (0..d / 2).flat_map(move |j| (0..2).map(move |s| from(h, j, s)))).collect()
    }

    #[test]
    fn restoring_undoes_the_converter() {
        assert_eq!(convert(&[0, 1, 2, 3, 4, 5, 6, 7], 1), [0, 4, 1, 5, 2, 6, 3, 7], "the drawing above");
        for (heads, d) in [(1, 2), (1, 8), (3, 4), (9, 64)] {
            let rows: Vec<u8> = (0..heads * d).map(|i| i as u8).collect();
            assert_eq!(restore_halves(&convert(&rows, heads), rows.len(), heads), Ok(rows));
        }
    }

    #[test]
    fn rows_move_whole() {
        let bytes: Vec<u8> = (0..4).flat_map(|row| [row; 20]).collect();
        let restored = restore_halves(&bytes, 4, 1).expect("one head of four rows");
        assert_eq!(restored.chunks(20).map(|row| row[0]).collect::<Vec<_>>(), [0, 2, 1, 3]);
        assert!(restore_halves(&bytes, 4, 3).is_err());
    }
}
