//! The real engine thread and handle, with a byte tokenizer above and the simulated executor below.

mod answers;
mod failures;
mod support;
