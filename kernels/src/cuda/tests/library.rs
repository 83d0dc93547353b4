//! cublasLt against our own kernels: near-equal sums, for the products that it takes, and only for those.

use quant::OwnedScales;

use super::*;

/// The GPU with cublasLt, or a word on why this test is skipped.
fn gpu_with_library(test: &str) -> Option<Cuda> {
    let cuda = gpu(test)?.with_cublaslt().expect("a library that is there opens");
    if cuda.library.is_none() {
        testkit::skip(test, "this machine has no cublasLt");
        return None;
    }
    Some(cuda)
}

/// One layer's kinds of products: stored, gated, added.
fn layer(cuda: &mut Cuda, format: Format, tokens: usize) -> Vec<f32> {
    let (hidden, ffn) = (128, 144);
    let mut random = Random::new(4);
    let mut weight = |cuda: &mut Cuda, parts: usize, rows: usize, cols: usize, role: Role| {
        let values: Vec<f32> = values(&mut random, parts * rows * cols).iter().map(|x| x * 0.1).collect();
        let (bytes, scales) = match format {
            Format::Fp8E4m3 => quant::fp8_e4m3::quantize_rows(&values, cols),
            _ => (quant::quantize(format, &values).unwrap(), OwnedScales::new(1, cols, Vec::new())),
        };
        let part_scales: Vec<_> = (0..parts)
            .map(|part| {
                let own = if scales.values.is_empty() { &[] } else { &scales.values[part * rows..][..rows] };
                OwnedScales::new(1, cols, own.to_vec())
            })
            .collect();
        let parts = bytes.chunks(bytes.len() / parts).zip(&part_scales).map(|(bytes, scales)| {
            let stored = Stored::new(rows, cols, format, bytes).unwrap();
            if format == Format::Fp8E4m3 { stored.with_scales(scales.borrow()).unwrap() } else { stored }
        });
        cuda.pack(&parts.collect::<Vec<_>>(), role).unwrap()
    };
    let first = weight(cuda, 1, hidden, hidden, Role::Column);
    let pair = weight(cuda, 2, ffn, hidden, Role::Glu);
    let down = weight(cuda, 1, hidden, ffn, Role::Row);
    let table = pack(cuda, &values(&mut Random::new(3), tokens * hidden), hidden, Role::Embed);
    let spec = NormSpec { gain: cuda.vector(&vec![1.0; hidden]).unwrap(), eps: 1e-5, size: hidden };
    let step = StepInputs { token_ids: (0..tokens as u32).collect(), ..StepInputs::default() };
    run(cuda, &[step], &mut |cuda| {
        let x = cuda.embed(&table, 1.0);
        let act = cuda.norm(&x, &spec, Cuda::wants(&first));
        let x = cuda.linear(&act, &first, None);
        let act = cuda.norm(&x, &spec, Cuda::wants(&pair));
        let gated = cuda.linear_glu(&act, &pair, Activation::Silu, Cuda::wants(&down));
        cuda.linear_add(&gated, &down, None, &x);
        x
    })
    .remove(0)
}

#[test]
fn the_library_agrees_where_it_is_asked() {
    for (format, tokens) in [(Format::Bf16, 64), (Format::Bf16, 65), (Format::Fp8E4m3, 131)] {
        let Some(mut cuda) = gpu_with_library("the_library_agrees_where_it_is_asked") else { return };
        let mut own = gpu("a second context").expect("there was a first");
        let (expected, found) = (layer(&mut own, format, tokens), layer(&mut cuda, format, tokens));
        // A gate and its unit pass through bf16 or FP8 on the way.
        check_close(&format!("{format}, {tokens}"), &found, &expected, Tolerance { absolute: 0.05, relative: 0.02 });
        let asked = cuda.library.as_ref().expect("it is there").num_plans();
        assert_eq!(asked, if tokens > 64 { 3 } else { 0 }, "{format}, {tokens}");
    }
}

#[test]
fn a_product_that_the_library_refuses_is_left_to_others() {
    let Some(cuda) = gpu_with_library("a_product_that_the_library_refuses_is_left_to_others") else { return };
    let memory = cuda.device.alloc(1 << 16).unwrap();
    let at = memory.address();
    let product = cublaslt::Product {
        operands: cublaslt::Number::E4m3,
        result: cublaslt::Number::F32,
        rows: 65,
        outputs: 16,
        inputs: 24,
        x: at,
        w: at,
        x_scales: at,
        w_scales: at,
        y: at,
        adds: false,
    };
    let library = cuda.library.as_ref().expect("it is there");
    assert!(!library.multiply(&product).unwrap(), "24 columns of bytes are no whole 16");
    assert!(library.multiply(&cublaslt::Product { inputs: 32, ..product }).unwrap());
    assert_eq!(library.num_plans(), 1);
}
