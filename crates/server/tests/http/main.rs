//! The server over real sockets, with a real engine and scheduler; the device alone is simulated.

#![allow(clippy::unwrap_used)]

mod chat;
mod client;
mod completions;
mod fold;
mod lifecycle;
mod refusals;
mod server;
mod service;
