//! The device's sampler against the host's: the same tokens, and log probabilities to the last bit.

use contract::{Logprob, SamplingParams};
use sampler::{Counts, Scratch};

use super::*;

/// All that a row to sample borrows.
#[derive(Clone, Debug, Default)]
struct Case {
    params: SamplingParams,
    tokens: Vec<u32>,
    prompt_len: usize,
    mask: Option<Vec<u32>>,
    known: Option<u32>,
}

impl Case {
    fn of(params: SamplingParams) -> Self {
        Self { params, ..Self::default() }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts.rebuild(&self.tokens, self.prompt_len, 0);
        counts
    }

    fn row<'a>(&'a self, logits: usize, counts: &'a Counts) -> Row<'a> {
        Row {
            logits,
            params: &self.params,
            position: 40 + logits as u32,
            tokens: &self.tokens,
            prompt_len: self.prompt_len,
            counts: Some(counts),
            mask: self.mask.as_deref(),
            known: self.known,
        }
    }
}

/// A greedy row with nothing more.
fn greedy() -> Case {
    Case::of(SamplingParams::greedy())
}

/// A step of as many sequences of one token, each of whose logits are wanted.
fn inputs(rows: usize) -> StepInputs {
    let count = rows as u32;
    StepInputs {
        token_ids: vec![0; rows],
        rows: (0..count).collect(),
        cu_seqlens_q: (0..=count).collect(),
        seq_lens: vec![1; rows],
        logit_tokens: (0..count).collect(),
        ..StepInputs::default()
    }
}

/// Samples `cases` on the device, each from its own one of `logits`.
fn on_device(cuda: &mut Cuda, logits: &[Vec<f32>], cases: &[Case]) -> Sampled {
    let buf = cuda.vector(&logits.concat()).unwrap();
    sample(cuda, StepKey::Eager, logits.len(), &mut |_| buf.clone(), cases)
}

/// A step whose `body` gives so many rows of logits, and its sampling; masks come with that.
fn sample(
    cuda: &mut Cuda,
    key: StepKey,
    num_rows: usize,
    body: &mut dyn FnMut(&mut Cuda) -> Buf,
    cases: &[Case],
) -> Sampled {
    let counts: Vec<Counts> = cases.iter().map(Case::counts).collect();
    let mut rows: Vec<Row<'_>> = cases.iter().zip(&counts).enumerate().map(|(idx, (c, n))| c.row(idx, n)).collect();
    let inputs = inputs(num_rows);
    rows.iter_mut().for_each(|row| row.mask = row.mask.and(Some(&[])));
    cuda.step(StepKey::Plan, &inputs, &[], body).unwrap();
    let logits = cuda.step(key, &inputs, &rows, body).unwrap();
    rows.iter_mut().zip(cases).for_each(|(row, case)| row.mask = case.mask.as_deref());
    let mut out = Sampled::default();
    cuda.sample(&logits, &mut rows, &mut out).unwrap();
    out
}

fn bits(logprobs: &[Logprob]) -> Vec<(u32, u32, u32)> {
    logprobs.iter().map(|entry| (entry.token, entry.logprob.to_bits(), entry.rank)).collect()
}

fn check(cuda: &mut Cuda, name: &str, logits: &[Vec<f32>], cases: &[Case]) {
    compare(&on_device(cuda, logits, cases), name, logits, cases);
}

/// Holds `actual` against what the host samples.
fn compare(actual: &Sampled, name: &str, logits: &[Vec<f32>], cases: &[Case]) {
    assert_eq!(actual.rows.len(), cases.len(), "{name}");
    for (idx, (case, logits)) in cases.iter().zip(logits).enumerate() {
        let (mut expected, counts) = (Sampled::default(), case.counts());
        sampler::sample(&mut logits.clone(), &case.row(idx, &counts), &mut Scratch::default(), &mut expected);
        let (actual_row, expected_row) = (actual.rows[idx], expected.rows[0]);
        let context = format!("{name}, row {idx} of {} logits: {case:?}", logits.len());
        assert_eq!((actual_row.token, actual_row.finite), (expected_row.token, expected_row.finite), "{context}");
        assert_eq!(bits(actual_row.logprobs.of(&actual.logprobs)), bits(&expected.logprobs), "{context}");
    }
}

fn pick<T: Clone>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len())].clone()
}

/// Logits of one kind: spread, peaked, in ties, all the same, and closer to each other than any first bin is wide.
fn logits(random: &mut Random, kind: usize, vocab: usize) -> Vec<f32> {
    let mut logits: Vec<f32> = random.vector(vocab).into_iter().map(|x| x * 8.0).collect();
    match kind {
        0 => {}
        1 => logits[vocab / 3] = 60.0,
        2 => logits.iter_mut().for_each(|x| *x = x.round()),
        3 => logits.fill(-0.5),
        _ => logits.iter_mut().for_each(|x| *x = 2.0 + *x * 1e-5),
    }
    if kind != 3 && vocab > 4 {
        (logits[vocab - 1], logits[1], logits[2]) = (f32::NEG_INFINITY, 0.0, -0.0);
    }
    logits
}
const KINDS: [&str; 5] = ["spread", "peaked", "tied", "flat", "close"];

/// A row that asks for about a third of all that can be asked for.
fn any_case(random: &mut Random, vocab: usize) -> Case {
    let token = |random: &mut Random| random.below(vocab + 2) as u32;
    let tokens = |random: &mut Random, len| (0..len).map(|_| token(random)).collect::<Vec<u32>>();
    let sorted = |mut tokens: Vec<u32>| {
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    let text = tokens(random, 30);
    let some = |random: &mut Random| random.below(3) == 0;
    let mut params = SamplingParams {
        temperature: pick(random, &[0.0, 1e-6, 0.05, 0.7, 1.0, 1.3, 40.0]),
        top_k: pick(random, &[0, 0, 1, 2, 5, 50, 400, 1000]),
        top_p: pick(random, &[1.0, 1.0, 0.95, 0.5, 1e-6]),
        min_p: pick(random, &[0.0, 0.0, 0.05, 0.6, 1.0]),
        repetition_penalty: pick(random, &[1.0, 1.0, 1.2, 0.7]),
        presence_penalty: pick(random, &[0.0, 0.0, 0.9]),
        frequency_penalty: pick(random, &[0.0, 0.0, -0.3]),
        seed: random.next_u64(),
        logprobs: pick(random, &[None, None, Some(0), Some(1), Some(5), Some(20)]),
        min_tokens: pick(random, &[0, 0, 20]),
        stop_token_ids: tokens(random, 3),
        ..SamplingParams::default()
    };
    if some(random) {
        params.logit_bias =
            sorted(tokens(random, 6)).into_iter().map(|token| (token, random.uniform() * 9.0)).collect();
    }
    if some(random) {
        params.bad_words = vec![vec![token(random)], vec![text[29], token(random)], vec![text[0], 1]];
    }
    if random.below(5) == 0 {
        params.allowed_token_ids = sorted(tokens(random, vocab.min(100)));
    }
    let words = vocab.div_ceil(32);
    let mask = some(random).then(|| (0..words).map(|_| (random.next_u64() >> 20) as u32).collect());
    let known = (random.below(6) == 0).then(|| random.below(vocab) as u32);
    params.prompt_logprobs = known.and_then(|_| pick(random, &[None, Some(3)]));
    Case { params, tokens: text, prompt_len: 15, mask, known }
}

#[test]
fn any_row_in_any_company_is_sampled_as_on_the_host() {
    let mut random = Random::new(21);
    for (vocab, rows) in [(1, 12), (7, 24), (512, 24), (1001, 24), (3000, 8)] {
        let Some(mut cuda) = gpu("any_row_in_any_company_is_sampled_as_on_the_host") else { return };
        for (kind, name) in KINDS.into_iter().enumerate() {
            let logits: Vec<_> = (0..rows).map(|_| logits(&mut random, kind, vocab)).collect();
            let cases: Vec<_> = (0..rows).map(|_| any_case(&mut random, vocab)).collect();
            check(&mut cuda, name, &logits, &cases);
        }
    }
}

#[test]
fn a_fault_ends_its_own_row_only() {
    let mut random = Random::new(5);
    for vocab in [1, 33, 8200] {
        let Some(mut cuda) = gpu("a_fault_ends_its_own_row_only") else { return };
        let mut faulty = vec![logits(&mut random, 0, vocab)];
        for fault in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for at in [0, vocab / 2, vocab - 1] {
                let mut row = logits(&mut random, 0, vocab);
                row[at] = fault;
                faulty.push(row);
            }
        }
        faulty.push(vec![f32::NEG_INFINITY; vocab]);
        faulty.push(logits(&mut random, 0, vocab));
        let params = SamplingParams { logprobs: Some(2), ..SamplingParams::default() };
        let middle = vec![vocab as u32 / 2];
        let cases = [
            greedy(),
            Case::of(params.clone()),
            Case { known: Some(0), ..Case::of(params.clone()) },
            Case::of(SamplingParams { logit_bias: vec![(vocab as u32 / 2, 1.0)], ..params.clone() }),
            Case::of(SamplingParams { bad_words: vec![middle.clone()], ..params.clone() }),
            Case { mask: Some(vec![0; vocab.div_ceil(32)]), ..Case::of(params.clone()) },
            Case { tokens: middle, ..Case::of(SamplingParams { repetition_penalty: 1e-38, ..params.clone() }) },
        ];
        for (idx, case) in cases.iter().enumerate() {
            check(&mut cuda, &format!("case {idx}"), &faulty, &vec![case.clone(); faulty.len()]);
        }
    }
}

#[test]
fn real_vocabularies_are_sampled_as_on_the_host() {
    let Some(mut cuda) = gpu("real_vocabularies_are_sampled_as_on_the_host") else { return };
    let mut random = Random::new(8);
    let base = SamplingParams { seed: 4, logprobs: Some(20), ..SamplingParams::default() };
    let nucleus = SamplingParams { top_k: 900, top_p: 0.9, min_p: 0.01, ..base.clone() };
    let cases = [greedy(), Case::of(base), Case::of(nucleus.clone())];
    let rows = [0, 0, 0].map(|kind| logits(&mut random, kind, 49_152));
    check(&mut cuda, "spread", &rows, &cases);
    check(&mut cuda, "flat", &[logits(&mut random, 3, 49_152)], &[Case::of(nucleus)]);
}

/// Beside a token that is almost certain, the logarithm of the sum is the weight of the other: each bit of its exponential shows.
#[test]
fn a_second_tokens_weight_is_the_hosts_to_the_last_bit() {
    let Some(mut cuda) = gpu("a_second_tokens_weight_is_the_hosts_to_the_last_bit") else { return };
    let mut random = Random::new(34);
    let rows: Vec<_> = (0..100).map(|_| vec![0.0, -3.0 - 8.0 * random.uniform().abs()]).collect();
    let params = SamplingParams { logprobs: Some(1), ..SamplingParams::default() };
    check(&mut cuda, "two tokens", &rows, &vec![Case::of(params); rows.len()]);
}

/// Peaks and ties on both sides of each tile's border.
#[test]
fn the_lowest_token_wins_across_tiles() {
    let Some(mut cuda) = gpu("the_lowest_token_wins_across_tiles") else { return };
    let vocab = 2 * 8192 + 3;
    let row = |peaks: &[usize]| {
        let mut row = vec![1.0; vocab];
        peaks.iter().for_each(|&peak| row[peak] = 2.0);
        row
    };
    let rows = [&[8191][..], &[8192], &[16383, 16384], &[vocab - 1], &[], &[8192, 8191]].map(row);
    check(&mut cuda, "borders", &rows, &vec![greedy(); rows.len()]);
}

#[test]
fn rows_beyond_the_kernels_are_sampled_by_the_host() {
    let Some(mut cuda) = gpu("rows_beyond_the_kernels_are_sampled_by_the_host") else { return };
    let (vocab, mut random) = (4000, Random::new(3));
    let params = SamplingParams { logprobs: Some(2), ..SamplingParams::default() };
    let penalties = SamplingParams { frequency_penalty: 0.5, ..params.clone() };
    let cases = [
        greedy(),
        Case::of(SamplingParams { logprobs: Some(600), ..params.clone() }),
        Case::of(SamplingParams { logit_bias: vec![(3, 1.0), (3, 2.5)], ..params.clone() }),
        Case { tokens: (0..3900).collect(), ..Case::of(penalties.clone()) },
        Case { tokens: (0..3900).rev().collect(), ..Case::of(penalties.clone()) },
        Case { tokens: (100..4000).collect(), ..Case::of(penalties) },
        Case { known: Some(vocab as u32), ..Case::of(params.clone()) },
        Case::of(params),
    ];
    let rows: Vec<_> = cases.iter().map(|_| logits(&mut random, 0, vocab)).collect();
    check(&mut cuda, "together", &rows, &cases);
    let mut narrow = gpu("rows_beyond_the_kernels_are_sampled_by_the_host").expect("there was one");
    check(&mut narrow, "no room", &rows[..1], &cases[3..4]);
}

#[test]
fn sampled_tokens_stay_on_the_device_too() {
    let Some(mut cuda) = gpu("sampled_tokens_stay_on_the_device_too") else { return };
    let mut random = Random::new(13);
    let rows: Vec<_> = (0..6).map(|_| logits(&mut random, 0, 100)).collect();
    let cases: Vec<_> = (0..6)
        .map(|idx| Case::of(SamplingParams { temperature: (idx % 2) as f32, ..SamplingParams::default() }))
        .collect();
    let sampled = on_device(&mut cuda, &rows, &cases);
    let mut tokens = [0; 6];
    cuda.device.download(cuda.sampler.tokens().expect("it has just sampled"), &mut tokens).unwrap();
    assert_eq!(tokens.to_vec(), sampled.rows.iter().map(|row| row.token).collect::<Vec<_>>());
}

/// A step that decodes `cases` and fills up: the logits come to where the step has them, those of rows that fill up are no numbers.
fn replayed(cuda: &mut Cuda, (resident, rows): (&Buf, usize), cases: &[Case]) -> Sampled {
    let key = StepKey::Decode { bucket: bucket(rows) };
    let mut body = |b: &mut Cuda| {
        let logits = b.floats(rows, resident.len() / rows);
        if b.launches() {
            b.device.copy(resident.address(), logits.address(), logits.bytes()).unwrap();
        }
        logits
    };
    sample(cuda, key, rows, &mut body, cases)
}

#[test]
fn recorded_sampling_picks_what_the_host_picks() {
    let test = "recorded_sampling_picks_what_the_host_picks";
    let (Some(mut cuda), mut random) = (gpu(test), Random::new(17)) else { return };
    let vocab = 1001;
    let mut rows: Vec<_> = (0..5).map(|_| logits(&mut random, 0, vocab)).collect();
    rows.resize(8, vec![f32::NAN; vocab]);
    let resident = cuda.vector(&rows.concat()).unwrap();
    // Each way to sample is launched, recorded and replayed twice; lists and numbers differ from step to step.
    for step in 0..4 {
        let mut run = |name: &str, cases: Vec<Case>| {
            compare(&replayed(&mut cuda, (&resident, 8), &cases), &format!("{name}, step {step}"), &rows, &cases);
        };
        run("greedy", vec![greedy(); 5]);
        let mut any: Vec<_> = (0..5).map(|_| any_case(&mut random, vocab)).collect();
        any[step].known = None;
        any[step].params = SamplingParams { bad_words: vec![vec![3]], logprobs: Some(4), ..SamplingParams::default() };
        run("any", any);
        run("fewer", vec![greedy(); 4]);
    }
    // Eight greedy rows and four, and eight among which is one of each kind.
    assert_eq!(cuda.sampler.num_recorded(), 3);
}

#[test]
fn rows_of_the_logits_are_named_once_and_in_order() {
    let Some(mut cuda) = gpu("rows_of_the_logits_are_named_once_and_in_order") else { return };
    let (case, counts, logits) = (greedy(), Counts::default(), cuda.vector(&[0.0; 18]).unwrap());
    let rows = |rows: &[usize]| rows.iter().map(|&row| case.row(row, &counts)).collect::<Vec<_>>();
    let mut body = |_: &mut Cuda| logits.clone();
    cuda.step(StepKey::Plan, &inputs(2), &[], &mut body).unwrap();
    cuda.step(StepKey::Eager, &inputs(2), &rows(&[0, 1]), &mut body).unwrap();
    for wrong in [&[1, 0][..], &[1, 1], &[1, 2], &[1]] {
        assert!(cuda.sample(&logits, &mut rows(wrong), &mut Sampled::default()).is_err(), "{wrong:?}");
    }
    for wrong in [&[1, 0][..], &[1, 1], &[2]] {
        assert!(cuda.step(StepKey::Eager, &inputs(2), &rows(wrong), &mut body).is_err(), "{wrong:?}");
    }
}
