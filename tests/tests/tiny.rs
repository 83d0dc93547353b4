//! Tiny checkpoints of each family against HF transformers' f32 run of the same weights.

use std::path::Path;

use runner::RunnerOptions;
use tensor::KvDtype;
use testkit::{TinyGolden, Tolerance, check_close};
use tests::{Device, Driver, Request, distributions, log_softmax, open_as_golden};
use weights::Checkpoint;

const FAMILIES: &[&str] = &["llama", "llama3rope", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"];

/// Of these a router may decide a close call otherwise where numbers are rounded, and then the token's distribution is another.
const MIXTURES: &[&str] = &["mixtral", "qwen3_moe"];

fn options(kv_dtype: KvDtype) -> RunnerOptions {
    RunnerOptions { kv_cache_memory: Some(4 << 20), kv_dtype, ..RunnerOptions::default() }
}

fn as_stored(family: &str) -> Checkpoint {
    open_as_golden(&testkit::tiny(family))
}

/// The same weights in f32, where the CPU rounds no activations; in a folder of `test`'s own.
fn in_f32(family: &str, test: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test).join(family);
    testkit::widen(&testkit::tiny(family), &folder);
    open_as_golden(&folder)
}

/// The whole distribution at every position but the last, by way of prompt log probabilities.
/// `close_calls` positions may differ.
fn check_distributions(
    device: Device,
    checkpoint: &Checkpoint,
    family: &str,
    kv_dtype: KvDtype,
    tolerance: Tolerance,
    mut close_calls: usize,
) {
    let golden = TinyGolden::load(&testkit::tiny(family));
    let mut executor = device.run(checkpoint, options(kv_dtype));
    let vocab_size = golden.logits.len() / (2 * 40);
    for (prompt, logits) in golden.input_ids.iter().zip(golden.logits.chunks(40 * vocab_size)) {
        let positions = distributions(executor.as_mut(), prompt, vocab_size);
        for (position, (actual, logits)) in positions.iter().zip(logits.chunks(vocab_size)).enumerate() {
            let expected = log_softmax(logits);
            let far = |(a, b): (&f32, &f32)| (a - b).abs() > tolerance.absolute;
            if close_calls > 0 && actual.iter().zip(&expected).any(far) {
                close_calls -= 1;
                continue;
            }
            let what = format!("{device:?} {family} {kv_dtype:?}, position {position}");
            check_close(&what, actual, &expected, tolerance);
        }
    }
}

/// Positions, of 78, that may be another distribution where numbers are rounded: of random weights, close calls are many.
fn close_calls(family: &str) -> usize {
    if MIXTURES.contains(&family) { 26 } else { 0 }
}

#[test]
fn distributions_equal_the_references() {
    for family in FAMILIES {
        let checkpoint = in_f32(family, "distributions");
        for device in Device::EXACT {
            let tolerance = Tolerance { absolute: 1e-5, relative: 0.0 };
            check_distributions(device, &checkpoint, family, KvDtype::F32, tolerance, 0);
        }
    }
}

#[test]
fn a_bf16_cache_stays_close() {
    for family in FAMILIES {
        let tolerance = Tolerance { absolute: 0.02, relative: 0.0 };
        let checkpoint = in_f32(family, "bf16-cache");
        check_distributions(Device::Cpu, &checkpoint, family, KvDtype::Bf16, tolerance, close_calls(family));
    }
}

/// On the CPU activations are bf16 too where weights are.
#[test]
fn bf16_weights_stay_close() {
    for family in FAMILIES {
        let tolerance = Tolerance { absolute: 0.05, relative: 0.0 };
        check_distributions(Device::Cpu, &as_stored(family), family, KvDtype::F32, tolerance, close_calls(family));
    }
}

/// Three bits of mantissa in K and V, where bf16 has seven.
#[test]
fn an_fp8_cache_stays_within_a_bound() {
    let devices = [Some(Device::Reference), Device::gpu("an_fp8_cache_stays_within_a_bound")];
    for (device, family) in
        devices.into_iter().flatten().flat_map(|device| FAMILIES.iter().map(move |family| (device, family)))
    {
        // The GPU has no FP8 cache for heads of 32.
        if device == Device::Cuda && family.starts_with("qwen3") {
            continue;
        }
        let tolerance = Tolerance { absolute: 0.3, relative: 0.0 };
        check_distributions(device, &as_stored(family), family, KvDtype::Fp8, tolerance, close_calls(family));
    }
}

#[test]
fn a_gpu_stays_close() {
    let Some(gpu) = Device::gpu("a_gpu_stays_close") else { return };
    for family in FAMILIES {
        let tolerance = Tolerance { absolute: 0.05, relative: 0.0 };
        check_distributions(gpu, &as_stored(family), family, KvDtype::Auto, tolerance, close_calls(family));
    }
}

#[test]
fn greedy_tokens_equal_the_references() {
    for family in FAMILIES {
        let checkpoint = in_f32(family, "greedy");
        for device in Device::EXACT {
            let golden = TinyGolden::load(&testkit::tiny(family));
            let (prompt, expected) = golden.greedy.split_at(12);
            let mut executor = device.run(&checkpoint, options(KvDtype::F32));
            let tokens = Driver::new(executor.as_mut()).generate(&[Request::greedy(prompt.to_vec(), expected.len())]);
            assert_eq!(tokens[0], expected, "{device:?} {family}");
        }
    }
}

/// What a family asks for is what its file has, and made-up values keep its numbers finite.
#[test]
fn every_family_can_be_made_up() {
    for family in FAMILIES {
        let folder = testkit::tiny(family);
        let (real, dummy) =
            (Checkpoint::open(&folder).expect("a model"), Checkpoint::dummy(&folder, 1).expect("a config"));
        let mut executor = Device::Cpu.run(&dummy, options(KvDtype::Auto));
        assert_eq!(dummy.total_bytes(), real.total_bytes(), "{family}");
        let tokens = Driver::new(executor.as_mut()).generate(&[Request::greedy(vec![5, 6, 7], 8)]).remove(0);
        assert_eq!(tokens.len(), 8, "{family}: every row was finite");
    }
}
