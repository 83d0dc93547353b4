//! Kernels that move rows: embeddings of tokens, and the rows whose logits are wanted.

use super::checks::Check;
use super::params::Rows;
use super::weight::Kind;
use super::{Buf, Cuda, Weight, address, int};

impl Cuda {
    pub(super) fn embed_tokens(&mut self, table: &Weight, scale: f32) -> Buf {
        let tokens = self.shape.tokens;
        let out = self.floats(tokens, table.cols);
        if self.admits(Check::Tokens { vocab: table.rows }) {
            let name = match table.kind {
                Kind::Bf16 => "embed_rows",
                Kind::W4 => "embed_w4",
                Kind::W8 => "embed_w8",
                Kind::Q4K => "embed_q4k",
                Kind::Q6K => "embed_q6k",
                Kind::Int4(_) | Kind::Fp8(_) => unreachable!("a table of INT4 or FP8 is packed as bf16"),
            };
            let params = Rows {
                ids: self.uploaded.token_ids,
                from: table.data.address(),
                meta: address(table.meta.as_ref()),
                out: out.address(),
                cols: int(table.cols),
                num_rows: int(table.rows),
                scale,
            };
            self.launch_rows(name, &params, tokens);
        }
        out
    }

    pub(super) fn gather_rows(&mut self, x: &Buf) -> Buf {
        let rows = self.shape.logit_rows;
        let cols = x.len().checked_div(self.shape.tokens).unwrap_or(0);
        let out = self.floats(rows, cols);
        if self.admits(Check::LogitTokens) {
            let (ids, from, out) = (self.uploaded.logit_tokens, x.address(), out.address());
            let params = Rows { ids, from, meta: 0, out, cols: int(cols), num_rows: 0, scale: 1.0 };
            self.launch_rows("gather_rows", &params, rows);
        }
        out
    }

    fn launch_rows(&mut self, name: &'static str, params: &Rows, count: usize) {
        assert!(params.cols % 4 == 0, "rows are read four columns at a time");
        self.launch(name, [count, 1, 1], 128, 0, params);
    }
}
