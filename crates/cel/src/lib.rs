//! Kubernetes' CEL: expressions over values. Make an [`env::Environment`], compile, evaluate.

mod ast;
mod check;
/// What expressions cost.
pub mod cost;
/// Declarations of functions.
pub mod decls;
/// Expressions that select devices.
pub mod device;
/// Environments, and compiling in them.
pub mod env;
/// Property names as identifiers.
pub mod escape;
mod lexer;
/// The functions of Kubernetes.
pub mod library;
mod macros;
mod parser;
mod plan;
/// What admission policies see.
pub mod policy;
/// Compiled expressions.
pub mod program;
/// Go's regular expressions.
pub mod re2;
/// Schemas and declared types.
pub mod schema;
/// Places in an expression, and what is wrong there.
pub mod source;
/// Durations and points in time.
pub mod time;
/// Types.
pub mod types;
mod unescape;
/// Values.
pub mod value;
