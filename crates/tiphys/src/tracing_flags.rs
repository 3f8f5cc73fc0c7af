//! The flag that says which requests a collector of traces is told of, for both API server commands.

use anyhow::{Context as _, Result, ensure};
use apiserver::spans::Configuration;
use std::path::PathBuf;

/// Upstream's flag.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TracingFlags {
    /// File with apiserver tracing configuration.
    #[arg(long)]
    tracing_config_file: Option<PathBuf>,
}

impl TracingFlags {
    pub(crate) fn configuration(&self) -> Result<Option<Configuration>> {
        let Some(path) = &self.tracing_config_file else { return Ok(None) };
        ensure!(path.exists(), "tracing-config-file {} does not exist", path.display());
        let failed = || {
            format!(
                "failed to read tracing config: unable to read tracing configuration from {:?}",
                path.display()
            )
        };
        let text = std::fs::read_to_string(path).with_context(failed)?;
        let configuration: Configuration = serde_saphyr::from_str(&text)
            .context("failed to read tracing config: unable to decode tracing configuration data")?;
        configuration.check().map_err(anyhow::Error::msg)?;
        Ok(Some(configuration))
    }
}
