//! PodGroupWorkloadExists: a PodGroup that says which template of which Workload it was made from was made from one that is
//! there (KEP-5547).

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use std::sync::Arc;

/// Looks up Workloads.
pub(super) struct PodGroupWorkloadExists(pub Arc<Objects>);

impl Immediate for PodGroupWorkloadExists {
    fn name(&self) -> &'static str {
        "PodGroupWorkloadExists"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let group = a.written("scheduling.k8s.io", "podgroups");
        let reference = group.map(|group| &group["spec"]["podGroupTemplateRef"]["workload"]);
        let Some(reference) = reference.filter(|reference| reference.is_object()) else { return Ok(()) };
        let text = |member: &str| reference[member].as_str().unwrap_or_default();
        let (name, template) = (text("workloadName"), text("podGroupTemplateName"));
        let Some(workload) = self.0.pending(a.namespace, name)? else {
            return Err(a.forbidden(format!("PodGroup rejected: Workload {name:?} not found")));
        };
        if crate::object::is_being_deleted(&workload) {
            return Err(a.forbidden(format!("PodGroup rejected: Workload {name:?} is being deleted")));
        }
        let mut templates = workload["spec"]["podGroupTemplates"].as_array().into_iter().flatten();
        if templates.any(|found| found["name"] == template) {
            return Ok(());
        }
        Err(a.forbidden(format!(
            "PodGroup rejected: PodGroupTemplate {template:?} not found in Workload {name:?}"
        )))
    }
}
