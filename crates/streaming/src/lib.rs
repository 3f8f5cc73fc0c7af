//! WebSocket and SPDY/3.1 channels for exec, attach and port-forward: both ends of them, and a proxy between.

/// What goes over a connection, and the two ends of a channel.
mod channel;
/// The calling end.
pub mod client;
/// The tasks of a connection and how it ends.
mod connection;
mod error;
/// Sessions and what they are about, joined.
mod join;
/// A body as messages, for logs and watches.
pub mod messages;
/// Who speaks what: upgrade requests and their answers.
pub mod negotiate;
/// How a remote command ended.
mod outcome;
/// Forwarded ports.
mod port_forward;
/// Passing an upgraded connection through to a backend.
pub mod proxy;
/// Exec and attach.
mod remote_command;
/// The called end.
pub mod server;
/// SPDY/3.1.
mod spdy;
/// WebSocket.
mod ws;

pub use channel::{Input, Output};
pub use error::Error;
pub use join::Process;
pub use outcome::Outcome;
pub use port_forward::{Forward, PortForward, ports};
pub use remote_command::{RemoteCommand, Resizes, Streams, TerminalSize};
pub use server::{Endpoint, Session, upgrade};
