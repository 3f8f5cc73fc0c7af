//! Containers' logs in the CRI's format: reading them back, following them, and keeping them small.

mod line;
mod read;
pub(crate) mod rotate;

pub(crate) use read::{LogOptions, Stream, last_lines, stream};
