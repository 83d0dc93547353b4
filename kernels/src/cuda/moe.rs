//! Mixtures of experts: where the parts of a routing lie, and which kernels run.
//!
//! The host knows how many pairs of a token and an expert there are, never which: every grid is as large as any routing needs,
//! so that a step can be captured.

use tensor::{Act, ActSet, Activation, Encoding, RouteSpec, Routing};

use super::act::{self, e4m3};
use super::device::{Address, refused};
use super::gemm::{self, TILES};
use super::params::{E4m3Rows, Experts, Fp8Experts, Gather, Gemm, Route, Sort, Sum};
use super::weight::{Kind, Weight};
use super::{Buf, Cuda, address, int};

/// As `moe_route.cu` has them.
pub(super) const MAX_EXPERTS: usize = 512;
const MAX_TOP_K: usize = 32;
/// Pairs an expert from which on the larger row tile wastes less than the smaller one reads again.
const MANY_PAIRS: usize = 32;

/// Sizes of a routing, by the number of tokens alone.
#[derive(Clone, Copy)]
struct Sizes {
    pairs: usize,
    /// Which of `TILES`.
    size: usize,
    tile_rows: usize,
    /// Row tiles at most: each expert starts one of its own.
    max_tiles: usize,
}

/// Where the parts of a routing lie.
struct Parts {
    tiles: Address,
    order: Address,
    experts: Address,
    weights: Address,
    rows: Address,
}

impl Sizes {
    fn of(tokens: usize, spec: RouteSpec) -> Self {
        let pairs = tokens * spec.top_k;
        let size = usize::from(pairs > spec.num_experts * MANY_PAIRS);
        let (tile_rows, used) = (TILES[size].rows, spec.num_experts.min(pairs));
        Self { pairs, size, tile_rows, max_tiles: used + (pairs - used) / tile_rows }
    }

    /// Rows of the experts' inputs and outputs, those that no expert has included.
    fn rows(self) -> usize {
        self.max_tiles * self.tile_rows
    }

    fn words(self) -> usize {
        2 * self.max_tiles + self.rows() + 3 * self.pairs
    }

    fn parts(self, base: Address) -> Parts {
        let after = |address: Address, words: usize| address + words as Address * 4;
        let order = after(base, 2 * self.max_tiles);
        let experts = after(order, self.rows());
        let weights = after(experts, self.pairs);
        Parts { tiles: base, order, experts, weights, rows: after(weights, self.pairs) }
    }
}

fn layout(routing: &Routing<Cuda>) -> (Sizes, Parts) {
    let sizes = Sizes::of(routing.tokens, routing.spec);
    (sizes, sizes.parts(routing.buf.address()))
}

/// Where rows of any encoding lie, and their scales if they have any.
fn rows(act: &Act<Cuda>, encoding: Encoding) -> E4m3Rows {
    match encoding {
        Encoding::Bf16 => E4m3Rows { codes: act.get(encoding).address(), ..E4m3Rows::NONE },
        _ => e4m3(act, encoding),
    }
}

impl Cuda {
    pub(super) fn route_tokens(&mut self, logits: &Buf, spec: RouteSpec) -> Routing<Self> {
        let tokens = logits.len() / spec.num_experts;
        let routing = Routing { spec, tokens, buf: self.arena.alloc(Sizes::of(tokens, spec).words() * 4) };
        if spec.top_k > MAX_TOP_K {
            let message = format!("the CUDA kernels give a token at most {MAX_TOP_K} experts, not {}", spec.top_k);
            self.failed.get_or_insert(refused(message));
        }
        let (sizes, parts) = layout(&routing);
        let route = Route {
            logits: logits.address(),
            experts: parts.experts,
            weights: parts.weights,
            tokens: int(tokens),
            num_experts: int(spec.num_experts),
            top_k: int(spec.top_k),
            renormalize: i32::from(spec.renormalize),
        };
        self.launch("moe_route", [tokens.div_ceil(4), 1, 1], 128, 0, &route);
        let sort = Sort {
            experts: parts.experts,
            order: parts.order,
            rows: parts.rows,
            tiles: parts.tiles,
            pairs: int(sizes.pairs),
            num_experts: int(spec.num_experts),
            tile_rows: int(sizes.tile_rows),
            max_tiles: int(sizes.max_tiles),
        };
        self.launch("moe_sort", [spec.num_experts, 1, 1], 256, 0, &sort);
        routing
    }

    /// The tokens of `a`, each in the rows of its experts, as `encoding`.
    pub(super) fn gather_tokens(&mut self, a: &Act<Self>, encoding: Encoding, routing: &Routing<Self>) -> Act<Self> {
        let (sizes, parts) = layout(routing);
        let gathered = self.activations(sizes.rows(), a.cols, ActSet::of(encoding));
        let (from, to) = (rows(a, encoding), rows(&gathered, encoding));
        let params = Gather {
            x: from.codes,
            scales: from.scales,
            order: parts.order,
            tiles: parts.tiles,
            out: to.codes,
            out_scales: to.scales,
            chunks: int(act::row_bytes(encoding, a.cols) / 16),
            groups: int(act::num_scales(encoding, a.cols)),
            from_stride: from.stride,
            to_stride: to.stride,
            tile_rows: int(sizes.tile_rows),
            top_k: int(routing.spec.top_k),
        };
        self.launch("moe_gather", [sizes.rows(), 1, 1], 128, 0, &params);
        gathered
    }

    /// Each row of `a` times the matrix of its expert: as it is, or gated.
    pub(super) fn gemm_experts(
        &mut self,
        is_glu: bool,
        a: &Act<Self>,
        w: &Weight,
        routing: &Routing<Self>,
        y: &Buf,
        f: Activation,
    ) {
        let (sizes, parts) = layout(routing);
        assert_eq!((a.rows, a.cols), (sizes.rows(), w.cols), "rows of the routing, columns of the experts");
        assert_eq!(w.experts, routing.spec.num_experts, "the stack has the router's experts");
        if self.planning {
            return;
        }
        let (name, shared_bytes) = gemm::experts_kernel(w.kind, is_glu, sizes.size);
        let params = Experts {
            gemm: Gemm {
                x: a.get(gemm::encoding(w.kind)).address(),
                w: w.data.address(),
                meta: address(w.meta.as_ref()),
                bias: 0,
                y: y.address(),
                m: 0,
                n: int(w.rows),
                k: int(w.cols),
                activation: i32::from(f == Activation::GeluTanh),
                meta_shift: int(w.kind.meta_shift()),
                // Experts are many: there are blocks enough without splits.
                splits: 1,
                partials: 0,
                arrived: 0,
                peaks: 0,
            },
            tiles: parts.tiles,
            w_bytes: (w.data.bytes() / w.experts) as u64,
            meta_bytes: w.meta.as_ref().map_or(0, |meta| meta.bytes() / w.experts) as u64,
        };
        let tile = &TILES[sizes.size];
        let grid = [w.rows.div_ceil(tile.outputs), sizes.max_tiles, 1];
        match w.kind {
            Kind::Fp8(scaling) => {
                let scales = gemm::scales(a, w.rows, scaling);
                self.launch(name, grid, tile.threads, shared_bytes, &Fp8Experts { experts: params, scales });
            }
            _ => self.launch(name, grid, tile.threads, shared_bytes, &params),
        }
    }

    /// `onto [T, cols] +=` the weighted rows of `y` of each token.
    pub(super) fn sum_slots(&mut self, y: &Buf, cols: usize, routing: &Routing<Self>, onto: &Buf) {
        assert_eq!(onto.len(), routing.tokens * cols, "the sum has the output's shape");
        assert!(cols.is_multiple_of(4), "rows are read four columns at a time");
        let (_, parts) = layout(routing);
        let params = Sum {
            y: y.address(),
            rows: parts.rows,
            weights: parts.weights,
            onto: onto.address(),
            cols: int(cols),
            top_k: int(routing.spec.top_k),
        };
        self.launch("moe_sum", [routing.tokens, 1, 1], 128, 0, &params);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_routing_needs_more_tiles() {
        for (tokens, num_experts, top_k) in [(1, 8, 2), (1, 128, 8), (5, 4, 4), (64, 128, 8), (700, 8, 2), (33, 1, 1)] {
            let sizes = Sizes::of(tokens, RouteSpec { num_experts, top_k, renormalize: true });
            let tiles = |counts: &[usize]| counts.iter().map(|count| count.div_ceil(sizes.tile_rows)).sum::<usize>();
            let even: Vec<usize> = (0..num_experts).map(|idx| (sizes.pairs + idx) / num_experts).collect();
            // One row more than whole tiles each, as far as the pairs go; the rest to the first.
            let used = num_experts.min(sizes.pairs);
            let mut ragged: Vec<usize> = vec![1; used];
            ragged[0] += (sizes.pairs - used) / sizes.tile_rows * sizes.tile_rows;
            ragged[used - 1] += (sizes.pairs - used) % sizes.tile_rows;
            for counts in [even, ragged] {
                assert_eq!(counts.iter().sum::<usize>(), sizes.pairs);
                assert!(tiles(&counts) <= sizes.max_tiles, "{tokens} tokens: {counts:?}");
            }
        }
    }
}
