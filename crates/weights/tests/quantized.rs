//! Quantized checkpoints: each scheme's fixture by hand, the layouts of GPTQ and AWQ, and configs and files that lie.

#![allow(clippy::unwrap_used)]

mod common;
mod made;

use std::path::{Path, PathBuf};

use common::{folder, tiny};
use half::bf16;
use made::{Folder, config};
use quant::{Format, fp8_e4m3};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use weights::{Checkpoint, Tensor};

fn fixture(scheme: &str) -> PathBuf {
    tiny("../quant").join(scheme)
}

/// Every linear layer of the fixtures.
fn linear() -> impl Iterator<Item = String> {
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let parts = parts.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    parts.flat_map(|part| (0..2).map(move |layer| format!("model.layers.{layer}.{part}")))
}

/// The weight of `module` from its stored parts, as the scheme is written down.
fn by_hand(file: &SafeTensors<'_>, module: &str) -> Vec<f32> {
    let part = |part: &str| file.tensor(&format!("{module}.{part}")).ok();
    let scale = part("weight_scale").unwrap();
    let (scale_cols, scales) = (scale.shape()[1], scale.data().as_chunks::<2>().0);
    let scale_rows = scales.len() / scale_cols;
    let value = |rows: usize, cols: usize, element: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        let scale = |n: usize, k: usize| {
            bf16::from_le_bytes(scales[n * scale_rows / rows * scale_cols + k * scale_cols / cols]).to_f32()
        };
        (0..rows * cols).map(|idx| (idx / cols, idx % cols)).map(|(n, k)| scale(n, k) * element(n, k)).collect()
    };
    if let Some(weight) = part("weight") {
        let (cols, data) = (weight.shape()[1], weight.data());
        return value(weight.shape()[0], cols, &|n, k| match weight.dtype() {
            Dtype::F8_E4M3 => fp8_e4m3::decode_one(data[n * cols + k]),
            _ => f32::from(data[n * cols + k] as i8),
        });
    }
    let (packed, zeros) = (part("weight_packed").unwrap(), part("weight_zero_point"));
    let nibble = |data: &[u8], word: usize, at: usize| {
        (u32::from_le_bytes(data[word * 4..][..4].try_into().unwrap()) >> (4 * at) & 15) as f32
    };
    let (rows, words) = (packed.shape()[0], packed.shape()[1]);
    value(rows, words * 8, &|n, k| {
        let group = k * scale_cols / (words * 8);
        let zero = zeros.as_ref().map_or(8.0, |zeros| nibble(zeros.data(), n / 8 * scale_cols + group, n % 8));
        nibble(packed.data(), n * words + k / 8, k % 8) - zero
    })
}

#[test]
fn every_fixture_reads_as_its_scheme_is_written_down() {
    for (scheme, format, grid) in [
        ("FP8_DYNAMIC", Format::Fp8E4m3, (1, None)),
        ("FP8_BLOCK", Format::Fp8E4m3, (128, Some(128))),
        ("W8A8", Format::Int8, (1, None)),
        ("W4A16", Format::Int4, (1, Some(32))),
        ("W4A16_ASYM", Format::Int4, (1, Some(32))),
        ("GPTQ_W4A16", Format::Int4, (1, Some(32))),
        ("AWQ_W4A16", Format::Int4, (1, Some(32))),
    ] {
        let checkpoint = Checkpoint::open(&fixture(scheme)).unwrap();
        let bytes = std::fs::read(fixture(scheme).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for module in linear() {
            let name = format!("{module}.weight");
            assert!(checkpoint.has(&name), "{scheme}: {name}");
            let tensor = checkpoint.tensor(&name).unwrap();
            let scales = tensor.scales.as_ref().unwrap();
            assert_eq!(tensor.format, format, "{scheme}: {name}");
            assert_eq!((scales.rows_per, scales.cols_per), (grid.0, grid.1.unwrap_or(tensor.cols)), "{scheme}: {name}");
            assert_eq!(scales.zeros.is_some(), scheme == "W4A16_ASYM", "{scheme}: {name}");
            assert!(scales.group_of.is_none(), "{scheme}: {name}");
            assert_eq!(tensor.stored().dequantize(), by_hand(&file, &module), "{scheme}: {name}");
        }
        for name in ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"] {
            assert_eq!(checkpoint.tensor(name).unwrap().format, Format::Bf16, "{scheme}: {name}");
        }
    }
}

#[test]
fn a_quantized_model_is_not_quantized_again() {
    let quantized = Checkpoint::open(&fixture("W4A16")).unwrap().with_quantization(quant::Scheme::Fp8);
    let error = quantized.err().unwrap().to_string();
    assert!(error.contains("quantized already; load it without --quantization fp8"), "{error}");
    let plain = Checkpoint::open(&tiny("llama")).unwrap().with_quantization(quant::Scheme::Int4).unwrap();
    assert_eq!(plain.quantization(), Some(quant::Scheme::Int4));
}

/// `[16, 64]` codes and `[16, 2]` zeros, and the scales of groups of 32.
struct Int4 {
    codes: Vec<u8>,
    zeros: Vec<u8>,
    scales: Vec<f32>,
}

const ROWS: usize = 16;
const COLS: usize = 64;
const GROUPS: usize = 2;

impl Int4 {
    fn made() -> Self {
        Self {
            codes: (0..ROWS * COLS).map(|idx| (idx * 7 % 16 + idx / 91) as u8 & 15).collect(),
            zeros: (0..ROWS * GROUPS).map(|idx| (idx * 5 % 16) as u8).collect(),
            scales: (0..ROWS * GROUPS).map(|idx| 0.25 + idx as f32 / 64.0).collect(),
        }
    }

    /// Values where column `k` is of group `group_of(k)`.
    fn values(&self, group_of: &dyn Fn(usize) -> usize) -> Vec<f32> {
        let value = |idx: usize| {
            let at = idx / COLS * GROUPS + group_of(idx % COLS);
            self.scales[at] * (f32::from(self.codes[idx]) - f32::from(self.zeros[at]))
        };
        (0..ROWS * COLS).map(value).collect()
    }

    /// Scales as both older layouts have them: f16 `[groups, rows]`.
    fn old_scales(&self) -> Vec<u8> {
        let transposed = (0..ROWS * GROUPS).map(|idx| self.scales[idx % ROWS * GROUPS + idx / ROWS]);
        transposed.flat_map(|scale| half::f16::from_f32(scale).to_le_bytes()).collect()
    }
}

/// Words of `count` words, nibble `i` of word `w` being `nibble(w, i)`.
fn words(count: usize, nibble: impl Fn(usize, usize) -> u8) -> Vec<u8> {
    let word = |w| (0..8).fold(0u32, |word, i| word | u32::from(nibble(w, i) & 15) << (4 * i));
    (0..count).flat_map(|w| word(w).to_le_bytes()).collect()
}

fn read(folder: &Path) -> Tensor<'static> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    assert!(checkpoint.has("m.weight"));
    let tensor = checkpoint.tensor("m.weight").unwrap();
    Tensor { bytes: tensor.bytes.into_owned().into(), ..tensor }
}

#[test]
fn gptq_is_repacked() {
    let made = Int4::made();
    for (format, shift, order) in [("gptq", 1, false), ("gptq", 1, true), ("gptq_v2", 0, true)] {
        let group_of = |k: usize| if order { k * 5 % COLS / 32 } else { k / 32 };
        let order: Vec<u8> = (0..COLS).flat_map(|k| (group_of(k) as i32).to_le_bytes()).collect();
        let folder = Folder::new(&format!("{format}-{shift}-{}", order[4]))
            .config(json!({ "quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": format }))
            .tensor(
                "m.qweight",
                Dtype::I32,
                &[COLS / 8, ROWS],
                words(COLS / 8 * ROWS, |w, i| made.codes[w % ROWS * COLS + w / ROWS * 8 + i]),
            )
            .tensor(
                "m.qzeros",
                Dtype::I32,
                &[GROUPS, ROWS / 8],
                words(GROUPS * ROWS / 8, |w, i| made.zeros[(w % 2 * 8 + i) * GROUPS + w / 2].wrapping_sub(shift)),
            )
            .tensor("m.scales", Dtype::F16, &[GROUPS, ROWS], made.old_scales())
            .tensor("m.g_idx", Dtype::I32, &[COLS], order)
            .write();
        let tensor = read(&folder);
        assert_eq!((tensor.rows, tensor.cols, tensor.format), (ROWS, COLS, Format::Int4));
        assert_eq!(tensor.stored().dequantize(), made.values(&group_of), "{format}");
    }
}

#[test]
fn awq_is_repacked() {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let made = Int4::made();
    let folder = Folder::new("awq")
        .config(json!({ "quant_method": "awq", "w_bit": 4, "q_group_size": 32, "zero_point": true, "version": "gemm" }))
        .tensor(
            "m.qweight",
            Dtype::I32,
            &[COLS, ROWS / 8],
            words(COLS * ROWS / 8, |w, i| made.codes[(w % 2 * 8 + ORDER[i]) * COLS + w / 2]),
        )
        .tensor(
            "m.qzeros",
            Dtype::I32,
            &[GROUPS, ROWS / 8],
            words(GROUPS * ROWS / 8, |w, i| made.zeros[(w % 2 * 8 + ORDER[i]) * GROUPS + w / 2]),
        )
        .tensor("m.scales", Dtype::F16, &[GROUPS, ROWS], made.old_scales())
        .write();
    assert_eq!(read(&folder).stored().dequantize(), made.values(&|k| k / 32));
}

/// Two rows of FP8: 1 to 8.
fn fp8() -> Vec<u8> {
    fp8_e4m3::encode(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn fp8_has_scales_of_three_kinds() {
    for (name, method, part, shape, scales, expected) in [
        ("tensor", json!({}), "weight_scale", &[][..], &[2.0][..], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]),
        ("channel", json!({}), "weight_scale", &[2, 1], &[1.0, 10.0], [1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]),
        (
            "block",
            json!({ "weight_block_size": [2, 2] }),
            "weight_scale_inv",
            &[1, 2],
            &[1.0, 10.0],
            [1.0, 2.0, 30.0, 40.0, 5.0, 6.0, 70.0, 80.0],
        ),
    ] {
        let mut method = method;
        method["quant_method"] = json!("fp8");
        let folder = Folder::new(&format!("fp8-{name}"))
            .config(method)
            .tensor("m.weight", Dtype::F8_E4M3, &[2, 4], fp8())
            .tensor(&format!("m.{part}"), Dtype::F32, shape, floats(scales))
            .write();
        assert_eq!(read(&folder).stored().dequantize(), expected, "{name}");
    }
}

/// compressed-tensors of one group.
fn compressed(format: &str, weights: Value) -> Value {
    json!({ "quant_method": "compressed-tensors", "format": format, "ignore": ["lm_head"],
            "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } } })
}

fn channel() -> Value {
    compressed("float-quantized", json!({ "num_bits": 8, "type": "float", "strategy": "channel" }))
}

fn packed() -> Value {
    compressed("pack-quantized", json!({ "num_bits": 4, "type": "int", "strategy": "group", "group_size": 4 }))
}

/// Packed words of one row of four codes, which end before their word does.
fn short_rows(name: &str, shape: [i64; 2]) -> Folder {
    Folder::new(name)
        .config(packed())
        .tensor("m.weight_packed", Dtype::I32, &[2, 1], words(2, |w, i| (8 * w + i) as u8))
        .tensor("m.weight_shape", Dtype::I64, &[2], shape.iter().flat_map(|n| n.to_le_bytes()).collect())
        .tensor("m.weight_scale", Dtype::F32, &[2, 1], floats(&[1.0, 2.0]))
}

#[test]
fn rows_that_end_within_a_word_are_cut() {
    let tensor = read(&short_rows("short-rows", [2, 4]).write());
    assert_eq!(tensor.stored().dequantize(), [-8.0, -7.0, -6.0, -5.0, 0.0, 2.0, 4.0, 6.0]);
}

#[test]
fn a_group_that_names_a_module_goes_before_the_class() {
    let mut config = channel();
    config["config_groups"]["group_1"] = json!({ "targets": ["re:.*wide"],
        "weights": { "num_bits": 8, "type": "int", "strategy": "tensor" }, "format": "int-quantized" });
    let folder = Folder::new("two-groups")
        .config(config)
        .tensor("m.weight", Dtype::F8_E4M3, &[2, 4], fp8())
        .tensor("m.weight_scale", Dtype::F32, &[2, 1], floats(&[1.0, 1.0]))
        .tensor("x.wide.weight", Dtype::I8, &[1, 2], vec![255, 3])
        .tensor("x.wide.weight_scale", Dtype::F32, &[1], floats(&[0.5]))
        .write();
    assert_eq!(read(&folder).format, Format::Fp8E4m3);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(checkpoint.tensor("x.wide.weight").unwrap().stored().dequantize(), [-0.5, 1.5]);
}

#[test]
fn tensors_that_lie_are_told_why() {
    let weight =
        |name: &str, method: Value| Folder::new(name).config(method).tensor("m.weight", Dtype::F8_E4M3, &[2, 4], fp8());
    let scale = |folder: Folder, shape: &[usize]| {
        folder.tensor("m.weight_scale", Dtype::F32, shape, floats(&vec![1.0; shape.iter().product()]))
    };
    let mut ignored = channel();
    ignored["ignore"] = json!(["m"]);
    let mut elsewhere = channel();
    elsewhere["config_groups"]["group_0"]["targets"] = json!(["re:n"]);
    let mut asymmetric = packed();
    asymmetric["config_groups"]["group_0"]["weights"]["symmetric"] = json!(false);
    let plain = |folder: Folder| folder.tensor("m.weight", Dtype::BF16, &[2, 1], vec![0; 4]);
    let coded = |folder: Folder| folder.tensor("n.weight", Dtype::I8, &[1, 1], vec![0]);
    let order = |groups: &[i32]| groups.iter().flat_map(|group| group.to_le_bytes()).collect();
    for (folder, message) in
        [
            (weight("no-scale", channel()), "tensor m.weight: its weight_scale is missing"),
            (
                scale(weight("few", channel()), &[1, 1]),
                "its scales are of shape [1, 1], but 2 x 4 elements with one for each 1 x 4 want",
            ),
            (scale(weight("flat", channel()), &[4]), "its scales are of shape [4]"),
            (scale(weight("ignored", ignored), &[2, 1]), "it is quantized, but quantization_config ignores it"),
            (scale(weight("elsewhere", elsewhere), &[2, 1]), "no group of quantization_config says how"),
            (scale(weight("other", packed()), &[2, 1]), "its weight_packed is missing"),
            (
                weight("codes", channel()).tensor("m.weight_scale", Dtype::I32, &[2, 1], vec![0; 8]),
                "its scales are of type I32",
            ),
            (
                scale(plain(coded(Folder::new("stray").config(channel()))), &[2, 1]),
                "but its weight is stored without codes",
            ),
            (short_rows("wide", [2, 9]), "its weight_shape [2, 9] is not that of 2 rows of 1 words"),
            (short_rows("negative", [2, -4]), "is not that of 2 rows of 1 words"),
            (short_rows("odd", [2, 3]), "3 columns are not whole blocks of INT4"),
            (short_rows("no-zeros", [2, 4]).config(asymmetric.clone()), "its weight_zero_point is missing"),
            (
                short_rows("zeros", [2, 4]).config(asymmetric).tensor(
                    "m.weight_zero_point",
                    Dtype::I32,
                    &[2, 1],
                    vec![0; 8],
                ),
                "its weight_zero_point is of shape [2, 1], not [1, 1]",
            ),
            (
                short_rows("order", [2, 4]).tensor("m.weight_g_idx", Dtype::I32, &[4], order(&[0, 0, 1, 0])),
                "a column is said to be in group 1, but there are 1 groups",
            ),
            (
                short_rows("short-order", [2, 4]).tensor("m.weight_g_idx", Dtype::I32, &[2], order(&[1, 0])),
                "4 columns want a group each, but 2 are named",
            ),
            (
                Folder::new("gptq-empty")
                    .config(json!({ "quant_method": "gptq", "bits": 4, "group_size": 32 }))
                    .tensor("m.qweight", Dtype::I32, &[4, 0], vec![]),
                "its scales is missing",
            ),
        ]
    {
        let path = folder.write();
        let checkpoint = Checkpoint::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let error = checkpoint.tensor("m.weight").map(drop).expect_err(message).to_string();
        assert!(error.contains(message), "{error} does not say: {message}");
    }
}

#[test]
fn configs_that_lie_are_told_why() {
    let group = |weights: Value| compressed("pack-quantized", weights);
    let mut sparse = channel();
    sparse["sparsity_config"] = json!({ "format": "sparse-24-bitmask" });
    let mut pattern = channel();
    pattern["ignore"] = json!(["re:["]);
    for (method, message) in [
        (json!({}), "quantized by a method that its quantization_config does not name"),
        (
            json!({ "quant_method": "bitsandbytes" }),
            "quantized by bitsandbytes, which cannot be read; compressed-tensors",
        ),
        (json!({ "quant_method": "compressed-tensors" }), "has no group of quantized weights"),
        (json!({ "quant_method": "compressed-tensors", "config_groups": 3 }), "quantization_config is not understood"),
        (group(json!({ "num_bits": 3, "type": "int" })), "weights of 3 bits, int, pack-quantized"),
        (group(json!({ "num_bits": 8, "type": "int", "symmetric": false })), "pack-quantized with zero points"),
        (group(json!({ "num_bits": 4, "type": "int", "strategy": "group" })), "has groups of None columns"),
        (group(json!({ "num_bits": 4, "type": "int", "strategy": "group", "group_size": 0 })), "groups of Some(0)"),
        (group(json!({ "num_bits": 4, "type": "int", "strategy": "block" })), "has blocks of None rows and columns"),
        (group(json!({ "num_bits": 4, "type": "int", "strategy": "tensor_group" })), "scales by tensor_group"),
        (compressed("nvfp4-pack-quantized", json!({ "num_bits": 4, "type": "float" })), "float, nvfp4-pack-quantized"),
        (sparse, "sparsity of compressed-tensors"),
        (pattern, "has the pattern \"[\""),
        (json!({ "quant_method": "fp8", "weight_block_size": [0, 128] }), "has blocks of [0, 128]"),
        (json!({ "quant_method": "gptq", "bits": 8, "group_size": 128 }), "gptq of 8 bits"),
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": -7 }), "has groups of Some(-7) columns"),
        (
            json!({ "quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin" }),
            "gptq as marlin",
        ),
        (json!({ "quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv" }), "awq as gemv"),
        (channel(), "it has a quantization_config, but no tensor is quantized"),
    ] {
        let folder = folder("lying-config");
        std::fs::copy(tiny("llama").join("model.safetensors"), folder.join("model.safetensors")).unwrap();
        std::fs::write(folder.join("config.json"), config(method).to_string()).unwrap();
        let error = Checkpoint::open(&folder).err().unwrap_or_else(|| panic!("not refused: {message}")).to_string();
        assert!(error.contains(message), "{error} does not say: {message}");
    }
    let unnamed = Folder::new("unnamed").tensor("m.weight", Dtype::F8_E4M3, &[2, 4], fp8()).write();
    let error = Checkpoint::open(&unnamed).unwrap().tensor("m.weight").unwrap_err().to_string();
    assert!(error.contains("its type F8_E4M3 cannot be read without a quantization_config"), "{error}");
}
