//! Qwen3: Llama's layers, with a norm of each head's q and k.

use tensor::Backend;

use crate::decoder::{Parts, mlp};

pub(crate) fn parts<B: Backend>() -> Parts<B> {
    Parts { qk_norm: true, feed_forward: mlp }
}
