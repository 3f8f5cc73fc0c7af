//! `limitedResources` of the plugin's configuration: what may only be used where a quota covers it.

use crate::admission::Attributes;
use crate::admission::roster::Fault;
use crate::strict::{self, Shape};
use api::core::v1::ScopedResourceSelectorRequirement;
use apimachinery::field::{Error, ErrorList, Path};
use rules::quota::Usage;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A resource that is limited by default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::admission) struct LimitedResource {
    api_group: String,
    resource: String,
    match_contains: Vec<String>,
    pub(super) match_scopes: Vec<ScopedResourceSelectorRequirement>,
}

const KNOWN: [(&str, &str); 3] = [
    ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
    ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
    ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
];

const SHAPE: Shape = Shape::Object(&[
    ("apiVersion", Shape::Any),
    ("kind", Shape::Any),
    (
        "limitedResources",
        Shape::List(&Shape::Object(&[
            ("apiGroup", Shape::Any),
            ("resource", Shape::Any),
            ("matchContains", Shape::Any),
            (
                "matchScopes",
                Shape::List(&Shape::Object(&[
                    ("scopeName", Shape::Any),
                    ("operator", Shape::Any),
                    ("values", Shape::Any),
                ])),
            ),
        ])),
    ),
]);

/// What the configuration limits; nothing where there is none.
pub(in crate::admission) fn read(text: Option<&str>) -> Result<Vec<LimitedResource>, Fault> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut value = strict::load_known(text, &KNOWN, &SHAPE)?;
    let limited = Option::<Vec<LimitedResource>>::deserialize(value["limitedResources"].take());
    let limited = limited.map_err(|error| error.to_string())?.unwrap_or_default();
    let mut errors = ErrorList::default();
    for (at, _) in limited.iter().enumerate().filter(|(_, limited)| limited.resource.is_empty()) {
        errors.push(Error::required(&Path::new("limitedResources").index(at).child("resource"), ""));
    }
    errors.aggregate().map_or(Ok(limited), |why| Err(Fault::Configuration(why)))
}

/// The names of what a request uses that some quota must constrain.
pub(super) fn names<'u>(
    limited: &[LimitedResource],
    a: &Attributes<'_>,
    usage: &'u Usage,
) -> BTreeSet<&'u str> {
    let of_request = limited.iter().filter(|l| a.is(&l.api_group, &l.resource));
    let parts: Vec<&String> = of_request.flat_map(|limited| &limited.match_contains).collect();
    let used = usage.iter().filter(|(_, amount)| amount.cmp_i64(0).is_gt()).map(|(name, _)| name.as_str());
    used.filter(|name| parts.iter().any(|part| name.contains(part.as_str()))).collect()
}

/// As Go prints requirements within a list.
pub(super) fn print(scopes: &[&ScopedResourceSelectorRequirement]) -> String {
    let one = |scope: &&ScopedResourceSelectorRequirement| {
        format!("{{{} {} [{}]}}", scope.scope_name, scope.operator, scope.values.join(" "))
    };
    format!("[{}]", scopes.iter().map(one).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_may_say() {
        let text = "
apiVersion: apiserver.config.k8s.io/v1
kind: ResourceQuotaConfiguration
limitedResources:
- resource: pods
  matchScopes: [{scopeName: PriorityClass, operator: In, values: [high, higher]}]
- {apiGroup: apps, resource: deployments, matchContains: [count/]}
";
        let limited = read(Some(text)).unwrap();
        assert_eq!((limited[0].resource.as_str(), limited[1].api_group.as_str()), ("pods", "apps"));
        let scopes: Vec<_> = limited[0].match_scopes.iter().collect();
        assert_eq!(print(&scopes), "[{PriorityClass In [high higher]}]");
        assert_eq!(read(None), Ok(Vec::new()));
        let refused = |text: &str| match read(Some(text)).unwrap_err() {
            Fault::Configuration(why) | Fault::Initialization(why) => why,
        };
        let old = "apiVersion: resourcequota.admission.k8s.io/v1beta1\nkind: Configuration\n";
        assert_eq!(
            refused(&format!("{old}limitedResources: [{{}}, {{resource: a}}]")),
            "limitedResources[0].resource: Required value"
        );
        assert_eq!(
            refused(&format!("{old}limitedResources: [{{resource: a, group: b}}]")),
            "strict decoding error: unknown field \"limitedResources[0].group\""
        );
    }
}
