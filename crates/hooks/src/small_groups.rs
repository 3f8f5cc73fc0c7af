//! Groups whose kinds say little beyond their schema: coordination, scheduling, node.

use super::Row;
use super::core::pod_validation;
use super::core::pod_warnings::{of_template, same_generation};
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, at, column, int, labels, name, object_age, or, text, with};
use api::core::v1::Toleration;
use api::node::v1::RuntimeClass;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::validation::validate_labels;
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[
    ("", "PodTemplate", &POD_TEMPLATES),
    ("", "ResourceQuota", &QUOTAS),
    ("coordination.k8s.io", "Lease", &LEASES),
    ("node.k8s.io", "RuntimeClass", &RUNTIME_CLASSES),
    ("scheduling.k8s.io", "PriorityClass", &PRIORITY_CLASSES),
];

static POD_TEMPLATES: Plain = Plain {
    validate: |template| {
        let template: api::core::v1::PodTemplate = super::tree::typed(template);
        super::templates::validate_template(&template.template, &Path::new("template"))
    },
    warnings: |template, old| match old.is_some_and(|old| same_generation(template, old)) {
        true => Vec::new(),
        false => of_template(template, &["template"]),
    },
    has_generation: true,
    default: |template| {
        with(template, "template", |t| with(t, "spec", super::core::pod_spec::default_pod_spec));
    },
    columns: &[
        NAME,
        column("Containers", "string", 0, "Names of each container in the template."),
        column("Images", "string", 0, "Images referenced by each container in the template."),
        column("Pod Labels", "string", 0, "The labels for the pod template."),
    ],
    cells: |template, _| {
        let [containers, images] = super::templates::containers(&template["template"]);
        vec![
            name(template),
            containers,
            images,
            labels(at(template, &["template", "metadata", "labels"])).into(),
        ]
    },
    ..Plain::NEW
};

static QUOTAS: Plain = Plain {
    validate: super::core::validate_quota,
    validate_update: super::core::validate_quota_update,
    columns: &[
        NAME,
        column(
            "Request",
            "string",
            0,
            "Request represents a minimum amount of cpu/memory that a container may consume.",
        ),
        column(
            "Limit",
            "string",
            0,
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        AGE,
    ],
    cells: |quota, now| {
        let mut columns = [Vec::new(), Vec::new()];
        let mut hard: Vec<_> = quota["status"]["hard"].as_object().into_iter().flatten().collect();
        hard.sort_by_key(|(resource, _)| resource.as_str());
        for (resource, limit) in hard {
            let used = text(quota, &["status", "used", resource]);
            let cell = format!(
                "{resource}: {}/{}",
                if used.is_empty() { "0" } else { used },
                limit.as_str().unwrap_or("0")
            );
            columns[usize::from(resource.starts_with("limits"))].push(cell);
        }
        let [request, limit] = columns.map(|cells| cells.join(", "));
        vec![name(quota), request.into(), limit.into(), object_age(quota, now).into()]
    },
    ..Plain::NEW
};

static LEASES: Plain = Plain {
    validate: |lease| {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        for (field, least, text) in [
            ("leaseDurationSeconds", 1, "must be greater than 0"),
            ("leaseTransitions", 0, "must be greater than or equal to 0"),
        ] {
            if let Some(number) = lease["spec"][field].as_i64().filter(|number| *number < least) {
                errors.push(Error::invalid(&path.child(field), number, text));
            }
        }
        errors
    },
    columns: &[
        NAME,
        column(
            "Holder",
            "string",
            0,
            "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
        ),
        AGE,
    ],
    cells: |lease, now| {
        vec![name(lease), text(lease, &["spec", "holderIdentity"]).into(), object_age(lease, now).into()]
    },
    ..Plain::NEW
};

/// What pods of a class take beside their containers, and where they run.
fn validate_runtime_class(class: &Value) -> ErrorList {
    let mut check = super::check::Check::default();
    let class: RuntimeClass = super::tree::typed(class);
    check.present_and_keeps(&Path::new("handler"), &class.handler, "", super::check::label);
    if let Some(overhead) = &class.overhead {
        pod_validation::overhead(&mut check, &Path::new("overhead"), &overhead.pod_fixed);
    }
    let Some(scheduling) = &class.scheduling else { return check.0 };
    let path = Path::new("scheduling");
    check.extend(validate_labels(&scheduling.node_selector, &path.child("nodeSelector")));
    let (path, all) = (path.child("tolerations"), &scheduling.tolerations);
    pod_validation::tolerations(&mut check, all, &path);
    let key = |t: &Toleration| (t.key.clone(), t.operator.clone(), t.value.clone(), t.effect.clone());
    for (i, toleration) in all.iter().enumerate() {
        let twice = all[..i].iter().any(|other| key(other) == key(toleration));
        let shown = || super::shown::shown_typed("io.k8s.api.core.v1.Toleration", toleration);
        check.when(twice, || Error::duplicate(&path.index(i), shown()));
    }
    check.0
}

static RUNTIME_CLASSES: Plain = Plain {
    validate: validate_runtime_class,
    immutable: &[&["handler"]],
    columns: &[NAME, column("Handler", "string", 0, ""), AGE],
    cells: |class, now| vec![name(class), text(class, &["handler"]).into(), object_age(class, now).into()],
    ..Plain::NEW
};

static PRIORITY_CLASSES: Plain = Plain {
    // It never changes.
    prepare_for_create: |class, _| class["metadata"]["generation"] = 1.into(),
    default: |class| {
        absent_or(class, "preemptionPolicy", "PreemptLowerPriority");
        or(class, "value", 0);
    },
    validate_create: |class, _| {
        let mut errors = ErrorList::new();
        let (value, name) = (int(class, &["value"]), text(class, &["metadata", "name"]));
        let system = name.starts_with("system-");
        if system
            && !matches!(
                (name, value),
                ("system-cluster-critical", 2_000_000_000) | ("system-node-critical", 2_000_001_000)
            )
        {
            let text = "priority class names with 'system-' prefix are reserved for system use only";
            errors.push(Error::forbidden(
                &Path::new("metadata").child("name"),
                format!("{text}. error: {name} is not a known system priority class"),
            ));
        } else if !system && value > 1_000_000_000 {
            errors.push(Error::forbidden(
                &Path::new("value"),
                "maximum allowed value of a user defined priority is 1000000000",
            ));
        }
        let policy = text(class, &["preemptionPolicy"]);
        let at = Path::new("preemptionPolicy");
        if policy.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !matches!(policy, "Never" | "PreemptLowerPriority") {
            errors.push(Error::not_supported(&at, policy, &["PreemptLowerPriority", "Never"]));
        }
        errors
    },
    validate_update: |class, old, _| {
        let changed = int(class, &["value"]) != int(old, &["value"]);
        let error =
            changed.then(|| Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        error.into_iter().collect()
    },
    immutable: &[&["preemptionPolicy"]],
    columns: &[
        NAME,
        column(
            "Value",
            "integer",
            0,
            "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
        ),
        column(
            "Global-Default",
            "boolean",
            0,
            "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
        ),
        AGE,
        column(
            "PreemptionPolicy",
            "string",
            0,
            "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
        ),
    ],
    cells: |class, now| {
        vec![
            name(class),
            int(class, &["value"]).into(),
            (class["globalDefault"] == true).into(),
            object_age(class, now).into(),
            text(class, &["preemptionPolicy"]).into(),
        ]
    },
    ..Plain::NEW
};
