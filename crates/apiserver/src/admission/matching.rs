//! Which requests a policy or webhook is about: rules over group, version, resource, operation and scope, and selectors
//! over the object's and its namespace's labels.

use super::{Attributes, Operation};
use crate::object;
use crate::resources::{Resources, Served};
use api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations};
use apimachinery::labels::Selector;
use apimachinery::meta::LabelSelector;
use apimachinery::status::Status;
use apimachinery::value::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Store;

/// Where a match looks namespaces and equivalent resources up.
pub(super) struct Lookup {
    pub(super) store: Arc<dyn Store>,
    pub(super) resources: Arc<Resources>,
    pub(super) namespaces: Arc<Served>,
}

impl Lookup {
    pub(super) fn new(deps: &super::Deps) -> Option<Self> {
        let (store, resources) = (deps.store.clone(), deps.resources.clone());
        let namespaces = resources.get("", "v1", "namespaces")?;
        Some(Lookup { store, resources, namespaces })
    }

    /// The namespace that the request is in; a namespace is in none.
    pub(super) fn namespace_of(&self, a: &Attributes<'_>) -> Result<Option<Value>, Status> {
        if a.namespace.is_empty() || a.is("", "namespaces") {
            return Ok(None);
        }
        self.namespace(a.namespace).map(Some)
    }

    fn namespace(&self, name: &str) -> Result<Value, Status> {
        let key = self.namespaces.key("", name);
        let entry = self.store.get(&key).or_else(|| self.store.pending(&key));
        let entry = entry.ok_or_else(|| self.namespaces.not_found(name))?;
        Ok(crate::registry::decode(&self.namespaces, &entry)?.value)
    }

    /// The version of the resource in which a policy wants to see the request; none if it is not about it.
    pub(super) fn matches(
        &self,
        a: &Attributes<'_>,
        constraints: &MatchResources,
    ) -> Result<Option<Arc<Served>>, Status> {
        let in_namespace = self.namespace_matches(a, constraints.namespace_selector.as_ref());
        if matches!(in_namespace, Ok(false)) {
            return Ok(None);
        }
        if !objects_match(a, constraints.object_selector.as_ref())? {
            return Ok(None);
        }
        let policy = constraints.match_policy.as_deref();
        if self.rules_match(a, &constraints.exclude_resource_rules, policy).is_some() {
            return Ok(None);
        }
        let found = if constraints.resource_rules.is_empty() {
            Some(a.resource.clone())
        } else {
            self.rules_match(a, &constraints.resource_rules, policy)
        };
        // What went wrong with the namespace only matters for what is matched otherwise.
        match (found, in_namespace) {
            (Some(_), Err(status)) => Err(status),
            (found, _) => Ok(found),
        }
    }

    fn rules_match(
        &self,
        a: &Attributes<'_>,
        rules: &[NamedRuleWithOperations],
        policy: Option<&str>,
    ) -> Option<Arc<Served>> {
        if rules.iter().any(|rule| rule_matches(a, rule, a.resource)) {
            return Some(a.resource.clone());
        }
        if policy == Some("Exact") {
            return None;
        }
        // The same resource in another version.
        let equivalents = self.resources.all().into_iter().filter(|other| {
            other.row.group == a.resource.row.group
                && other.row.resource == a.resource.row.resource
                && other.row.version != a.resource.row.version
        });
        equivalents.into_iter().find(|other| rules.iter().any(|rule| rule_matches(a, rule, other)))
    }

    fn namespace_matches(
        &self,
        a: &Attributes<'_>,
        selector: Option<&LabelSelector>,
    ) -> Result<bool, Status> {
        let is_namespace = &*a.resource.row.resource == "namespaces";
        if a.namespace.is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = parsed(selector)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let written = matches!(a.operation, Operation::Create | Operation::Update);
        let own = a.object.as_deref().filter(|_| is_namespace && a.subresource.is_empty() && written);
        let labels = match own {
            Some(object) => labels(object),
            None => labels(&self.namespace(if is_namespace { a.name } else { a.namespace })?),
        };
        Ok(selector.matches(&labels))
    }
}

fn parsed(selector: Option<&LabelSelector>) -> Result<Selector, Status> {
    // An absent selector has been defaulted to the empty one, which selects everything.
    match selector {
        None => Selector::from_label_selector(Some(&LabelSelector::default())),
        some => Selector::from_label_selector(some),
    }
    .map_err(|error| Status::internal_error(error.to_string()))
}

pub(super) fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object::metadata(object).and_then(|m| m.get("labels")).and_then(Value::as_object);
    let pairs = labels.into_iter().flat_map(Map::iter);
    pairs.filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_owned()))).collect()
}

fn objects_match(a: &Attributes<'_>, selector: Option<&LabelSelector>) -> Result<bool, Status> {
    let selector = parsed(selector)?;
    if selector.is_empty() {
        return Ok(true);
    }
    let both = [a.object.as_deref(), a.old];
    Ok(both.into_iter().flatten().any(|object| selector.matches(&labels(object))))
}

fn rule_matches(a: &Attributes<'_>, rule: &NamedRuleWithOperations, resource: &Served) -> bool {
    let has = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
    let namespaces = resource.row.group.is_empty() && &*resource.row.resource == "namespaces";
    let in_scope = match rule.scope.as_deref() {
        None | Some("*") => true,
        Some("Namespaced") => !namespaces && !a.namespace.is_empty(),
        Some("Cluster") => namespaces || a.namespace.is_empty(),
        Some(_) => false,
    };
    in_scope
        && has(&rule.operations, a.operation.name())
        && has(&rule.api_groups, &resource.row.group)
        && has(&rule.api_versions, &resource.row.version)
        && rule.resources.iter().any(|text| {
            let (name, sub) = text.split_once('/').unwrap_or((text, ""));
            (name == "*" || *name == *resource.row.resource) && (sub == "*" || sub == a.subresource)
        })
        && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|name| name == a.name))
}

/// Configuration of admission itself is never a matter of admission, or nobody could mend it.
pub(super) fn is_exempt(a: &Attributes<'_>) -> bool {
    &*a.resource.row.group == "admissionregistration.k8s.io"
        && [
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ]
        .contains(&&*a.resource.row.resource)
}
