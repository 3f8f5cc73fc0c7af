//! JobValidation: the parallelism of a Job whose pods start all or none stays as it is (KEP-5547).

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;

/// Looks up PodGroups.
pub(super) struct JobValidation(pub Arc<Objects>);

fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let mut controllers = owners.filter(|reference| reference["controller"] == true);
    controllers.any(|reference| reference["uid"] == owner["metadata"]["uid"])
}

impl JobValidation {
    /// The group that a Job names, else those that it controls.
    fn groups(&self, namespace: &str, job: &Value) -> Result<Vec<Arc<Value>>, Status> {
        let named = job["spec"]["template"]["spec"]["schedulingGroup"]["podGroupName"].as_str();
        if let Some(name) = named {
            return Ok(self.0.get(namespace, name)?.into_iter().collect());
        }
        let mut groups = self.0.list(namespace)?;
        groups.retain(|group| is_controlled_by(group, job));
        Ok(groups)
    }
}

impl Immediate for JobValidation {
    fn name(&self) -> &'static str {
        "JobValidation"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (Some(job), Some(old)) = (a.written("batch", "jobs"), a.old) else { return Ok(()) };
        if job["spec"]["parallelism"] == old["spec"]["parallelism"] {
            return Ok(());
        }
        let groups = self.groups(a.namespace, old)?;
        match groups.iter().find(|group| group["spec"]["schedulingPolicy"]["gang"].is_object()) {
            Some(gang) => Err(a.forbidden(format!(
                "cannot change parallelism for a Job referencing gang-scheduled PodGroup {:?}",
                crate::object::name(gang)
            ))),
            None => Ok(()),
        }
    }
}
