//! One file per subcommand.

pub mod bench;
pub mod doctor;
pub mod models;
pub mod plan;
pub mod pull;
pub mod run;
pub mod serve;
