//! Priority: turns a pod's priority class into its number.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;

pub(super) struct Priority(pub Arc<Objects>);

impl Priority {
    /// The class that is the default, the one with the lowest value where there are several.
    fn default_class(&self) -> Result<Option<Arc<Value>>, Status> {
        let classes = self.0.list("")?.into_iter().filter(|class| class["globalDefault"] == true);
        Ok(classes.min_by_key(|class| class["value"].as_i64()))
    }
}

/// What was computed when a pod was made stays, though an update does not say it again.
fn keep(a: &mut Attributes<'_>) {
    let (Some(pod), Some(old)) = (a.object.as_deref_mut(), a.old) else { return };
    for member in ["priority", "preemptionPolicy"] {
        if pod["spec"][member].is_null() && !old["spec"][member].is_null() {
            pod["spec"][member] = old["spec"][member].clone();
        }
    }
}

impl Immediate for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let applies = a.is("", "pods") && a.subresource.is_empty();
        if applies && a.operation == Operation::Update {
            keep(a);
        }
        let applies = applies && a.operation == Operation::Create;
        let resource = a.resource.group_resource();
        let name = a.name;
        let Some(pod) = a.object.as_deref_mut().filter(|_| applies) else { return Ok(()) };
        let wanted = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if wanted.is_empty() {
            let class = self.default_class()?;
            if let Some(class) = &class {
                pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
            }
            class
        } else {
            match self.0.get("", &wanted)? {
                Some(class) => Some(class),
                None => {
                    return Err(Status::forbidden(
                        &resource,
                        name,
                        format!("no PriorityClass with name {wanted} was found"),
                    ));
                }
            }
        };
        let value = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
        if let Some(asked) = pod["spec"]["priority"].as_i64().filter(|asked| *asked != value) {
            return Err(Status::forbidden(
                &resource,
                name,
                format!(
                    "the integer value of priority ({asked}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
                ),
            ));
        }
        pod["spec"]["priority"] = value.into();
        let policy =
            class.as_ref().and_then(|c| c["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
        if let Some(asked) = pod["spec"]["preemptionPolicy"].as_str().filter(|asked| *asked != policy) {
            return Err(Status::forbidden(
                &resource,
                name,
                format!(
                    "the string value of PreemptionPolicy ({asked}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
                ),
            ));
        }
        pod["spec"]["preemptionPolicy"] = policy.into();
        Ok(())
    }
}
