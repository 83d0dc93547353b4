//! The engine: one thread that owns the scheduler and the executor, and the handles that send it requests.

mod request;

pub use contract::{SamplingParams, TokenId};
pub use request::{
    ChatPrompt, Delta, Event, Finish, FinishReason, GenerateRequest, Prompt, RequestError, StopMatch, SubmitError,
    Timing, TokenLogprob, Usage,
};
