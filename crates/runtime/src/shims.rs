//! The daemon's end of one shim: a connection on which calls are interleaved, and events come in order. Nothing happens
//! on it, and nobody wakes, while the pod is idle.

use parking_lot::Mutex;
use shim::codec::{self, Decoder};
use shim::protocol::{Call, Event, Failure, FailureKind, Message, Reply, Request, SOCKET, State, VERSION};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// No call but the waiting ones takes longer, unless the shim is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

type Answer = (Result<Reply, Failure>, Vec<OwnedFd>);

/// What the connection tells whoever opened it. Called on the connection's task: must not block.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Something happened in the pod.
    fn event(&self, event: Event);
    /// The shim has gone, or cannot be understood.
    fn gone(&self);
}

/// A connected shim.
pub(crate) struct Shim {
    stream: Arc<UnixStream>,
    /// Frames, and the descriptors with them, may not be mingled.
    sending: tokio::sync::Mutex<()>,
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>,
    next: AtomicU64,
    closed: Arc<AtomicBool>,
    /// What it speaks.
    version: std::sync::OnceLock<u32>,
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Failed, message: format!("shim: {error}") }
}

impl Shim {
    /// Connects to the shim of the pod directory, shakes hands, and subscribes: the state, then every event after it.
    pub(crate) async fn connect(
        dir: &Path,
        listener: impl FnOnce() -> Arc<dyn Listener>,
    ) -> Result<(Arc<Shim>, State), Failure> {
        let stream = Arc::new(UnixStream::connect(dir.join(SOCKET)).await.map_err(broken)?);
        let shim = Arc::new(Shim {
            stream: stream.clone(),
            sending: tokio::sync::Mutex::new(()),
            pending: Arc::default(),
            next: AtomicU64::new(1),
            closed: Arc::default(),
            version: std::sync::OnceLock::new(),
        });
        // The task holds no `Shim`: dropping the last one closes the connection.
        let (pending, closed, listener) = (shim.pending.clone(), shim.closed.clone(), listener());
        let reader = tokio::spawn(async move {
            let result = receive(&stream, &pending, &*listener).await;
            closed.store(true, Ordering::Release);
            pending.lock().clear();
            if let Err(error) = result {
                tracing::debug!(%error, "connection to a shim ended");
            }
            listener.gone();
        });
        let state = async {
            if let Reply::Hello { version, .. } = shim.ask(Request::Hello { version: VERSION }).await? {
                shim.version.get_or_init(|| version);
            }
            match shim.ask(Request::Subscribe).await? {
                Reply::State(state) => Ok(state),
                other => Err(broken(format!("unexpected answer {other:?}"))),
            }
        };
        match state.await {
            Ok(state) => Ok((shim, state)),
            Err(failure) => {
                reader.abort();
                Err(failure)
            }
        }
    }

    /// The version of the protocol that it speaks.
    pub(crate) fn version(&self) -> u32 {
        self.version.get().copied().unwrap_or(0)
    }

    /// A call without descriptors, answered soon.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        self.call(request, &[]).await.map(|(reply, _)| reply)
    }

    /// A call that is answered soon.
    pub(crate) async fn call(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        match tokio::time::timeout(PATIENCE, self.wait(request, fds)).await {
            Ok(answer) => answer,
            Err(_) => Err(broken("no answer")),
        }
    }

    /// A call that is answered when something ends.
    pub(crate) async fn wait(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        linux::steps::step("asking a shim");
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = codec::encode(&Call { id, request }).map_err(broken)?;
        let (to, from) = oneshot::channel();
        self.pending.lock().insert(id, to);
        // After the insertion: the reader clears what it finds when it ends.
        if self.closed.load(Ordering::Acquire) {
            self.pending.lock().remove(&id);
            return Err(broken("it is gone"));
        }
        let sent = self.send(&frame, fds).await;
        if let Err(error) = sent {
            self.pending.lock().remove(&id);
            return Err(broken(error));
        }
        let (result, fds) = from.await.map_err(|_| broken("it is gone"))?;
        linux::steps::step("hearing a shim's answer");
        result.map(|reply| (reply, fds))
    }

    async fn send(&self, frame: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let _turn = self.sending.lock().await;
        let mut sent = 0;
        while sent < frame.len() {
            let fds = if sent == 0 { fds } else { &[] };
            let write = || codec::send(self.stream.as_fd(), &frame[sent..], fds);
            sent += self.stream.async_io(Interest::WRITABLE, write).await?;
        }
        Ok(())
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // Ends the reader.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
    }
}

async fn receive(
    stream: &UnixStream,
    pending: &Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    listener: &dyn Listener,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    loop {
        let read = || {
            let mut buffer = [0; 16 << 10];
            let (count, fds) = codec::receive(stream.as_fd(), &mut buffer)?;
            Ok((buffer[..count].to_vec(), fds))
        };
        let (bytes, fds) = stream.async_io(Interest::READABLE, read).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        decoder.push(&bytes, fds);
        while let Some((message, fds)) = decoder.next_message::<Message>()? {
            match message {
                Message::Event(event) => listener.event(event),
                Message::Reply { id, result } => {
                    if let Some(caller) = pending.lock().remove(&id) {
                        // A caller that has given up closes the descriptors by not taking them.
                        let _ = caller.send((result, fds));
                    }
                }
            }
        }
    }
}
