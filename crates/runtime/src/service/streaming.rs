//! The streaming server: `Exec`, `Attach` and `PortForward` over a socket answer with a URL on loopback, good for one
//! request and for a minute. Its token is the only credential, as with every CRI runtime. Upstream:
//! `k8s.io/kubelet/pkg/cri/streaming`.

use super::Inner;
use ::streaming::{Endpoint, Session, Streams};
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use cri::{Error, Result};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// How long a URL waits for its request.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many URLs may wait.
const WAITING: usize = 1000;

/// What a token stands for.
#[derive(Debug, Clone)]
enum Wanted {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

/// The tokens given out and not yet used.
#[derive(Debug, Default)]
struct Tokens {
    waiting: HashMap<String, Wanted>,
    /// In the order in which they end.
    ends: VecDeque<(Instant, String)>,
}

impl Tokens {
    fn give(&mut self, wanted: Wanted, now: Instant) -> Result<String> {
        self.expire(now);
        if self.waiting.len() >= WAITING {
            return Err(Error::resource_exhausted("maximum number of in-flight requests exceeded"));
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.waiting.insert(token.clone(), wanted);
        self.ends.push_back((now + PATIENCE, token.clone()));
        Ok(token)
    }

    fn take(&mut self, token: &str, now: Instant) -> Option<Wanted> {
        self.expire(now);
        self.waiting.remove(token)
    }

    fn expire(&mut self, now: Instant) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, token)) = self.ends.pop_front() {
                self.waiting.remove(&token);
            }
        }
    }
}

/// The server's address and its tokens.
pub(crate) struct Door {
    address: SocketAddr,
    tokens: Mutex<Tokens>,
}

impl Door {
    /// Listens on a free port of the loopback, for as long as the runtime lives.
    pub(super) async fn open(inner: &Arc<Inner>) -> std::io::Result<Door> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(listen(listener, Arc::downgrade(inner)));
        Ok(Door { address, tokens: Mutex::default() })
    }

    fn url(&self, kind: &str, wanted: Wanted) -> Result<String> {
        let token = self.tokens.lock().give(wanted, Instant::now())?;
        Ok(format!("http://{}/{kind}/{token}", self.address))
    }
}

fn door(inner: &Inner) -> Result<&Door> {
    inner.door.get().ok_or_else(|| Error::unimplemented("streams are served over a socket only"))
}

/// As upstream: a terminal has no stderr of its own, and there must be a stream.
fn checked(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<()> {
    if tty && stderr {
        return Err(Error::invalid_argument("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Error::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}

pub(super) fn exec(inner: &Inner, mut request: ExecRequest) -> Result<String> {
    let (container, _) = super::exec::running(inner, &request.container_id)?;
    checked(request.stdin, request.stdout, request.stderr, request.tty)?;
    request.container_id.clone_from(&container.id);
    door(inner)?.url("exec", Wanted::Exec(request))
}

pub(super) fn attach(inner: &Inner, mut request: AttachRequest) -> Result<String> {
    let (container, _) = super::exec::running(inner, &request.container_id)?;
    checked(request.stdin, request.stdout, request.stderr, request.tty)?;
    request.container_id.clone_from(&container.id);
    door(inner)?.url("attach", Wanted::Attach(request))
}

pub(super) fn port_forward(inner: &Inner, mut request: PortForwardRequest) -> Result<String> {
    let sandbox = inner.sandbox(&request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        return Err(Error::failed_precondition(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    request.pod_sandbox_id.clone_from(&sandbox.id);
    door(inner)?.url("portforward", Wanted::PortForward(request))
}

async fn listen(listener: TcpListener, inner: Weak<Inner>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: do not spin.
                tracing::warn!(%error, "a connection to the streaming server was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(inner) = inner.upgrade() else { return };
        tokio::spawn(serve(stream, inner));
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let inner = inner.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&inner, request)) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection to the streaming server broke");
    }
}

fn answer(inner: &Arc<Inner>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let missing = || text(StatusCode::NOT_FOUND, "404 page not found\n");
    let mut path = request.uri().path().trim_matches('/').splitn(2, '/');
    let (Some(kind), Some(token)) = (path.next(), path.next()) else { return missing() };
    let wanted = inner.door.get().and_then(|door| door.tokens.lock().take(token, Instant::now()));
    let runtime = super::Runtime { inner: inner.clone() };
    match (kind, wanted) {
        ("exec", Some(Wanted::Exec(exec))) => {
            let streams =
                Streams { stdin: exec.stdin, stdout: exec.stdout, stderr: exec.stderr, tty: exec.tty };
            command(&mut request, streams, async move { cri::Streams::exec_stream(&runtime, exec).await })
        }
        ("attach", Some(Wanted::Attach(attach))) => {
            let streams = Streams {
                stdin: attach.stdin,
                stdout: attach.stdout,
                stderr: attach.stderr,
                tty: attach.tty,
            };
            command(&mut request, streams, async move { cri::Streams::attach_stream(&runtime, attach).await })
        }
        ("portforward", Some(Wanted::PortForward(wanted))) => forward(&mut request, runtime, wanted),
        _ => missing(),
    }
}

fn command(
    request: &mut Request<Incoming>,
    streams: Streams,
    open: impl Future<Output = Result<cri::Session>> + Send + 'static,
) -> Response<Full<Bytes>> {
    let process = async move {
        let cri::Session { stdin, stdout, stderr, resize, exit } = open.await.map_err(|e| e.to_string())?;
        let exit = async move { exit.await.map_err(|e| e.to_string()) };
        Ok(::streaming::Process { stdin, stdout, stderr, resize, exit: Box::pin(exit) })
    };
    upgrade(request, Endpoint::RemoteCommand(streams), |session| async move {
        if let Session::RemoteCommand(command) = session {
            command.join::<cri::streams::TerminalSize>(process).await;
        }
    })
}

fn forward(
    request: &mut Request<Incoming>,
    runtime: super::Runtime,
    wanted: PortForwardRequest,
) -> Response<Full<Bytes>> {
    let ports = wanted.port.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    let id = wanted.pod_sandbox_id;
    upgrade(request, Endpoint::PortForward { ports: Ok(ports) }, |session| async move {
        let Session::PortForward(forwards) = session else { return };
        let connect = |port| {
            let (runtime, id) = (runtime.clone(), id.clone());
            async move {
                let connected = cri::Streams::port_forward_stream(&runtime, &id, port).await;
                connected.map_err(|error| {
                    format!("error forwarding port {port} to pod {id}, uid : {}", error.message)
                })
            }
        };
        forwards.join(connect).await;
    })
}

fn upgrade<Work: Future<Output = ()> + Send>(
    request: &mut Request<Incoming>,
    endpoint: Endpoint,
    work: impl FnOnce(Session) -> Work + Send + 'static,
) -> Response<Full<Bytes>> {
    match ::streaming::upgrade(request, endpoint) {
        Ok((response, session)) => {
            tokio::spawn(async move {
                match session.await {
                    Ok(session) => work(session).await,
                    Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
                }
            });
            response.map(|()| Full::default())
        }
        Err(refusal) => {
            let mut response = text(refusal.status, &refusal.message);
            response.headers_mut().extend(refusal.headers);
            response
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let mut tokens = Tokens::default();
        let start = Instant::now();
        let wanted = || Wanted::Attach(AttachRequest::default());
        let first = tokens.give(wanted(), start).unwrap();
        assert!(tokens.take(&first, start + Duration::from_secs(59)).is_some());
        assert!(tokens.take(&first, start).is_none());
        let late = tokens.give(wanted(), start).unwrap();
        assert!(tokens.take(&late, start + PATIENCE).is_none());
        for _ in 0..WAITING {
            tokens.give(wanted(), start + PATIENCE).unwrap();
        }
        assert!(tokens.give(wanted(), start + PATIENCE).is_err());
        assert!(tokens.give(wanted(), start + 2 * PATIENCE).is_ok());
    }
}
