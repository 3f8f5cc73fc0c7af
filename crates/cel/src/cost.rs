//! What expressions cost: estimated before they run, and counted while they do.

/// The estimate.
pub mod estimate;
/// The count.
pub(crate) mod runtime;

/// What one expression may cost at run time.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all expressions of a policy's binding, or of a custom resource, may cost together.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or binding may cost together.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// The longest message that a `messageExpression` may make, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The part of a unit that passing over a character costs.
const TRAVERSAL: f64 = 0.1;
/// The part of a unit that a character of a pattern costs.
const PATTERN: f64 = 0.25;
const LIST: u64 = 10;
const MAP: u64 = 30;
const OBJECT: u64 = 40;
/// An authorization check: two of them fit into an expression.
const CHECK: u64 = 350_000;
