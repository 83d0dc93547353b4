//! The norm, and its encodings by `act`.

use super::super::act::Codes;
use super::*;

#[test]
fn norms_agree_with_f64_in_every_encoding() {
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
    for (isa, activations) in ways() {
        let mut cpu = cpu(isa, 2);
        let encoding = activations.encoding();
        let (input, gain) = (cpu.vector(&x).unwrap(), cpu.vector(&gain).unwrap());
        let spec = NormSpec { gain, eps: 1e-5, size: cols };
        let both = ActSet::of(Encoding::F32).union(ActSet::of(encoding));
        let mut encoded = None;
        let normed = run(&mut cpu, &StepInputs::default(), &mut |cpu| {
            encoded = None;
            let act = cpu.norm(&input, &spec, both);
            let out = act.get(Encoding::F32).clone();
            encoded = Some(act.get(encoding).clone());
            out
        });
        check_close(&isa.to_string(), &normed, &expected, Tolerance { absolute: 1e-5, relative: 1e-5 });
        // SAFETY: the buffer was made for this encoding and shape.
        let codes = unsafe { Codes::at(encoded.expect("the body ran").ptr(), encoding, rows, cols) };
        for (idx, &expected) in as_encoded(&normed, encoding).iter().enumerate() {
            let (group, byte) = (idx / 32, idx / 32 * codes.planes * 32 + idx % 32);
            // SAFETY: within the encoding's shape.
            let (code, scale) = unsafe {
                let high = i32::from(*codes.q.add(byte));
                let low = if codes.planes == 2 { i32::from(*codes.q.add(byte + 32)) } else { 0 };
                (if codes.planes == 2 { 128 * high + low } else { high }, *codes.scales.add(group))
            };
            let actual = f64::from(code) * f64::from(scale);
            assert!((actual - expected).abs() < 1e-6, "{isa} element {idx}: {actual} against {expected}");
        }
    }
}

/// Stores sixteen floats as bf16.
struct Narrow<'a>(&'a [f32; 16], &'a mut [u16; 16]);

impl simd::Op for Narrow<'_> {
    #[inline(always)]
    unsafe fn run<S: simd::Simd>(self) {
        // SAFETY: sixteen on both sides.
        unsafe { S::store_bf16(self.1.as_mut_ptr(), S::load(self.0.as_ptr())) }
    }
}

#[test]
fn bf16_rounds_to_even_on_every_instruction_set() {
    let mut random = Random::new(8);
    let corners =
        [0, 0x8000_0000, 1, 0x7f80_0000, 0xff80_0000, 0x7f80_0001, 0x7fc0_1234, 0x7f7f_ffff, 0x3f80_8000, 0x3f81_8000];
    for round in 0..200 {
        let mut lanes = [0.0f32; 16];
        for (idx, lane) in lanes.iter_mut().enumerate() {
            let bits = if round == 0 && idx < corners.len() { corners[idx] } else { random.next_u64() as u32 };
            *lane = f32::from_bits(bits);
        }
        let expected = lanes.map(|lane| bf16::from_f32(lane).to_bits());
        for isa in Isa::available() {
            let mut narrow = [0u16; 16];
            // SAFETY: `isa` is available.
            unsafe { isa.run(Narrow(&lanes, &mut narrow)) };
            assert_eq!(narrow, expected, "{isa} {:x?}", lanes.map(f32::to_bits));
        }
    }
}
