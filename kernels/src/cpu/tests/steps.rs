//! Whole steps: what `inputs` refuses, and what a row and `sample` carry from one step to the next.

use super::*;

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
    let kv_scales = KvScales::default();
    let qkv_spec = QkvSpec {
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 16,
        q_norm: None,
        k_norm: None,
        rope,
        rotary_dim: 16,
        kv_scales,
    };
    let attn_spec = AttnSpec {
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 16,
        scale: 1.0,
        window: None,
        softcap: None,
        sinks: None,
        kv_scales,
    };
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
    let planned = cpu.step(StepKey::Plan, &good, &[], &mut body).unwrap();
    assert!(cpu.read(&planned, &mut Vec::new()).is_err(), "a planned buffer has no values");
    drop(planned);
    type Spoil = dyn Fn(&mut StepInputs);
    let cases: [(&str, &Spoil); 9] = [
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
        let error = cpu.step(StepKey::Eager, &inputs, &[], &mut body).map(drop).expect_err(message);
        assert!(error.message.contains(message) && !error.sticky, "{error}");
        cpu.step(StepKey::Eager, &good, &[], &mut body).expect("the next step is good");
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
    let row = |logits| Row::alone(logits, &params);
    let mut sampled = Sampled::default();
    cpu.sample(&logits, &mut [row(0), row(1)], &mut sampled).unwrap();
    assert_eq!(sampled.rows.iter().map(|row| row.token).collect::<Vec<_>>(), [0, 11]);
    assert!(cpu.sample(&logits, &mut [row(1), row(1)], &mut sampled).is_err(), "a row is sampled once");
    assert!(cpu.sample(&logits, &mut [row(2)], &mut sampled).is_err(), "there are two rows");
    let read = |cpu: &mut Cpu, inputs: &StepInputs| {
        let out = cpu.step(StepKey::Eager, inputs, &[], &mut |cpu| cpu.embed(&table, 1.0)).unwrap();
        let mut values = Vec::new();
        cpu.read(&out, &mut values).unwrap();
        values
    };
    inputs.token_ids = vec![11, 0, 5];
    let expected = read(&mut cpu, &inputs);
    (inputs.token_ids, inputs.rows) = (vec![StepInputs::SAMPLED, StepInputs::SAMPLED, 5], vec![2, 4]);
    assert_eq!(read(&mut cpu, &inputs), expected);
}
