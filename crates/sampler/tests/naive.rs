//! The sampler against a twin that sorts the whole vocabulary, recounts every token and works in f64.

use contract::{SamplingParams, TokenId};
use sampler::{Counts, Row, Sampled, Scratch, sample};

/// A small generator for the tests' own numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
    }

    fn uniform(&mut self) -> f32 {
        (self.next() & 0xff_ffff) as f32 / 16_777_216.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Roughly normal, rounded so that ties are common.
    fn logits(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| (0..6).map(|_| self.uniform() - 0.5).sum::<f32>() * 6.0)
            .map(|x| (x * 32.0).round() / 32.0)
            .collect()
    }
}

/// Tokens with their probabilities after every processor, best first.
fn naive_distribution(
    logits: &[f32],
    params: &SamplingParams,
    tokens: &[TokenId],
    prompt_len: usize,
) -> Vec<(TokenId, f64)> {
    let mut logits: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
    for (token, logit) in logits.iter_mut().enumerate() {
        let token = token as TokenId;
        if !params.allowed_token_ids.is_empty() && !params.allowed_token_ids.contains(&token) {
            *logit = f64::NEG_INFINITY;
        }
        if tokens.len() - prompt_len < params.min_tokens as usize && params.stop_token_ids.contains(&token) {
            *logit = f64::NEG_INFINITY;
        }
        for word in &params.bad_words {
            let completed = [&tokens[prompt_len..], &[token]].concat();
            if completed.ends_with(word) {
                *logit = f64::NEG_INFINITY;
            }
        }
        *logit += params.logit_bias.iter().filter(|b| b.0 == token).map(|b| f64::from(b.1)).sum::<f64>();
        if tokens.contains(&token) {
            let penalty = f64::from(params.repetition_penalty);
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        let times = tokens[prompt_len..].iter().filter(|&&t| t == token).count() as f64;
        *logit -= times * f64::from(params.frequency_penalty);
        *logit -= if times > 0.0 { f64::from(params.presence_penalty) } else { 0.0 };
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if params.top_k > 0 {
        order.truncate(params.top_k as usize);
    }
    let best = logits[order[0]];
    let weight = |token: usize| ((logits[token] - best) / f64::from(params.temperature)).exp();
    let total: f64 = order.iter().map(|&t| weight(t)).sum();
    let mut sum = 0.0;
    order.retain(|&token| {
        let before = sum;
        sum += weight(token);
        before < f64::from(params.top_p) * total
    });
    order.retain(|&token| weight(token) >= f64::from(params.min_p) * (1.0 - 1e-6));
    let total: f64 = order.iter().map(|&t| weight(t)).sum();
    order.into_iter().map(|token| (token as TokenId, weight(token) / total)).collect()
}

fn draws(logits: &[f32], params: &SamplingParams, tokens: &[TokenId], prompt_len: usize, num: u32) -> Vec<u32> {
    let (mut scratch, mut out) = (Scratch::default(), Sampled::default());
    let mut counts = Counts::default();
    counts.rebuild(tokens, prompt_len, 0);
    let mut histogram = vec![0; logits.len()];
    for position in 0..num {
        let counts = Some(&counts);
        let row = Row { logits: 0, params, position, tokens, prompt_len, counts, mask: None, known: None };
        out.clear();
        sample(&mut logits.to_vec(), &row, &mut scratch, &mut out);
        assert!(out.rows[0].finite);
        histogram[out.rows[0].token as usize] += 1;
    }
    histogram
}

/// Chi-square over the likelier tokens, the rest pooled; nothing outside the twin's set may be drawn.
fn check(name: &str, logits: &[f32], params: &SamplingParams, tokens: &[TokenId], prompt_len: usize) {
    const DRAWS: u32 = 4000;
    let expected = naive_distribution(logits, params, tokens, prompt_len);
    let histogram = draws(logits, params, tokens, prompt_len, DRAWS);
    let mut chi_square = 0.0;
    let mut cells = 0;
    let (mut rest_expected, mut rest_seen) = (0.0, 0);
    for &(token, probability) in &expected {
        let (wanted, seen) = (probability * f64::from(DRAWS), histogram[token as usize]);
        if wanted >= 8.0 {
            chi_square += (f64::from(seen) - wanted).powi(2) / wanted;
            cells += 1;
        } else {
            (rest_expected, rest_seen) = (rest_expected + wanted, rest_seen + seen);
        }
    }
    if rest_expected >= 8.0 {
        chi_square += (f64::from(rest_seen) - rest_expected).powi(2) / rest_expected;
        cells += 1;
    }
    let outside: u32 = DRAWS - expected.iter().map(|e| histogram[e.0 as usize]).sum::<u32>();
    assert_eq!(outside, 0, "{name}: drew tokens that the twin does not keep");
    let freedom = f64::from(cells - 1).max(1.0);
    let limit = freedom + 4.5 * (2.0 * freedom).sqrt() + 6.0;
    assert!(chi_square < limit, "{name}: chi-square {chi_square:.1} with {cells} cells (limit {limit:.1})");
}

#[test]
fn draws_follow_the_twin_distribution() {
    let mut random = Random(11);
    for vocab in [1, 63, 64, 65, 700] {
        let logits = random.logits(vocab);
        let base = SamplingParams::default();
        let cases: Vec<(&str, SamplingParams)> = vec![
            ("plain", base.clone()),
            ("hot", SamplingParams { temperature: 1.7, ..base.clone() }),
            ("cold", SamplingParams { temperature: 0.3, ..base.clone() }),
            ("top_k", SamplingParams { top_k: 5, ..base.clone() }),
            ("top_k beyond the chunks", SamplingParams { top_k: 40, temperature: 2.0, ..base.clone() }),
            ("top_k beyond the vocabulary", SamplingParams { top_k: 100_000, ..base.clone() }),
            ("top_p", SamplingParams { top_p: 0.71, ..base.clone() }),
            ("tiny top_p", SamplingParams { top_p: 1e-6, ..base.clone() }),
            ("min_p", SamplingParams { min_p: 0.11, ..base.clone() }),
            ("all three", SamplingParams { top_k: 30, top_p: 0.83, min_p: 0.04, temperature: 1.3, ..base.clone() }),
        ];
        for (name, params) in cases {
            check(&format!("{name}, vocabulary of {vocab}"), &logits, &params, &[], 0);
        }
    }
}

#[test]
fn processors_follow_the_twin() {
    let mut random = Random(23);
    for round in 0..12 {
        let logits = random.logits(90);
        let tokens: Vec<TokenId> = (0..40).map(|_| random.below(60) as TokenId).collect();
        let ends = [tokens[38], tokens[39], 17];
        let params = SamplingParams {
            repetition_penalty: [1.0, 1.3, 0.8][round % 3],
            presence_penalty: [0.0, 0.6][round % 2],
            frequency_penalty: [0.0, 0.4, -0.3][(round + 1) % 3],
            logit_bias: vec![(3, 2.0), (8, -100.0), (70, 1.5)],
            allowed_token_ids: if round % 4 == 0 { (0..90).filter(|t| t % 3 != 0).collect() } else { Vec::new() },
            bad_words: vec![vec![4], ends.to_vec(), vec![1, 2, 5]],
            min_tokens: [0, 21, 20][round % 3],
            stop_token_ids: vec![2, 6],
            top_p: [1.0, 0.9][round % 2],
            ..SamplingParams::default()
        };
        check(&format!("round {round}"), &logits, &params, &tokens, 20);
    }
}

#[test]
fn kept_sets_equal_the_twin_on_a_real_vocabulary() {
    let mut random = Random(5);
    let logits = random.logits(49_152);
    for (top_k, top_p, min_p, temperature) in
        [(50, 1.0, 0.0, 1.0), (1, 1.0, 0.0, 1.0), (0, 0.3, 0.0, 0.7), (0, 1.0, 0.3, 0.5), (900, 0.5, 0.05, 1.0)]
    {
        let params = SamplingParams { top_k, top_p, min_p, temperature, ..SamplingParams::default() };
        let kept: Vec<TokenId> = naive_distribution(&logits, &params, &[], 0).iter().map(|e| e.0).collect();
        let histogram = draws(&logits, &params, &[], 0, 300);
        let outside = histogram.iter().enumerate().filter(|(t, n)| **n > 0 && !kept.contains(&(*t as TokenId))).count();
        assert_eq!(outside, 0, "top_k {top_k} top_p {top_p} min_p {min_p}");
    }
}
