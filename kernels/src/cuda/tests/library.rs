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

/// Whether the card is one on which the library scales FP8 by row.
fn scales_rows(cuda: &Cuda) -> bool {
    cuda.describe().contains("compute capability 9.")
}

/// What a layer's weights are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coding {
    Bf16,
    /// FP8 with a scale an output.
    Outputs,
    /// With one a block of 128 x 128.
    Blocks,
}

impl Coding {
    /// Elements and scales of a matrix.
    fn encode(self, values: &[f32], cols: usize) -> (Format, Vec<u8>, Option<OwnedScales>) {
        match self {
            Self::Bf16 => (Format::Bf16, quant::quantize(Format::Bf16, values).unwrap(), None),
            Self::Outputs => {
                let (bytes, scales) = quant::fp8_e4m3::quantize_rows(values, cols);
                (Format::Fp8E4m3, bytes, Some(scales))
            }
            Self::Blocks => {
                let blocks = (values.len() / cols).div_ceil(128) * cols.div_ceil(128);
                let scales = (0..blocks).map(|block| 0.001 * (1 + block % 3) as f32).collect();
                let values: Vec<f32> = values.iter().map(|x| x * 200.0).collect();
                let bytes = quant::quantize(Format::Fp8E4m3, &values).unwrap();
                (Format::Fp8E4m3, bytes, Some(OwnedScales::new(128, 128, scales)))
            }
        }
    }
}

/// One layer's kinds of products: stored, gated, added.
fn layer(cuda: &mut Cuda, coding: Coding, tokens: usize) -> Vec<f32> {
    let (hidden, ffn) = (256, 272);
    let mut random = Random::new(4);
    let mut weight = |cuda: &mut Cuda, parts: usize, rows: usize, cols: usize, role: Role| {
        let encoded: Vec<_> = (0..parts)
            .map(|_| {
                let values: Vec<f32> = values(&mut random, rows * cols).iter().map(|x| x * 0.1).collect();
                coding.encode(&values, cols)
            })
            .collect();
        let parts = encoded.iter().map(|(format, bytes, scales)| {
            let stored = Stored::new(rows, cols, *format, bytes).unwrap();
            scales.as_ref().map_or(stored, |scales| stored.with_scales(scales.borrow()).unwrap())
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
    for (coding, tokens, expected_plans) in [
        (Coding::Bf16, 64, 0),
        (Coding::Bf16, 65, 3),
        (Coding::Outputs, 131, 3),
        (Coding::Blocks, 132, 3),
        // Scales of groups lie in whole 16 bytes.
        (Coding::Blocks, 131, 0),
    ] {
        let Some(mut cuda) = gpu_with_library("the_library_agrees_where_it_is_asked") else { return };
        let mut own = gpu("a second context").expect("there was a first");
        let (expected, found) = (layer(&mut own, coding, tokens), layer(&mut cuda, coding, tokens));
        // A gate and its unit pass through bf16 or FP8 on the way.
        check_close(&format!("{coding:?}, {tokens}"), &found, &expected, Tolerance { absolute: 0.05, relative: 0.02 });
        let asked = cuda.library.as_ref().expect("it is there").num_plans();
        let has_way = coding == Coding::Bf16 || scales_rows(&cuda);
        assert_eq!(asked, if has_way { expected_plans } else { 0 }, "{coding:?}, {tokens}");
    }
}

/// Gated units of 65 rows: the least that the library is asked for.
fn gated(cuda: &mut Cuda) -> Vec<f32> {
    let (rows, hidden, units) = (65, 32, 16);
    let (pair, same) = (emit::pair(cuda, units, hidden, Role::Glu, 1.0), identity(cuda, units));
    let table = pack(cuda, &values(&mut Random::new(3), rows * hidden), hidden, Role::Embed);
    let spec = NormSpec { gain: cuda.vector(&vec![1.0; hidden]).unwrap(), eps: 1e-5, size: hidden };
    let step = StepInputs { token_ids: (0..rows as u32).collect(), ..StepInputs::default() };
    let outputs = run(cuda, &[step], &mut |cuda| {
        let x = cuda.embed(&table, 1.0);
        let act = cuda.norm(&x, &spec, Cuda::wants(&pair));
        let units = cuda.linear_glu(&act, &pair, Activation::GeluTanh, Cuda::wants(&same));
        cuda.linear(&units, &same, None)
    });
    outputs.concat()
}

#[test]
fn gated_units_of_its_products_agree() {
    let Some(mut cuda) = gpu_with_library("gated_units_of_its_products_agree") else { return };
    let expected = gated(&mut gpu("a second context").expect("there was a first"));
    let tolerance = Tolerance { absolute: 0.05, relative: 0.02 };
    check_close("gated units", &gated(&mut cuda), &expected, tolerance);
    assert_eq!(cuda.library.as_ref().expect("it is there").num_plans(), 2);
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
    let groups = cublaslt::Product { operands: cublaslt::Number::E4m3G128, inputs: 32, ..product };
    assert!(!library.multiply(&product).unwrap(), "24 columns of bytes are no whole 16");
    assert!(!library.multiply(&groups).unwrap(), "65 scales are no whole 16 bytes");
    assert_eq!(library.num_plans(), 0);
    let has_way = scales_rows(&cuda);
    assert_eq!(library.multiply(&cublaslt::Product { inputs: 32, ..product }).unwrap(), has_way);
    assert_eq!(library.multiply(&cublaslt::Product { rows: 68, ..groups }).unwrap(), has_way);
}
