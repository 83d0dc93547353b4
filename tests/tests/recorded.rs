//! Steps of a GPU that are recorded and replayed, filled up to a size, or wide: what comes out is what comes out of one row alone.

use std::sync::Arc;

use contract::SamplingParams;
use runner::RunnerOptions;
use testkit::Random;
use tests::{Device, Driver, Request};

/// Ten requests that come one after the other and end one after the other, so that steps have one row to ten and back; some
/// are preempted on the way. Greedy, and drawn with penalties; with log probabilities, which show the logits' bits.
fn requests() -> Vec<Request> {
    let mut random = Random::new(23);
    let request = |idx: usize| {
        let prompt = (0..3 + idx * 5 % 17).map(|_| 5 + random.below(500) as u32).collect();
        let sampling = match idx % 2 {
            0 => SamplingParams { logprobs: Some(4), ..SamplingParams::greedy() },
            _ => SamplingParams { seed: 9, repetition_penalty: 1.2, logprobs: Some(2), ..SamplingParams::default() },
        };
        Request {
            sampling: Arc::new(sampling),
            arrival: 2 * idx,
            preempt_after: (idx % 4 == 1).then_some(6),
            ..Request::greedy(prompt, 22)
        }
    };
    (0..10).map(request).collect()
}

#[test]
fn recorded_steps_have_the_bits_of_launched_ones() {
    if Device::gpu("recorded_steps_have_the_bits_of_launched_ones").is_none() {
        return;
    }
    let run = |device: Device| {
        let options = RunnerOptions { kv_cache_memory: Some(8 << 20), max_num_seqs: 10, ..RunnerOptions::default() };
        let mut executor = device.load(&testkit::tiny("llama"), options);
        Driver::new(executor.as_mut()).generate_with_logprobs(&requests())
    };
    assert_eq!(run(Device::Cuda), run(Device::CudaEager));
}
