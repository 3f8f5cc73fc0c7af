//! Exec, attach and port-forward of a runtime in the same process: plain byte streams instead of a URL.
//! Dropping a `Session` hangs up: an exec'd process sees its terminal or stdin close, an attach just ends.

use crate::v1::{AttachRequest, ExecRequest};
use crate::{Error, Result};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Bytes that come from a process.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes that go to a process; shut it down to close its stdin.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A byte stream both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Width and height of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl From<(u16, u16)> for TerminalSize {
    fn from((width, height): (u16, u16)) -> Self {
        TerminalSize { width, height }
    }
}

/// One exec or attach. Streams that were not asked for are `None`; with a terminal there is no stderr.
pub struct Session {
    /// To the process.
    pub stdin: Option<Writer>,
    /// From the process (all of it, with a terminal).
    pub stdout: Option<Reader>,
    /// From the process.
    pub stderr: Option<Reader>,
    /// New sizes of the terminal; `None` without one.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// The exit code of the exec'd process, or of the container that was attached to. May resolve before
    /// the streams are drained; read those to their end first.
    pub exit: BoxFuture<'static, Result<i32>>,
}

/// In-process counterpart of `Exec`, `Attach` and `PortForward`.
#[async_trait::async_trait]
pub trait Streams: Send + Sync + 'static {
    /// Runs a command in a running container.
    async fn exec_stream(&self, request: ExecRequest) -> Result<Session> {
        let _ = request;
        Err(Error::unimplemented("exec streams"))
    }

    /// Connects to the stdio of a running container.
    async fn attach_stream(&self, request: AttachRequest) -> Result<Session> {
        let _ = request;
        Err(Error::unimplemented("attach streams"))
    }

    /// Connects to a TCP port on the loopback of a sandbox.
    async fn port_forward_stream(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let _ = (pod_sandbox_id, port);
        Err(Error::unimplemented("port-forward streams"))
    }
}
