//! What the audit log is told of webhooks: what they say themselves, whether they changed the object and how, and that one
//! could not be asked and did not matter.

use super::Phase;
use super::config::Hook;
use super::review::Verdict;
use crate::audit::event::Level;
use crate::context::{annotate, annotate_from};
use apimachinery::value::Value;
use serde::Serialize;

/// One call of a webhook.
pub(super) struct Annotator<'a> {
    pub phase: Phase,
    pub round: usize,
    pub index: usize,
    pub hook: &'a Hook,
}

#[derive(Serialize)]
struct Mutation<'a> {
    configuration: &'a str,
    webhook: &'a str,
    mutated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Patch<'a> {
    configuration: &'a str,
    webhook: &'a str,
    patch: Value,
    patch_type: &'static str,
}

fn json(value: &impl Serialize) -> String {
    apimachinery::value::to_json_string(value).unwrap_or_default()
}

impl Annotator<'_> {
    fn key(&self, prefix: &str) -> String {
        format!("{prefix}.webhook.admission.k8s.io/round_{}_index_{}", self.round, self.index)
    }

    /// What the webhook wants to be said, and its patch.
    pub(super) fn said(&self, verdict: &Verdict) {
        for (key, value) in &verdict.annotations {
            annotate(format!("{}/{key}", self.hook.name), value.clone());
        }
        if self.phase == Phase::Mutating && verdict.allowed && !verdict.patch_text.is_empty() {
            annotate_from(Level::Request, || {
                let patch = Patch {
                    configuration: &self.hook.configuration,
                    webhook: &self.hook.name,
                    patch: serde_json::from_slice(&verdict.patch_text).unwrap_or_default(),
                    patch_type: "JSONPatch",
                };
                (self.key("patch"), json(&patch))
            });
        }
    }

    /// Whether it changed the object.
    pub(super) fn mutated(&self, mutated: bool) {
        annotate_from(Level::Metadata, || {
            let (configuration, webhook) = (&self.hook.configuration, &self.hook.name);
            (self.key("mutation"), json(&Mutation { configuration, webhook, mutated }))
        });
    }

    /// It could not be asked, and that does not matter.
    pub(super) fn failed_open(&self) {
        let prefix = match self.phase {
            Phase::Mutating => "failed-open.mutation",
            Phase::Validating => "failed-open.validating",
        };
        annotate_from(Level::Metadata, || (self.key(prefix), self.hook.name.clone()));
    }
}
