//! The default model against HF transformers on its dequantized weights.

use std::path::Path;

use kernels::cpu::Isa;
use runner::RunnerOptions;
use tests::{Device, Driver, Request};

use testkit::TextGolden;

fn options() -> RunnerOptions {
    RunnerOptions { max_model_len: Some(1024), ..RunnerOptions::default() }
}

/// Steps with a smaller distance between the two best logits may go either way in f32.
const DECIDED: f32 = 0.02;

/// The same on the CPU: 15 bits of an activation, 8 of a key or a value.
const DECIDED_ROUNDED: f32 = 0.08;

fn check_greedy_tokens(test: &str, device: Device, decided: f32) {
    let Some(model) = testkit::default_model(test) else { return };
    let golden = TextGolden::load();
    let requests: Vec<Request> =
        golden.rows.iter().map(|row| Request::greedy(row.prompt_ids.clone(), row.greedy_ids.len())).collect();
    let mut executor = device.load(&model, options());
    let answers = Driver::new(executor.as_mut()).generate(&requests);
    let mut compared = 0;
    for (row, answer) in golden.rows.iter().zip(&answers) {
        let steps = row.decided_steps(decided);
        assert_eq!(answer[..steps], row.greedy_ids[..steps], "{}", row.prompt);
        compared += steps;
    }
    assert!(compared > 300, "only {compared} steps were decided clearly enough to compare");
}

#[test]
fn greedy_tokens_on_the_reference_backend() {
    check_greedy_tokens("greedy_tokens_on_the_reference_backend", Device::Reference, DECIDED);
}

#[test]
fn greedy_tokens_on_the_cpu_backend() {
    check_greedy_tokens("greedy_tokens_on_the_cpu_backend", Device::Cpu, DECIDED_ROUNDED);
}

/// Log probabilities of the golden text's tokens but the first.
fn logprobs(device: Device, model: &Path, golden: &TextGolden) -> Vec<f64> {
    let mut executor = device.load(model, options());
    let logprobs = Driver::new(executor.as_mut()).prompt_logprobs(&golden.gpl3_ids, 0);
    assert_eq!(logprobs.len(), golden.gpl3_ids.len() - 1);
    logprobs.iter().map(|entries| f64::from(entries[0].logprob)).collect()
}

/// Mean negative log-likelihood, in nats.
fn nll(logprobs: &[f64]) -> f64 {
    -logprobs.iter().sum::<f64>() / logprobs.len() as f64
}

#[test]
fn likelihoods_on_both_backends() {
    let Some(model) = testkit::default_model("likelihoods_on_both_backends") else { return };
    let golden = TextGolden::load();
    let exact = logprobs(Device::Reference, &model, &golden);
    let (reference, expected) = (nll(&exact), golden.nll_gpl3_512);
    assert!((reference / expected - 1.0).abs() < 1e-3, "{reference} against {expected}");
    // Token by token activations of 8 bits are 0.1 nats apart; the mean hides it. The lower instruction sets take many times as long, and
    // round alike.
    let int8 = (tests::cpu(1).isa() == Isa::detect()).then_some((Device::CpuInt8, 0.15));
    for (device, bound) in [(Device::Cpu, 0.03)].into_iter().chain(int8) {
        let rounded = logprobs(device, &model, &golden);
        let squares = exact.iter().zip(&rounded).map(|(exact, rounded)| (exact - rounded).powi(2)).sum::<f64>();
        let (distance, nll) = ((squares / exact.len() as f64).sqrt(), nll(&rounded));
        println!(
            "NLL {expected:.4}, reference {reference:.4}, {device:?} {nll:.4}; tokens {distance:.4} nats apart (rms)"
        );
        assert!((nll / expected - 1.0).abs() < 0.01, "{device:?}: {nll} against {expected}");
        assert!(distance < bound, "{device:?}: {distance} nats");
    }
}
