//! Quantizes a matrix on its way to the backend, on all cores.

use std::borrow::Cow;
use std::thread;

use quant::{NotFinite, OwnedScales, Scheme};
use tensor::Role;
use weights::Tensor;

/// What families call the layer that picks experts: small, and its close calls matter.
const ROUTERS: [&str; 2] = [".gate.weight", ".router.weight"];

/// Fewer rows are not worth a thread.
const MIN_ROWS: usize = 256;

/// Whether the matrix `name` is one of those that are quantized: a linear layer's, but no router's.
pub(crate) fn is_quantizable(name: &str, role: Role) -> bool {
    !matches!(role, Role::Embed | Role::Head) && !ROUTERS.iter().any(|router| name.ends_with(router))
}

/// `tensor` by `scheme`; as it is where its rows are no whole blocks of the format.
pub(crate) fn quantize<'a>(scheme: Scheme, tensor: Tensor<'a>) -> Result<Tensor<'a>, NotFinite> {
    if scheme.format().row_bytes(tensor.cols).is_none() {
        return Ok(tensor);
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let step = tensor.rows.div_ceil(threads).max(MIN_ROWS);
    let stored = &tensor.stored();
    let parts: Vec<(Vec<u8>, OwnedScales)> = thread::scope(|scope| {
        let starts = (0..tensor.rows).step_by(step);
        let spawn = |start| {
            let rows = start..tensor.rows.min(start + step);
            scope.spawn(move || scheme.quantize_rows(stored, rows))
        };
        let workers: Vec<_> = starts.map(spawn).collect();
        workers.into_iter().map(|worker| worker.join().expect("quantizing does not panic")).collect::<Result<_, _>>()
    })?;
    let (mut bytes, mut scales) = scheme.quantize_rows(stored, 0..0)?;
    for (elements, below) in parts {
        bytes.extend(elements);
        scales.append(below);
    }
    let (rows, cols, format) = (tensor.rows, tensor.cols, scheme.format());
    Ok(Tensor { rows, cols, format, bytes: Cow::Owned(bytes), scales: Some(scales) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quant::Format;

    #[test]
    fn embeddings_heads_and_routers_stay() {
        for (name, role, quantizable) in [
            ("model.layers.0.self_attn.q_proj.weight", Role::Column, true),
            ("model.layers.0.mlp.gate_proj.weight", Role::Glu, true),
            ("model.layers.0.mlp.down_proj.weight", Role::Row, true),
            ("model.layers.0.mlp.gate.weight", Role::Column, false),
            ("model.layers.0.block_sparse_moe.gate.weight", Role::Column, false),
            ("model.embed_tokens.weight", Role::Embed, false),
            ("lm_head.weight", Role::Head, false),
        ] {
            assert_eq!(is_quantizable(name, role), quantizable, "{name}");
        }
    }

    /// Rows of 64 values that grow with the row.
    fn tensor(rows: usize, cols: usize) -> Tensor<'static> {
        let values = (0..rows * cols).map(|idx| ((idx * 31 % 17) as f32 - 8.0) * (1 + idx / cols) as f32);
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        Tensor { rows, cols, format: Format::F32, bytes, scales: None }
    }

    #[test]
    fn threads_make_what_one_makes() {
        for scheme in [Scheme::Fp8, Scheme::Int4] {
            for rows in [0, 1, MIN_ROWS, 2 * MIN_ROWS + 1] {
                let plain = tensor(rows, 64);
                let (bytes, scales) = scheme.quantize_rows(&plain.stored(), 0..rows).expect("finite");
                let quantized = quantize(scheme, plain).expect("finite");
                assert_eq!((quantized.format, &*quantized.bytes), (scheme.format(), &bytes[..]), "{rows} rows");
                assert_eq!(quantized.scales.as_ref(), Some(&scales), "{rows} rows");
                quantized.stored().check().expect("a whole matrix");
            }
        }
    }

    #[test]
    fn what_has_no_whole_blocks_stays_and_what_is_not_finite_is_refused() {
        assert_eq!(quantize(Scheme::Int4, tensor(2, 33)).expect("as it is").format, Format::F32);
        let mut bytes = tensor(3, 64).bytes.into_owned();
        bytes[(64 + 5) * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let tensor = Tensor { bytes: Cow::Owned(bytes), ..tensor(3, 64) };
        assert_eq!(quantize(Scheme::Fp8, tensor).map(drop), Err(NotFinite { row: 1 }));
    }
}
