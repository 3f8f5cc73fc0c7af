//! Commands in containers, connections to their stdio, and to ports of their pods. The data goes between the caller and
//! the process directly, through pipes or a terminal; the shim only starts and reaps.

use super::sandbox::failure;
use super::{Container, Inner, Runtime, blocking, dial_error, io_error};
use crate::pty::Pty;
use crate::shims::Shim;
use crate::spec;
use cri::streams::{Duplex, Reader, Session, TerminalSize, Writer};
use cri::v1::{AttachRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse};
use cri::{Error, Result, Streams};
use futures::FutureExt;
use rustix::pipe::{PipeFlags, pipe_with};
use shim::protocol::{ExecSpec, Exit, Reply, Request};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// As containerd: what one exec may print before the rest is dropped.
const MAX_OUTPUT: usize = 16 << 20;
/// How long output may go on after the process has ended, held open by a child of it.
const DRAIN: Duration = Duration::from_secs(2);
/// The terminal of an exec until the client says otherwise.
const COLUMNS_ROWS: (u16, u16) = (80, 24);

/// An exec'd process; killed when nobody is interested any more.
struct Running {
    shim: Arc<Shim>,
    id: String,
    ended: bool,
}

impl Running {
    /// The exit code.
    async fn wait(mut self) -> Result<i32> {
        let result = self.shim.wait(Request::ExecWait { exec: self.id.clone() }, &[]).await;
        self.ended = true;
        match result.map_err(failure)? {
            (Reply::Exited(Exit { code, .. }), _) => Ok(code),
            (other, _) => Err(Error::internal(format!("unexpected answer of the shim: {other:?}"))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (shim, exec) = (self.shim.clone(), self.id.clone());
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn(async move {
                // It may have ended meanwhile.
                let _ = shim.ask(Request::ExecSignal { exec: exec.clone(), signal: libc::SIGKILL }).await;
                // The result would be kept until somebody asks.
                let _ = shim.wait(Request::ExecWait { exec }, &[]).await;
            });
        }
    }
}

pub(super) fn running(inner: &Inner, id: &str) -> Result<(Arc<Container>, Arc<Shim>)> {
    let container = inner.container(id)?;
    if !container.is_running() {
        let state = if container.live().exit.is_some() { "CONTAINER_EXITED" } else { "CONTAINER_CREATED" };
        return Err(Error::failed_precondition(format!("container is in {state} state")));
    }
    let shim = inner.sandbox(&container.sandbox)?.shim()?;
    Ok((container, shim))
}

/// The ends of a process's streams: ours, and those to send, in the protocol's order.
#[derive(Default)]
struct Ends {
    stdin: Option<Writer>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    theirs: Vec<OwnedFd>,
}

fn pipes(stdin: bool, stdout: bool, stderr: bool) -> Result<Ends> {
    let make = || {
        let mut ends = Ends::default();
        let pair = || pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from);
        if stdin {
            let (read, write) = pair()?;
            rustix::io::ioctl_fionbio(&write, true)?;
            ends.stdin = Some(Box::new(pipe::Sender::from_owned_fd(write)?));
            ends.theirs.push(read);
        }
        for (wanted, end) in [(stdout, &mut ends.stdout), (stderr, &mut ends.stderr)] {
            if wanted {
                let (read, write) = pair()?;
                rustix::io::ioctl_fionbio(&read, true)?;
                *end = Some(pipe::Receiver::from_owned_fd(read)?);
                ends.theirs.push(write);
            }
        }
        Ok(ends)
    };
    make().map_err(io_error("making pipes"))
}

/// Starts a command.
async fn start(
    container: &Container,
    shim: &Arc<Shim>,
    request: &ExecRequest,
) -> Result<(Running, Ends, Option<OwnedFd>)> {
    if request.cmd.is_empty() {
        return Err(Error::invalid_argument("no command specified"));
    }
    let mut process = container.record().process.clone();
    process.args = request.cmd.clone();
    process.cwd = String::new();
    if request.tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
        process.env.push("TERM=xterm".into());
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let mut ends = match request.tty {
        true => Ends::default(),
        false => pipes(request.stdin, request.stdout, request.stderr)?,
    };
    let (width, height) = if request.tty { COLUMNS_ROWS } else { (0, 0) };
    let spec = ExecSpec {
        id: id.clone(),
        container: container.id.clone(),
        process,
        terminal: request.tty,
        width,
        height,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr && !request.tty,
    };
    let theirs = std::mem::take(&mut ends.theirs);
    let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
    let (reply, mut fds) = shim.call(Request::Exec(Box::new(spec)), &fds).await.map_err(|error| {
        let error = failure(error);
        Error::new(error.code, format!("failed to exec in container: {}", error.message))
    })?;
    match reply {
        Reply::ExecStarted { .. } => {
            let running = Running { shim: shim.clone(), id, ended: false };
            let terminal = (!fds.is_empty()).then(|| fds.remove(0));
            Ok((running, ends, terminal))
        }
        other => Err(Error::internal(format!("unexpected answer of the shim: {other:?}"))),
    }
}

pub(super) async fn sync(inner: &Inner, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
    let (container, shim) = running(inner, &request.container_id)?;
    let patience = match request.timeout {
        0 => None,
        seconds => Some(Duration::from_secs(
            u64::try_from(seconds).map_err(|_| Error::invalid_argument("timeout must not be negative"))?,
        )),
    };
    let exec = ExecRequest {
        container_id: request.container_id,
        cmd: request.cmd,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let work = async {
        let (process, mut ends, _) = start(&container, &shim, &exec).await?;
        let (out, err) = (ends.stdout.take(), ends.stderr.take());
        let mut output = (Vec::new(), Vec::new());
        let exit = {
            let drain = async { tokio::join!(collect(out, &mut output.0), collect(err, &mut output.1)) };
            let (mut drain, mut exit) = (std::pin::pin!(drain.fuse()), std::pin::pin!(process.wait().fuse()));
            tokio::select! {
                code = &mut exit => {
                    // What was written before the end is in the pipes already.
                    let _ = tokio::time::timeout(DRAIN, &mut drain).await;
                    code
                }
                _ = &mut drain => exit.await,
            }
        };
        Ok(ExecSyncResponse { exit_code: exit?, stdout: output.0, stderr: output.1 })
    };
    match patience {
        None => work.await,
        // Dropping the work kills the process.
        Some(patience) => tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
            let command = exec.cmd.join(" ");
            Err(Error::deadline_exceeded(format!(
                "command {command:?} timed out: timeout {patience:?} exceeded: context deadline exceeded"
            )))
        }),
    }
}

/// Reads to the end; what exceeds the limit is read and dropped.
async fn collect(from: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = MAX_OUTPUT - to.len();
        to.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn boxed(reader: Option<pipe::Receiver>) -> Option<Reader> {
    reader.map(|reader| Box::new(reader) as Reader)
}

#[async_trait::async_trait]
impl Streams for Runtime {
    async fn exec_stream(&self, request: ExecRequest) -> Result<Session> {
        let (container, shim) = running(&self.inner, &request.container_id)?;
        let (process, ends, terminal) = start(&container, &shim, &request).await?;
        let Some(master) = terminal else {
            return Ok(Session {
                stdin: ends.stdin,
                stdout: boxed(ends.stdout),
                stderr: boxed(ends.stderr),
                resize: None,
                exit: process.wait().boxed(),
            });
        };
        let pty = Pty::new(master).map_err(io_error("opening the terminal"))?;
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let terminal = pty.clone();
        // Ends when the client has gone.
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                terminal.resize(size);
            }
        });
        Ok(Session {
            stdin: request.stdin.then(|| Box::new(pty.clone()) as Writer),
            stdout: Some(Box::new(pty)),
            stderr: None,
            resize: Some(resize),
            exit: process.wait().boxed(),
        })
    }

    async fn attach_stream(&self, request: AttachRequest) -> Result<Session> {
        let (container, shim) = running(&self.inner, &request.container_id)?;
        let config = container.record();
        let (tty, takes_stdin) = (config.config.tty, config.config.stdin);
        let stderr = request.stderr && !tty;
        let stdin = request.stdin && takes_stdin;
        let ends = pipes(stdin, request.stdout, stderr)?;
        let fds: Vec<BorrowedFd<'_>> = ends.theirs.iter().map(AsFd::as_fd).collect();
        let id = container.id.clone();
        let attach = Request::Attach { container: id.clone(), stdin, stdout: request.stdout, stderr };
        shim.call(attach, &fds).await.map_err(failure)?;
        let resize = tty.then(|| {
            let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
            tokio::spawn(async move {
                while let Some(TerminalSize { width, height }) = sizes.recv().await {
                    // A container that has exited has no terminal to resize.
                    let _ = shim.ask(Request::Resize { container: id.clone(), width, height }).await;
                }
            });
            resize
        });
        let exit = async move {
            container.wait().await;
            Ok(container.live().exit.map_or(0, |exit| exit.code))
        };
        Ok(Session {
            stdin: ends.stdin,
            stdout: boxed(ends.stdout),
            stderr: boxed(ends.stderr),
            resize,
            exit: exit.boxed(),
        })
    }

    async fn port_forward_stream(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let sandbox = self.inner.sandbox(pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::failed_precondition(format!(
                "sandbox container {:?} is not running",
                sandbox.id
            )));
        }
        let id = sandbox.id.clone();
        let netns = (!spec::on_host_network(&sandbox.record().config)).then(|| sandbox.netns());
        let stream = blocking(move || {
            let connect = move || {
                let patience = Duration::from_secs(10);
                let local =
                    [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
                let told = |network, at: &SocketAddr, error| dial_error(network, &at.to_string(), &error);
                TcpStream::connect_timeout(&local[0], patience).or_else(|v4| {
                    TcpStream::connect_timeout(&local[1], patience).map_err(|v6| {
                        let (v4, v6) = (told("tcp4", &local[0], v4), told("tcp6", &local[1], v6));
                        io::Error::other(format!("IPv4: {v4} IPv6 {v6} "))
                    })
                })
            };
            let stream = match netns {
                None => connect(),
                Some(path) => {
                    linux::netns::Netns::open(path).and_then(|netns| netns.run(connect)).and_then(|r| r)
                }
            };
            let stream = stream.map_err(|why| {
                Error::unknown(format!(
                    "failed to connect to localhost:{port} inside namespace {id:?}, {why}"
                ))
            })?;
            stream.set_nonblocking(true).map_err(io_error("port forward"))?;
            Ok(stream)
        })
        .await?;
        // The socket stays in its namespace, whoever uses it.
        Ok(Box::new(tokio::net::TcpStream::from_std(stream).map_err(io_error("port forward"))?))
    }
}
