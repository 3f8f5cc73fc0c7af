//! The master of a terminal as an asynchronous stream. Reading ends when the last process has left the terminal.

use cri::streams::TerminalSize;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// End of transmission: what a terminal takes for the end of its input.
const EOT: [u8; 1] = [4];

/// Cheap to clone; the terminal hangs up when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Pty {
    master: Arc<AsyncFd<OwnedFd>>,
}

impl Pty {
    pub(crate) fn new(master: OwnedFd) -> io::Result<Pty> {
        rustix::io::ioctl_fionbio(&master, true)?;
        // SAFETY: an `OwnedFd` is the same descriptor from now until it is dropped, which is when it is deregistered.
        let registered = unsafe { AsyncFd::register(master) };
        let master = registered.map_err(|error| error.into_parts().1)?;
        Ok(Pty { master: Arc::new(master) })
    }

    /// Tells the processes of the terminal its new size.
    pub(crate) fn resize(&self, size: TerminalSize) {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(self.master.get_ref(), size) {
            tracing::debug!(%error, "could not resize a terminal");
        }
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.master.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            let read = ready.try_io(|fd| match rustix::io::read(fd.get_ref(), &mut *space) {
                // How Linux says that nobody has the terminal open any more.
                Err(Errno::IO) => Ok(0),
                result => Ok(result?),
            });
            if let Ok(result) = read {
                buffer.advance(result?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.master.poll_write_ready(cx))?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(cx, &EOT).map_ok(drop)
    }
}
