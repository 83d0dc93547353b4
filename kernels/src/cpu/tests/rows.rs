//! The norm, and its encodings by `act`.

use super::*;

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
