//! PodNodeSelector: pods go to the nodes that their namespace's annotation selects, or, without one, to those that the
//! configuration selects for the cluster; labels that they select by can be confined to a list for their namespace.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::field::{Error, Path};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::validation::{is_qualified_name, is_valid_label_value};
use apimachinery::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

type Labels = BTreeMap<String, String>;

pub(super) struct PodNodeSelector {
    pub namespaces: Arc<Objects>,
    /// Selectors by namespace, and the cluster's.
    pub selectors: Labels,
}

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const OF_CLUSTER: &str = "clusterDefaultNodeSelector";

/// The selectors of a configuration, none where there is none. Like upstream's, it is of no kind, and what cannot be read in
/// it is passed over.
pub(super) fn selectors(text: Option<&str>) -> Labels {
    let tree = text
        .and_then(|text| schema::decode::free_yaml(text, schema::decode::FieldValidation::Ignore).ok())
        .map(|tree| tree.value)
        .unwrap_or_default();
    let selectors = tree["podNodeSelectorPluginConfig"].as_object().into_iter().flatten();
    selectors.filter_map(|(name, value)| Some((name.to_string(), value.as_str()?.to_owned()))).collect()
}

/// The labels of a selector: `key=value`, comma separated.
fn parse(selector: &str) -> Result<Labels, String> {
    let parts = selector.split(',').filter(|_| !selector.is_empty());
    parts
        .map(|part| {
            let sides: Vec<&str> = part.split('=').collect();
            let [key, value] = sides[..] else {
                return Err(format!("invalid selector: [{}]", sides.join(" ")));
            };
            let (key, value) = (key.trim(), value.trim());
            let nowhere = Path::default();
            let invalid = |path: &Path, text: &str, problems: Vec<String>| match problems.is_empty() {
                true => Ok(()),
                false => Err(Error::invalid(path, text, problems.join("; ")).to_string()),
            };
            invalid(&nowhere, key, is_qualified_name(key))?;
            invalid(&nowhere.key(key), value, is_valid_label_value(value))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn selected(pod: &Value) -> Labels {
    let labels = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.to_string(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn conflict(a: &Labels, b: &Labels) -> bool {
    a.iter().any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

impl PodNodeSelector {
    fn of_namespace(&self, namespace: &str) -> Result<Labels, Status> {
        let found = self.namespaces.pending("", namespace)?;
        let found =
            found.ok_or_else(|| Status::internal_error(format!("namespace {namespace} does not exist")))?;
        let annotated = found["metadata"]["annotations"][ANNOTATION].as_str();
        let of_cluster = || self.selectors.get(OF_CLUSTER).map(String::as_str).unwrap_or_default();
        parse(annotated.unwrap_or_else(of_cluster)).map_err(Status::plain_error)
    }

    /// Refuses a pod that selects other nodes than its namespace does, or by other labels than it may.
    fn check(&self, a: &Attributes<'_>, of_namespace: &Labels, own: &Labels) -> Result<(), Status> {
        if conflict(of_namespace, own) {
            return Err(
                a.forbidden("pod node label selector conflicts with its namespace node label selector")
            );
        }
        let allowed = self.selectors.get(a.namespace).map(String::as_str).unwrap_or_default();
        let allowed = parse(allowed).map_err(Status::plain_error)?;
        let is_allowed = |(key, value): (&String, &String)| allowed.get(key) == Some(value);
        if allowed.is_empty() || own.iter().all(is_allowed) {
            return Ok(());
        }
        Err(a.forbidden("pod node label selector labels conflict with its namespace whitelist"))
    }
}

impl Immediate for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn when(&self) -> When {
        When::both(&[Operation::Create])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = a.written("", "pods") else { return Ok(()) };
        let of_namespace = self.of_namespace(a.namespace)?;
        let mut merged = of_namespace.clone();
        merged.extend(selected(pod));
        self.check(a, &of_namespace, &merged)?;
        if let Some(pod) = a.object.as_deref_mut().filter(|_| !merged.is_empty()) {
            pod["spec"]["nodeSelector"] = json!(merged);
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = a.written("", "pods") else { return Ok(()) };
        self.check(a, &self.of_namespace(a.namespace)?, &selected(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_labels() {
        let told = |selector: &str| parse(selector).map(|labels| format!("{labels:?}"));
        assert_eq!(told(""), Ok("{}".into()));
        assert_eq!(told("a=b, c = d,e="), Ok(r#"{"a": "b", "c": "d", "e": ""}"#.into()));
        assert_eq!(told("a=b,c"), Err("invalid selector: [c]".into()));
        assert_eq!(told("a=b=c"), Err("invalid selector: [a b c]".into()));
        let wrong = told("a/b/c=d").unwrap_err();
        assert!(wrong.starts_with("<nil>: Invalid value: \"a/b/c\": a valid label key must"), "{wrong}");
        let wrong = told("a=!").unwrap_err();
        assert!(wrong.starts_with("[a]: Invalid value: \"!\": a valid label must"), "{wrong}");
    }

    #[test]
    fn a_configuration_is_of_no_kind() {
        let read = selectors(Some("podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b, x: [1]}"));
        assert_eq!(read, Labels::from([(OF_CLUSTER.to_owned(), "a=b".to_owned())]));
        assert_eq!(selectors(Some("[]")), Labels::new());
    }
}
