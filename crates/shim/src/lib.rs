//! The small static program of the node (`tiphys-shim`: shim, container creator, exec helper and pod init),
//! seen from the daemon: its protocol, its client and the way it is started. The program itself is `src/bin`.

/// A blocking client of one shim; the daemon wraps it in its own tasks.
pub mod client;
/// Frames on the socket, and file descriptors beside them.
pub mod codec;
/// Sockets that outlive the daemon.
pub mod held;
/// What the daemon and a shim say to each other.
pub mod protocol;
/// Starting the program out of a sealed memfd.
pub mod spawn;
