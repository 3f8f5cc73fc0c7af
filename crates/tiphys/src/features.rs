//! The flags that say what the API server serves.

use anyhow::{Context as _, Result};
use apiserver::features::Features;

/// Upstream's flags of both API server commands.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct FeatureFlags {
    /// Features to turn on and off, as `Name=true|false`; may be given several times.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// API groups, versions and resources to turn on and off: `group/version[/resource]=true|false`, `api/all`,
    /// `api/ga`, `api/beta`, `api/alpha`; may be given several times.
    #[arg(long, value_delimiter = ',')]
    pub runtime_config: Vec<String>,
}

impl FeatureFlags {
    /// What they come to.
    pub(crate) fn features(&self) -> Result<Features> {
        let parsed = Features::parse(&self.feature_gates.join(","), &self.runtime_config.join(","));
        let (features, warnings) = parsed.context("--feature-gates, --runtime-config")?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(features)
    }
}
