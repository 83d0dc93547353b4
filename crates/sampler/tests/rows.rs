//! One row at a time: greedy, faults, masks, log probabilities, and what the noise depends on.

use contract::{Logprob, SamplingParams, TokenId};
use sampler::{Row, Sampled, SampledRow, Scratch, sample};

fn row(params: &SamplingParams) -> Row<'_> {
    Row { position: 9, ..Row::alone(0, params) }
}

fn run(logits: &[f32], row: &Row<'_>) -> (SampledRow, Vec<Logprob>) {
    let mut out = Sampled::default();
    sample(&mut logits.to_vec(), row, &mut Scratch::default(), &mut out);
    (out.rows[0], out.logprobs)
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 * 0.61).sin() * 5.0).collect()
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let greedy = SamplingParams::greedy();
    for (logits, token) in [(&[1.0][..], 0), (&[1.0, 3.0, 3.0], 1), (&[f32::NEG_INFINITY, -5.0], 1)] {
        let (sampled, _) = run(logits, &row(&greedy));
        assert_eq!((sampled.token, sampled.finite), (token, true), "{logits:?}");
    }
    let nearly_greedy = SamplingParams { temperature: 1e-30, ..SamplingParams::default() };
    assert_eq!(run(&[0.0, 1.0, 0.5], &row(&nearly_greedy)).0.token, 1);
}

#[test]
fn a_fault_ends_its_own_row_only() {
    let params = SamplingParams { logprobs: Some(2), ..SamplingParams::default() };
    let (mut scratch, mut out) = (Scratch::default(), Sampled::default());
    for fault in [None, Some(f32::NAN), Some(f32::INFINITY), None] {
        let mut logits = wave(100);
        logits[77] = fault.unwrap_or(logits[77]);
        sample(&mut logits, &row(&params), &mut scratch, &mut out);
    }
    assert_eq!(out.rows.iter().map(|row| row.finite).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(out.rows[0].token, out.rows[3].token);
    assert_eq!(out.rows[0].logprobs.of(&out.logprobs), out.rows[3].logprobs.of(&out.logprobs));
    assert_eq!(out.rows[1].logprobs.len, 0);
}

#[test]
fn a_row_without_any_token_left_is_a_fault() {
    let params = SamplingParams { allowed_token_ids: vec![3, 200], ..SamplingParams::default() };
    let mask = [!(1 << 3)];
    let (sampled, _) = run(&wave(32), &Row { mask: Some(&mask), ..row(&params) });
    assert!(!sampled.finite);
}

#[test]
fn masks_and_allowed_tokens_hold_at_every_border() {
    for vocab in [1usize, 31, 32, 33, 64, 65] {
        for allowed in [0, vocab / 2, vocab - 1] {
            let mut mask = vec![0u32; vocab.div_ceil(32)];
            mask[allowed / 32] |= 1 << (allowed % 32);
            let hot = SamplingParams { temperature: 2.0, ..SamplingParams::default() };
            let list = SamplingParams { allowed_token_ids: vec![allowed as TokenId], ..hot.clone() };
            assert_eq!(run(&wave(vocab), &Row { mask: Some(&mask), ..row(&hot) }).0.token, allowed as TokenId);
            assert_eq!(run(&wave(vocab), &row(&list)).0.token, allowed as TokenId);
        }
    }
}

#[test]
fn log_probabilities_are_the_models_own() {
    let logits = wave(150);
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    for num_best in [0, 1, 5, 20, 150, 1000] {
        let params = SamplingParams {
            logprobs: Some(num_best),
            temperature: 0.5,
            logit_bias: vec![(4, 50.0)],
            ..SamplingParams::default()
        };
        let (sampled, logprobs) = run(&logits, &row(&params));
        assert_eq!((sampled.token, logprobs[0].token), (4, 4));
        assert_eq!(logprobs.len(), 1 + (num_best as usize).min(150));
        assert_eq!(logprobs[0].rank as usize, 1 + order.iter().position(|&t| t == 4).unwrap());
        for (idx, best) in logprobs[1..].iter().enumerate() {
            assert_eq!((best.token as usize, best.rank as usize), (order[idx], idx + 1));
        }
        for entry in &logprobs {
            let exact = f64::from(logits[entry.token as usize]) - total.ln();
            assert!((f64::from(entry.logprob) - exact).abs() < 2e-6, "{entry:?}, not {exact}");
        }
    }
}

#[test]
fn a_known_token_is_judged_and_not_sampled() {
    let params = SamplingParams { prompt_logprobs: Some(3), logprobs: Some(7), ..SamplingParams::greedy() };
    let (judged, logprobs) = run(&wave(80), &Row { known: Some(42), ..row(&params) });
    assert_eq!((judged.token, judged.finite, logprobs[0].token, logprobs.len()), (42, true, 42, 4));
    assert!(!run(&wave(80), &Row { known: Some(80), ..row(&params) }).0.finite, "beyond the vocabulary");
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let logits = wave(333);
    let (mut scratch, mut out) = (Scratch::default(), Sampled::default());
    let draw = |seed, position, tokens: &[TokenId], scratch: &mut Scratch, out: &mut Sampled| {
        let params = SamplingParams { seed, temperature: 1.5, top_p: 0.98, ..SamplingParams::default() };
        out.clear();
        sample(&mut logits.clone(), &Row { position, tokens, logits: 3, ..row(&params) }, scratch, out);
        out.rows[0].token
    };
    let first: Vec<_> = (0..64).map(|p| draw(1, p, &[], &mut scratch, &mut out)).collect();
    let again: Vec<_> = (0..64).rev().map(|p| draw(1, p, &[5, 6], &mut Scratch::default(), &mut out)).collect();
    assert!(first.iter().eq(again.iter().rev()));
    let other: Vec<_> = (0..64).map(|p| draw(2, p, &[], &mut scratch, &mut out)).collect();
    assert!(first.iter().zip(&other).filter(|(a, b)| a == b).count() < 32, "another seed, another text");
}

#[test]
fn appended_results_keep_their_log_probabilities() {
    let params = SamplingParams { logprobs: Some(2), ..SamplingParams::greedy() };
    let (mut first, mut second) = (Sampled::default(), Sampled::default());
    sample(&mut wave(50), &row(&params), &mut Scratch::default(), &mut first);
    sample(&mut wave(90), &row(&params), &mut Scratch::default(), &mut second);
    let expected = second.logprobs.clone();
    first.append(&second);
    assert_eq!(first.rows[1].logprobs.of(&first.logprobs), expected);
}
