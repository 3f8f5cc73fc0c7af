//! The objects that parameterize a policy, as its bindings refer to them.

use crate::admission::matching::labels;
use crate::resources::{Resources, Served};
use api::admissionregistration::v1::{ParamKind, ParamRef};
use apimachinery::labels::Selector;
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;
use store::{Entry, Store};

/// The parameters of a binding: one evaluation each, one without any where the policy or the binding names none.
pub(super) async fn collect(
    store: &Arc<dyn Store>,
    resources: &Resources,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    request_namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let served = resources
        .of_kind(&kind.api_version, &kind.kind)
        .ok_or_else(|| format!("paramKind kind `{}, Kind={}` not known", kind.api_version, kind.kind))?;
    let namespace = match (served.row.namespaced, reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (true, "") if request_namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .into(),
            );
        }
        (true, "") => request_namespace,
        (true, namespace) => namespace,
    };
    let found = match (reference.name.as_str(), &reference.selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector =
                Selector::from_label_selector(Some(selector)).map_err(|error| error.to_string())?;
            selected(store, &served, namespace, &selector).await?
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (name, None) => {
            let entry = store.get(&served.key(namespace, name));
            read(&served, entry.into_iter().collect()).await?
        }
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}

async fn selected(
    store: &Arc<dyn Store>,
    served: &Served,
    namespace: &str,
    selector: &Selector,
) -> Result<Vec<Option<Value>>, String> {
    let below = if served.row.namespaced { format!("{namespace}/") } else { String::new() };
    let snapshot = store.snapshot(&served.prefix);
    let mut found = read(served, snapshot.range(&below, "").cloned().collect()).await?;
    found.retain(|object| object.as_ref().is_some_and(|o| selector.matches(&labels(o))));
    Ok(found)
}

/// The objects in the version that the policy names.
async fn read(served: &Served, entries: Vec<Arc<Entry>>) -> Result<Vec<Option<Value>>, String> {
    let read = |entry: &Arc<Entry>| {
        let value = crate::registry::decode(served, entry)?.value;
        Ok(Some(served.to_served(value)))
    };
    let presented = served.present_all(entries).await.map_err(|status| status.message)?;
    presented.iter().map(read).collect::<Result<_, Status>>().map_err(|status| status.message)
}
