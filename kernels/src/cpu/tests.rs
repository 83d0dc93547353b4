//! Kernels against plain f64 loops, on every instruction set that this processor has; and each row's bits against the
//! same row computed alone.

use half::bf16;
use quant::{Format, Stored};
use tensor::{Activation, Backend, GroupInputs, KvDtype};
use testkit::{Random, Tolerance, check_close};

use super::*;

fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa) }).expect("the instruction set was found")
}

/// Plans `body`, runs it on `inputs`, and reads what it returns.
fn run(cpu: &mut Cpu, inputs: &StepInputs, body: &mut dyn FnMut(&mut Cpu) -> Buf) -> Vec<f32> {
    cpu.step(StepKey::Plan, inputs, body).unwrap();
    let out = cpu.step(StepKey::Eager, inputs, body).unwrap();
    let mut values = Vec::new();
    cpu.read(&out, &mut values).unwrap();
    values
}

/// `x` as it is, in the encodings of `set`.
fn encode(cpu: &Cpu, x: &Buf, cols: usize, set: ActSet) -> Act<Cpu> {
    let rows = x.len() / cols;
    let (act, emit) = cpu.emit(rows, cols, set);
    if !cpu.planning {
        Rows { x: x.ptr(), rows, cols, norm: None, emit }.run(&cpu.pool, cpu.isa);
    }
    act
}

/// What a group of 32 becomes on its way through signed bytes.
fn through_bytes(x: &[f32]) -> Vec<f64> {
    let group = |x: &[f32]| {
        let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        let inverse = if peak > 0.0 { 127.0 / peak } else { 0.0 };
        x.iter().map(|x| f64::from((x * inverse).round_ties_even()) * f64::from(peak / 127.0)).collect::<Vec<f64>>()
    };
    x.chunks(32).flat_map(group).collect()
}

/// Random bytes that are a valid matrix of `format`: small scales, any quants.
fn matrix(format: Format, rows: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    let half = |x: f32| half::f16::from_f32(x * 0.05).to_le_bytes();
    let mut block = |header: usize, body: usize| -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..header).flat_map(|_| half(random.uniform())).collect();
        bytes.extend((0..body).map(|_| random.next_u64() as u8));
        bytes
    };
    let blocks = rows * cols / 32;
    match format {
        Format::Q4_0 => (0..blocks).flat_map(|_| block(1, 16)).collect(),
        Format::Q4_1 => (0..blocks).flat_map(|_| block(2, 16)).collect(),
        Format::Q8_0 => (0..blocks).flat_map(|_| block(1, 32)).collect(),
        Format::Bf16 => random.vector(rows * cols).iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Format::F32 => random.vector(rows * cols).iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => panic!("no matrix of {other:?} is made here"),
    }
}

const FORMATS: [Format; 5] = [Format::Q4_0, Format::Q4_1, Format::Q8_0, Format::Bf16, Format::F32];

fn multiply(isa: Isa, threads: usize, stored: &[Stored<'_>], x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut cpu = cpu(isa, threads);
    let weight = cpu.pack(stored, Role::Column).unwrap();
    let (x, bias) = (cpu.vector(x).unwrap(), bias.map(|bias| cpu.vector(bias).unwrap()));
    run(&mut cpu, &StepInputs::default(), &mut |cpu| {
        let act = encode(cpu, &x, weight.cols, weight.wants());
        cpu.linear(&act, &weight, bias.as_ref())
    })
}

/// The product in f64, of what the kernel is given: bytes where it takes bytes.
fn product(stored: &[Stored<'_>], x: &[f32], bias: &[f32]) -> Vec<f32> {
    let cols = stored[0].cols;
    let bytes = matches!(stored[0].format, Format::Q4_0 | Format::Q4_1 | Format::Q8_0);
    let weights: Vec<f32> = stored.iter().flat_map(|part| part.dequantize()).collect();
    let mut y = Vec::new();
    for row in x.chunks(cols) {
        let row = if bytes { through_bytes(row) } else { row.iter().map(|&x| f64::from(x)).collect() };
        y.extend(weights.chunks(cols).zip(bias).map(|(w, &bias)| {
            (w.iter().zip(&row).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias)) as f32
        }));
    }
    y
}

#[test]
fn matmuls_agree_with_f64_and_rows_do_not_see_each_other() {
    for isa in Isa::available() {
        for (seed, format) in FORMATS.into_iter().enumerate() {
            for (rows, cols) in [(16, 32), (40, 64), (96, 576), (8, 640)] {
                let mut random = Random::new(seed as u64);
                let bytes = [matrix(format, rows, cols, &mut random), matrix(format, rows, cols, &mut random)];
                let stored: Vec<Stored<'_>> =
                    bytes.iter().map(|bytes| Stored::new(rows, cols, format, bytes).unwrap()).collect();
                let (x, bias) = (random.vector(37 * cols), random.vector(2 * rows));
                let all = multiply(isa, 2, &stored, &x, Some(&bias));
                let what = format!("{isa} {format:?} {rows} x {cols}");
                check_close(&what, &all, &product(&stored, &x, &bias), Tolerance { absolute: 2e-4, relative: 2e-4 });
                let mut first = 0;
                for count in [1, 2, 3, 4, 12, 15] {
                    let range = first * cols..(first + count) * cols;
                    let some = multiply(isa, 1, &stored, &x[range], Some(&bias));
                    assert_eq!(some, all[first * 2 * rows..][..some.len()], "{what}, {count} rows from {first}");
                    first += count;
                }
            }
        }
    }
}

#[test]
fn sums_and_gates_agree_with_f64() {
    for isa in Isa::available() {
        for format in FORMATS {
            for (half_rows, cols, rows) in [(32, 64, 1), (48, 96, 5), (64, 576, 14)] {
                let mut random = Random::new(3);
                let bytes = [(); 2].map(|()| matrix(format, half_rows, cols, &mut random));
                let stored = [&bytes[0], &bytes[1]].map(|b| Stored::new(half_rows, cols, format, b).unwrap());
                let x = random.vector(rows * cols);
                let mut cpu = cpu(isa, 2);
                let weight = cpu.pack(&stored, Role::Glu).unwrap();
                let input = cpu.vector(&x).unwrap();
                let gated = run(&mut cpu, &StepInputs::default(), &mut |cpu| {
                    let act = encode(cpu, &input, cols, weight.wants());
                    cpu.linear_glu(&act, &weight, Activation::Silu, ActSet::of(Encoding::F32))
                        .get(Encoding::F32)
                        .clone()
                });
                let zeros = vec![0.0; 2 * half_rows];
                let y = product(&stored, &x, &zeros);
                let expected: Vec<f32> = y
                    .chunks(2 * half_rows)
                    .flat_map(|y| (0..half_rows).map(|idx| y[idx] / (1.0 + (-y[idx]).exp()) * y[half_rows + idx]))
                    .collect();
                check_close(
                    &format!("{isa} {format:?}"),
                    &gated,
                    &expected,
                    Tolerance { absolute: 1e-3, relative: 1e-3 },
                );
            }
        }
    }
}

#[test]
fn embedding_rows_are_the_dequantized_ones() {
    for format in FORMATS {
        let mut random = Random::new(9);
        let bytes = matrix(format, 40, 64, &mut random);
        let stored = Stored::new(40, 64, format, &bytes).unwrap();
        let mut cpu = cpu(Isa::Portable, 2);
        let table = cpu.pack(&[stored], Role::Head).unwrap();
        let inputs = StepInputs { token_ids: vec![39, 0, 17, 17], ..StepInputs::default() };
        let rows = run(&mut cpu, &inputs, &mut |cpu| cpu.embed(&table, 1.0));
        let all = stored.dequantize();
        let expected: Vec<f32> = inputs.token_ids.iter().flat_map(|&t| all[t as usize * 64..][..64].to_vec()).collect();
        check_close(&format!("{format:?}"), &rows, &expected, Tolerance { absolute: 1e-6, relative: 1e-6 });
    }
}

#[test]
fn norms_agree_with_f64_in_both_encodings() {
    let (rows, cols) = (11, 96);
    let mut random = Random::new(1);
    let (x, gain) = (random.vector(rows * cols), random.vector(cols));
    let expected: Vec<f32> = x
        .chunks(cols)
        .flat_map(|row| {
            let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / cols as f64;
            let scale = 1.0 / (mean + 1e-5).sqrt();
            row.iter().zip(&gain).map(|(&x, &g)| (f64::from(x) * scale * f64::from(g)) as f32).collect::<Vec<f32>>()
        })
        .collect();
    for isa in Isa::available() {
        let mut cpu = cpu(isa, 2);
        let (input, gain) = (cpu.vector(&x).unwrap(), cpu.vector(&gain).unwrap());
        let spec = NormSpec { gain, eps: 1e-5, size: cols };
        let both = ActSet::of(Encoding::F32).union(ActSet::of(Encoding::Int8G32));
        let mut encoded = None;
        let normed = run(&mut cpu, &StepInputs::default(), &mut |cpu| {
            encoded = None;
            let act = cpu.norm(&input, &spec, both);
            let out = act.get(Encoding::F32).clone();
            encoded = Some(act.get(Encoding::Int8G32).clone());
            out
        });
        check_close(&isa.to_string(), &normed, &expected, Tolerance { absolute: 1e-5, relative: 1e-5 });
        // SAFETY: the buffer was made for this encoding and shape.
        let int8 = unsafe { Int8::at(encoded.expect("the body ran").ptr(), rows, cols) };
        let bytes = through_bytes(&normed);
        for (idx, &expected) in bytes.iter().enumerate() {
            // SAFETY: within the encoding's shape.
            let actual = unsafe { f64::from(*int8.q.add(idx)) * f64::from(*int8.scales.add(idx / 32)) };
            assert!((actual - expected).abs() < 1e-6, "{isa} element {idx}: {actual} against {expected}");
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
}

impl Case {
    fn qkv_size(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    fn spec(&self) -> AttnSpec {
        let Case { heads: num_heads, kv_heads: num_kv_heads, dim: head_dim, window, softcap, .. } = *self;
        AttnSpec { num_heads, num_kv_heads, head_dim, scale: 0.3, window, softcap }
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
        cache.poison();
        let rope = cpu.rope_table(&RopeTable { cos: Vec::new(), sin: Vec::new(), rotary_dim: 0 }).unwrap();
        let qkv_spec = QkvSpec {
            num_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: self.dim,
            q_norm: None,
            k_norm: None,
            rope,
            rotary_dim: 0,
        };
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
                cpu.attend(&q, &self.spec(), &cache, 1, f32).get(Encoding::F32).clone()
            };
            if idx == 0 {
                cpu.step(StepKey::Plan, &inputs, &mut body).unwrap();
                continue;
            }
            let attended = cpu.step(StepKey::Eager, &inputs, &mut body).unwrap();
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
                let sum: f64 = weights.iter().sum();
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
        Case { heads: 3, kv_heads: 3, dim: 16, block_size: 16, window: None, softcap: None },
        Case { heads: 6, kv_heads: 2, dim: 32, block_size: 32, window: None, softcap: Some(2.0) },
        Case { heads: 4, kv_heads: 1, dim: 64, block_size: 16, window: Some(21), softcap: None },
        Case { heads: 13, kv_heads: 1, dim: 48, block_size: 16, window: Some(150), softcap: None },
    ];
    for case in &cases {
        for isa in Isa::available() {
            let len = if case.dim == 64 || case.dim == 16 { 1100 } else { 141 };
            let mut random = Random::new(5);
            let mut qkv = [(); 2].map(|()| random.vector(len * case.qkv_size()));
            qkv[0].iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
            let whole = case.attend(isa, KvDtype::F32, &qkv, &[0, len]);
            let what = format!("{isa}, {} heads of {}", case.heads, case.dim);
            check_close(&what, &whole, &case.naive(&qkv[0]), Tolerance { absolute: 2e-5, relative: 1e-4 });
            // The first sequence's keys and values are exact in bf16, so both caches give the same.
            assert_eq!(case.attend(isa, KvDtype::Bf16, &qkv, &[0, len]), whole, "{what}: bf16 cache");
            let cuts = [0, 1, 2, 17, 33, 127, 128, 129, 140, 511, 513, 1030, 1099];
            let cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < len).chain([len]).collect();
            for cuts in [&cuts[..], &[0, 70, len]] {
                assert_eq!(case.attend(isa, KvDtype::F32, &qkv, cuts), whole, "{what}: cut at {cuts:?}");
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
    let qkv_spec =
        QkvSpec { num_heads: 1, num_kv_heads: 1, head_dim: 16, q_norm: None, k_norm: None, rope, rotary_dim: 8 };
    let x = Random::new(2).vector(2 * 48);
    let rows = cpu.vector(&x).unwrap();
    let group = GroupInputs { slot_mapping: vec![GroupInputs::SKIP, 17], block_tables: Vec::new(), stride: 0 };
    let inputs =
        StepInputs { token_ids: vec![0; 2], positions: vec![2, 1], groups: vec![group], ..StepInputs::default() };
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
    assert!((0..512).all(|idx| element(idx) == 0.0), "the null block was written");
}

#[test]
fn inputs_that_lead_out_of_memory_fail_the_step_and_nothing_else() {
    let mut cpu = cpu(Isa::detect(), 2);
    let spec = CacheSpec {
        group: 0,
        layers: 1,
        num_kv_heads: 1,
        head_dim: 16,
        block_size: 16,
        blocks: 3,
        dtype: KvDtype::F32,
    };
    let mut cache = cpu.new_cache(&spec).unwrap();
    let bytes = matrix(Format::F32, 20, 16, &mut Random::new(1));
    let table = cpu.pack(&[Stored::new(20, 16, Format::F32, &bytes).unwrap()], Role::Embed).unwrap();
    let rope = cpu.rope_table(&RopeTable { cos: vec![1.0; 8 * 40], sin: vec![0.0; 8 * 40], rotary_dim: 16 }).unwrap();
    let qkv_spec =
        QkvSpec { num_heads: 1, num_kv_heads: 1, head_dim: 16, q_norm: None, k_norm: None, rope, rotary_dim: 16 };
    let attn_spec = AttnSpec { num_heads: 1, num_kv_heads: 1, head_dim: 16, scale: 1.0, window: None, softcap: None };
    let qkv = cpu.vector(&[0.5; 2 * 48]).unwrap();
    let good = StepInputs {
        token_ids: vec![19, 3],
        positions: vec![30, 31],
        rows: vec![0],
        cu_seqlens_q: vec![0, 2],
        seq_lens: vec![32],
        logit_tokens: vec![1],
        groups: vec![GroupInputs { slot_mapping: vec![46, 47], block_tables: vec![1, 2], stride: 2 }],
    };
    let mut body = |cpu: &mut Cpu| {
        let x = cpu.embed(&table, 1.0);
        let q = cpu.rope_write(&qkv, &qkv_spec, &mut cache, 0);
        cpu.attend(&q, &attn_spec, &cache, 0, ActSet::of(Encoding::F32));
        cpu.gather(&x)
    };
    let planned = cpu.step(StepKey::Plan, &good, &mut body).unwrap();
    assert!(cpu.read(&planned, &mut Vec::new()).is_err(), "a planned buffer has no values");
    drop(planned);
    let cases: [(&str, &dyn Fn(&mut StepInputs)); 9] = [
        ("token 20 is beyond", &|inputs| inputs.token_ids[0] = 20),
        ("never sampled", &|inputs| inputs.token_ids[1] = StepInputs::SAMPLED),
        ("slot 48 is beyond", &|inputs| inputs.groups[0].slot_mapping[1] = 48),
        ("position 40 is beyond the longest", &|inputs| inputs.positions[1] = 40),
        ("position 32 is beyond its block table", &|inputs| inputs.positions[1] = 32),
        ("block 3 is beyond", &|inputs| inputs.groups[0].block_tables[0] = 3),
        ("do not cover", &|inputs| inputs.cu_seqlens_q[1] = 1),
        ("logits are wanted of token 2", &|inputs| inputs.logit_tokens[0] = 2),
        ("no KV group 0", &|inputs| inputs.groups.clear()),
    ];
    for (message, break_it) in cases {
        let mut inputs = good.clone();
        break_it(&mut inputs);
        let error = cpu.step(StepKey::Eager, &inputs, &mut body).map(drop).expect_err(message);
        assert!(error.message.contains(message) && !error.sticky, "{error}");
        cpu.step(StepKey::Eager, &good, &mut body).expect("the next step is good");
    }
    let error = cpu.copy_blocks(&mut cache, &[(1, 2), (0, 3)]).expect_err("there is no block 3");
    assert_eq!(error.message, "block 0 or 3 is beyond the cache's 3");
}

#[test]
fn a_row_continues_from_what_it_sampled() {
    let mut cpu = cpu(Isa::detect(), 2);
    let (vocab, bytes) = (16, matrix(Format::F32, 16, 16, &mut Random::new(4)));
    let table = cpu.pack(&[Stored::new(vocab, 16, Format::F32, &bytes).unwrap()], Role::Embed).unwrap();
    let logits = cpu.vector(&[[0.0; 16], std::array::from_fn(|idx| f32::from(idx == 11))].concat()).unwrap();
    let mut inputs = StepInputs {
        token_ids: vec![1, 2, 3],
        rows: vec![4, 2],
        cu_seqlens_q: vec![0, 1, 3],
        logit_tokens: vec![0, 2],
        ..StepInputs::default()
    };
    let mut body = |cpu: &mut Cpu| cpu.embed(&table, 1.0);
    run(&mut cpu, &inputs, &mut body);
    let params = contract::SamplingParams::greedy();
    let row = |logits: usize| Row {
        logits,
        params: &params,
        position: 0,
        tokens: &[],
        prompt_len: 0,
        counts: None,
        mask: None,
        known: None,
    };
    let mut sampled = Sampled::default();
    cpu.sample(&logits, &mut [row(0), row(1)], &mut sampled).unwrap();
    assert_eq!(sampled.rows.iter().map(|row| row.token).collect::<Vec<_>>(), [0, 11]);
    assert!(cpu.sample(&logits, &mut [row(1), row(1)], &mut sampled).is_err(), "a row is sampled once");
    assert!(cpu.sample(&logits, &mut [row(2)], &mut sampled).is_err(), "there are two rows");
    let read = |cpu: &mut Cpu, inputs: &StepInputs| {
        let out = cpu.step(StepKey::Eager, inputs, &mut |cpu| cpu.embed(&table, 1.0)).unwrap();
        let mut values = Vec::new();
        cpu.read(&out, &mut values).unwrap();
        values
    };
    inputs.token_ids = vec![11, 0, 5];
    let expected = read(&mut cpu, &inputs);
    (inputs.token_ids, inputs.rows) = (vec![StepInputs::SAMPLED, StepInputs::SAMPLED, 5], vec![2, 4]);
    assert_eq!(read(&mut cpu, &inputs), expected);
}
