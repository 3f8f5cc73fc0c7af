//! The rules of Ingress, IngressClass, NetworkPolicy, ServiceCIDR and IPAddress.

use super::Context;
use super::check::{Check, label, path_segment, subdomain};
use super::shown::shown;
use super::tree::{text, typed};
use api::core::v1::TypedLocalObjectReference;
use api::networking::v1::{
    IPAddress, IPBlock, Ingress, IngressBackend, IngressClass, NetworkPolicy, NetworkPolicyPeer,
    NetworkPolicyPort, ServiceCIDR,
};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::int_or_string::IntOrString;
use apimachinery::meta::validation::{SelectorLeniency, validate_label_selector};
use apimachinery::validation::{
    Strictness, is_domain_prefixed_path, is_valid_cidr, is_valid_cidr_for_legacy_field,
    is_valid_ip_for_legacy_field, is_valid_port_name, is_wildcard_dns1123_subdomain, parse_cidr_sloppy,
    parse_ip_sloppy,
};
use apimachinery::value::Value;

pub(super) const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

fn host(check: &mut Check, path: &Path, host: &str) {
    if host.contains('*') {
        is_wildcard_dns1123_subdomain(host).into_iter().for_each(|why| check.invalid(path, host, why));
    } else {
        check.keeps(path, host, subdomain);
    }
}

pub(super) fn validate_ingress(ingress: &Value) -> ErrorList {
    let mut check = Check::default();
    let typed: Ingress = typed(ingress);
    let (path, spec) = (Path::new("spec"), &typed.spec);
    if spec.rules.is_empty() && spec.default_backend.is_none() {
        let shown = if ingress["spec"]["rules"].is_array() { "[]" } else { "null" };
        check.invalid(
            &path,
            BadValue::verbatim(shown),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(&mut check, &path.child("defaultBackend"), backend);
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        let path = path.child("rules").index(i);
        let at = path.child("host");
        if !rule.host.is_empty() {
            if parse_ip_sloppy(&rule.host).is_some() {
                check.invalid(&at, rule.host.as_str(), "must be a DNS name, not an IP address");
            }
            host(&mut check, &at, &rule.host);
        }
        let Some(http) = &rule.http else { continue };
        let path = path.child("http").child("paths");
        if http.paths.is_empty() {
            check.required(&path, "");
        }
        for (i, one) in http.paths.iter().enumerate() {
            validate_path(&mut check, &path.index(i), one.path_type.as_deref(), &one.path, &one.backend);
        }
    }
    for (i, tls) in spec.tls.iter().enumerate() {
        let path = path.child("tls").index(i);
        for (i, name) in tls.hosts.iter().enumerate() {
            host(&mut check, &path.child("hosts").index(i), name);
        }
        if !tls.secret_name.is_empty() {
            check.keeps(&path.child("secretName"), &tls.secret_name, subdomain);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        check.keeps(&path.child("ingressClassName"), class, subdomain);
    }
    check.0
}

/// A new Ingress names its class once.
pub(super) fn validate_ingress_class_twice(ingress: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let annotation = &ingress["metadata"]["annotations"][INGRESS_CLASS];
    let class = &ingress["spec"]["ingressClassName"];
    if let (Some(annotation), Some(class)) = (annotation.as_str(), class.as_str())
        && annotation != class
    {
        let at = Path::new("annotations").child(INGRESS_CLASS);
        let why = "must match `ingressClassName` when both are specified";
        errors.push(Error::invalid(&at, annotation, why));
    }
    errors
}

fn validate_path(check: &mut Check, path: &Path, kind: Option<&str>, text: &str, backend: &IngressBackend) {
    let at = path.child("path");
    let absolute = |check: &mut Check| {
        if !text.starts_with('/') {
            check.invalid(&at, text, "must be an absolute path");
        }
    };
    match kind {
        None => return check.required(&path.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            absolute(check);
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                check.invalid(&at, text, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                check.invalid(&at, text, format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() {
                absolute(check);
            }
        }
        Some(other) => {
            check.one_of(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
    validate_backend(check, &path.child("backend"), backend);
}

fn validate_backend(check: &mut Check, path: &Path, backend: &IngressBackend) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => check.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => validate_reference(check, &path.child("resource"), resource),
        (None, Some(service)) => {
            let at = path.child("service");
            check.present_and_keeps(&at.child("name"), &service.name, "", label);
            let (name, number) = (&service.port.name, service.port.number);
            match (!name.is_empty(), number != 0) {
                (true, true) => check.invalid(path, "", "cannot set both port name & port number"),
                (true, false) => {
                    let at = at.child("port").child("name");
                    is_valid_port_name(name)
                        .into_iter()
                        .for_each(|why| check.invalid(&at, name.as_str(), why));
                }
                (false, true) => check.port(&at.child("port").child("number"), number),
                (false, false) => check.required(path, "port name or number is required"),
            }
        }
        (None, None) => check.invalid(path, "", "resource or service backend is required"),
    }
}

fn validate_reference(check: &mut Check, path: &Path, reference: &TypedLocalObjectReference) {
    if let Some(group) = &reference.api_group {
        check.keeps(&path.child("apiGroup"), group, subdomain);
    }
    check.present_and_keeps(&path.child("kind"), &reference.kind, "", path_segment);
    check.present_and_keeps(&path.child("name"), &reference.name, "", path_segment);
}

pub(super) fn validate_ingress_update(ingress: &Value, old: &Value, context: &Context) -> ErrorList {
    let mut check = Check::default();
    if context.subresource != Some("status") {
        return check.0;
    }
    let (new, old): (Ingress, Ingress) = (typed(ingress), typed(old));
    let before: Vec<String> = old.status.load_balancer.ingress.iter().map(|i| i.ip.clone()).collect();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (i, point) in new.status.load_balancer.ingress.iter().enumerate() {
        let path = path.index(i);
        if !point.ip.is_empty() {
            let at = path.child("ip");
            check.extend(is_valid_ip_for_legacy_field(&at, &point.ip, Strictness::Sloppy, &before));
        }
        if !point.hostname.is_empty() {
            let at = path.child("hostname");
            check.keeps(&at, &point.hostname, subdomain);
            if parse_ip_sloppy(&point.hostname).is_some() {
                check.invalid(&at, point.hostname.as_str(), "must be a DNS name, not an IP address");
            }
        }
    }
    check.0
}

/// Who serves a class does not change; what is wrong with the new one is told, too.
pub(super) fn validate_ingress_class_update(class: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    super::templates::immutable(&mut errors, class, old, &["spec", "controller"]);
    errors.extend(validate_ingress_class(class));
    errors
}

pub(super) fn validate_ingress_class(class: &Value) -> ErrorList {
    const MAX: usize = 250;
    let mut check = Check::default();
    let class: IngressClass = typed(class);
    let path = Path::new("spec");
    let at = path.child("controller");
    check.when(class.spec.controller.len() > MAX, || Error::too_long(&at, MAX));
    check.extend(is_domain_prefixed_path(&at, &class.spec.controller));
    let Some(parameters) = &class.spec.parameters else { return check.0 };
    let path = path.child("parameters");
    if let Some(group) = &parameters.api_group {
        check.keeps(&path.child("apiGroup"), group, subdomain);
    }
    check.present_and_keeps(&path.child("kind"), &parameters.kind, "", path_segment);
    check.present_and_keeps(&path.child("name"), &parameters.name, "", path_segment);
    let namespace = path.child("namespace");
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (None, _) => check.required(&path.child("scope"), ""),
        (Some("Namespace"), None) => check.required(&namespace, "`parameters.scope` is set to 'Namespace'"),
        (Some("Namespace"), Some(name)) => check.keeps(&namespace, name, label),
        (Some("Cluster"), Some(_)) => check.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), None) => {}
        (Some(other), _) => check.one_of(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
    check.0
}

pub(super) fn validate_network_policy(policy: &Value) -> ErrorList {
    let mut check = Check::default();
    let policy: NetworkPolicy = typed(policy);
    let (path, spec) = (Path::new("spec"), &policy.spec);
    let selector = Some(&spec.pod_selector);
    check.extend(validate_label_selector(selector, SelectorLeniency::default(), &path.child("podSelector")));
    for (i, rule) in spec.ingress.iter().enumerate() {
        let path = path.child("ingress").index(i);
        validate_ports(&mut check, &path.child("ports"), &rule.ports);
        validate_peers(&mut check, &path.child("from"), &rule.from);
    }
    for (i, rule) in spec.egress.iter().enumerate() {
        let path = path.child("egress").index(i);
        validate_ports(&mut check, &path.child("ports"), &rule.ports);
        validate_peers(&mut check, &path.child("to"), &rule.to);
    }
    let types = path.child("policyTypes");
    if spec.policy_types.len() > 2 {
        check.invalid(&types, &spec.policy_types, "may not specify more than two policyTypes");
        return check.0;
    }
    for (i, kind) in spec.policy_types.iter().enumerate() {
        check.one_of(&types.index(i), kind, &["Ingress", "Egress"]);
    }
    check.0
}

fn validate_ports(check: &mut Check, path: &Path, ports: &[NetworkPolicyPort]) {
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if let Some(protocol) = &port.protocol {
            check.one_of(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
        }
        let (at, end) = (path.child("port"), path.child("endPort"));
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(number)), last) => {
                check.port(&at, *number);
                if let Some(last) = last {
                    if last < *number {
                        check.invalid(&end, *number, "must be greater than or equal to `port`");
                    }
                    check.port(&end, last);
                }
            }
            (Some(IntOrString::String(name)), last) => {
                if let Some(last) = last {
                    check.invalid(&end, last, "may not be specified when `port` is non-numeric");
                }
                is_valid_port_name(name).into_iter().for_each(|why| check.invalid(&at, name.as_str(), why));
            }
            (None, Some(last)) => {
                check.invalid(&end, last, "may not be specified when `port` is not specified");
            }
            (None, None) => {}
        }
    }
}

fn validate_peers(check: &mut Check, path: &Path, peers: &[NetworkPolicyPeer]) {
    for (i, peer) in peers.iter().enumerate() {
        let path = path.index(i);
        let selectors =
            [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
        let mut count = usize::from(peer.ip_block.is_some());
        for (member, selector) in selectors {
            if selector.is_some() {
                count += 1;
                let at = path.child(member);
                check.extend(validate_label_selector(selector.as_ref(), SelectorLeniency::default(), &at));
            }
        }
        if let Some(block) = &peer.ip_block {
            validate_block(check, &path.child("ipBlock"), block);
        }
        if count == 0 {
            check.required(&path, "must specify a peer");
        } else if count > 1 && peer.ip_block.is_some() {
            check.forbidden(&path, "may not specify both ipBlock and another peer");
        }
    }
}

fn validate_block(check: &mut Check, path: &Path, block: &IPBlock) {
    let at = path.child("cidr");
    if !check.present(&at, &block.cidr, "") {
        return;
    }
    check.extend(is_valid_cidr_for_legacy_field(&at, &block.cidr, Strictness::Sloppy, &[]));
    let Some(whole) = parse_cidr_sloppy(&block.cidr) else { return };
    for (i, except) in block.except.iter().enumerate() {
        let at = path.child("except").index(i);
        check.extend(is_valid_cidr_for_legacy_field(&at, except, Strictness::Sloppy, &[]));
        let Some(part) = parse_cidr_sloppy(except) else { continue };
        if !whole.contains(part.network()) || whole.prefix >= part.prefix {
            check.invalid(&at, except.as_str(), "must be a strict subset of `cidr`");
        }
    }
}

pub(super) fn validate_service_cidr(tree: &Value) -> ErrorList {
    let mut check = Check::default();
    let range: ServiceCIDR = typed(tree);
    let path = Path::new("spec").child("cidrs");
    let cidrs = &range.spec.cidrs;
    if cidrs.is_empty() {
        check.required(&path, "at least one CIDR required");
        return check.0;
    }
    if cidrs.len() > 2 {
        check.invalid(&path, shown(tree, &["spec"]), "may only hold up to 2 values");
        return check.0;
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        check.extend(is_valid_cidr(&path.index(i), cidr));
    }
    if let [one, two] = cidrs.as_slice() {
        let is_six = |text: &str| parse_cidr_sloppy(text).map(|c| c.network().is_ipv6());
        if is_six(one).is_some() && is_six(one) == is_six(two) {
            let why =
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            check.invalid(&path, cidrs, why);
        }
    }
    check.0
}

/// A range may get one of the other family; nothing else changes.
pub(super) fn validate_service_cidr_update(range: &Value, old: &Value, context: &Context) -> ErrorList {
    let mut check = Check::default();
    if context.subresource.is_some() {
        return check.0;
    }
    let (new, was) = (typed::<ServiceCIDR>(range).spec.cidrs, typed::<ServiceCIDR>(old).spec.cidrs);
    let path = Path::new("spec").child("cidrs");
    const IMMUTABLE: &str = "field is immutable";
    let grows = was.len() == 1 && new.len() == 2;
    if new.len() != was.len() && !grows {
        check.invalid(&path, shown(range, &["spec", "cidrs"]), IMMUTABLE);
        return check.0;
    }
    for (i, (new, was)) in new.iter().zip(&was).enumerate() {
        if new != was {
            check.invalid(&path.index(i), new.as_str(), IMMUTABLE);
        }
    }
    if grows {
        check.extend(validate_service_cidr(range));
    }
    check.0
}

pub(super) fn validate_ip_address(address: &Value) -> ErrorList {
    let mut check = Check::default();
    let address: IPAddress = typed(address);
    let path = Path::new("spec").child("parentRef");
    let Some(parent) = &address.spec.parent_ref else {
        check.required(&path, "");
        return check.0;
    };
    if !parent.group.is_empty() {
        check.keeps(&path.child("group"), &parent.group, subdomain);
    }
    check.present_and_keeps(&path.child("resource"), &parent.resource, "", path_segment);
    check.present_and_keeps(&path.child("name"), &parent.name, "", path_segment);
    if !parent.namespace.is_empty() {
        check.keeps(&path.child("namespace"), &parent.namespace, path_segment);
    }
    check.0
}

/// Whose an address is, as `kubectl get` shows it.
pub(super) fn parent_of(address: &Value) -> String {
    let parent = &address["spec"]["parentRef"];
    if !parent.is_object() {
        return "<none>".into();
    }
    let mut out = text(parent, &["resource"]).to_owned();
    if !text(parent, &["group"]).is_empty() {
        out = format!("{out}.{}", text(parent, &["group"]));
    }
    out = out.to_lowercase();
    for part in ["namespace", "name"].map(|part| text(parent, &[part])) {
        if !part.is_empty() {
            out = format!("{out}/{part}");
        }
    }
    out
}
