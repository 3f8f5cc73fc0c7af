//! What every long-running subcommand begins and ends with.

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

/// Runs `serve` on a runtime of its own; the token it is given is cancelled by SIGTERM or SIGINT.
pub(crate) fn run<F: Future<Output = Result<()>>>(serve: impl FnOnce(CancellationToken) -> F) -> Result<()> {
    pki::tls::install_provider();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = component::shutdown::on_signal().context("listening for signals")?;
        serve(shutdown).await
    })
}
