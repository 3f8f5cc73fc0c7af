//! Reads: lists, watches and feeds over the store's own snapshots and events. There is no second copy of anything; what
//! selectors need of an object is extracted once per version and kept beside it.

mod events;
pub mod list;
mod project;
mod select;
mod source;
mod token;

pub use events::{EncodedEvents, EventType};
pub use project::{Projected, projected};
pub use select::Selection;
pub use source::StoreSource;
pub use token::Continue;
