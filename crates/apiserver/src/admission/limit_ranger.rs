//! LimitRanger: containers get the namespace's default requests and limits, and nothing is smaller or larger than it may.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use api::core::v1::{LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use apimachinery::field::aggregate;
use apimachinery::json;
use apimachinery::quantity::Quantity;
use apimachinery::status::Status;
use apimachinery::value::Value;
use rules::pod_requests::{Options, pod_limits, pod_requests};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct LimitRanger(pub Arc<Objects>);

type Amounts = BTreeMap<String, Quantity>;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Above this, thousandths would not fit.
const MAX_MILLI: i64 = i64::MAX / 1000;

/// The three amounts at a common precision.
fn comparable(a: &Quantity, b: &Quantity, c: &Quantity) -> (i64, i64, i64) {
    let whole = (a.value(), b.value(), c.value());
    if [whole.0, whole.1, whole.2].iter().all(|n| *n <= MAX_MILLI) {
        return (a.milli_value(), b.milli_value(), c.milli_value());
    }
    whole
}

fn minimum(
    kind: &str,
    name: &str,
    enforced: &Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let zero = Quantity::default();
    let (request, limit) = (requests.get(name), limits.get(name));
    let (r, l, e) = comparable(request.unwrap_or(&zero), limit.unwrap_or(&zero), enforced);
    let what = format!("minimum {name} usage per {kind} is {enforced}");
    match (request, limit) {
        (None, _) => Some(format!("{what}.  No request is specified")),
        (Some(request), _) if r < e => Some(format!("{what}, but request is {request}")),
        (_, Some(limit)) if l < e => Some(format!("{what}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum(
    kind: &str,
    name: &str,
    enforced: &Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let zero = Quantity::default();
    let (request, limit) = (requests.get(name), limits.get(name));
    let (r, l, e) = comparable(request.unwrap_or(&zero), limit.unwrap_or(&zero), enforced);
    let what = format!("maximum {name} usage per {kind} is {enforced}");
    match (request, limit) {
        (_, None) => Some(format!("{what}.  No limit is specified")),
        (_, Some(limit)) if l > e => Some(format!("{what}, but limit is {limit}")),
        (Some(request), _) if r > e => Some(format!("{what}, but request is {request}")),
        _ => None,
    }
}

fn ratio(
    kind: &str,
    name: &str,
    enforced: &Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let zero = Quantity::default();
    let (request, limit) = (requests.get(name), limits.get(name));
    let (r, l, _) = comparable(request.unwrap_or(&zero), limit.unwrap_or(&zero), enforced);
    let what = format!("{name} max limit to request ratio per {kind} is {enforced}");
    if request.is_none() || r == 0 {
        return Some(format!("{what}, but no request is specified or request is 0"));
    }
    if limit.is_none() || l == 0 {
        return Some(format!("{what}, but no limit is specified or limit is 0"));
    }
    let observed = l as f64 / r as f64;
    (observed > enforced.as_f64()).then(|| format!("{what}, but provided ratio is {observed:.6}"))
}

/// All that is wrong by one item of a range.
fn judge(item: &LimitRangeItem, kind: &str, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let min = item.min.iter().filter_map(|(n, q)| minimum(kind, n, q, requests, limits));
    let max = item.max.iter().filter_map(|(n, q)| maximum(kind, n, q, requests, limits));
    let ratios = item.max_limit_request_ratio.iter().filter_map(|(n, q)| ratio(kind, n, q, requests, limits));
    min.chain(max).chain(ratios).collect()
}

fn judge_pod(range: &LimitRange, pod: &Pod) -> Vec<String> {
    let mut errors = Vec::new();
    for item in &range.spec.limits {
        match item.type_.as_str() {
            "Container" => {
                for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
                    let resources = &container.resources;
                    errors.extend(judge(item, "Container", &resources.requests, &resources.limits));
                }
            }
            "Pod" => {
                let options = Options::default();
                let (requests, limits) = (pod_requests(pod, options), pod_limits(pod, options));
                errors.extend(judge(item, "Pod", &requests, &limits));
            }
            _ => {}
        }
    }
    errors
}

fn judge_claim(range: &LimitRange, claim: &PersistentVolumeClaim) -> Vec<String> {
    let requests = &claim.spec.resources.requests;
    let none = Amounts::new();
    let mut errors = Vec::new();
    for item in range.spec.limits.iter().filter(|i| i.type_ == "PersistentVolumeClaim") {
        let kind = "PersistentVolumeClaim";
        errors.extend(item.min.iter().filter_map(|(n, q)| minimum(kind, n, q, requests, &none)));
        for (name, enforced) in &item.max {
            let what = format!("maximum {name} usage per {kind} is {enforced}");
            match requests.get(name) {
                None => errors.push(format!("{what}.  No request is specified")),
                Some(request) if request > enforced => {
                    errors.push(format!("{what}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

/// Gives a container the defaults it lacks; tells which, for the pod's annotation.
fn fill(container: &mut Value, defaults: &BTreeMap<&str, Amounts>, what: &str) -> Vec<String> {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let mut notes = Vec::new();
    for (key, word) in [("requests", "request"), ("limits", "limit")] {
        let mut set = Vec::new();
        for (resource, quantity) in defaults.get(key).into_iter().flatten() {
            if container["resources"][key].get(resource).is_none() {
                container["resources"][key][resource] = quantity.to_string().into();
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
        }
    }
    notes
}

impl LimitRanger {
    fn concerns(a: &Attributes<'_>) -> bool {
        let going = a.old.is_some_and(crate::object::is_being_deleted);
        let pods = a.is("", "pods") && (a.operation == Operation::Create || a.subresource == "resize");
        let claims = a.is("", "persistentvolumeclaims");
        let plain = a.subresource.is_empty() || a.subresource == "resize";
        plain && !going && (pods || claims)
    }

    fn ranges(&self, namespace: &str) -> Result<Vec<LimitRange>, Status> {
        let all = self.0.list(namespace)?;
        let read = |range: Arc<Value>| apimachinery::value::typed(&range).map_err(Status::internal_error);
        all.into_iter().map(read).collect()
    }
}

impl Immediate for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn when(&self) -> When {
        When::both(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if !Self::concerns(a) || !a.is("", "pods") {
            return Ok(());
        }
        for range in self.ranges(a.namespace)? {
            let Some(pod) = a.object.as_deref_mut() else { return Ok(()) };
            let mut defaults: BTreeMap<&str, Amounts> = BTreeMap::new();
            for item in range.spec.limits.iter().filter(|i| i.type_ == "Container") {
                defaults.entry("requests").or_default().extend(item.default_request.clone());
                defaults.entry("limits").or_default().extend(item.default_.clone());
            }
            let mut notes = Vec::new();
            for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
                for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
                {
                    notes.extend(fill(container, &defaults, what));
                }
            }
            if !notes.is_empty() {
                if !pod["metadata"]["annotations"].is_object() {
                    pod["metadata"]["annotations"] = json!({});
                }
                let note = format!("LimitRanger plugin set: {}", notes.join("; "));
                pod["metadata"]["annotations"][ANNOTATION] = note.into();
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = a.object.as_deref().filter(|_| Self::concerns(a)) else { return Ok(()) };
        let ranges = self.ranges(a.namespace)?;
        for range in &ranges {
            let errors = if a.is("", "pods") {
                let pod: Pod = apimachinery::value::typed(object).map_err(Status::internal_error)?;
                judge_pod(range, &pod)
            } else {
                let claim = apimachinery::value::typed(object).map_err(Status::internal_error)?;
                judge_claim(range, &claim)
            };
            if let Some(why) = aggregate(errors) {
                return Err(a.forbidden(why));
            }
        }
        Ok(())
    }
}
