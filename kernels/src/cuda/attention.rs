//! Rotation, KV writes and attention: which kernels run, and what they are told.
//!
//! Where every sequence has one token, one launch does all of it. Else rotation has a launch of its own.

use tensor::{Act, ActSet, AttnSpec, Backend, Encoding, NormSpec, QkvSpec};

use super::cache::{Cache, Element};
use super::checks::Check;
use super::device::Address;
use super::params::{Attention, RopeWrite};
use super::shape::Shape;
use super::{Buf, Cuda, address, int};
use crate::inputs::{check_heads, max_len};

/// Positions of a tile and of a span: as `paged_attention.cuh` has them.
const TILE: usize = 32;
pub(super) const SPAN: usize = 256;
/// Records of (span, token) a head, 16.5 KiB each for 32 heads of 128: sixteen sequences of 64k, which without splits are 128 blocks of a
/// model with eight key heads.
pub(super) const MAX_RECORDS: usize = 4096;

/// The attention kernels for heads of one size and a cache of one element.
struct Kernels {
    attend: &'static str,
    attend_span: &'static str,
}

fn kernels_of(element: Element, head_dim: usize) -> Option<Kernels> {
    let (attend, attend_span) = match (element, head_dim) {
        (Element::Bf16, 16) => ("attend_16", "attend_span_16"),
        (Element::Bf16, 32) => ("attend_32", "attend_span_32"),
        (Element::Bf16, 64) => ("attend_64", "attend_span_64"),
        (Element::Bf16, 80) => ("attend_80", "attend_span_80"),
        (Element::Bf16, 96) => ("attend_96", "attend_span_96"),
        (Element::Bf16, 128) => ("attend_128", "attend_span_128"),
        (Element::Bf16, 256) => ("attend_256", "attend_span_256"),
        (Element::E4m3, 16) => ("attend_fp8_16", "attend_span_fp8_16"),
        (Element::E4m3, 32) => ("attend_fp8_32", "attend_span_fp8_32"),
        (Element::E4m3, 64) => ("attend_fp8_64", "attend_span_fp8_64"),
        (Element::E4m3, 80) => ("attend_fp8_80", "attend_span_fp8_80"),
        (Element::E4m3, 96) => ("attend_fp8_96", "attend_span_fp8_96"),
        (Element::E4m3, 128) => ("attend_fp8_128", "attend_span_fp8_128"),
        (Element::E4m3, 256) => ("attend_fp8_256", "attend_span_fp8_256"),
        _ => return None,
    };
    Some(Kernels { attend, attend_span })
}

/// Whether there are kernels.
pub(super) fn check(element: Element, head_dim: usize) -> Result<(), String> {
    let found = kernels_of(element, head_dim).map(drop);
    found.ok_or_else(|| format!("the CUDA kernels take heads of 16, 32, 64, 80, 96, 128 or 256, not {head_dim}"))
}

/// A block of the kernels: as `attention_rows.cuh` and `paged_attention.cuh` lay it out.
struct Block {
    threads: usize,
    /// Pairs of token and query head.
    rows: usize,
    /// Shared memory, where one block walks all spans and where each has one.
    walk_bytes: usize,
    span_bytes: usize,
}

impl Block {
    fn of(element: Element, head_dim: usize) -> Self {
        let row_bytes = |bytes: usize| 16 * ((bytes / 16) | 1);
        let (threads, stage) =
            (if head_dim > 128 { 64 } else { 128 }, 2 * TILE * row_bytes(head_dim * element.bytes()));
        let (queries, sums) = (threads / 2 * row_bytes(2 * head_dim), threads * head_dim / 2 * 4);
        let (walk_stages, span_stages) = if stage > 20_000 { (1, 2) } else { (2, 3) };
        Self {
            threads,
            rows: threads / 2,
            walk_bytes: walk_stages * stage + if head_dim > 128 { queries + sums } else { queries.max(sums) },
            span_bytes: span_stages * stage + queries,
        }
    }
}

/// How a step's attention is cut: numbers of blocks a key head.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    /// Sequences of up to so many tokens have a block for each of their spans, the others one for each tile of rows. A row's bits are the
    /// same either way.
    few: usize,
    tiles: usize,
    spans: usize,
}

impl Cut {
    /// Splits what one block holds the rows of, as far as there is room for records, in steps where some sequence has several spans.
    fn of(shape: &Shape, group: usize, rows: usize) -> Self {
        let &Shape { tokens, seqs, fewest_tokens, most_tokens, spans, .. } = shape;
        let few = if spans > seqs { most_tokens.min(rows / group).min(MAX_RECORDS / spans) } else { 0 };
        Self {
            few,
            tiles: if most_tokens > few { tokens * group / rows + seqs } else { 0 },
            spans: if fewest_tokens <= few { spans } else { 0 },
        }
    }
}

impl Cuda {
    /// Rotation and KV write in a launch of their own: q, `[T, Hq * D]` bf16.
    pub(super) fn rotate(&mut self, qkv: &Buf, spec: &QkvSpec<Self>, cache: &Cache, layer: usize) -> Buf {
        let tokens = self.shape.tokens;
        let q = self.arena.alloc(tokens * spec.num_heads * spec.head_dim * 2);
        self.check_qkv(qkv, spec, cache);
        if self.admits(Check::Write { cache: cache.spec.clone(), longest: longest(spec) }) {
            let params = RopeWrite { q: q.address(), ..self.rope_params(qkv, spec, cache, layer) };
            let name = match cache.element {
                Element::Bf16 => "rope_write",
                Element::E4m3 => "rope_write_fp8",
            };
            let heads = spec.num_heads + 2 * spec.num_kv_heads;
            self.launch(name, [tokens, heads.div_ceil(4), 1], 128, 0, &params);
        }
        q
    }

    /// Attention of queries that were rotated.
    pub(super) fn attend_rotated(
        &mut self,
        q: &Buf,
        spec: &AttnSpec<Self>,
        cache: &Cache,
        layer: usize,
        emit: ActSet,
    ) -> Act<Self> {
        let elements = self.shape.tokens * spec.num_heads * spec.head_dim;
        assert_eq!(q.len() * 2, elements, "q holds every head of every token");
        let rope = RopeWrite {
            q: q.address(),
            positions: self.uploaded.positions,
            cache: cache.block(layer, 0),
            num_heads: int(spec.num_heads),
            num_kv_heads: int(spec.num_kv_heads),
            head_dim: int(spec.head_dim),
            block_size: int(cache.spec.block_size),
            ..RopeWrite::default()
        };
        self.launch_attention(rope, spec, cache, emit)
    }

    /// All of it, in one launch where each sequence has one token.
    pub(super) fn rotate_and_attend(
        &mut self,
        qkv: &Buf,
        qkv_spec: &QkvSpec<Self>,
        spec: &AttnSpec<Self>,
        cache: &mut Cache,
        layer: usize,
        emit: ActSet,
    ) -> Act<Self> {
        let fits = spec.num_heads / spec.num_kv_heads <= Block::of(cache.element, spec.head_dim).rows;
        let Shape { tokens, seqs, most_tokens, .. } = self.shape;
        if self.planning || !fits || most_tokens != 1 || tokens != seqs {
            let q = self.rope_write(qkv, qkv_spec, cache, layer);
            return self.attend(&q, spec, cache, layer, emit);
        }
        self.check_qkv(qkv, qkv_spec, cache);
        self.admits(Check::Write { cache: cache.spec.clone(), longest: longest(qkv_spec) });
        let rope = self.rope_params(qkv, qkv_spec, cache, layer);
        self.launch_attention(rope, spec, cache, emit)
    }

    fn check_qkv(&self, qkv: &Buf, spec: &QkvSpec<Self>, cache: &Cache) {
        check_heads(&cache.spec, spec.num_heads, spec.num_kv_heads, spec.head_dim);
        let row = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
        assert_eq!(qkv.len(), self.shape.tokens * row, "qkv holds every head of every token");
    }

    fn rope_params(&self, qkv: &Buf, spec: &QkvSpec<Self>, cache: &Cache, layer: usize) -> RopeWrite {
        let table = spec.rope.address();
        let norm = |norm: &Option<NormSpec<Self>>| norm.as_ref().map_or((0, 0.0), |n| (n.gain.address(), n.eps));
        let ((q_gain, q_eps), (k_gain, k_eps)) = (norm(&spec.q_norm), norm(&spec.k_norm));
        let inverse = |scale: f32| if cache.element == Element::E4m3 { 1.0 / scale } else { 1.0 };
        RopeWrite {
            qkv: qkv.address(),
            q_gain,
            k_gain,
            cos: table,
            sin: table + (spec.rope.len() / 2 * 4) as Address,
            positions: self.uploaded.positions,
            slots: self.uploaded.group(cache.spec.group).slots,
            q: 0,
            cache: cache.block(layer, 0),
            num_heads: int(spec.num_heads),
            num_kv_heads: int(spec.num_kv_heads),
            head_dim: int(spec.head_dim),
            rotary_dim: int(spec.rotary_dim),
            block_size: int(cache.spec.block_size),
            q_eps,
            k_eps,
            k_inverse: inverse(spec.kv_scales.k),
            v_inverse: inverse(spec.kv_scales.v),
        }
    }

    fn launch_attention(&mut self, rope: RopeWrite, spec: &AttnSpec<Self>, cache: &Cache, emit: ActSet) -> Act<Self> {
        check_heads(&cache.spec, spec.num_heads, spec.num_kv_heads, spec.head_dim);
        let (tokens, heads, block) = (self.shape.tokens, spec.num_heads, Block::of(cache.element, spec.head_dim));
        let emit = self.by_parts(tokens, emit);
        let act = self.activations(tokens, heads * spec.head_dim, emit);
        let out = self.bf16(&act, emit);
        let Cut { few, tiles, spans } = Cut::of(&self.shape, heads / spec.num_kv_heads, block.rows);
        let num_records = if self.planning { MAX_RECORDS } else { spans * few };
        let records = (num_records > 0).then(|| self.floats(num_records * heads, spec.head_dim + 4));
        if !self.admits(Check::Read { cache: cache.spec.clone() }) {
            return act;
        }
        let scales = if cache.element == Element::E4m3 { spec.kv_scales } else { Default::default() };
        let params = Attention {
            rope,
            out: out.address(),
            records: address(records.as_ref()),
            arrivals: cache.arrivals(),
            sinks: address(spec.sinks.as_ref()),
            cu_seqlens: self.uploaded.cu_seqlens,
            cu_spans: self.uploaded.cu_spans,
            block_tables: self.uploaded.group(cache.spec.group).block_tables,
            peaks: address(act.find(Encoding::Bf16Peaks)),
            sequences: int(self.shape.seqs),
            stride: int(self.shape.stride),
            few: int(few),
            window: spec.window.map_or(i32::MAX, int),
            scale: spec.scale * scales.k,
            softcap: spec.softcap.unwrap_or(0.0),
            v_scale: scales.v,
        };
        let kernels = kernels_of(cache.element, spec.head_dim).expect("a cache was made for these heads");
        self.launch(kernels.attend, [tiles, spec.num_kv_heads, 1], block.threads, block.walk_bytes, &params);
        self.launch(kernels.attend_span, [spans, spec.num_kv_heads, 1], block.threads, block.span_bytes, &params);
        self.quantize(&out, &act, emit);
        act
    }
}

/// The longest sequence that the rotary table reaches.
fn longest(spec: &QkvSpec<Cuda>) -> usize {
    max_len(spec.rope.len(), spec.rotary_dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step's shape by (sequences, tokens of each, positions of each).
    fn cut(parts: &[(usize, usize, usize)]) -> Cut {
        let sum = |of: &dyn Fn(&(usize, usize, usize)) -> usize| parts.iter().map(of).sum();
        let shape = Shape {
            tokens: sum(&|part| part.0 * part.1),
            seqs: sum(&|part| part.0),
            fewest_tokens: parts.iter().map(|part| part.1).min().unwrap_or(0),
            most_tokens: parts.iter().map(|part| part.1).max().unwrap_or(0),
            spans: sum(&|part| part.0 * part.2.div_ceil(SPAN)),
            ..Shape::default()
        };
        Cut::of(&shape, 4, 64)
    }

    #[test]
    fn blocks_are_as_many_as_there_is_work() {
        for (what, parts, expected) in [
            ("short contexts", &[(256, 1, 200)][..], Cut { few: 0, tiles: 272, spans: 0 }),
            ("eight sequences of 64k", &[(8, 1, 65536)], Cut { few: 1, tiles: 0, spans: 2048 }),
            ("a long one among short", &[(255, 1, 100), (1, 1, 65536)], Cut { few: 1, tiles: 0, spans: 511 }),
            ("more than there are records", &[(64, 1, 65536)], Cut { few: 0, tiles: 68, spans: 0 }),
            ("a chunk", &[(1, 8192, 8192)], Cut { few: 16, tiles: 513, spans: 0 }),
            ("a chunk beside rows", &[(255, 1, 2000), (1, 8192, 8192)], Cut { few: 1, tiles: 783, spans: 2072 }),
            ("the end of a long prompt", &[(1, 10, 32000)], Cut { few: 10, tiles: 0, spans: 125 }),
            ("nothing", &[], Cut { few: 0, tiles: 0, spans: 0 }),
        ] {
            assert_eq!(cut(parts), expected, "{what}");
        }
    }
}
