//! PodTolerationRestriction: pods get the tolerations that their namespace's annotation, or the configuration, gives by
//! default, and may have none beyond those that either of them lists.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::roster::Fault;
use super::{Attributes, Operation, When};
use crate::strict::{self, Shape};
use api::core::v1::{Pod, Toleration};
use apimachinery::decode::Decode as _;
use apimachinery::field::Path;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;

/// The cluster's lists; either may be empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Configuration {
    default: Vec<Toleration>,
    whitelist: Vec<Toleration>,
}

pub(super) struct PodTolerationRestriction {
    pub namespaces: Arc<Objects>,
    pub configuration: Configuration,
}

const DEFAULT: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const KNOWN: [(&str, &str); 1] = [("podtolerationrestriction.admission.k8s.io/v1alpha1", "Configuration")];

/// The configuration of a text; an empty one where there is none.
pub(super) fn read(text: Option<&str>) -> Result<Configuration, Fault> {
    let Some(text) = text else { return Ok(Configuration::default()) };
    let value = strict::load_known(text, &KNOWN, &Shape::Any)?;
    let list = |member: &str| list(&value[member]).map_err(Fault::from);
    let configuration = Configuration { default: list("default")?, whitelist: list("whitelist")? };
    let path = Path::new("podtolerationrestriction");
    let mut errors = hooks::toleration_errors(&configuration.default, &path.child("default"));
    errors.extend(hooks::toleration_errors(&configuration.whitelist, &path.child("whitelist")));
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match told.is_empty() {
        true => Ok(configuration),
        false => Err(format!("invalid config: [{}]", told.join(" ")).into()),
    }
}

/// Tolerations, or what keeps Go from reading them.
fn list(value: &Value) -> Result<Vec<Toleration>, String> {
    let items = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        other => return Err(unreadable(other, "value of type []v1.Toleration")),
    };
    if let Some(error) = items.iter().find_map(mismatch) {
        return Err(error);
    }
    items.iter().map(|item| Toleration::from_value(item).map_err(|error| error.to_string())).collect()
}

/// The first member of a toleration that is of another type than it must be.
fn mismatch(item: &Value) -> Option<String> {
    const TEXTS: [&str; 4] = ["key", "operator", "value", "effect"];
    let Value::Object(members) = item else {
        return (!item.is_null()).then(|| unreadable(item, "value of type v1.Toleration"));
    };
    members.iter().find_map(|(name, value)| {
        let (fits, ty) = match name.as_str() {
            name if TEXTS.contains(&name) => (value.is_string(), "string"),
            "tolerationSeconds" => (value.is_i64(), "int64"),
            _ => return None,
        };
        let what = || unreadable(value, &format!("struct field Toleration.{name} of type {ty}"));
        (!fits && !value.is_null()).then(what)
    })
}

fn unreadable(value: &Value, into: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go {into}")
}

/// The list in a namespace's annotation; an empty annotation is an empty list.
fn annotated(namespace: &Value, annotation: &str) -> Result<Option<Vec<Toleration>>, Status> {
    match namespace["metadata"]["annotations"][annotation].as_str() {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => schema::decode::free_json(text.as_bytes(), schema::decode::FieldValidation::Ignore)
            .map_err(|error| error.to_string())
            .and_then(|read| list(&read.value))
            .map(Some)
            .map_err(Status::plain_error),
    }
}

/// Whether who tolerates by `wide` tolerates all that `narrow` lets tolerate.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    if wide == narrow {
        return true;
    }
    let any_key = wide.key.is_empty() && wide.operator == "Exists";
    let key = wide.key == narrow.key || any_key;
    let effect = wide.effect == narrow.effect || wide.effect.is_empty();
    let as_long = match (wide.effect.as_str(), wide.toleration_seconds) {
        ("NoExecute", Some(most)) => narrow.toleration_seconds.is_some_and(|seconds| seconds <= most),
        _ => true,
    };
    let value = match wide.operator.as_str() {
        "" | "Equal" => narrow.operator == "Equal" && narrow.value == wide.value,
        operator => operator == "Exists",
    };
    key && effect && as_long && value
}

/// Two lists in one, without those that others cover; the first of equal ones stays.
fn merge(first: Vec<Toleration>, second: Vec<Toleration>) -> Vec<Toleration> {
    let mut rest = first.into_iter().chain(second).collect::<std::collections::VecDeque<_>>();
    let mut merged: Vec<Toleration> = Vec::new();
    while let Some(next) = rest.pop_front() {
        let known = merged.iter().any(|wide| covers(wide, &next));
        let comes = rest.iter().any(|wide| *wide != next && covers(wide, &next));
        if !known && !comes {
            merged.push(next);
        }
    }
    merged
}

fn typed(pod: &Value) -> Result<Box<Pod>, Status> {
    apimachinery::value::typed(pod).map(Box::new).map_err(Status::internal_error)
}

impl PodTolerationRestriction {
    fn namespace(&self, name: &str) -> Result<Arc<Value>, Status> {
        let found = self.namespaces.pending("", name)?;
        found.ok_or_else(|| self.namespaces.resource.not_found(name))
    }

    /// Refuses tolerations that no list covers; where there is no list, all may be.
    fn check(&self, namespace: &str, tolerations: &[Toleration]) -> Result<(), Status> {
        if tolerations.is_empty() {
            return Ok(());
        }
        let own = annotated(&*self.namespace(namespace)?, WHITELIST)?;
        let (whitelist, scope) = match &own {
            Some(own) => (own, "namespace"),
            None => (&self.configuration.whitelist, "cluster"),
        };
        let covered = |toleration| whitelist.iter().any(|wide| covers(wide, toleration));
        if whitelist.is_empty() || tolerations.iter().all(covered) {
            return Ok(());
        }
        Err(Status::plain_error(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}

impl Immediate for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn when(&self) -> When {
        When::both(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = a.written("", "pods") else { return Ok(()) };
        let pod = typed(pod)?;
        let mut more = match a.operation {
            Operation::Create => annotated(&*self.namespace(a.namespace)?, DEFAULT)?
                .unwrap_or_else(|| self.configuration.default.clone()),
            _ => Vec::new(),
        };
        if rules::qos::pod_qos(&pod).as_str() != "BestEffort" {
            more.push(Toleration {
                key: "node.kubernetes.io/memory-pressure".into(),
                operator: "Exists".into(),
                effect: "NoSchedule".into(),
                ..Toleration::default()
            });
        }
        if more.is_empty() {
            return self.check(a.namespace, &pod.spec.tolerations);
        }
        let merged = merge(pod.spec.tolerations, more);
        if let Some(pod) = a.object.as_deref_mut() {
            pod["spec"]["tolerations"] = json!(merged);
        }
        self.check(a.namespace, &merged)
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        match a.written("", "pods") {
            Some(pod) => self.check(a.namespace, &typed(pod)?.spec.tolerations),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `key operator value effect seconds`, `-` for what is not there.
    fn toleration(text: &str) -> Toleration {
        let words: Vec<&str> = text.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let [key, operator, value, effect, seconds] = words[..] else { panic!("{text}") };
        Toleration {
            key: key.into(),
            operator: operator.into(),
            value: value.into(),
            effect: effect.into(),
            toleration_seconds: seconds.parse().ok(),
        }
    }

    #[test]
    fn one_toleration_covers_another() {
        for (wide, narrow, wanted) in [
            ("a Equal b NoSchedule -", "a Equal b NoSchedule -", true),
            ("a Equal b - -", "a Equal b NoSchedule -", true),
            ("a Equal b NoSchedule -", "a Equal b - -", false),
            ("a - b - -", "a - b NoSchedule -", false),
            ("a Exists - - -", "a Equal b NoExecute 5", true),
            ("- Exists - - -", "a Equal b NoExecute -", true),
            ("- Equal - - -", "a Equal - - -", false),
            ("a Exists - NoExecute 5", "a Exists - NoExecute 5", true),
            ("a Exists - NoExecute 5", "a Equal b NoExecute 6", false),
            ("a Exists - NoExecute 5", "a Equal b NoExecute -", false),
        ] {
            assert_eq!(covers(&toleration(wide), &toleration(narrow)), wanted, "{wide} > {narrow}");
        }
    }

    #[test]
    fn what_is_covered_is_left_out() {
        let list = |texts: &[&str]| texts.iter().map(|text| toleration(text)).collect::<Vec<_>>();
        let first = list(&["a Equal b NoSchedule -", "c Exists - - -"]);
        let second = list(&["a Exists - - -", "c Equal d - -", "c Exists - - -"]);
        assert_eq!(merge(first, second), list(&["c Exists - - -", "a Exists - - -"]));
    }

    #[test]
    fn annotations_are_read_as_go_reads_them() {
        let told = |text: &str| {
            let namespace = json!({"metadata": {"annotations": {WHITELIST: text}}});
            annotated(&namespace, WHITELIST).map_err(|status| status.message)
        };
        assert_eq!(told(""), Ok(Some(Vec::new())));
        assert_eq!(told("[{\"key\": \"a\"}]"), Ok(Some(vec![toleration("a - - - -")])));
        let wrong = |text: &str| told(text).unwrap_err();
        assert_eq!(wrong("nonsense"), "invalid character 'o' in literal null (expecting 'u')");
        assert_eq!(
            wrong("[{\"key\": 5}]"),
            "json: cannot unmarshal number into Go struct field Toleration.key of type string"
        );
        assert_eq!(wrong("{}"), "json: cannot unmarshal object into Go value of type []v1.Toleration");
    }

    #[test]
    fn what_a_configuration_may_say() {
        let head = "apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1\nkind: Configuration\n";
        let whole = format!("{head}default: [{{key: a, operator: Exists}}]");
        assert_eq!(read(Some(&whole)).unwrap().default, [toleration("a Exists - - -")]);
        let wrong = read(Some(&format!("{head}whitelist: [{{key: a, operator: Exists, value: b}}]")));
        let Err(Fault::Configuration(why)) = wrong else { panic!("{wrong:?}") };
        assert_eq!(
            why,
            "invalid config: [podtolerationrestriction.whitelist[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists']"
        );
    }
}
