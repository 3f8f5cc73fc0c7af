//! Stopping: the first SIGTERM or SIGINT cancels a token that every task watches; the second ends the process at once,
//! as upstream's signal handler does.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The token that the first signal cancels. To be called once, inside the runtime.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if first {
                tracing::info!(signal = name, "Shutting down");
                cancelled.cancel();
            } else {
                tracing::warn!(signal = name, "Second signal, exiting at once");
                std::process::exit(1);
            }
        }
    });
    Ok(token)
}
