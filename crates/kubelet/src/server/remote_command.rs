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
use streaming::{Endpoint, Session, Streams};

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
    inner.count_web_socket(&request, "exec");
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
    inner.count_web_socket(&request, "attach");
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
            Ok(Session::RemoteCommand(command)) => command.join(process(open)).await,
            Ok(Session::PortForward(_)) => {}
            Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
        }
    });
    response.map(|()| super::empty())
}

async fn process(
    open: impl Future<Output = cri::Result<cri::Session>>,
) -> Result<streaming::Process<cri::streams::TerminalSize>, String> {
    let cri::Session { stdin, stdout, stderr, resize, exit } = open.await.map_err(|e| e.to_string())?;
    let exit = async move { exit.await.map_err(|e| e.to_string()) };
    Ok(streaming::Process { stdin, stdout, stderr, resize, exit: Box::pin(exit) })
}
