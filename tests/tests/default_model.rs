//! The default model against HF transformers on its dequantized weights.

use std::path::Path;

use runner::RunnerOptions;
use tests::{Device, Driver, Request};

use testkit::TextGolden;

fn options() -> RunnerOptions {
    RunnerOptions { max_model_len: Some(1024), ..RunnerOptions::default() }
}

/// Steps with a smaller distance between the two best logits may go either way in f32.
const DECIDED: f32 = 0.02;

#[test]
fn greedy_tokens_on_the_reference_backend() {
    let Some(model) = testkit::default_model("greedy_tokens_on_the_reference_backend") else { return };
    let golden = TextGolden::load();
    let requests: Vec<Request> =
        golden.rows.iter().map(|row| Request::greedy(row.prompt_ids.clone(), row.greedy_ids.len())).collect();
    let mut executor = Device::Reference.load(&model, options());
    let answers = Driver::new(executor.as_mut()).generate(&requests);
    let mut compared = 0;
    for (row, answer) in golden.rows.iter().zip(&answers) {
        let steps = row.decided_steps(DECIDED);
        assert_eq!(answer[..steps], row.greedy_ids[..steps], "{}", row.prompt);
        compared += steps;
    }
    assert!(compared > 300, "only {compared} steps were decided clearly enough to compare");
}

/// Mean negative log-likelihood of the golden text, in nats.
fn nll(device: Device, model: &Path) -> (f64, f64) {
    let golden = TextGolden::load();
    let mut executor = device.load(model, options());
    let logprobs = Driver::new(executor.as_mut()).prompt_logprobs(&golden.gpl3_ids, 0);
    assert_eq!(logprobs.len(), golden.gpl3_ids.len() - 1);
    let sum: f64 = logprobs.iter().map(|entries| f64::from(entries[0].logprob)).sum();
    (-sum / logprobs.len() as f64, golden.nll_gpl3_512)
}

#[test]
fn likelihood_on_the_reference_backend() {
    let Some(model) = testkit::default_model("likelihood_on_the_reference_backend") else { return };
    let (nll, expected) = nll(Device::Reference, &model);
    println!("NLL {nll:.4}, reference {expected:.4}");
    assert!((nll / expected - 1.0).abs() < 1e-3, "{nll} against {expected}");
}

#[test]
fn the_cpu_backend_loses_less_than_a_hundredth() {
    let Some(model) = testkit::default_model("the_cpu_backend_loses_less_than_a_hundredth") else { return };
    let (nll, expected) = nll(Device::Cpu, &model);
    println!("NLL {nll:.4}, reference {expected:.4}, {:+.2}%", 100.0 * (nll / expected - 1.0));
    assert!(nll / expected < 1.01, "{nll} against {expected}");
}
