//! The scheduler's hard cases, played by hand: what the simulator finds by chance is pinned here by name.

mod desk;
mod memory;
mod steps;
