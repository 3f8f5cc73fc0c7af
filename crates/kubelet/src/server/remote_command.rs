//! `/exec`, `/attach` and `/run`: over WebSocket or SPDY to the container's streams. A runtime in this process is
//! connected to directly; any other is asked for a URL, to which the upgrade is passed on.

use super::Inner;
use super::answer::{Response, flag, full, query, text};
use super::route::Target;
use crate::runtime_pod::{ExitedCache, State, observe};
use cri::v1::{AttachRequest, ExecRequest, ExecSyncRequest};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;
use streaming::{Endpoint, Outcome, RemoteCommand, Session, Streams};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// The running container that a request means, or the answer that says why there is none.
async fn container_id(inner: &Inner, target: &Target) -> Result<String, Response> {
    let Target { namespace, pod, container } = target;
    let mailbox = inner.pods.named(namespace, pod);
    let mailbox =
        mailbox.ok_or_else(|| text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}\n")))?;
    let uid = mailbox.letter().pod.metadata.uid.clone();
    let runtime = observe(&*inner.context.runtime, &uid, &mut ExitedCache::new()).await;
    let runtime = runtime.map_err(|e| text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let found = runtime.container(container).filter(|c| c.state == State::Running);
    let missing = || text(StatusCode::NOT_FOUND, format!("container not found ({container:?})"));
    found.map(|c| c.id.clone()).ok_or_else(missing)
}

fn streams(pairs: &[(String, String)]) -> Result<Streams, &'static str> {
    let wanted = Streams {
        stdin: flag(pairs, "input") || flag(pairs, "stdin"),
        stdout: flag(pairs, "output") || flag(pairs, "stdout"),
        stderr: flag(pairs, "error") || flag(pairs, "stderr"),
        tty: flag(pairs, "tty"),
    };
    wanted.checked()
}

pub(super) async fn exec(inner: &Arc<Inner>, target: Target, request: Request<Incoming>) -> Response {
    let pairs = query(request.uri().query());
    let cmd: Vec<String> =
        pairs.iter().filter(|(key, _)| key == "command").map(|(_, word)| word.clone()).collect();
    let (id, wanted) = match (container_id(inner, &target).await, streams(&pairs)) {
        (Ok(id), Ok(wanted)) => (id, wanted),
        (Err(refused), _) => return refused,
        (_, Err(message)) => return text(StatusCode::BAD_REQUEST, message),
    };
    let exec = ExecRequest {
        container_id: id,
        cmd,
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let Some(direct) = inner.streams.clone() else {
        return match inner.context.runtime.exec(exec).await {
            Ok(answer) => super::port_forward::pass_on(request, &answer.url).await,
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
    };
    upgrade(request, wanted, async move { direct.exec_stream(exec).await })
}

pub(super) async fn attach(inner: &Arc<Inner>, target: Target, request: Request<Incoming>) -> Response {
    let pairs = query(request.uri().query());
    let (id, wanted) = match (container_id(inner, &target).await, streams(&pairs)) {
        (Ok(id), Ok(wanted)) => (id, wanted),
        (Err(refused), _) => return refused,
        (_, Err(message)) => return text(StatusCode::BAD_REQUEST, message),
    };
    let attach = AttachRequest {
        container_id: id,
        stdin: wanted.stdin,
        tty: wanted.tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let Some(direct) = inner.streams.clone() else {
        return match inner.context.runtime.attach(attach).await {
            Ok(answer) => super::port_forward::pass_on(request, &answer.url).await,
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
    };
    upgrade(request, wanted, async move { direct.attach_stream(attach).await })
}

/// `/run`: a command to its end, its output as the body.
pub(super) async fn run(inner: &Arc<Inner>, target: Target, request: Request<Incoming>) -> Response {
    let pairs = query(request.uri().query());
    let line = super::answer::value(&pairs, "cmd").unwrap_or_default().to_owned();
    let id = match container_id(inner, &target).await {
        Ok(id) => id,
        Err(refused) => return refused,
    };
    let cmd = line.split(' ').map(str::to_owned).collect();
    match inner.context.runtime.exec_sync(ExecSyncRequest { container_id: id, cmd, timeout: 0 }).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            let mut response = Response::new(full(output));
            if answer.exit_code != 0 {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn upgrade(
    mut request: Request<Incoming>,
    wanted: Streams,
    open: impl Future<Output = cri::Result<cri::Session>> + Send + 'static,
) -> Response {
    let (response, session) = match streaming::upgrade(&mut request, Endpoint::RemoteCommand(wanted)) {
        Ok(agreed) => agreed,
        Err(refusal) => {
            let mut response = text(refusal.status, refusal.message);
            response.headers_mut().extend(refusal.headers);
            return response;
        }
    };
    tokio::spawn(async move {
        match session.await {
            Ok(Session::RemoteCommand(command)) => join(command, open).await,
            Ok(Session::PortForward(_)) => {}
            Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
        }
    });
    response.map(|()| super::empty())
}

/// Copies until the process has ended and everything it wrote was sent.
async fn join(mut command: RemoteCommand, open: impl Future<Output = cri::Result<cri::Session>>) {
    let outcome = match open.await {
        Ok(session) => {
            let gone = command.gone();
            tokio::select! {
                outcome = copy(&mut command, session) => outcome,
                // Dropping the session hangs up on the process.
                () = gone.cancelled() => return,
            }
        }
        Err(error) => Outcome::Failed(error.to_string()),
    };
    if let Err(error) = command.finish(outcome).await {
        tracing::debug!(%error, "the end of a command could not be told");
    }
}

async fn copy(command: &mut RemoteCommand, session: cri::Session) -> Outcome {
    let cri::Session { stdin, stdout, stderr, resize, exit } = session;
    let input = pipe_in(command.stdin.take(), stdin);
    let sizes = command.resizes.take();
    let resizing = async move {
        let (Some(mut sizes), Some(resize)) = (sizes, resize) else { return };
        while let Some(size) = sizes.next().await {
            let size = cri::streams::TerminalSize { width: size.width, height: size.height };
            if resize.send(size).await.is_err() {
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
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

async fn pipe_in(from: Option<impl AsyncRead + Unpin>, to: Option<cri::streams::Writer>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let _ = tokio::io::copy(&mut from, &mut to).await;
    // The process sees the end of its input.
    let _ = to.shutdown().await;
}

async fn pipe_out(from: Option<cri::streams::Reader>, to: Option<impl AsyncWrite + Unpin>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if tokio::io::copy(&mut from, &mut to).await.is_err() {
        // A client that reads no more must not stop the process' output.
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    let _ = to.flush().await;
}
