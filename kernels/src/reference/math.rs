//! Arithmetic on one row.

use tensor::Activation;

/// `sum(a[i] * b[i])`: sixteen running sums, then those in order.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.into_iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// `onto += x`.
pub fn add(onto: &mut [f32], x: &[f32]) {
    onto.iter_mut().zip(x).for_each(|(onto, x)| *onto += x);
}

/// `onto += factor * x`.
pub fn add_scaled(onto: &mut [f32], factor: f32, x: &[f32]) {
    onto.iter_mut().zip(x).for_each(|(onto, x)| *onto += factor * x);
}

/// `x / sqrt(mean(x^2) + eps) * gain`, in place.
pub fn norm(x: &mut [f32], gain: &[f32], eps: f32) {
    let inverse = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    x.iter_mut().zip(gain).for_each(|(x, gain)| *x *= inverse * gain);
}

/// The gate of a gated linear unit.
pub fn activate(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}
