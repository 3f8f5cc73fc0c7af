//! What whoever names a node's label by an old name is told. Upstream: `pkg/api/node`.

use crate::tree::{list, text};
use apimachinery::field::Path;
use apimachinery::validation::is_valid_label_value;
use apimachinery::value::Value;

const LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is to be said of a label's name.
pub(super) fn of_label(name: &str) -> Option<&'static str> {
    LABELS.iter().find(|(label, _)| *label == name).map(|(_, why)| *why)
}

/// Of a term of a node selector, where `with_values` also of values that no label can have.
pub(super) fn of_term(term: &Value, with_values: bool, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (i, requirement) in list(term, &["matchExpressions"]).iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let key = text(requirement, &["key"]);
        found.extend(of_label(key).map(|why| format!("{}: {key} is {why}", at.child("key"))));
        let values = list(requirement, &["values"]).iter().filter_map(Value::as_str);
        for (j, value) in values.enumerate().filter(|_| with_values) {
            let at = at.child("values").index(j);
            found.extend(
                is_valid_label_value(value).into_iter().map(|why| format!("{at}: {value} is invalid, {why}")),
            );
        }
    }
    found
}
