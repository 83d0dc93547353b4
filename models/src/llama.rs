//! The Llama family: Llama 1 to 3, SmolLM2, Mistral; and Qwen2, whose biases of q, k and v load by being there.

use tensor::Backend;

use crate::decoder::{Parts, mlp};

pub(crate) fn parts<B: Backend>() -> Parts<B> {
    Parts { qk_norm: false, feed_forward: mlp }
}
