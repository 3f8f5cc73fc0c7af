//! `tiphys runtime`: the embedded container runtime without a cluster, answering CRI v1 on a Unix socket.

use crate::cli::Runtime as Flags;
use crate::foreground;
use crate::images;
use crate::node;
use crate::places::Places;
use anyhow::{Context as _, Result, bail};
use cri::RuntimeService as _;
use cri::v1::{NetworkConfig, RuntimeConfig, UpdateRuntimeConfigRequest};
use std::path::PathBuf;
use std::sync::Arc;

/// Serves until SIGTERM or SIGINT. Containers go on running; the next start adopts them.
pub(crate) fn run(flags: Flags) -> Result<()> {
    foreground::run(|shutdown| async move {
        let places = Places::of(&flags.data_dir, None).context("--data-dir")?;
        pki::files::private_dir(&flags.data_dir)
            .with_context(|| format!("making {}", flags.data_dir.display()))?;
        let socket = socket(&flags, &places)?;
        let (runtime, _) = node::open_embedded(&places, Some(&flags.pod_cidr), None).await?;
        let network_config = Some(NetworkConfig { pod_cidr: flags.pod_cidr.clone() });
        let config = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        runtime.update_runtime_config(config).await.context("--pod-cidr")?;
        runtime.serve_streams().await.context("listening for streams")?;
        let shared = Arc::new(runtime.clone());
        let door = images::server::bind(&places.images_socket(), shared.clone(), Some(runtime.images()))
            .with_context(|| format!("listening on {}", places.images_socket().display()))?;
        tokio::spawn(door.run(shutdown.clone()));
        let listener = images::server::private_socket(&socket)
            .with_context(|| format!("listening on {}", socket.display()))?;
        tracing::info!(socket = %socket.display(), "the container runtime is ready");
        cri::serve(listener, shared.clone(), shared, shutdown.cancelled_owned()).await?;
        Ok(())
    })
}

fn socket(flags: &Flags, places: &Places) -> Result<PathBuf> {
    let Some(listen) = &flags.listen else { return Ok(places.cri_socket()) };
    match listen.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => bail!("--listen {listen:?} is not of the form unix:///path"),
    }
}
