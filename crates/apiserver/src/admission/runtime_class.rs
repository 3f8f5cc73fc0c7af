//! RuntimeClass: a pod gets the overhead, node selector and tolerations of the class it names.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::decode::Decode;
use apimachinery::json;
use apimachinery::quantity::Quantity;
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct RuntimeClass(pub Arc<Objects>);

fn quantities(value: &Value) -> BTreeMap<String, Quantity> {
    Decode::from_value(value).unwrap_or_default()
}

impl RuntimeClass {
    fn class(&self, a: &Attributes<'_>, pod: &Value) -> Result<Option<Arc<Value>>, Status> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
        match self.0.get("", name)? {
            Some(class) => Ok(Some(class)),
            None => Err(a.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))),
        }
    }
}

impl Immediate for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn when(&self) -> When {
        When::both(&[Operation::Create])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = a.written("", "pods") else { return Ok(()) };
        let Some(class) = self.class(a, pod)? else { return Ok(()) };
        let fixed = &class["overhead"]["podFixed"];
        let own = &pod["spec"]["overhead"];
        if class["overhead"].is_object()
            && !quantities(own).is_empty()
            && quantities(own) != quantities(fixed)
        {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(a.forbidden(why));
        }
        let selector = class["scheduling"]["nodeSelector"].as_object().cloned().unwrap_or_default();
        for (key, wanted) in &selector {
            if let Some(own) = pod["spec"]["nodeSelector"].get(key).filter(|own| *own != wanted) {
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(wanted),
                    text(own)
                );
                return Err(a.forbidden(why));
            }
        }
        let Some(pod) = a.object.as_deref_mut() else { return Ok(()) };
        if fixed.is_object() {
            pod["spec"]["overhead"] = fixed.clone();
        }
        for (key, wanted) in selector {
            pod["spec"]["nodeSelector"][key] = wanted;
        }
        for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
            match pod["spec"]["tolerations"].as_array_mut() {
                Some(list) if list.contains(toleration) => {}
                Some(list) => list.push(toleration.clone()),
                None => pod["spec"]["tolerations"] = json!([toleration]),
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = a.written("", "pods") else { return Ok(()) };
        let class = self.class(a, pod)?.unwrap_or_default();
        let overhead = Some(&pod["spec"]["overhead"]).filter(|o| o.is_object());
        if class["overhead"].is_object() {
            let fixed = quantities(&class["overhead"]["podFixed"]);
            if overhead.map(quantities).unwrap_or_default() != fixed {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(a.forbidden(why));
            }
        } else if overhead.is_some() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(a.forbidden(why));
        }
        Ok(())
    }
}
