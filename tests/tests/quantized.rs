//! The tiny llama in each quantized layout, against HF transformers' run of the same stored weights; and quantized on the
//! way in, against itself.

use contract::{Executor, TokenId};
use quant::Scheme;
use runner::RunnerOptions;
use tensor::KvDtype;
use testkit::TinyGolden;
use tests::{Device, Driver, Request, distributions, log_softmax};
use weights::Checkpoint;

/// A cache in f32 where the device has one.
fn options(device: Device) -> RunnerOptions {
    let kv_dtype =
        if Device::EXACT.contains(&device) || device == Device::CpuInt8 { KvDtype::F32 } else { KvDtype::Auto };
    RunnerOptions { kv_cache_memory: Some(4 << 20), kv_dtype, ..RunnerOptions::default() }
}

/// The largest difference of log probabilities at each position of both prompts.
fn distances(executor: &mut dyn Executor, golden: &TinyGolden) -> Vec<f32> {
    let vocab_size = golden.logits.len() / (2 * 40);
    let mut distances = Vec::new();
    for (prompt, logits) in golden.input_ids.iter().zip(golden.logits.chunks(40 * vocab_size)) {
        for (actual, logits) in distributions(executor, prompt, vocab_size).iter().zip(logits.chunks(vocab_size)) {
            distances.push(distance(actual, &log_softmax(logits)));
        }
    }
    distances
}

/// The largest difference; infinite where a value is no number.
fn distance(actual: &[f32], expected: &[f32]) -> f32 {
    let differences = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    differences.fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}

fn check(device: Device, scheme: &str, bound: f32) {
    let folder = testkit::quantized(scheme);
    let distances = distances(device.load(&folder, options(device)).as_mut(), &TinyGolden::load(&folder));
    let worst = distances.iter().copied().fold(0.0, f32::max);
    assert!(worst <= bound, "{device:?} {scheme}: off by {worst}, but {bound} is the bound");
}

/// The schemes whose activations are not rounded.
const WEIGHT_ONLY: [&str; 4] = ["W4A16", "W4A16_ASYM", "GPTQ_W4A16", "AWQ_W4A16"];

#[test]
fn weights_of_four_bits_are_as_the_reference_reads_them() {
    for scheme in WEIGHT_ONLY {
        check(Device::Reference, scheme, 1e-5);
        // Embedding and head are bf16, and there so are the CPU's activations.
        check(Device::Cpu, scheme, 0.015);
        if let Some(gpu) = Device::gpu("weights_of_four_bits_are_as_the_reference_reads_them") {
            check(gpu, scheme, 0.05);
        }
    }
}

#[test]
fn their_greedy_tokens_equal_the_references() {
    for scheme in WEIGHT_ONLY {
        let golden = TinyGolden::load(&testkit::quantized(scheme));
        let (prompt, expected) = golden.greedy.split_at(12);
        let device = Device::Reference;
        let mut executor = device.load(&testkit::quantized(scheme), options(device));
        let tokens = Driver::new(executor.as_mut()).generate(&[Request::greedy(prompt.to_vec(), expected.len())]);
        assert_eq!(tokens[0], expected, "{scheme}");
    }
}

/// The golden rounds activations to FP8, a scale a token. A sum that ends on the other side of a tie, by the last bit of an
/// f32, moves one activation by a sixteenth of itself, and with it every later position; before that, positions are equal.
#[test]
fn fp8_rounds_activations_as_the_reference_does() {
    let folder = testkit::quantized("FP8_DYNAMIC");
    let mut executor = Device::Reference.load(&folder, options(Device::Reference));
    let distances = distances(executor.as_mut(), &TinyGolden::load(&folder));
    let equal = distances.iter().filter(|distance| **distance <= 1e-5).count();
    let worst = distances.iter().copied().fold(0.0, f32::max);
    assert!(equal >= 4, "{equal} positions are equal, of {}", distances.len());
    assert!(worst <= 0.4, "off by {worst}");
}

/// Backends that keep activations as they are, or round them in another way, stay as close as rounding is fine.
#[test]
fn eight_bits_stay_close() {
    for (scheme, bound) in [("FP8_DYNAMIC", 0.4), ("W8A8", 0.15)] {
        for device in Device::all("eight_bits_stay_close").into_iter().chain([Device::CpuInt8]) {
            check(device, scheme, bound);
        }
    }
}

/// Blocks have no golden: transformers runs none that are larger than the layer. Their dequantized weights are the
/// reference then, in a llama that has them as they are.
#[test]
fn fp8_in_blocks_is_close_to_its_weights_in_f32() {
    let golden = TinyGolden::load(&testkit::quantized("FP8_DYNAMIC"));
    let stored = Checkpoint::open(&testkit::quantized("FP8_BLOCK")).expect("the fixture");
    let plain = dequantized(&stored);
    let expected = all(Device::Reference.load(&plain, options(Device::Reference)).as_mut(), &golden.input_ids);
    for (device, bound) in [(Device::Reference, 0.4), (Device::Cpu, 0.04)] {
        let actual = all(device.run(&stored, options(device)).as_mut(), &golden.input_ids);
        let worst = distance(&actual, &expected);
        assert!(worst <= bound, "{device:?}: off by {worst}, but {bound} is the bound");
    }
    if let Some(gpu) = Device::gpu("fp8_in_blocks_is_close_to_its_weights_in_f32") {
        let worst = distance(&all(gpu.run(&stored, options(gpu)).as_mut(), &golden.input_ids), &expected);
        assert!(worst <= 0.4, "off by {worst}");
    }
}

/// A folder with the same model in f32.
fn dequantized(checkpoint: &Checkpoint) -> std::path::PathBuf {
    let from = testkit::quantized("FP8_BLOCK");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("fp8-block-dequantized");
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    let modules = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|part| format!("self_attn.{part}"));
    let modules = modules.into_iter().chain(["gate_proj", "up_proj", "down_proj"].map(|part| format!("mlp.{part}")));
    let norms = ["input_layernorm", "post_attention_layernorm"].map(str::to_owned);
    let parts: Vec<String> = modules.chain(norms).collect();
    let layers = (0..2).flat_map(|layer| parts.iter().map(move |part| format!("model.layers.{layer}.{part}.weight")));
    let names = layers.chain(["model.norm", "model.embed_tokens", "lm_head"].map(|name| format!("{name}.weight")));
    let tensors: Vec<(String, [usize; 2], Vec<f32>)> = names
        .map(|name| {
            let tensor = checkpoint.tensor(&name).expect("the fixture has it");
            let shape = [tensor.rows, tensor.cols];
            (name, shape, tensor.stored().dequantize())
        })
        .collect();
    testkit::write_f32(&folder.join("model.safetensors"), &tensors);
    let text = std::fs::read(from.join("config.json")).expect("the fixture");
    let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    config["quantization_config"] = serde_json::Value::Null;
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file for the test");
    folder
}

/// All log probabilities of both prompts.
fn all(executor: &mut dyn Executor, prompts: &[Vec<TokenId>]) -> Vec<f32> {
    prompts.iter().flat_map(|prompt| distributions(executor, prompt, 512).concat()).collect()
}

/// Mean negative log-likelihood, in nats, of the tokens of `prompts`.
fn nll(distributions: &[f32], prompts: &[Vec<TokenId>]) -> f64 {
    let next = prompts.iter().flat_map(|prompt| &prompt[1..]);
    let losses: Vec<f64> =
        distributions.chunks(512).zip(next).map(|(d, &token)| -f64::from(d[token as usize])).collect();
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn weights_quantized_on_the_way_in_stay_close() {
    let folder = testkit::tiny("llama");
    let prompts = TinyGolden::load(&folder).input_ids;
    for device in Device::all("weights_quantized_on_the_way_in_stay_close") {
        let plain = all(device.load(&folder, options(device)).as_mut(), &prompts);
        for (scheme, bound, nll_bound) in [(Scheme::Fp8, 0.4, 0.02), (Scheme::Int4, 1.5, 0.06)] {
            let checkpoint = Checkpoint::open(&folder).expect("the fixture");
            let checkpoint = checkpoint.with_quantization(scheme).expect("it is not quantized");
            let quantized = all(device.run(&checkpoint, options(device)).as_mut(), &prompts);
            let (worst, loss) = (distance(&quantized, &plain), nll(&quantized, &prompts) - nll(&plain, &prompts));
            assert!(worst > 0.0, "{device:?} {scheme} changed nothing");
            assert!(worst <= bound, "{device:?} {scheme}: off by {worst}, but {bound} is the bound");
            assert!(loss.abs() <= nll_bound, "{device:?} {scheme}: the likelihood moved by {loss} nats");
        }
    }
}
