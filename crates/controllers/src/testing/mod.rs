//! Stories: controllers against an API server in memory, with hollow nodes, on virtual time.
//!
//! A story is a file of commands (`> advance 5s`), their input (`| kind: Deployment`) and what they print. It is read,
//! played, and compared; `UPDATE_EXPECT=1` blesses it. Time moves only with `advance`, as tokio's paused clock does.

mod api;
mod kubelet;
mod story;

pub(crate) use api::Api;
pub(crate) use story::{play, play_with};
