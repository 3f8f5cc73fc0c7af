//! Merges the labels that a new pod's `matchLabelKeys` and `mismatchLabelKeys` name into the selectors beside them. Upstream:
//! `mutatePodAffinity`, `mutateTopologySpreadConstraints`.

use crate::tree::{each, with};
use apimachinery::json;
use apimachinery::value::Value;

pub(super) fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    with(pod, "spec", |spec| {
        with(spec, "affinity", |affinity| {
            for kind in ["podAffinity", "podAntiAffinity"] {
                with(affinity, kind, |terms| {
                    each(terms, "preferredDuringSchedulingIgnoredDuringExecution", |term| {
                        with(term, "podAffinityTerm", |term| merge(term, &labels));
                    });
                    each(terms, "requiredDuringSchedulingIgnoredDuringExecution", |term| {
                        merge(term, &labels)
                    });
                });
            }
        });
        each(spec, "topologySpreadConstraints", |constraint| merge(constraint, &labels));
    });
}

/// Only where there is a selector: none matches nothing, whatever is added.
fn merge(term: &mut Value, labels: &Value) {
    for (member, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term[member].as_array().cloned().unwrap_or_default();
        let wanted = keys.iter().filter_map(|key| Some((key, labels.get(key.as_str()?)?)));
        let more: Vec<Value> =
            wanted.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})).collect();
        with(term, "labelSelector", |selector| {
            if let Value::Array(all) = &mut selector["matchExpressions"] {
                all.extend(more);
            } else if !more.is_empty() {
                selector["matchExpressions"] = more.into();
            }
        });
    }
}
