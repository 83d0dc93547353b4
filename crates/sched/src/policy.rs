//! Who goes first.

use std::fmt;
use std::str::FromStr;

/// The order in which waiting sequences start, and the reverse of the order in which running ones are preempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served.
    #[default]
    Fcfs,
    /// Lower priority values first, then first come.
    Priority,
}

impl Policy {
    /// The part of a sequence's rank that comes before its arrival.
    pub(crate) fn rank(self, priority: i32) -> i32 {
        match self {
            Self::Fcfs => 0,
            Self::Priority => priority,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fcfs => "fcfs",
            Self::Priority => "priority",
        })
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fcfs" => Ok(Self::Fcfs),
            "priority" => Ok(Self::Priority),
            _ => Err(format!("'{text}' is not a scheduling policy; use fcfs or priority")),
        }
    }
}
