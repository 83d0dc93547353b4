//! The words both towers share: plain data and one trait, no behaviour beyond indexing.
//!
//! Above this crate nothing knows a tensor; below it nothing knows a request, a text or a clock.
//! Start with [`SchedulerOutput`] (what one step must do) and [`Executor`] (who does it).

mod block_table;
mod capacity;
mod executor;
mod ids;
mod sampling;
mod step;

pub use block_table::{BlockTable, SlotMapping};
pub use capacity::{Group, Kind, KvCapacity, Pool};
pub use executor::{Control, Executor, ExecutorError, Masks, Reason};
pub use ids::{AdapterId, BlockId, GroupId, PoolId, RowId, SlotId, TokenId};
pub use sampling::SamplingParams;
pub use step::{
    AddRow, Copy, Logprob, ModelRunnerOutput, Outcome, PoolKind, RowOut, RowWork, SchedulerOutput, Span, Want,
};
