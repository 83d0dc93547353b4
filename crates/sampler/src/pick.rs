//! Picks a token: argmax, or the inverse of the cumulative distribution over the kept tokens in token order.
//!
//! A token's weight is `e^((logit - peak) / temperature)` in units of 2^-30, an integer. Sums of integers are exact in
//! any order, so neither vector width nor chunking can move a border between two tokens.

use contract::TokenId;

use crate::candidates::{self, Candidate};
use crate::exp::{exp, fixed};
use crate::scan::CHUNK;
use crate::{Draw, Row, Scratch};

/// How far below the peak, in units of temperature, to look for the mass of top-p; beyond the last, everywhere.
const DEPTHS: [f32; 4] = [2.0, 4.0, 8.0, 16.0];

/// Picks from `logits`, which `scratch.scan` has just read and found sound.
pub fn pick(logits: &[f32], row: &Row<'_>, scratch: &mut Scratch) -> TokenId {
    let Some(how) = Draw::of(row) else { return scratch.scan.argmax(logits) as TokenId };
    weigh(logits, scratch.scan.peak, how.inverse, &mut scratch.weights);
    let last = last_kept(logits, &how, scratch);
    draw(logits, last, how.noise, scratch)
}

fn weigh(logits: &[f32], peak: f32, inverse: f32, weights: &mut Vec<u32>) {
    weights.resize(logits.len(), 0);
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = fixed(exp((logit - peak) * inverse));
    }
}

/// The last token, best first, that top-k, top-p and min-p leave in.
fn last_kept(logits: &[f32], how: &Draw, scratch: &mut Scratch) -> Candidate {
    let mut last = Candidate::new(f32::NEG_INFINITY, TokenId::MAX);
    let has_top_k = how.top_k > 0 && (how.top_k as usize) < logits.len();
    if has_top_k {
        let (peaks, kept) = (&mut scratch.peaks, &mut scratch.candidates);
        candidates::gather_best(logits, &scratch.scan, how.top_k as usize, peaks, kept);
        last = *kept.last().expect("top-k keeps at least one token");
    }
    if how.top_p < 1.0 {
        let target = if has_top_k {
            share(how.top_p, mass_of(&scratch.candidates, &scratch.weights))
        } else {
            gather_mass(logits, how, scratch)
        };
        let kept = candidates::smallest_heap(&mut scratch.candidates, &scratch.weights, target);
        last = scratch.candidates[kept - 1];
    }
    last.min(Candidate::new(scratch.scan.peak + how.floor, TokenId::MAX))
}

fn mass_of(candidates: &[Candidate], weights: &[u32]) -> u64 {
    candidates.iter().map(|candidate| u64::from(weights[candidate.token() as usize])).sum()
}

/// The least integer mass that is `top_p` of `total`, and not nothing.
fn share(top_p: f32, total: u64) -> u64 {
    ((f64::from(top_p) * total as f64).ceil() as u64).clamp(1, total)
}

/// Gathers the best tokens, enough to hold `top_p` of the mass, and returns that mass.
fn gather_mass(logits: &[f32], how: &Draw, scratch: &mut Scratch) -> u64 {
    let target = share(how.top_p, sum(&scratch.weights));
    let floors = DEPTHS.map(|depth| scratch.scan.peak - depth / how.inverse);
    let floor = floors.into_iter().find(|&floor| mass_above(logits, floor, scratch) >= target);
    let floor = floor.unwrap_or(f32::NEG_INFINITY);
    candidates::gather(logits, &scratch.scan, floor, &mut scratch.candidates);
    target
}

fn mass_above(logits: &[f32], floor: f32, scratch: &Scratch) -> u64 {
    let chunks = logits.chunks(CHUNK).zip(scratch.weights.chunks(CHUNK)).zip(&scratch.scan.peaks);
    chunks.filter(|&(_, &peak)| peak >= floor).map(|((logits, weights), _)| mass_of_chunk(logits, weights, floor)).sum()
}

fn mass_of_chunk(logits: &[f32], weights: &[u32], floor: f32) -> u64 {
    let kept = logits.iter().zip(weights).map(|(&logit, &weight)| if logit >= floor { weight } else { 0 });
    kept.map(u64::from).sum()
}

/// The token at which the running sum of kept weights, in token order, passes the `noise`-th part of the whole.
fn draw(logits: &[f32], last: Candidate, noise: u64, scratch: &mut Scratch) -> TokenId {
    let Scratch { scan, weights, sums, .. } = scratch;
    let chunks = logits.chunks(CHUNK).zip(weights.chunks_mut(CHUNK)).zip(&scan.peaks).zip((0..).step_by(CHUNK));
    sums.clear();
    sums.extend(chunks.map(
        |(((logits, weights), &peak), start)| {
            if peak < last.logit() { 0 } else { keep(logits, weights, start, last) }
        },
    ));
    let total: u64 = sums.iter().sum();
    let mut left = ((u128::from(noise) * u128::from(total)) >> 64) as u64;
    let chunk = sums.iter().position(|&sum| passes(&mut left, sum)).expect("noise is below one");
    let token = weights[chunk * CHUNK..].iter().position(|&weight| passes(&mut left, u64::from(weight)));
    (chunk * CHUNK + token.expect("the chunk holds its sum")) as TokenId
}

/// Clears the weights of a chunk's tokens behind `last`, and sums the others.
fn keep(logits: &[f32], weights: &mut [u32], start: TokenId, last: Candidate) -> u64 {
    let (last_logit, last_token) = (last.logit(), last.token());
    for ((&logit, weight), token) in logits.iter().zip(weights.iter_mut()).zip(start..) {
        let keeps = (logit > last_logit) | ((logit == last_logit) & (token <= last_token));
        *weight = if keeps { *weight } else { 0 };
    }
    sum(weights)
}

fn sum(weights: &[u32]) -> u64 {
    weights.iter().map(|&weight| u64::from(weight)).sum()
}

/// Takes `weight` off `left`, or says that it does not fit.
fn passes(left: &mut u64, weight: u64) -> bool {
    let passed = *left < weight;
    *left -= if passed { 0 } else { weight };
    passed
}
