//! Sessions joined to what they are about: a command's streams to a process, forwarded ports to connections. Whoever
//! serves exec, attach and port-forward (the kubelet, a runtime's streaming server) comes through here.

use crate::{Input, Outcome, Output, PortForward, RemoteCommand};
use futures::future::BoxFuture;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The streams of a process, as far as it has them. `Size` is the process's word for a terminal's columns and rows.
pub struct Process<Size> {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub resize: Option<mpsc::Sender<Size>>,
    /// Its exit code, or why that is not known.
    pub exit: BoxFuture<'static, Result<i32, String>>,
}

impl RemoteCommand {
    /// Copies until the process has ended and everything it wrote was sent, then tells how it ended. A client that hangs
    /// up makes the process's streams be dropped.
    pub async fn join<Size: From<(u16, u16)> + Send>(
        mut self,
        open: impl Future<Output = Result<Process<Size>, String>>,
    ) {
        let outcome = match open.await {
            Ok(process) => {
                let gone = self.gone();
                tokio::select! {
                    outcome = copy(&mut self, process) => outcome,
                    () = gone.cancelled() => return,
                }
            }
            Err(message) => Outcome::Failed(message),
        };
        // When this fails there is nobody left to tell.
        let _ = self.finish(outcome).await;
    }
}

async fn copy<Size: From<(u16, u16)> + Send>(command: &mut RemoteCommand, process: Process<Size>) -> Outcome {
    let Process { stdin, stdout, stderr, resize, exit } = process;
    let input = pipe_in(command.stdin.take(), stdin);
    let sizes = command.resizes.take();
    let resizing = async move {
        let (Some(mut sizes), Some(resize)) = (sizes, resize) else { return };
        while let Some(size) = sizes.next().await {
            if resize.send((size.width, size.height).into()).await.is_err() {
                return;
            }
        }
    };
    let output = async {
        tokio::join!(pipe_out(stdout, command.stdout.take()), pipe_out(stderr, command.stderr.take()));
        exit.await
    };
    let side = async {
        tokio::join!(input, resizing);
        std::future::pending::<()>().await
    };
    let ended = tokio::select! {
        ended = output => ended,
        () = side => return Outcome::Success,
    };
    match ended {
        Ok(0) => Outcome::Success,
        Ok(code) => Outcome::ExitCode(code),
        Err(message) => Outcome::Failed(message),
    }
}

async fn pipe_in(from: Option<Input>, to: Option<impl AsyncWrite + Unpin>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let _ = tokio::io::copy(&mut from, &mut to).await;
    // The process sees the end of its input.
    let _ = to.shutdown().await;
}

async fn pipe_out(from: Option<impl AsyncRead + Unpin>, to: Option<Output>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if tokio::io::copy(&mut from, &mut to).await.is_err() {
        // A client that reads no more must not stop the process' output.
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    let _ = to.flush().await;
}

impl PortForward {
    /// Connects each forwarded connection with what `connect` reaches for its port, until the client hangs up.
    pub async fn join<Connection, Connecting>(mut self, connect: impl Fn(u16) -> Connecting)
    where
        Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        Connecting: Future<Output = Result<Connection, String>> + Send + 'static,
    {
        let mut open = JoinSet::new();
        while let Some(forward) = self.next().await {
            let connecting = connect(forward.port);
            open.spawn(async move {
                match connecting.await {
                    // Who breaks off is told nothing more.
                    Ok(to) => drop(pass(forward, to).await),
                    Err(message) => forward.fail(&message).await,
                }
            });
        }
        while open.join_next().await.is_some() {}
        // As above: the client may have hung up.
        let _ = self.finish().await;
    }
}

/// How long a client may go on sending after the other side has closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Copies both ways until the far side has closed. A client may close its direction and wait for an answer; but when the
/// far side closes, clients over plain WebSocket learn of it only by the end of the connection.
async fn pass(forward: impl AsyncRead + AsyncWrite, to: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let ((mut asked, mut told), (mut read, mut write)) = (tokio::io::split(forward), tokio::io::split(to));
    let up = async {
        tokio::io::copy(&mut asked, &mut write).await?;
        write.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut read, &mut told).await?;
        told.shutdown().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => {
            ended?;
            tokio::time::timeout(LAST_WORDS, up).await.unwrap_or(Ok(()))
        }
        ended = &mut up => {
            ended?;
            down.await
        }
    }
}
