//! A way to an address that can be cut, in both directions or in one: what is under way stands still then, as behind a
//! dead switch, and nobody is told.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Cut,
    /// Requests do, answers do not.
    Unanswered,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    /// Its own address.
    pub url: String,
    state: watch::Sender<State>,
}

impl Link {
    /// A link to `http://host:port`.
    pub async fn to(url: &str) -> Self {
        let target = url.rsplit('/').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (state, seen) = watch::channel(State::Open);
        tokio::spawn(async move {
            while let Ok((inner, _)) = listener.accept().await {
                tokio::spawn(carry(inner, target.clone(), seen.clone()));
            }
        });
        Link { url, state }
    }

    /// Nothing gets through.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Requests arrive, and their answers do not.
    pub fn leave_unanswered(&self) {
        self.state.send_replace(State::Unanswered);
    }

    /// New connections get through; those that met a cut are gone.
    pub fn heal(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn carry(inner: TcpStream, target: String, mut state: watch::Receiver<State>) {
    // Whoever connects while it is cut waits, unless the link's owner is gone.
    if state.wait_for(|state| *state != State::Cut).await.is_err() {
        return;
    }
    let Ok(outer) = TcpStream::connect(target).await else { return };
    let ((from_inner, to_inner), (from_outer, to_outer)) = (inner.into_split(), outer.into_split());
    let there = flow(from_inner, to_outer, state.clone(), &[State::Open, State::Unanswered]);
    let back = flow(from_outer, to_inner, state, &[State::Open]);
    // The end of either is the end of both.
    tokio::select! { () = there => {} () = back => {} }
}

/// Carries bytes one way while the state is one of these. Once it was another, it ends when the link is healed.
async fn flow(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    open: &[State],
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            biased;
            changed = state.wait_for(|state| !open.contains(state)) => Err(changed.is_ok()),
            read = from.read(&mut buffer) => Ok(read),
        };
        match read {
            Ok(Ok(count)) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
            Err(true) => {
                // Nobody is told before it is healed.
                let _ = state.wait_for(|state| *state == State::Open).await;
                return;
            }
            _ => return,
        }
    }
}
