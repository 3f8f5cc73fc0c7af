//! Services. Addresses and node ports are given out by the API server (`apiserver::services`).

use super::service_validation::{validate, validate_change, validate_status};
use super::service_warnings::{status_warnings, warnings};
use crate::tree::{
    absent_or, age, at, column, each, int, joined, labels, list, load_balancers, name, or, text, typed, with,
};
use crate::{Column, Context, SelectableField, Strategy};
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use std::collections::HashSet;

pub(super) struct Services;

const FIELDS: &[SelectableField] = &[
    ("spec.clusterIP", |service| text(service, &["spec", "clusterIP"]).into()),
    ("spec.type", |service| text(service, &["spec", "type"]).into()),
];

impl Strategy for Services {
    fn default(&self, service: &mut Value) {
        with(service, "spec", |spec| {
            or(spec, "sessionAffinity", "None");
            if spec["sessionAffinity"] == "None" {
                spec.as_object_mut().map(|spec| spec.remove("sessionAffinityConfig"));
            }
            if spec["sessionAffinity"] == "ClientIP" {
                absent_or(spec, "sessionAffinityConfig", json!({}));
                with(spec, "sessionAffinityConfig", |config| {
                    absent_or(config, "clientIP", json!({}));
                    with(config, "clientIP", |ip| absent_or(ip, "timeoutSeconds", 10800));
                });
            }
            or(spec, "type", "ClusterIP");
            each(spec, "ports", |port| {
                or(port, "protocol", "TCP");
                let number = port["port"].clone();
                if port["targetPort"] == 0 || port["targetPort"] == "" {
                    port["targetPort"] = number;
                } else {
                    absent_or(port, "targetPort", number);
                }
            });
            let ty = text(spec, &["type"]).to_owned();
            let external = matches!(ty.as_str(), "NodePort" | "LoadBalancer");
            if external || ty == "ClusterIP" && !list(spec, &["externalIPs"]).is_empty() {
                or(spec, "externalTrafficPolicy", "Cluster");
            }
            if external || ty == "ClusterIP" {
                absent_or(spec, "internalTrafficPolicy", "Cluster");
            }
            if ty == "LoadBalancer" {
                absent_or(spec, "allocateLoadBalancerNodePorts", true);
            }
        });
        if text(service, &["spec", "type"]) == "LoadBalancer" {
            with(service, "status", |status| {
                with(status, "loadBalancer", |balancer| {
                    each(balancer, "ingress", |ingress| {
                        if !text(ingress, &["ip"]).is_empty() {
                            absent_or(ingress, "ipMode", "VIP");
                        }
                    });
                });
            });
        }
    }

    fn prepare_for_create(&self, service: &mut Value, _: &Context) {
        service["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_for_update(&self, service: &mut Value, old: &Value, context: &Context) {
        if context.subresource.is_none() {
            drop_type_dependent(service, old);
        }
    }

    fn validate(&self, service: &Value, _: &Context) -> ErrorList {
        validate(&typed(service), None)
    }

    fn validate_update(&self, service: &Value, old: &Value, context: &Context) -> ErrorList {
        let (new, before) = (typed(service), typed(old));
        if context.subresource == Some("status") {
            return validate_status(&new, &before);
        }
        let mut errors = super::service_families::validate_update(&service["spec"], &old["spec"]);
        errors.extend(validate_change(&new, &before));
        errors.extend(validate(&new, Some(&before)));
        errors
    }

    fn warnings(&self, service: &Value, _: Option<&Value>, context: &Context) -> Vec<String> {
        match context.subresource {
            Some("status") => status_warnings(service),
            _ => warnings(&typed(service)),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column(
                "Name",
                "string",
                0,
                "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
            ),
            column(
                "Type",
                "string",
                0,
                "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
            ),
            column(
                "Cluster-IP",
                "string",
                0,
                "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
            ),
            column(
                "External-IP",
                "string",
                0,
                "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
            ),
            column(
                "Port(s)",
                "string",
                0,
                "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
            ),
            column(
                "Age",
                "string",
                0,
                "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            ),
            column(
                "Selector",
                "string",
                1,
                "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, service: &Value, now: Time) -> Vec<Value> {
        let spec = &service["spec"];
        let ip = match text(spec, &["clusterIP"]) {
            "" => "<none>",
            ip => ip,
        };
        let ports = list(spec, &["ports"]).iter().map(|port| {
            let node = match int(port, &["nodePort"]) {
                0 => String::new(),
                number => format!(":{number}"),
            };
            format!("{}{node}/{}", int(port, &["port"]), text(port, &["protocol"]))
        });
        let ports: Vec<String> = ports.collect();
        vec![
            name(service),
            text(spec, &["type"]).into(),
            ip.into(),
            external_ip(service).into(),
            joined(ports.iter().map(String::as_str), "<none>").into(),
            age(text(service, &["metadata", "creationTimestamp"]), now).into(),
            labels(at(service, &["spec", "selector"])).into(),
        ]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        FIELDS
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Fields that a type no longer has, and that the user left as they were, go with the type: a changed type alone is a
/// valid update. Upstream: `dropTypeDependentFields`.
fn drop_type_dependent(service: &mut Value, old: &Value) {
    let of = |service: &Value, types: &[&str]| types.contains(&text(service, &["spec", "type"]));
    let local =
        |s: &Value| of(s, &["LoadBalancer"]) && text(s, &["spec", "externalTrafficPolicy"]) == "Local";
    let external = |s: &Value| {
        of(s, &["NodePort", "LoadBalancer"])
            || of(s, &["ClusterIP"]) && !list(s, &["spec", "externalIPs"]).is_empty()
    };
    let lost = |needs: &dyn Fn(&Value) -> bool| needs(old) && !needs(service);
    let mut gone = Vec::new();
    if lost(&|s| of(s, &["ClusterIP", "NodePort", "LoadBalancer"])) {
        if list(service, &["spec", "clusterIPs"]) == list(old, &["spec", "clusterIPs"]) {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(["ipFamilies", "ipFamilyPolicy"]);
    }
    if lost(&local) {
        gone.push("healthCheckNodePort");
    }
    if lost(&|s| of(s, &["LoadBalancer"])) {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if lost(&external) {
        gone.push("externalTrafficPolicy");
    }
    let node_ports = |s: &Value| -> HashSet<i64> {
        list(s, &["spec", "ports"]).iter().map(|port| int(port, &["nodePort"])).filter(|p| *p != 0).collect()
    };
    // Ports may come and go, as long as they bring no node ports of their own.
    let ports =
        lost(&|s| of(s, &["NodePort", "LoadBalancer"])) && node_ports(service).is_subset(&node_ports(old));
    // What a load balancer said of itself is over at once, whenever its provider takes it down.
    if !of(service, &["LoadBalancer"]) && service["status"]["loadBalancer"].is_object() {
        service["status"]["loadBalancer"] = json!({});
    }
    with(service, "spec", |spec| {
        let Some(map) = spec.as_object_mut() else { return };
        for name in gone {
            if map.get(name) == old["spec"].get(name) {
                map.remove(name);
            }
        }
        if ports {
            each(spec, "ports", |port| {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            });
        }
    });
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let given = list(spec, &["externalIPs"]).iter().filter_map(Value::as_str);
    match text(spec, &["type"]) {
        "LoadBalancer" => {
            let ingress = list(service, &["status", "loadBalancer", "ingress"]).iter();
            joined(load_balancers(ingress).into_iter().chain(given), "<pending>")
        }
        "ExternalName" => text(spec, &["externalName"]).to_owned(),
        _ => joined(given, "<none>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_type_has_goes_with_it() {
        let service = |spec: Value| json!({"spec": spec});
        let check = |old: Value, new: Value, expected: Value| {
            let mut got = service(new);
            drop_type_dependent(&mut got, &service(old));
            assert_eq!(got, service(expected));
        };
        let node_port = json!({"type": "NodePort", "clusterIP": "10.0.0.1", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "nodePort": 30080}]});
        let mut external = node_port.clone();
        external["type"] = "ExternalName".into();
        check(node_port.clone(), external, json!({"type": "ExternalName", "ports": [{"port": 80}]}));
        // What is changed is meant, and is for validation to refuse.
        let mut other = node_port.clone();
        other["type"] = "ClusterIP".into();
        other["ports"][0]["nodePort"] = 30081.into();
        let mut kept = other.clone();
        kept.as_object_mut().unwrap().remove("externalTrafficPolicy");
        check(node_port, other, kept);
    }
}
