//! Groups whose kinds say little beyond their schema: coordination, policy, scheduling, rbac, networking, storage, node.

use super::Column;
use super::Row;
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, at, column, each, int, joined, labels, list, name, object_age, or, text, with};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use serde_json::{Value, json};

pub(super) const STRATEGIES: &[Row] = &[
    ("", "PodTemplate", &POD_TEMPLATES),
    ("", "ResourceQuota", &QUOTAS),
    ("coordination.k8s.io", "Lease", &LEASES),
    ("networking.k8s.io", "Ingress", &INGRESSES),
    ("networking.k8s.io", "IngressClass", &INGRESS_CLASSES),
    ("networking.k8s.io", "NetworkPolicy", &NETWORK_POLICIES),
    ("networking.k8s.io", "ServiceCIDR", &SERVICE_CIDRS),
    ("node.k8s.io", "RuntimeClass", &RUNTIME_CLASSES),
    ("policy", "PodDisruptionBudget", &BUDGETS),
    ("rbac.authorization.k8s.io", "ClusterRole", &ROLES),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", &BINDINGS),
    ("rbac.authorization.k8s.io", "Role", &ROLES),
    ("rbac.authorization.k8s.io", "RoleBinding", &BINDINGS),
    ("scheduling.k8s.io", "PriorityClass", &PRIORITY_CLASSES),
    ("storage.k8s.io", "CSIDriver", &CSI_DRIVERS),
    ("storage.k8s.io", "CSINode", &CSI_NODES),
    ("storage.k8s.io", "StorageClass", &STORAGE_CLASSES),
    ("storage.k8s.io", "VolumeAttachment", &ATTACHMENTS),
];

/// Text, or the word for none.
fn or_none<'a>(text: &'a str, none: &'a str) -> Value {
    if text.is_empty() { none.into() } else { text.into() }
}

static POD_TEMPLATES: Plain = Plain {
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

static INGRESSES: Plain = Plain {
    columns: &[
        NAME,
        column(
            "Class",
            "string",
            0,
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        column(
            "Hosts",
            "string",
            0,
            "Hosts that incoming requests are matched against before the ingress rule",
        ),
        column("Address", "string", 0, "Address is a list containing ingress points for the load-balancer"),
        column("Ports", "string", 0, "Ports of TLS configurations that open"),
        AGE,
    ],
    cells: |ingress, now| {
        let hosts: Vec<&str> = list(ingress, &["spec", "rules"])
            .iter()
            .map(|rule| text(rule, &["host"]))
            .filter(|h| !h.is_empty())
            .collect();
        let hosts = match hosts.len() {
            0 => "*".to_owned(),
            1..=3 => hosts.join(","),
            count => format!("{} + {} more...", hosts[..3].join(","), count - 3),
        };
        let points = list(ingress, &["status", "loadBalancer", "ingress"]).iter();
        let address = points.map(|p| match text(p, &["ip"]) {
            "" => text(p, &["hostname"]),
            ip => ip,
        });
        let ports = if list(ingress, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            name(ingress),
            or_none(text(ingress, &["spec", "ingressClassName"]), "<none>"),
            hosts.into(),
            joined(address, "").into(),
            ports.into(),
            object_age(ingress, now).into(),
        ]
    },
    ..Plain::NEW
};

static INGRESS_CLASSES: Plain = Plain {
    immutable: &[&["spec", "controller"]],
    columns: &[
        NAME,
        column("Controller", "string", 0, "Controller that is responsible for handling this class"),
        column("Parameters", "string", 0, "A reference to a resource with additional parameters"),
        AGE,
    ],
    cells: |class, now| {
        let parameters = &class["spec"]["parameters"];
        let shown = if parameters.is_object() {
            let kind = match text(parameters, &["apiGroup"]) {
                "" => text(parameters, &["kind"]).to_owned(),
                group => format!("{}.{group}", text(parameters, &["kind"])),
            };
            format!("{kind}/{}", text(parameters, &["name"]))
        } else {
            "<none>".to_owned()
        };
        vec![
            name(class),
            text(class, &["spec", "controller"]).into(),
            shown.into(),
            object_age(class, now).into(),
        ]
    },
    ..Plain::NEW
};

static NETWORK_POLICIES: Plain = Plain {
    default: |policy| {
        with(policy, "spec", |spec| {
            for direction in ["ingress", "egress"] {
                each(spec, direction, |rule| each(rule, "ports", |port| absent_or(port, "protocol", "TCP")));
            }
            if list(spec, &["policyTypes"]).is_empty() {
                let egress = !list(spec, &["egress"]).is_empty();
                spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            }
        });
    },
    columns: &[
        NAME,
        column(
            "Pod-Selector",
            "string",
            0,
            "podSelector selects the pods to which this NetworkPolicy object applies.",
        ),
        AGE,
    ],
    cells: |policy, now| {
        let selector: Option<apimachinery::meta::LabelSelector> =
            super::tree::typed(&policy["spec"]["podSelector"]);
        vec![
            name(policy),
            apimachinery::labels::format_label_selector(selector.as_ref()).into(),
            object_age(policy, now).into(),
        ]
    },
    ..Plain::NEW
};

static SERVICE_CIDRS: Plain = Plain {
    columns: &[
        NAME,
        column(
            "CIDRs",
            "string",
            0,
            "cidrs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family.",
        ),
        AGE,
    ],
    cells: |range, now| {
        let cidrs = list(range, &["spec", "cidrs"]).iter().filter_map(Value::as_str);
        vec![name(range), joined(cidrs, "").into(), object_age(range, now).into()]
    },
    ..Plain::NEW
};

static RUNTIME_CLASSES: Plain = Plain {
    immutable: &[&["handler"]],
    columns: &[
        NAME,
        column(
            "Handler",
            "string",
            0,
            "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class.",
        ),
        AGE,
    ],
    cells: |class, now| vec![name(class), text(class, &["handler"]).into(), object_age(class, now).into()],
    ..Plain::NEW
};

static BUDGETS: Plain = Plain {
    validate: |budget| {
        let mut errors = ErrorList::new();
        let spec = &budget["spec"];
        let path = Path::new("spec");
        let amount = |field: &str| spec.get(field).filter(|value| !value.is_null());
        if amount("minAvailable").is_some() && amount("maxUnavailable").is_some() {
            let text = "minAvailable and maxUnavailable cannot be both set";
            errors.push(Error::invalid(&path, BadValue::json(spec), text));
        }
        for field in ["minAvailable", "maxUnavailable"] {
            if let Some(value) = amount(field) {
                let value = super::tree::typed::<Option<apimachinery::int_or_string::IntOrString>>(value);
                let at = path.child(field);
                super::templates::validate_amount(&mut errors, &at, value.as_ref());
                super::templates::validate_not_more_than_all(&mut errors, &at, value.as_ref());
            }
        }
        let policy = text(spec, &["unhealthyPodEvictionPolicy"]);
        if !matches!(policy, "" | "IfHealthyBudget" | "AlwaysAllow") {
            let at = path.child("unhealthyPodEvictionPolicy");
            errors.push(Error::not_supported(&at, policy, &["AlwaysAllow", "IfHealthyBudget"]));
        }
        errors
    },
    columns: &[
        NAME,
        column("Min Available", "string", 0, "The minimum number of pods that must be available."),
        column("Max Unavailable", "string", 0, "The maximum number of pods that may be unavailable."),
        column(
            "Allowed Disruptions",
            "integer",
            0,
            "Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ],
    cells: |budget, now| {
        let amount = |field: &str| match &budget["spec"][field] {
            Value::String(text) => Value::from(text.as_str()),
            Value::Number(number) => number.to_string().into(),
            _ => "N/A".into(),
        };
        vec![
            name(budget),
            amount("minAvailable"),
            amount("maxUnavailable"),
            int(budget, &["status", "disruptionsAllowed"]).into(),
            object_age(budget, now).into(),
        ]
    },
    ..Plain::NEW
};

static ROLES: Plain = Plain {
    columns: &[NAME, CREATED_AT],
    cells: |role, _| vec![name(role), text(role, &["metadata", "creationTimestamp"]).into()],
    has_generation: false,
    ..Plain::NEW
};
const CREATED_AT: Column = column(
    "Created At",
    "date",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.",
);

static BINDINGS: Plain = Plain {
    default: |binding| {
        const GROUP: &str = "rbac.authorization.k8s.io";
        with(binding, "roleRef", |role| or(role, "apiGroup", GROUP));
        each(binding, "subjects", |subject| {
            if matches!(text(subject, &["kind"]), "User" | "Group") {
                or(subject, "apiGroup", GROUP);
            }
        });
    },
    validate: |binding| {
        let mut errors = ErrorList::new();
        let path = Path::new("roleRef");
        let kind = text(binding, &["roleRef", "kind"]);
        if !matches!(kind, "Role" | "ClusterRole") {
            errors.push(Error::not_supported(&path.child("kind"), kind, &["ClusterRole", "Role"]));
        }
        if text(binding, &["roleRef", "name"]).is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        for (i, subject) in list(binding, &["subjects"]).iter().enumerate() {
            let path = Path::new("subjects").index(i);
            if text(subject, &["name"]).is_empty() {
                errors.push(Error::required(&path.child("name"), ""));
            }
            match text(subject, &["kind"]) {
                "ServiceAccount" if text(subject, &["namespace"]).is_empty() => {
                    errors.push(Error::required(&path.child("namespace"), ""));
                }
                "ServiceAccount" | "User" | "Group" => {}
                other => errors.push(Error::not_supported(
                    &path.child("kind"),
                    other,
                    &["Group", "ServiceAccount", "User"],
                )),
            }
        }
        errors
    },
    immutable: &[&["roleRef"]],
    columns: &[
        NAME,
        column(
            "Role",
            "string",
            0,
            "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        ),
        AGE,
        column("Users", "string", 1, "Users in the roleBinding"),
        column("Groups", "string", 1, "Groups in the roleBinding"),
        column("ServiceAccounts", "string", 1, "ServiceAccounts in the roleBinding"),
    ],
    cells: |binding, now| {
        let of = |kind: &str| {
            let subjects = list(binding, &["subjects"]).iter().filter(|s| text(s, &["kind"]) == kind);
            let names: Vec<String> = subjects
                .map(|s| match kind {
                    "ServiceAccount" => format!("{}/{}", text(s, &["namespace"]), text(s, &["name"])),
                    _ => text(s, &["name"]).to_owned(),
                })
                .collect();
            Value::from(names.join(", "))
        };
        let role = format!("{}/{}", text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]));
        vec![
            name(binding),
            role.into(),
            object_age(binding, now).into(),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ]
    },
    has_generation: false,
    ..Plain::NEW
};

static PRIORITY_CLASSES: Plain = Plain {
    default: |class| {
        absent_or(class, "preemptionPolicy", "PreemptLowerPriority");
        or(class, "value", 0);
    },
    validate: |class| {
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
        if !matches!(policy, "Never" | "PreemptLowerPriority") {
            let at = Path::new("preemptionPolicy");
            errors.push(Error::not_supported(&at, policy, &["PreemptLowerPriority", "Never"]));
        }
        errors
    },
    immutable: &[&["value"], &["preemptionPolicy"]],
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

static CSI_DRIVERS: Plain = Plain {
    default: |driver| {
        with(driver, "spec", |spec| {
            absent_or(spec, "attachRequired", true);
            absent_or(spec, "podInfoOnMount", false);
            absent_or(spec, "storageCapacity", false);
            absent_or(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if list(spec, &["volumeLifecycleModes"]).is_empty() {
                spec["volumeLifecycleModes"] = json!(["Persistent"]);
            }
            absent_or(spec, "requiresRepublish", false);
            absent_or(spec, "seLinuxMount", false);
        });
    },
    columns: &[
        NAME,
        column(
            "AttachRequired",
            "boolean",
            0,
            "attachRequired indicates this CSI volume driver requires an attach operation.",
        ),
        column(
            "PodInfoOnMount",
            "boolean",
            0,
            "podInfoOnMount indicates this CSI volume driver requires additional pod information during mount operations, if set to true. When set to false, pod information will not be passed on mount. Default is false.",
        ),
        column(
            "StorageCapacity",
            "boolean",
            0,
            "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.",
        ),
        column(
            "TokenRequests",
            "string",
            0,
            "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication.",
        ),
        column(
            "RequiresRepublish",
            "boolean",
            0,
            "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume.",
        ),
        column(
            "Modes",
            "string",
            0,
            "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports.",
        ),
        AGE,
    ],
    cells: |driver, now| {
        let flag = |field: &str| Value::from(driver["spec"][field] == true);
        let tokens = list(driver, &["spec", "tokenRequests"]).iter().map(|t| text(t, &["audience"]));
        let modes = list(driver, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
        vec![
            name(driver),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            joined(tokens, "<unset>").into(),
            flag("requiresRepublish"),
            joined(modes, "<none>").into(),
            object_age(driver, now).into(),
        ]
    },
    ..Plain::NEW
};

static CSI_NODES: Plain = Plain {
    columns: &[
        NAME,
        column("Drivers", "integer", 0, "Drivers indicates the number of CSI drivers registered on the node"),
        AGE,
    ],
    cells: |node, now| {
        vec![name(node), list(node, &["spec", "drivers"]).len().into(), object_age(node, now).into()]
    },
    ..Plain::NEW
};

static STORAGE_CLASSES: Plain = Plain {
    default: |class| {
        absent_or(class, "reclaimPolicy", "Delete");
        absent_or(class, "volumeBindingMode", "Immediate");
    },
    immutable: &[&["parameters"], &["provisioner"], &["reclaimPolicy"], &["volumeBindingMode"]],
    columns: &[
        NAME,
        column("Provisioner", "string", 0, "provisioner indicates the type of the provisioner."),
        column(
            "ReclaimPolicy",
            "string",
            0,
            "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
        ),
        column(
            "VolumeBindingMode",
            "string",
            0,
            "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
        ),
        column(
            "AllowVolumeExpansion",
            "string",
            0,
            "allowVolumeExpansion shows whether the storage class allow volume expand.",
        ),
        AGE,
    ],
    cells: |class, now| {
        const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
        let default = text(class, &["metadata", "annotations", DEFAULT]) == "true";
        let shown =
            format!("{}{}", text(class, &["metadata", "name"]), if default { " (default)" } else { "" });
        vec![
            shown.into(),
            text(class, &["provisioner"]).into(),
            text(class, &["reclaimPolicy"]).into(),
            text(class, &["volumeBindingMode"]).into(),
            (class["allowVolumeExpansion"] == true).into(),
            object_age(class, now).into(),
        ]
    },
    ..Plain::NEW
};

static ATTACHMENTS: Plain = Plain {
    immutable: &[&["spec"]],
    columns: &[
        NAME,
        column(
            "Attacher",
            "string",
            0,
            "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
        ),
        column(
            "PV",
            "string",
            0,
            "persistentVolumeName represents the name of the persistent volume to attach.",
        ),
        column("Node", "string", 0, "nodeName represents the node that the volume should be attached to."),
        column(
            "Attached",
            "boolean",
            0,
            "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
        ),
        AGE,
    ],
    cells: |attachment, now| {
        vec![
            name(attachment),
            text(attachment, &["spec", "attacher"]).into(),
            text(attachment, &["spec", "source", "persistentVolumeName"]).into(),
            text(attachment, &["spec", "nodeName"]).into(),
            (attachment["status"]["attached"] == true).into(),
            object_age(attachment, now).into(),
        ]
    },
    ..Plain::NEW
};
