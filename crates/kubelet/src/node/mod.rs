//! The node itself: what the machine has, registering it, reporting its state, renewing its lease.

pub(crate) mod conditions;
pub(crate) mod events;
pub(crate) mod lease;
pub(crate) mod machine;
pub(crate) mod register;
pub(crate) mod report;
pub(crate) mod status;
