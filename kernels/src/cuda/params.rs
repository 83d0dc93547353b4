//! The kernels' parameters, as their `.cu` files declare them.

use cudarc::driver::DeviceRepr;

use super::device::Address;

macro_rules! params {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty,)+ })+) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name {
            $(pub $field: $kind,)+
        }

        // SAFETY: plain numbers, laid out as in C.
        unsafe impl DeviceRepr for $name {}
    )+};
}

params! {
    /// `e4m3_rows.cuh`
    E4m3Rows { codes: Address, scales: Address, stride: i32, }
    /// `norm.cu`
    Norm { x: Address, gain: Address, y: Address, codes: E4m3Rows, peaks: Address, cols: i32, eps: f32, }
    /// `quantize.cu`
    Quantize { x: Address, to: E4m3Rows, cols: i32, }
    /// `glu.cu`
    Glu { x: Address, y: Address, units: i32, activation: i32, }
    /// `rows.cu`
    Rows {
        ids: Address,
        from: Address,
        meta: Address,
        out: Address,
        cols: i32,
        num_rows: i32,
        scale: f32,
    }
    /// `rope_head.cuh`
    #[derive(Default)]
    RopeWrite {
        qkv: Address,
        q_gain: Address,
        k_gain: Address,
        cos: Address,
        sin: Address,
        positions: Address,
        slots: Address,
        q: Address,
        cache: Address,
        num_heads: i32,
        num_kv_heads: i32,
        head_dim: i32,
        rotary_dim: i32,
        block_size: i32,
        q_eps: f32,
        k_eps: f32,
        k_inverse: f32,
        v_inverse: f32,
    }
    /// `gemm_out.cuh`, of all matmuls
    Gemm {
        x: Address,
        w: Address,
        meta: Address,
        bias: Address,
        y: Address,
        m: i32,
        n: i32,
        k: i32,
        activation: i32,
        meta_shift: i32,
        splits: i32,
        partials: Address,
        arrived: Address,
        peaks: Address,
    }
    /// `permute.cu`
    Permute { x: Address, order: Address, y: Address, cols: i32, }
    /// `gemm_fp8.cu`
    Scales { x: Address, peaks: Address, x_stride: i32, w_stride: i32, w_shift: i32, }
    /// `gemm_fp8.cu`
    Fp8 { gemm: Gemm, scales: Scales, }
    /// `gemm_fp8.cu`
    Fp8Experts { experts: Experts, scales: Scales, }
    /// `attention_rows.cuh`
    Attention {
        rope: RopeWrite,
        out: Address,
        records: Address,
        arrivals: Address,
        sinks: Address,
        cu_seqlens: Address,
        cu_spans: Address,
        block_tables: Address,
        peaks: Address,
        sequences: i32,
        stride: i32,
        few: i32,
        window: i32,
        scale: f32,
        softcap: f32,
        v_scale: f32,
    }
    /// `experts.cuh`
    Experts { gemm: Gemm, tiles: Address, w_bytes: u64, meta_bytes: u64, }
    /// `moe_route.cu`
    Route {
        logits: Address,
        experts: Address,
        weights: Address,
        tokens: i32,
        num_experts: i32,
        top_k: i32,
        renormalize: i32,
    }
    /// `moe_sort.cu`
    Sort {
        experts: Address,
        order: Address,
        rows: Address,
        tiles: Address,
        pairs: i32,
        num_experts: i32,
        tile_rows: i32,
        max_tiles: i32,
    }
    /// `moe_rows.cu`
    Gather {
        x: Address,
        scales: Address,
        order: Address,
        tiles: Address,
        out: Address,
        out_scales: Address,
        chunks: i32,
        groups: i32,
        from_stride: i32,
        to_stride: i32,
        tile_rows: i32,
        top_k: i32,
    }
    /// `moe_rows.cu`
    Sum { y: Address, rows: Address, weights: Address, onto: Address, cols: i32, top_k: i32, }
    /// `logits.cuh`, of all kernels that sample
    Sampling {
        rows: Address,
        lists: Address,
        logits: Address,
        saved: Address,
        partials: Address,
        arrived: Address,
        results: Address,
        bests: Address,
        tokens: Address,
        vocab: i32,
        tiles: i32,
    }
    /// `logits.cuh`: what is wanted of one row
    SampleRow {
        noise: u64,
        kind: u32,
        logits: u32,
        known: u32,
        num_best: u32,
        best: u32,
        mask: u32,
        edits: u32,
        num_out: u32,
        num_biases: u32,
        num_counts: u32,
        repetition: f32,
        frequency: f32,
        presence: f32,
        inverse: f32,
        floor: f32,
        top_p: f32,
        top_k: u32,
        unused: u32,
    }
    /// `logits.cuh`: what came of it
    SampleResult { best: u64, sum: u64, token: u32, rank: u32, logit: f32, peak: f32, }
}

impl E4m3Rows {
    /// No codes are wanted.
    pub const NONE: Self = Self { codes: 0, scales: 0, stride: 0 };
}
