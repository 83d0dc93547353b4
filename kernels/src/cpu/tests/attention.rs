//! Attention (its partitions and their softmax among it), the cache, and the rotation that fills it.

use super::*;
use crate::ops::attention::rows;

/// Rows of the table that this device has a cache for.
#[test]
fn attention_agrees() {
    for (case, steps) in rows().into_iter().filter(|(case, _)| case.dtype != KvDtype::Fp8) {
        for isa in Isa::available() {
            for (dtype, close) in [(KvDtype::F32, 1e-4), (KvDtype::Bf16, 0.02)] {
                case.check(&mut cpu(isa, 2), steps, dtype, Tolerance { absolute: close, relative: close });
            }
        }
    }
}

/// A made-up layer of attention: heads, and where each sequence stands.
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    block_size: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    /// Of the first head; the others' are each 1 larger.
    sink: Option<f32>,
}

impl Case {
    fn qkv_size(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    fn spec(&self, cpu: &mut Cpu) -> AttnSpec<Cpu> {
        let Case { heads: num_heads, kv_heads: num_kv_heads, dim: head_dim, window, softcap, .. } = *self;
        let sinks: Option<Vec<f32>> = self.sink.map(|sink| (0..num_heads).map(|head| sink + head as f32).collect());
        let sinks = sinks.map(|sinks| cpu.vector(&sinks).unwrap());
        let kv_scales = KvScales::default();
        AttnSpec { num_heads, num_kv_heads, head_dim, scale: 0.3, window, softcap, sinks, kv_scales }
    }

    /// Runs positions `0..len` of two sequences, cut at `cuts`, into a poisoned cache; returns [len, Hq * D] of the first.
    fn attend(&self, isa: Isa, dtype: KvDtype, qkv: &[Vec<f32>; 2], cuts: &[usize]) -> Vec<f32> {
        let (len, size) = (qkv[0].len() / self.qkv_size(), self.qkv_size());
        let mut cpu = cpu(isa, 2);
        let blocks = len.div_ceil(self.block_size);
        let spec = CacheSpec {
            group: 0,
            layers: 2,
            num_kv_heads: self.kv_heads,
            head_dim: self.dim,
            block_size: self.block_size,
            blocks: 2 * blocks + 1,
            dtype,
        };
        let mut cache = cpu.new_cache(&spec).unwrap();
        let rope = cpu.rope_table(&RopeTable { cos: Vec::new(), sin: Vec::new(), rotary_dim: 0 }).unwrap();
        let qkv_spec = QkvSpec {
            num_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: self.dim,
            q_norm: None,
            k_norm: None,
            rope,
            rotary_dim: 0,
            kv_scales: KvScales::default(),
        };
        let attn_spec = self.spec(&mut cpu);
        let mut out = Vec::new();
        let mut steps: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        // The longest first, so that the arena is planned for all.
        let longest = steps.iter().copied().max_by_key(|(from, to)| to - from).unwrap();
        steps.insert(0, longest);
        for (idx, (from, to)) in steps.into_iter().enumerate() {
            let inputs = self.inputs(from, to, blocks);
            let rows: Vec<f32> = qkv.iter().flat_map(|qkv| qkv[from * size..to * size].to_vec()).collect();
            let rows = cpu.vector(&rows).unwrap();
            let mut body = |cpu: &mut Cpu| {
                let q = cpu.rope_write(&rows, &qkv_spec, &mut cache, 1);
                let f32 = ActSet::of(Encoding::F32);
                cpu.attend(&q, &attn_spec, &cache, 1, f32).get(Encoding::F32).clone()
            };
            if idx == 0 {
                cpu.step(StepKey::Plan, &inputs, &[], &mut body).unwrap();
                continue;
            }
            let attended = cpu.step(StepKey::Eager, &inputs, &[], &mut body).unwrap();
            let mut values = Vec::new();
            cpu.read(&attended, &mut values).unwrap();
            out.extend_from_slice(&values[..values.len() / 2]);
        }
        out
    }

    /// Two sequences at the same positions, their blocks interleaved and in descending order.
    fn inputs(&self, from: usize, to: usize, blocks: usize) -> StepInputs {
        let tokens = to - from;
        let block = |seq: usize, idx: usize| (2 * (blocks - idx) - seq) as u32;
        let slot = |seq: usize, position: usize| {
            block(seq, position / self.block_size) * self.block_size as u32 + (position % self.block_size) as u32
        };
        let group = GroupInputs {
            slot_mapping: (0..2).flat_map(|seq| (from..to).map(move |position| slot(seq, position))).collect(),
            block_tables: (0..2).flat_map(|seq| (0..blocks).map(move |idx| block(seq, idx))).collect(),
            stride: blocks,
        };
        StepInputs {
            token_ids: vec![0; 2 * tokens],
            positions: (0..2).flat_map(|_| (from..to).map(|position| position as u32)).collect(),
            rows: vec![0, 1],
            cu_seqlens_q: vec![0, tokens as u32, 2 * tokens as u32],
            seq_lens: vec![to as u32; 2],
            logit_tokens: Vec::new(),
            groups: vec![group],
        }
    }

    /// The same in f64, without blocks.
    fn naive(&self, qkv: &[f32]) -> Vec<f32> {
        let (size, dim) = (self.qkv_size(), self.dim);
        let at = |position: usize, head: usize| {
            qkv[position * size + head * dim..][..dim].iter().map(|&x| f64::from(x)).collect::<Vec<f64>>()
        };
        let mut out = Vec::new();
        for position in 0..qkv.len() / size {
            for head in 0..self.heads {
                let kv_head = head / (self.heads / self.kv_heads);
                let from = position + 1 - self.window.unwrap_or(position + 1).min(position + 1);
                let scores: Vec<f64> = (from..=position)
                    .map(|past| {
                        let key = at(past, self.heads + kv_head);
                        let score = 0.3 * at(position, head).iter().zip(&key).map(|(q, k)| q * k).sum::<f64>();
                        self.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sink = self.sink.map_or(0.0, |sink| (f64::from(sink) + head as f64 - max).exp());
                let sum = weights.iter().sum::<f64>() + sink;
                let mut row = vec![0.0; dim];
                for (past, weight) in (from..=position).zip(&weights) {
                    let value = at(past, self.heads + self.kv_heads + kv_head);
                    row.iter_mut().zip(&value).for_each(|(row, value)| *row += weight / sum * value);
                }
                out.extend(row.iter().map(|&x| x as f32));
            }
        }
        out
    }
}

#[test]
fn attention_agrees_with_f64_and_does_not_see_cuts_neighbours_or_stale_memory() {
    let cases = [
        Case { heads: 3, kv_heads: 3, dim: 16, block_size: 16, window: None, softcap: None, sink: None },
        Case { heads: 6, kv_heads: 2, dim: 32, block_size: 32, window: None, softcap: Some(2.0), sink: Some(-3.0) },
        Case { heads: 4, kv_heads: 1, dim: 64, block_size: 16, window: Some(21), softcap: None, sink: Some(4.0) },
        Case { heads: 13, kv_heads: 1, dim: 48, block_size: 16, window: Some(150), softcap: None, sink: None },
    ];
    for case in &cases {
        for isa in Isa::available() {
            let len = if case.dim == 64 || case.dim == 16 { 1100 } else { 141 };
            let mut random = Random::new(5);
            let mut qkv = [(); 2].map(|()| random.vector(len * case.qkv_size()));
            qkv[0].iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
            let cuts = [0, 1, 2, 17, 33, 127, 128, 129, 140, 511, 513, 1030, 1099];
            let cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < len).chain([len]).collect();
            let naive = case.naive(&qkv[0]);
            // The first sequence is exact in bf16: only the softmax's weights, of eight bits, set a bf16 cache apart.
            for (dtype, absolute) in [(KvDtype::F32, 2e-5), (KvDtype::Bf16, 4e-3)] {
                let what = format!("{isa}, {} heads of {}, {dtype:?} cache", case.heads, case.dim);
                let whole = case.attend(isa, dtype, &qkv, &[0, len]);
                check_close(&what, &whole, &naive, Tolerance { absolute, relative: 1e-4 });
                for cuts in [&cuts[..], &[0, 70, len]] {
                    assert_eq!(case.attend(isa, dtype, &qkv, cuts), whole, "{what}: cut at {cuts:?}");
                }
            }
        }
    }
}

#[test]
fn rotation_turns_pairs_and_skips_slots_that_say_so() {
    let mut cpu = cpu(Isa::detect(), 1);
    let spec = CacheSpec {
        group: 0,
        layers: 1,
        num_kv_heads: 1,
        head_dim: 16,
        block_size: 16,
        blocks: 2,
        dtype: KvDtype::F32,
    };
    let mut cache = cpu.new_cache(&spec).unwrap();
    let angles: Vec<f32> = (0..3 * 4).map(|idx| idx as f32 * 0.1).collect();
    let table = RopeTable {
        cos: angles.iter().map(|angle| angle.cos()).collect(),
        sin: angles.iter().map(|angle| angle.sin()).collect(),
        rotary_dim: 8,
    };
    let rope = cpu.rope_table(&table).unwrap();
    let qkv_spec = QkvSpec {
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 16,
        q_norm: None,
        k_norm: None,
        rope,
        rotary_dim: 8,
        kv_scales: KvScales::default(),
    };
    let x = Random::new(2).vector(2 * 48);
    let rows = cpu.vector(&x).unwrap();
    let group = GroupInputs { slot_mapping: vec![GroupInputs::SKIP, 17], block_tables: Vec::new(), stride: 0 };
    let inputs =
        StepInputs { token_ids: vec![0; 2], positions: vec![2, 1], groups: vec![group], ..StepInputs::default() };
    let block = |cache: &Cache, block: usize| {
        // SAFETY: a block is 512 elements.
        unsafe { std::slice::from_raw_parts(cache.layer(0).base.cast::<u32>().add(block * 512), 512) }.to_vec()
    };
    let before = block(&cache, 0);
    let q = run(&mut cpu, &inputs, &mut |cpu| cpu.rope_write(&rows, &qkv_spec, &mut cache, 0));
    let turned = |x: &[f32], position: usize| -> Vec<f32> {
        let mut out = x.to_vec();
        for pair in 0..4 {
            let (sin, cos) = angles[position * 4 + pair].sin_cos();
            out[pair] = x[pair] * cos - x[pair + 4] * sin;
            out[pair + 4] = x[pair + 4] * cos + x[pair] * sin;
        }
        out
    };
    let expected = [turned(&x[..16], 2), turned(&x[48..64], 1)].concat();
    check_close("q", &q, &expected, Tolerance { absolute: 1e-6, relative: 0.0 });
    let layer = cache.layer(0);
    // SAFETY: block 1 holds sixteen tokens of sixteen dimensions.
    let element = |idx: usize| unsafe { *layer.base.cast::<f32>().add(idx) };
    let key: Vec<f32> = (0..16).map(|d| element(layer.key_tile(1, 0, 1) + d * 16 + 1)).collect();
    let value: Vec<f32> = (0..16).map(|d| element(layer.value(1, 0, 1) + d)).collect();
    check_close("k", &key, &turned(&x[64..80], 1), Tolerance { absolute: 1e-6, relative: 0.0 });
    assert_eq!(value, x[80..96]);
    assert_eq!(block(&cache, 0), before, "the null block was written");
}

/// One head normalized and rotated, in f64.
fn turned(x: &[f32], gain: Option<&[f32]>, angles: &[f32]) -> Vec<f32> {
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + 1e-5).sqrt();
    let at = |idx: usize| f64::from(x[idx]) * gain.map_or(1.0, |gain| scale * f64::from(gain[idx]));
    let mut out: Vec<f64> = (0..x.len()).map(at).collect();
    for (pair, &angle) in angles.iter().enumerate() {
        let (sin, cos) = f64::from(angle).sin_cos();
        let (a, b) = (at(pair), at(pair + angles.len()));
        (out[pair], out[pair + angles.len()]) = (a * cos - b * sin, b * cos + a * sin);
    }
    out.iter().map(|&x| x as f32).collect()
}

#[test]
fn rotations_of_any_width_agree_with_f64_with_and_without_norms() {
    for (dim, rotary_dim) in [(16, 16), (64, 64), (64, 24), (80, 32), (128, 0), (96, 96)] {
        for (isa, normed) in Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
            let (mut cpu, mut random) = (cpu(isa, 2), Random::new(dim as u64));
            let (half, tokens, heads) = (rotary_dim / 2, 19, 3);
            let angles = random.vector(32 * half);
            let cos = angles.iter().map(|angle| angle.cos()).collect();
            let sin = angles.iter().map(|angle| angle.sin()).collect();
            let gain = random.vector(dim);
            let norm =
                |cpu: &mut Cpu| normed.then(|| NormSpec { gain: cpu.vector(&gain).unwrap(), eps: 1e-5, size: dim });
            let qkv_spec = QkvSpec {
                num_heads: heads,
                num_kv_heads: 1,
                head_dim: dim,
                q_norm: norm(&mut cpu),
                k_norm: norm(&mut cpu),
                rope: cpu.rope_table(&RopeTable { cos, sin, rotary_dim }).unwrap(),
                rotary_dim,
                kv_scales: KvScales::default(),
            };
            let spec = CacheSpec {
                group: 0,
                layers: 1,
                num_kv_heads: 1,
                head_dim: dim,
                block_size: 32,
                blocks: 1,
                dtype: KvDtype::F32,
            };
            let mut cache = cpu.new_cache(&spec).unwrap();
            let size = (heads + 2) * dim;
            let x = random.vector(tokens * size);
            let qkv = cpu.vector(&x).unwrap();
            let positions: Vec<u32> = (0..tokens as u32).map(|token| token * 7 % 32).collect();
            let group = GroupInputs { slot_mapping: (3..3 + tokens as u32).collect(), ..GroupInputs::default() };
            let inputs = StepInputs {
                token_ids: vec![0; tokens],
                positions: positions.clone(),
                groups: vec![group],
                ..StepInputs::default()
            };
            let q = run(&mut cpu, &inputs, &mut |cpu| cpu.rope_write(&qkv, &qkv_spec, &mut cache, 0));
            let layer = cache.layer(0);
            // SAFETY: the block holds 32 tokens.
            let element = |idx: usize| unsafe { *layer.base.cast::<f32>().add(idx) };
            let close = Tolerance { absolute: 1e-6, relative: 1e-5 };
            for (token, row) in x.chunks(size).enumerate() {
                let angles = &angles[positions[token] as usize * half..][..half];
                let expect = |head: usize| turned(&row[head * dim..][..dim], normed.then_some(&gain[..]), angles);
                let what = format!("{isa}, {rotary_dim} of {dim}, token {token}");
                let expected: Vec<f32> = (0..heads).flat_map(&expect).collect();
                check_close(&what, &q[token * heads * dim..][..heads * dim], &expected, close);
                let first = layer.key_tile(0, 0, token + 3) + (token + 3) % 16;
                let key: Vec<f32> = (0..dim).map(|d| element(first + d * 16)).collect();
                check_close(&what, &key, &expect(heads), close);
                let value: Vec<f32> = (0..dim).map(|d| element(layer.value(0, 0, token + 3) + d)).collect();
                assert_eq!(value, row[(heads + 1) * dim..], "{what}");
            }
        }
    }
}
