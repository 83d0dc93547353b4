//! Mixtures of experts: each token's rows brought together by expert, the experts' matmuls on them, and their sum.
//!
//! One job of a matmul is a strip of one expert and a tile of its rows, so that all experts are one hand-over to the pool.

use tensor::{Act, ActSet, Activation, RouteSpec, Routing};

use super::Cpu;
use super::act::{self, Encoded};
use super::arena::{Buf, Shared};
use super::matmul::{Epilogue, Matmul};
use super::route::{self, Routes};
use super::simd::{LANES, Op, Simd};
use super::weight::Weight;

/// Rows in a job that copies or sums.
const ROWS: usize = 8;

impl Cpu {
    pub(super) fn route_tokens(&self, logits: &Buf, spec: RouteSpec) -> Routing<Self> {
        let tokens = logits.len() / spec.num_experts;
        let routing = Routing { spec, tokens, buf: self.arena.alloc(route::bytes(tokens, spec)) };
        if self.computes() {
            // SAFETY: the buffer was just made, and the logits are one row a token.
            unsafe { routes(&routing).fill(&self.pool, logits.ptr()) };
        }
        routing
    }

    /// `a` in the encodings that `weight` multiplies.
    pub(super) fn operands(&self, a: &Act<Self>, weight: &Weight) -> Encoded {
        weight.wants().iter().fold(Encoded::nowhere(a.cols), |input, encoding| {
            let buf = a.get(encoding);
            assert!(buf.bytes() >= act::bytes(encoding, a.rows, a.cols), "the input's buffer holds its rows");
            // SAFETY: as just checked.
            unsafe { input.with(encoding, buf.ptr(), a.rows) }
        })
    }

    pub(super) fn gate_experts(
        &self,
        a: &Act<Self>,
        w: &Weight,
        routing: &Routing<Self>,
        f: Activation,
        emit: ActSet,
    ) -> Act<Self> {
        let gathered = self.gather_tokens(a, w, routing);
        let (act, emit) = self.emit(routing.pairs(), w.rows / 2, emit);
        self.matmul_experts(&gathered, w, routing, Epilogue::Glu { f, emit });
        act
    }

    pub(super) fn add_experts(&self, a: &Act<Self>, w: &Weight, routing: &Routing<Self>, onto: &Buf) {
        let y = self.floats(a.rows, w.rows);
        self.matmul_experts(a, w, routing, Epilogue::Store { out: y.ptr(), bias: None });
        self.sum_slots(&y, w.rows, routing, onto);
    }

    /// The token of each row, in the encodings that `w` multiplies.
    fn gather_tokens(&self, a: &Act<Self>, w: &Weight, routing: &Routing<Self>) -> Act<Self> {
        let (rows, top_k) = (routing.pairs(), routing.spec.top_k);
        let (gathered, to) = self.emit(rows, a.cols, w.wants());
        let from = self.operands(a, w);
        if self.computes() {
            // SAFETY: the routing has memory, and was filled.
            let routes = unsafe { routes(routing) };
            // SAFETY: as above.
            let order = unsafe { routes.order() };
            self.pool.run(rows.div_ceil(ROWS), &|job| {
                for row in (job * ROWS..rows).take(ROWS) {
                    // SAFETY: each row is written once, from one that exists.
                    unsafe { to.copy_row(row, &from, order[row] as usize / top_k) };
                }
            });
        }
        gathered
    }

    /// Each row of `a` times the matrix of its expert.
    fn matmul_experts(&self, a: &Act<Self>, weight: &Weight, routing: &Routing<Self>, epilogue: Epilogue) {
        assert_eq!(a.cols, weight.cols, "the input has {} columns, the experts want {}", a.cols, weight.cols);
        assert_eq!(weight.segments.len(), routing.spec.num_experts, "the stack has the router's experts");
        let input = self.operands(a, weight);
        if self.computes() {
            // SAFETY: the routing was filled.
            let routes = unsafe { routes(routing) };
            let matmul = Matmul { weight, input, epilogue, rows: a.rows };
            // SAFETY: as above.
            matmul.run_experts(unsafe { routes.tiles() }, &self.pool, self.isa);
        }
    }

    /// `onto [T, cols] +=` the weighted rows of `y` of each token, slot by slot.
    fn sum_slots(&self, y: &Buf, cols: usize, routing: &Routing<Self>, onto: &Buf) {
        assert_eq!(onto.len(), routing.tokens * cols, "the sum has the output's shape");
        if self.computes() {
            // SAFETY: the routing has memory, and was filled.
            let routes = unsafe { routes(routing) };
            // SAFETY: as above.
            let (rows, weights) = unsafe { (routes.rows(), routes.weights()) };
            let (y, onto, isa) = (Shared(y.ptr()), Shared(onto.ptr()), self.isa);
            let (tokens, top_k) = (routing.tokens, routing.spec.top_k);
            self.pool.run(tokens.div_ceil(ROWS), &|job| {
                for token in (job * ROWS..tokens).take(ROWS) {
                    let pairs = token * top_k..(token + 1) * top_k;
                    let (rows, weights) = (&rows[pairs.clone()], &weights[pairs]);
                    // SAFETY: each token's row is written by one job, and the rows of its pairs exist.
                    unsafe {
                        let onto = onto.get().add(token * cols);
                        isa.run(SumSlots { y: y.get(), rows, weights, cols, onto });
                    }
                }
            });
        }
    }
}

/// # Safety
/// The routing's buffer has memory.
unsafe fn routes(routing: &Routing<Cpu>) -> Routes {
    // SAFETY: the buffer was made for these tokens.
    unsafe { Routes::at(routing.buf.ptr(), routing.tokens, routing.spec) }
}

/// One token's sum.
struct SumSlots<'a> {
    y: *const f32,
    rows: &'a [u32],
    weights: &'a [f32],
    cols: usize,
    onto: *mut f32,
}

impl Op for SumSlots<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for col in (0..self.cols).step_by(LANES) {
            // SAFETY: rows have `cols` columns, a multiple of 16.
            unsafe {
                let mut sum = S::splat(0.0);
                for (row, weight) in self.rows.iter().zip(self.weights) {
                    let y = S::load(self.y.add(*row as usize * self.cols + col));
                    sum = S::fma(S::splat(*weight), y, sum);
                }
                S::store(self.onto.add(col), S::add(S::load(self.onto.add(col)), sum));
            }
        }
    }
}
