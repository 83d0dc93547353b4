//! The specification (its `math` and its matmul) against textbook loops in f64, and each row's bits against the same row alone.

use half::bf16;
use quant::Format;
use tensor::{GroupInputs, KvScales};
use testkit::{Random, Tolerance, check_close};

use super::*;
use crate::ops::mixtures::CASES;

const CLOSE: Tolerance = Tolerance { absolute: 2e-5, relative: 1e-5 };

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn stored(rows: usize, cols: usize, bytes: &[u8]) -> Stored<'_> {
    Stored { rows, cols, format: Format::F32, bytes, scales: None }
}

fn values(act: &Act<Reference>) -> Vec<f32> {
    act.get(Encoding::F32).values().to_vec()
}

fn f32_act(rows: usize, cols: usize, x: &[f32]) -> Act<Reference> {
    Act::new(rows, cols).with(Encoding::F32, Buf::resident(x.to_vec()))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[test]
fn a_product_is_the_sum_of_products_for_fused_parts_and_biases() {
    let mut random = Random::new(1);
    for (m, n, k) in [(1, 1, 1), (3, 40, 17), (31, 8, 576), (32, 8, 576), (33, 100, 1536)] {
        let (w, x, bias) = (random.vector(2 * n * k), random.vector(m * k), random.vector(2 * n));
        let (first, second) = (bytes(&w[..n * k]), bytes(&w[n * k..]));
        let mut reference = Reference::new();
        let weight = reference.pack(&[stored(n, k, &first), stored(n, k, &second)], Role::Column).unwrap();
        let bias_buf = reference.vector(&bias).unwrap();
        let out = reference.linear(&f32_act(m, k, &x), &weight, Some(&bias_buf));
        let expected =
            x.chunks(k).flat_map(|x| w.chunks(k).zip(&bias).map(|(w, &b)| (dot(x, w) + f64::from(b)) as f32));
        check_close(&format!("{m} x {n} x {k}"), &out.values(), &expected.collect::<Vec<_>>(), CLOSE);
    }
}

#[test]
fn a_rows_product_does_not_depend_on_its_neighbours() {
    let (mut random, n, k) = (Random::new(2), 1000, 1536);
    let weight = Weight::new(&[stored(n, k, &bytes(&random.vector(n * k)))]).unwrap();
    let x = random.vector(70 * k);
    let together = weight.multiply(&x);
    for rows in [1, 2, 31, 32, 33] {
        for first in [0, 7, 70 - rows] {
            let alone = weight.multiply(&x[first * k..(first + rows) * k]);
            assert_eq!(alone, together[first * n..(first + rows) * n], "{rows} rows from {first}");
        }
    }
}

#[test]
fn matrices_of_unequal_width_are_not_fused() {
    let (a, b) = (bytes(&[0.0; 6]), bytes(&[0.0; 8]));
    assert!(Reference::new().pack(&[stored(2, 3, &a), stored(2, 4, &b)], Role::Column).is_err());
}

#[test]
fn an_embedding_is_a_scaled_row_in_any_format() {
    let table: Vec<u8> = (0..12).flat_map(|i| bf16::from_f32(i as f32).to_le_bytes()).collect();
    let mut reference = Reference::new();
    let weight = reference.pack(&[Stored::new(4, 3, Format::Bf16, &table).unwrap()], Role::Embed).unwrap();
    let inputs = StepInputs { token_ids: vec![2, 0], ..StepInputs::default() };
    let out = reference.step(StepKey::Eager, &inputs, &[], &mut |b| b.embed(&weight, 2.0)).unwrap();
    assert_eq!(*out.values(), [12.0, 14.0, 16.0, 0.0, 2.0, 4.0]);
}

#[test]
fn gated_units_and_norms_follow_their_formulas() {
    let mut random = Random::new(3);
    let (rows, cols, half) = (3, 24, 10);
    let (w, x, gain) = (random.vector(2 * half * cols), random.vector(rows * cols), random.vector(cols));
    let mut reference = Reference::new();
    let packed = bytes(&w);
    let weight = reference.pack(&[stored(2 * half, cols, &packed)], Role::Glu).unwrap();
    let emit = ActSet::of(Encoding::F32);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    for (f, exact) in [(Activation::Silu, &silu as &dyn Fn(f64) -> f64), (Activation::GeluTanh, &gelu)] {
        let out = reference.linear_glu(&f32_act(rows, cols, &x), &weight, f, emit);
        let (gate, up) = w.split_at(half * cols);
        let unit = |x: &[f32], idx: usize| {
            let part = |w: &[f32]| dot(x, &w[idx * cols..][..cols]);
            (exact(part(gate)) * part(up)) as f32
        };
        let expected: Vec<f32> = x.chunks(cols).flat_map(|x| (0..half).map(move |idx| unit(x, idx))).collect();
        check_close(&format!("{f:?}"), &values(&out), &expected, CLOSE);
    }

    let spec = NormSpec { gain: reference.vector(&gain).unwrap(), eps: 1e-3, size: cols };
    let out = reference.norm(&Buf::resident(x.clone()), &spec, emit);
    let expected = x.chunks(cols).flat_map(|x| {
        let rms = (dot(x, x) / cols as f64 + 1e-3).sqrt();
        x.iter().zip(&gain).map(move |(&x, &gain)| (f64::from(x) / rms * f64::from(gain)) as f32)
    });
    check_close("norm", &values(&out), &expected.collect::<Vec<_>>(), CLOSE);
}

/// A step of one layer: 4 heads over 2 kv heads of 6, 4 of them rotated.
struct Layer {
    reference: Reference,
    qkv_spec: QkvSpec<Reference>,
    cache: Cache,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 6;
const ROW: usize = (HEADS + 2 * KV_HEADS) * DIM;
const BLOCK: usize = 4;
/// The sequence's blocks, in order.
const TABLE: [u32; 4] = [5, 2, 7, 1];

impl Layer {
    fn new() -> Self {
        let mut reference = Reference::new();
        let angles = || (0..16).flat_map(|position| [1.0, 0.1].map(|frequency| position as f32 * frequency));
        let (cos, sin): (Vec<f32>, Vec<f32>) = (angles().map(f32::cos).collect(), angles().map(f32::sin).collect());
        let rope = reference.rope_table(&RopeTable { cos: cos.clone(), sin: sin.clone(), rotary_dim: 4 }).unwrap();
        let qkv_spec = QkvSpec {
            num_heads: HEADS,
            num_kv_heads: KV_HEADS,
            head_dim: DIM,
            q_norm: None,
            k_norm: None,
            rope,
            rotary_dim: 4,
            kv_scales: KvScales::default(),
        };
        let spec = CacheSpec {
            group: 0,
            layers: 2,
            num_kv_heads: KV_HEADS,
            head_dim: DIM,
            block_size: BLOCK,
            blocks: 9,
            dtype: KvDtype::Auto,
        };
        let cache = reference.new_cache(&spec).unwrap();
        Self { reference, qkv_spec, cache, cos, sin }
    }

    /// Runs positions `start .. start + len` of `qkv` in layer 1, and returns the attention's output.
    fn run(&mut self, qkv: &[f32], start: usize, len: usize, spec: &AttnSpec<Reference>) -> Vec<f32> {
        let end = start + len;
        let slots = (start..end).map(|p| TABLE[p / BLOCK] * BLOCK as u32 + (p % BLOCK) as u32);
        let group = GroupInputs { slot_mapping: slots.collect(), block_tables: TABLE.to_vec(), stride: TABLE.len() };
        let inputs = StepInputs {
            token_ids: vec![0; len],
            positions: (start as u32..end as u32).collect(),
            rows: vec![0],
            cu_seqlens_q: vec![0, len as u32],
            seq_lens: vec![end as u32],
            logit_tokens: Vec::new(),
            groups: vec![group],
        };
        let (qkv_spec, cache) = (&self.qkv_spec, &mut self.cache);
        let qkv = Buf::resident(qkv[start * ROW..end * ROW].to_vec());
        let out = self.reference.step(StepKey::Eager, &inputs, &[], &mut |b| {
            let q = b.rope_write(&qkv, qkv_spec, cache, 1);
            b.attend(&q, spec, cache, 1, ActSet::of(Encoding::F32)).get(Encoding::F32).clone()
        });
        out.unwrap().values().to_vec()
    }

    fn rotated(&self, head: &[f32], position: usize) -> Vec<f64> {
        let mut head: Vec<f64> = head.iter().map(|&x| f64::from(x)).collect();
        for pair in 0..2 {
            let (cos, sin) = (f64::from(self.cos[position * 2 + pair]), f64::from(self.sin[position * 2 + pair]));
            let (a, b): (f64, f64) = (head[pair], head[pair + 2]);
            (head[pair], head[pair + 2]) = (a * cos - b * sin, b * cos + a * sin);
        }
        head
    }

    /// One head of one position, from the whole sequence's qkv.
    fn expected(&self, qkv: &[f32], position: usize, head: usize, spec: &AttnSpec<Reference>) -> Vec<f32> {
        let part = |position: usize, head: usize| &qkv[position * ROW + head * DIM..][..DIM];
        let kv_head = head / (HEADS / KV_HEADS);
        let q = self.rotated(part(position, head), position);
        let start = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let score = |other: usize| {
            let k = self.rotated(part(other, HEADS + kv_head), other);
            let score = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * f64::from(spec.scale);
            spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
        };
        let sink = spec.sinks.as_ref().map_or(0.0, |sinks| f64::from(sinks.values()[head]).exp());
        let total = (start..=position).map(score).sum::<f64>() + sink;
        let value = |other: usize, idx: usize| f64::from(part(other, HEADS + KV_HEADS + kv_head)[idx]);
        (0..DIM).map(|idx| (start..=position).map(|p| score(p) / total * value(p, idx)).sum::<f64>() as f32).collect()
    }
}

#[test]
fn attention_reads_a_scattered_cache_as_if_it_were_whole() {
    let qkv = Random::new(4).vector(16 * ROW);
    for (window, softcap, sinks) in [
        (None, None, None),
        (Some(1), None, None),
        (Some(5), None, None),
        (None, Some(0.4), None),
        (None, None, Some([1.5, -30.0, 0.0, 4.0])),
        (Some(3), Some(0.7), Some([0.1, 9.0, -2.0, 1.0])),
    ] {
        let spec = AttnSpec {
            num_heads: HEADS,
            num_kv_heads: KV_HEADS,
            head_dim: DIM,
            scale: 1.3,
            window,
            softcap,
            sinks: sinks.map(|sinks: [f32; HEADS]| Buf::resident(sinks.to_vec())),
            kv_scales: KvScales::default(),
        };
        let mut whole = Layer::new();
        let out = whole.run(&qkv, 0, 16, &spec);
        for (position, row) in out.chunks(HEADS * DIM).enumerate() {
            let expected: Vec<f32> = (0..HEADS).flat_map(|head| whole.expected(&qkv, position, head, &spec)).collect();
            check_close(&format!("{window:?} {softcap:?} position {position}"), row, &expected, CLOSE);
        }
        for chunk in [1, 3, 4, 5] {
            let mut layer = Layer::new();
            let starts = (0..16).step_by(chunk);
            let chunks: Vec<f32> = starts.flat_map(|s| layer.run(&qkv, s, chunk.min(16 - s), &spec)).collect();
            assert_eq!(chunks, out, "in chunks of {chunk}");
        }
    }
}

#[test]
fn blocks_copy_in_all_layers_and_skipped_slots_stay() {
    let mut layer = Layer::new();
    for idx in 0..2 {
        layer.cache.write(idx, 3 * BLOCK + 1, &[1.0 + idx as f32; 12], &[5.0; 12], KvScales::default());
    }
    layer.reference.copy_blocks(&mut layer.cache, &[(3, 8)]).unwrap();
    assert_eq!(layer.cache.k(1, 8 * BLOCK + 1, 1), [2.0; DIM]);
    assert_eq!(layer.cache.v(0, 8 * BLOCK + 1, 0), [5.0; DIM]);
    let group = GroupInputs { slot_mapping: vec![GroupInputs::SKIP], ..GroupInputs::default() };
    let inputs = StepInputs { token_ids: vec![0], positions: vec![0], groups: vec![group], ..StepInputs::default() };
    let qkv = Buf::resident(vec![1.0; ROW]);
    let (spec, cache) = (&layer.qkv_spec, &mut layer.cache);
    layer.reference.step(StepKey::Eager, &inputs, &[], &mut |b| b.rope_write(&qkv, spec, cache, 0)).unwrap();
    assert!(layer.cache.k(0, 0, 0)[0].is_nan(), "the null block is never written");
}

#[test]
fn planning_counts_what_a_step_keeps_alive() {
    let mut reference = Reference::new();
    let table = bytes(&[0.0; 64]);
    let weight = reference.pack(&[stored(8, 8, &table)], Role::Head).unwrap();
    let inputs = StepInputs { token_ids: vec![0; 10], logit_tokens: vec![0; 2], ..StepInputs::default() };
    let body = &mut |b: &mut Reference| {
        let x = b.embed(&weight, 1.0);
        let wanted = b.gather(&x);
        b.linear(&Act::new(2, 8).with(Encoding::F32, wanted), &weight, None)
    };
    drop(reference.step(StepKey::Plan, &inputs, &[], body).unwrap());
    assert_eq!(reference.workspace_bytes(), (10 * 8 + 2 * 8 + 2 * 8) * 4);
    drop(reference.step(StepKey::Plan, &inputs, &[], body).unwrap());
    assert_eq!(reference.workspace_bytes(), (10 * 8 + 2 * 8 + 2 * 8) * 4, "nothing was kept");
}

#[test]
fn mixtures_agree_with_f64() {
    for case in CASES {
        let actual = case.run(&mut Reference::new(), Format::F32, &case.all());
        check_close(&format!("{case:?}"), &actual, &case.expected(Format::F32), Tolerance { absolute: 1e-4, ..CLOSE });
    }
}

#[test]
fn a_nan_in_the_router_stays_with_its_token() {
    let spec = RouteSpec { num_experts: 3, top_k: 2, renormalize: true };
    let routes = moe::route(&[0.0, 1.0, 2.0, 0.0, f32::NAN, 2.0], spec);
    assert_eq!(routes[..2], [2.0, 1.0]);
    assert!((routes[2] + routes[3] - 1.0).abs() < 1e-6);
    assert!(routes[6].is_nan() && routes[7].is_nan() && routes[4] != routes[5] && routes[4].max(routes[5]) < 3.0);
}

#[test]
fn experts_of_unequal_shape_are_refused() {
    let ((a, b), mut reference) = ((bytes(&[0.0; 4]), bytes(&[0.0; 8])), Reference::new());
    for (parts, role) in
        [(vec![stored(1, 4, &a), stored(2, 4, &b)], Role::Experts), (vec![stored(1, 4, &a); 3], Role::ExpertsGlu)]
    {
        let error = reference.pack(&parts, role).map(drop).expect_err("no stack").to_string();
        assert!(error.contains("one shape"), "{error}");
    }
}
