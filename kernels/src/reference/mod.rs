//! The reference backend: plain `f32` buffers, one op after the other, matmul by candle. The specification of every op.
