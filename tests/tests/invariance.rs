//! A request's tokens are its own: alone or in a batch, whole or in chunks, interrupted or not, on one thread or two.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::SamplingParams;
use kernels::cpu::Isa;
use runner::RunnerOptions;
use testkit::Random;
use tests::{Device, Driver, Request};

const OUTPUT: usize = 24;

fn options() -> RunnerOptions {
    RunnerOptions { kv_cache_memory: Some(192 << 20), max_model_len: Some(512), ..RunnerOptions::default() }
}

/// `num` requests of mixed lengths and sampling: greedy, seeded, penalized.
fn requests(num: usize, vocab_size: usize) -> Vec<Request> {
    let mut random = Random::new(7);
    let request = |idx: usize| {
        let len = [1, 15, 16, 17, 40, 70][idx % 6] + random.below(5);
        let prompt = (0..len).map(|_| 5 + random.below(vocab_size - 5) as u32).collect();
        let sampling = match idx % 3 {
            0 => SamplingParams::greedy(),
            1 => SamplingParams { seed: idx as u64, top_p: 0.95, ..SamplingParams::default() },
            _ => SamplingParams { seed: 1, top_k: 40, repetition_penalty: 1.2, ..SamplingParams::default() },
        };
        Request { sampling: Arc::new(sampling), ..Request::greedy(prompt, OUTPUT) }
    };
    (0..num).map(request).collect()
}

/// Every way to run a request must give what it gives alone.
fn check(device: Device, model: &Path, vocab_size: usize, num: usize) {
    let requests = requests(num, vocab_size);
    let mut executor = device.load(model, options());
    let mut driver = Driver::new(executor.as_mut());
    let alone: Vec<Vec<u32>> =
        requests.iter().map(|request| driver.generate(std::slice::from_ref(request)).remove(0)).collect();

    assert_eq!(driver.generate(&requests), alone, "{device:?}: all at once");

    let disturb = |(idx, request): (usize, &Request)| Request {
        chunk: 1 + idx % 7,
        arrival: idx % 5,
        preempt_after: (idx % 2 == 0).then_some(1 + idx % OUTPUT),
        ..request.clone()
    };
    let disturbed: Vec<Request> = requests.iter().enumerate().map(disturb).collect();
    assert_eq!(driver.generate(&disturbed), alone, "{device:?}: chunked, staggered and preempted");
}

#[test]
fn tiny_models_keep_their_tokens() {
    for family in ["llama", "mistral", "qwen3_moe"] {
        for device in Device::all("tiny_models_keep_their_tokens") {
            check(device, &testkit::tiny(family), 512, 32);
        }
    }
}

#[test]
fn quantized_models_keep_their_tokens() {
    for scheme in ["W4A16", "W8A8"] {
        for device in Device::all("quantized_models_keep_their_tokens").into_iter().chain([Device::CpuInt8]) {
            check(device, &testkit::quantized(scheme), 512, 16);
        }
    }
}

#[test]
fn the_default_model_keeps_its_tokens() {
    let Some(model): Option<PathBuf> = testkit::default_model("the_default_model_keeps_its_tokens") else { return };
    // The lower instruction sets take many times as long; the tiny models run all of their 32 on each.
    let is_best = tests::cpu(1).isa() == Isa::detect();
    check(Device::Cpu, &model, 49_152, if is_best { 32 } else { 6 });
    if is_best {
        check(Device::CpuInt8, &model, 49_152, 16);
    }
}
