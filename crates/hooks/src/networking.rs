//! Hooks of `networking.k8s.io`.

use super::Row;
use super::networking_validation;
use super::networking_validation::INGRESS_CLASS;
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{
    absent_or, column, each, joined, list, load_balancers, name, object_age, or_none, text, with,
};
use apimachinery::json;
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[
    ("networking.k8s.io", "IPAddress", &IP_ADDRESSES),
    ("networking.k8s.io", "Ingress", &INGRESSES),
    ("networking.k8s.io", "IngressClass", &INGRESS_CLASSES),
    ("networking.k8s.io", "NetworkPolicy", &NETWORK_POLICIES),
    ("networking.k8s.io", "ServiceCIDR", &SERVICE_CIDRS),
];

static INGRESSES: Plain = Plain {
    warnings: |ingress, old| {
        let class = &ingress["metadata"]["annotations"][INGRESS_CLASS];
        let deprecated = old.is_none() && !class.is_null() && ingress["spec"]["ingressClassName"].is_null();
        let warning =
            format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
        deprecated.then_some(warning).into_iter().collect()
    },
    validate: networking_validation::validate_ingress,
    validate_create: |class, _| networking_validation::validate_ingress_class_twice(class),
    validate_update: networking_validation::validate_ingress_update,
    has_generation: true,
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
        let address = load_balancers(points);
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
    default: |class| {
        with(class, "spec", |spec| {
            with(spec, "parameters", |parameters| absent_or(parameters, "scope", "Cluster"));
        });
    },
    validate_create: |class, _| networking_validation::validate_ingress_class(class),
    validate_update: |class, old, _| networking_validation::validate_ingress_class_update(class, old),
    has_generation: true,
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
    validate: networking_validation::validate_network_policy,
    has_generation: true,
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
            "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
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
    validate_create: |range, _| networking_validation::validate_service_cidr(range),
    validate_update: networking_validation::validate_service_cidr_update,
    columns: &[
        NAME,
        column(
            "CIDRs",
            "string",
            0,
            "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
        ),
        AGE,
    ],
    cells: |range, now| {
        let cidrs = list(range, &["spec", "cidrs"]).iter().filter_map(Value::as_str);
        vec![name(range), joined(cidrs, "").into(), object_age(range, now).into()]
    },
    ..Plain::NEW
};

static IP_ADDRESSES: Plain = Plain {
    validate: networking_validation::validate_ip_address,
    immutable: &[&["spec", "parentRef"]],
    columns: &[
        NAME,
        column(
            "ParentRef",
            "string",
            0,
            "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
        ),
    ],
    // Upstream shows the age without a column for it.
    cells: |address, now| {
        vec![name(address), networking_validation::parent_of(address).into(), object_age(address, now).into()]
    },
    ..Plain::NEW
};
