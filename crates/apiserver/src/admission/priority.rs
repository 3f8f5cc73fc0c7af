//! Priority: turns a pod's priority class into its number.

use super::{Attributes, Operation, Plugin};
use crate::resources::{Resources, Served};
use apimachinery::status::Status;
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;
use store::Store;

pub(super) struct Priority {
    store: Arc<dyn Store>,
    classes: Arc<Served>,
}

impl Priority {
    pub(super) fn new(store: Arc<dyn Store>, resources: &Resources) -> Option<Self> {
        Some(Priority { store, classes: resources.get("scheduling.k8s.io", "v1", "priorityclasses")? })
    }

    fn class(&self, name: &str) -> Result<Option<Value>, Status> {
        let entry = self.store.get(&self.classes.key("", name));
        entry.map(|e| crate::registry::decode(&self.classes, &e).map(|s| s.value)).transpose()
    }

    /// The class that is the default, the one with the lowest value where there are several.
    fn default_class(&self) -> Result<Option<Value>, Status> {
        let mut found: Option<Value> = None;
        for entry in self.store.snapshot(&self.classes.prefix).entries.values() {
            let class = crate::registry::decode(&self.classes, entry)?.value;
            let lower = |f: &Value| class["value"].as_i64() < f["value"].as_i64();
            if class["globalDefault"] == true && found.as_ref().is_none_or(lower) {
                found = Some(class);
            }
        }
        Ok(found)
    }

    fn admit_pod(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let applies = a.operation == Operation::Create && a.is("", "pods") && a.subresource.is_empty();
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
            match self.class(&wanted)? {
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

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self.admit_pod(attributes)))
    }
}
