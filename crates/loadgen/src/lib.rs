//! A load generator for any server that speaks OpenAI's API: sends, times what comes back, and reports it with vLLM's names.
//!
//! Knows no engine and shares no code with one: what it measures is what a client sees over HTTP/1.1. `workload` says what
//! is asked, `arrival` when, `client` asks, `recording` times one answer, `run` drives them all, `report` sums them up.

mod arrival;
mod beside;
mod chart;
mod client;
mod goodput;
mod machine;
mod page;
mod random;
mod recording;
mod report;
mod run;
mod share_gpt;
mod sse;
mod stats;
mod table;
mod target;
mod workload;

pub use arrival::Arrival;
pub use beside::Beside;
pub use chart::chart;
pub use client::{Client, Failure};
pub use goodput::{Goodput, GoodputError};
pub use machine::{Date, LoadAverage, Machine, Program};
pub use page::{html, markdown};
pub use random::Random;
pub use recording::Recording;
pub use report::{Report, Setup};
pub use run::{Outcome, Run, run};
pub use share_gpt::{Fitting, ShareGpt};
pub use stats::{Summary, percentile};
pub use table::table;
pub use target::{Endpoint, Target, TargetError};
pub use workload::{Dataset, Sample, Workload, WorkloadError};
