//! The flags that say what the API server serves.

use anyhow::{Context as _, Result};
use apiserver::features::Features;
use std::collections::BTreeMap;

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
    /// The gates that were set by name.
    pub(crate) fn gates(&self) -> BTreeMap<String, bool> {
        let pairs = self.feature_gates.iter().filter_map(|pair| pair.split_once('='));
        pairs.filter_map(|(name, value)| Some((name.trim().to_owned(), value.trim().parse().ok()?))).collect()
    }

    /// Refuses gates of a configuration that nobody knows or that cannot be moved.
    pub(crate) fn check(&self, gates: &BTreeMap<String, bool>) -> Result<()> {
        let text: Vec<String> = gates.iter().map(|(name, on)| format!("{name}={on}")).collect();
        let (_, warnings) = Features::parse(&text.join(","), "").context("featureGates")?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(())
    }

    /// What they come to.
    pub(crate) fn features(&self) -> Result<Features> {
        let parsed = Features::parse(&self.feature_gates.join(","), &self.runtime_config.join(","));
        let (features, warnings) = parsed.context("--feature-gates, --runtime-config")?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use apiserver::features::Features;
    use scheduler::devices;

    /// What the scheduler has where nobody says anything is what the gates say by themselves.
    #[test]
    fn the_scheduler_has_what_gates_have_by_default() {
        assert_eq!(devices::Features::of(&Features::default().gates), devices::Features::default());
    }
}
