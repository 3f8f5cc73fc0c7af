//! Custom resources: definitions become resources that are served like any other.
//!
//! [`controller`] follows the definitions: it decides on names and conditions ([`status`], pure), installs what a
//! definition brings ([`definition`]) before anybody can see it established, and clears its instances away when it goes
//! ([`cleanup`]). Between versions stands [`conversion`]. CEL rules are the business of `hooks::apiextensions::rules`. What a custom kind does beyond its schema is its [`strategy`].

pub(crate) mod accessor;
mod cleanup;
pub mod controller;
mod conversion;
mod definition;
mod source;
mod status;
mod strategy;

pub use conversion::{Conversion, Means, Measures, Webhook};
pub use definition::served;
pub use source::Source;
pub use status::plan;
