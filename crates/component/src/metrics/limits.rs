//! What is not to be measured (upstream's `--disabled-metrics`), and which values labels may have
//! (`--allow-metric-labels` and its manifest).

use std::collections::{BTreeMap, BTreeSet};

/// What a label's value becomes that is not among those it may have.
pub(super) const UNEXPECTED: &str = "unexpected";
const NAME: &str = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL: &str = "[a-zA-Z_][a-zA-Z0-9_]*";

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub(super) disabled: BTreeSet<String>,
    /// By metric, then by label.
    allowed: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

fn is_label(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.bytes().all(word) && !text.as_bytes()[0].is_ascii_digit()
}

fn is_name(text: &str) -> bool {
    is_label(&text.replace(':', "_"))
}

impl Limits {
    /// With these metrics disabled.
    pub fn disable(mut self, names: &[String]) -> Result<Self, String> {
        if let Some(bad) = names.iter().find(|name| !is_name(name)) {
            return Err(format!(
                "metrics.disabledMetrics: Invalid value: {names:?}: must be fully qualified metric names matching \"^{NAME}$\", got {bad:?}"
            ));
        }
        self.disabled.extend(names.iter().cloned());
        Ok(self)
    }

    /// With lists of values by `metric,label`, each separated by commas.
    pub fn allow(mut self, lists: &BTreeMap<String, String>) -> Result<Self, String> {
        for (key, values) in lists {
            let parts = key.split_once(',').filter(|(name, label)| is_name(name) && is_label(label));
            let (name, label) = parts.ok_or_else(|| {
                format!(
                    "must have keys with format `metricName,labelName` where metricName matches {NAME:?} and labelName matches {LABEL:?}"
                )
            })?;
            let values = values.split(',').map(str::to_owned).collect();
            self.allowed.entry(name.to_owned()).or_default().insert(label.to_owned(), values);
        }
        Ok(self)
    }

    /// The values that a metric's labels may have, label by label; nothing if any may be.
    pub(super) fn of(&self, name: &str, labels: &[&str]) -> Option<Vec<Option<BTreeSet<String>>>> {
        let allowed = self.allowed.get(name)?;
        Some(labels.iter().map(|label| allowed.get(*label).cloned()).collect())
    }
}
