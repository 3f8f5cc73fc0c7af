//! StatefulSets.

use crate::check::Check;
use crate::core::validate_claim;
use crate::counts::Counts;
use crate::templates::*;
use crate::tree::{absent_or, at, column, each, int, list, name, object_age, or, text, typed, with};
use crate::{Column, Context, Strategy};
use api::apps::v1::{StatefulSet, StatefulSetSpec};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::time::Time;
use apimachinery::validation::is_dns1123_label;
use apimachinery::value::Value;
use std::collections::BTreeSet;

pub(super) struct StatefulSets;

const COUNTS: Counts = Counts {
    fields: &[
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ],
    within: &[
        ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
        ("currentReplicas", "replicas", "cannot be greater than status.replicas"),
        ("updatedReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas"),
    ],
};

/// What an update may change; all else in the spec stays.
const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

impl Strategy for StatefulSets {
    fn warnings(&self, set: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        let mut found = template_warnings(set, old, context, Named::Free);
        if context.subresource.is_some() {
            return found;
        }
        for (i, claim) in list(set, &["spec", "volumeClaimTemplates"]).iter().enumerate() {
            let at = Path::new("spec").child("volumeClaimTemplates").index(i);
            // Upstream names the spec on updates only, and with a capital.
            let at = if old.is_some() { at.child("Spec") } else { at };
            found.extend(crate::core::persistent_volume_claim::spec_warnings(&claim["spec"], &at));
        }
        if at(set, &["spec", "revisionHistoryLimit"]).and_then(Value::as_i64).is_some_and(|n| n < 0) {
            found.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        found
    }

    fn default(&self, set: &mut Value) {
        with(set, "spec", |spec| {
            or(spec, "podManagementPolicy", "OrderedReady");
            absent_or(spec, "updateStrategy", json!({}));
            with(spec, "updateStrategy", |strategy| {
                if text(strategy, &["type"]).is_empty() {
                    or(strategy, "type", "RollingUpdate");
                    absent_or(strategy, "rollingUpdate", json!({}));
                }
                if text(strategy, &["type"]) == "RollingUpdate" {
                    with(strategy, "rollingUpdate", |update| {
                        absent_or(update, "partition", 0);
                    });
                }
            });
            absent_or(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
            with(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
                or(policy, "whenDeleted", "Retain");
                or(policy, "whenScaled", "Retain");
            });
            absent_or(spec, "replicas", 1);
            absent_or(spec, "revisionHistoryLimit", 10);
            each(spec, "volumeClaimTemplates", |claim| {
                claim["apiVersion"] = "v1".into();
                claim["kind"] = "PersistentVolumeClaim".into();
                with(claim, "spec", |spec| absent_or(spec, "volumeMode", "Filesystem"));
                absent_or(claim, "status", json!({}));
                with(claim, "status", |status| or(status, "phase", "Pending"));
            });
            default_template(spec);
        });
    }

    fn validate(&self, set: &Value, _: &Context) -> ErrorList {
        validate(&typed::<StatefulSet>(set).spec, &Path::new("spec"), When::New)
    }

    fn validate_update(&self, set: &Value, old: &Value, context: &Context) -> ErrorList {
        if context.subresource == Some("status") {
            return COUNTS.validate(set, old);
        }
        let mut errors = validate(&typed::<StatefulSet>(set).spec, &Path::new("spec"), When::Changed);
        let rest = |set: &Value| {
            let mut spec = set["spec"].clone();
            MUTABLE.iter().for_each(|key| crate::tree::remove(&mut spec, key));
            spec
        };
        if rest(set) != rest(old) {
            errors.push(Error::forbidden(
                &Path::new("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Ready", "string", 0, "Number of the pod with ready state"),
            AGE,
            CONTAINERS,
            IMAGES,
        ];
        COLUMNS
    }

    fn cells(&self, set: &Value, now: Time) -> Vec<Value> {
        let [containers, images] = containers(&set["spec"]["template"]);
        let ready = int(set, &["status", "readyReplicas"]);
        vec![
            name(set),
            format!("{ready}/{}", int(set, &["spec", "replicas"])).into(),
            object_age(set, now).into(),
            containers,
            images,
        ]
    }
}

/// What never changes is judged once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    New,
    Changed,
}

fn validate(spec: &StatefulSetSpec, path: &Path, when: When) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("podManagementPolicy");
    match spec.pod_management_policy.as_str() {
        "" => errors.push(Error::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(Error::invalid(&at, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    let strategy = path.child("updateStrategy");
    let update = spec.update_strategy.rolling_update.as_ref();
    match (spec.update_strategy.type_.as_str(), update) {
        ("", _) => errors.push(Error::required(&strategy, "")),
        ("OnDelete", Some(update)) => errors.push(Error::invalid(
            &strategy.child("rollingUpdate"),
            crate::shown::shown_typed("io.k8s.api.apps.v1.RollingUpdateStatefulSetStrategy", update),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(update)) => {
            let path = strategy.child("rollingUpdate");
            not_negative(&mut errors, &path.child("partition"), update.partition.unwrap_or(0));
            if update.max_unavailable.is_some() {
                let at = path.child("maxUnavailable");
                validate_amount(&mut errors, &at, update.max_unavailable.as_ref());
                if amount(update.max_unavailable.as_ref()) == 0 {
                    errors.push(Error::invalid(&at, BadValue::json(&update.max_unavailable), "cannot be 0"));
                }
                validate_not_more_than_all(&mut errors, &at, update.max_unavailable.as_ref());
            }
        }
        _ => errors.push(Error::invalid(
            &strategy,
            crate::shown::shown_typed("io.k8s.api.apps.v1.StatefulSetUpdateStrategy", &spec.update_strategy),
            "must be 'RollingUpdate' or 'OnDelete'",
        )),
    }
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            if !matches!(value.as_str(), "Retain" | "Delete") {
                errors.push(Error::not_supported(&path.child(field), value.as_str(), &["Retain", "Delete"]));
            }
        }
    }
    if when == When::New {
        let mut check = Check::default();
        for (i, claim) in spec.volume_claim_templates.iter().enumerate() {
            let at = path.child("volumeClaimTemplates").index(i).child("spec");
            validate_claim(&mut check, &at, &claim.spec);
        }
        errors.extend(check.0);
    }
    not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(1));
    not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
    if let Some(ordinals) = &spec.ordinals {
        not_negative(&mut errors, &path.child("ordinals.start"), ordinals.start);
    }
    let service = spec.service_name.as_str();
    if when == When::New && !service.is_empty() {
        let at = path.child("serviceName");
        errors.extend(is_dns1123_label(service).into_iter().map(|why| Error::invalid(&at, service, why)));
    }
    errors.extend(validate_selector(spec.selector.as_ref(), "statefulset", &path.child("selector")));
    // The controller sets name and subdomain of each pod, and adds the volumes of the claims.
    let mut template = spec.template.clone();
    template.spec.hostname.clear();
    template.spec.subdomain.clear();
    let names: BTreeSet<&str> =
        spec.volume_claim_templates.iter().map(|c| c.metadata.name.as_str()).collect();
    template.spec.volumes.retain(|volume| !names.contains(volume.name.as_str()));
    let claimed = |name: &&str| typed(&json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    template.spec.volumes.splice(0..0, names.iter().map(claimed));
    let at = path.child("template");
    let selector = spec.selector.as_ref();
    if Selector::from_label_selector(selector).is_ok() {
        errors.extend(validate_lasting_template(&template, selector, "StatefulSet", &at));
    } else {
        errors.push(Error::invalid(&path.child("selector"), BadValue::json(&selector), ""));
        errors.extend(validate_lifetime(&template, "StatefulSet", &at));
    }
    errors
}
