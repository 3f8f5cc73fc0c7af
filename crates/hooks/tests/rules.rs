//! What kinds refuse, and in which words: each rule as an object and the complaints about it.
#![allow(clippy::unwrap_used)]

use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use expect_test::{Expect, expect};
use hooks::{Context, strategy};

fn context(subresource: Option<&'static str>) -> Context<'static> {
    Context {
        user: "tester",
        uid: "",
        groups: &[],
        extra: NO_EXTRA.get_or_init(Default::default),
        now: Time::default(),
        namespace: hooks::NamespaceLabels(&|_| None),
        gates: hooks::Gates(&|_| false),
        api_version: "",
        subresource,
    }
}

static NO_EXTRA: std::sync::OnceLock<std::collections::BTreeMap<String, Vec<String>>> =
    std::sync::OnceLock::new();

/// The complaints about a new object, with the kind's defaults.
#[track_caller]
fn check(group: &str, kind: &str, mut object: Value, expected: Expect) {
    let strategy = strategy(group, kind);
    strategy.default(&mut object);
    let mut errors = strategy.validate_first(&object, &context(None));
    errors.extend(strategy.validate(&object, &context(None)));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

/// The complaints about a change.
#[track_caller]
fn check_update(group: &str, kind: &str, old: Value, new: Value, expected: Expect) {
    let strategy = strategy(group, kind);
    let errors = strategy.validate_update(&new, &old, &context(None));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn trust_bundles() {
    const KIND: (&str, &str) = ("certificates.k8s.io", "ClusterTrustBundle");
    let bundle = |name: &str, signer: &str, pem: &str| json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": pem}});
    let new = |name: &str, signer: &str, pem: &str, expected: Expect| {
        check(KIND.0, KIND.1, bundle(name, signer, pem), expected);
    };
    let several = format!("of us\n{AUTHORITY}\nand of\r\n{}", OTHER_AUTHORITY.replace('\n', "\r\n"));
    new("anchors", "", &several, expect![""]);
    new("example.com:signer:anchors", "example.com/signer", AUTHORITY, expect![""]);
    new(
        "example.com:signer:anchors",
        "",
        AUTHORITY,
        expect![[
            r#"metadata.name: Invalid value: "example.com:signer:anchors": ClusterTrustBundle without signer name must not have ":" in its name"#
        ]],
    );
    new(
        "anchors",
        "example.com/signer",
        AUTHORITY,
        expect![[
            r#"metadata.name: Invalid value: "anchors": ClusterTrustBundle for signerName example.com/signer must be named with prefix example.com:signer:"#
        ]],
    );
    new(
        "example:anchors",
        "example",
        AUTHORITY,
        expect![[
            r#"spec.signerName: Invalid value: "example": must be a fully qualified domain and path of the form 'example.com/signer-name'"#
        ]],
    );
    new(
        "anchors",
        "",
        "none",
        expect![[
            r#"spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided"#
        ]],
    );
    new(
        "anchors",
        "",
        &format!("{AUTHORITY}{OTHER_AUTHORITY}{AUTHORITY}"),
        expect![[
            r#"spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 2])"#
        ]],
    );
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let headers =
        AUTHORITY.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nProc-Type: 4\n\n");
    new(
        "anchors",
        "",
        &[AUTHORITY, AUTHORITY, key, &headers, no_certificate, LEAF, cut].concat(),
        expect![[r#"
            spec.trustBundle: Invalid value: "<value omitted>": entry 2 has bad block type: PRIVATE KEY
            spec.trustBundle: Invalid value: "<value omitted>": entry 3 has PEM block headers
            spec.trustBundle: Invalid value: "<value omitted>": entry 4 does not parse as X.509
            spec.trustBundle: Invalid value: "<value omitted>": entry 5 does not have the CA bit set"#]],
    );
    new(
        "anchors",
        "",
        &"x".repeat((1 << 20) + 1),
        expect!["spec.trustBundle: Too long: may not be more than 1048576 bytes"],
    );
    // What was taken by an older server stays.
    check_update(KIND.0, KIND.1, bundle("anchors", "", "old"), bundle("anchors", "", "old"), expect![""]);
    check_update(
        KIND.0,
        KIND.1,
        bundle("example.com:a:b", "example.com/a", "old"),
        bundle("example.com:a:b", "example.com/b", "new"),
        expect![[r#"
            metadata.name: Invalid value: "example.com:a:b": ClusterTrustBundle for signerName example.com/b must be named with prefix example.com:b:
            spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided
            spec.signerName: Invalid value: "example.com/b": field is immutable"#]],
    );
}

#[test]
fn volumes_of_trust_bundles() {
    let check = |source: Value, expected: Expect| {
        let volume = json!({"name": "v", "projected": {"sources": [{ "clusterTrustBundle": source }]}});
        let container = json!({"name": "c", "image": "i", "imagePullPolicy": "Always",
            "terminationMessagePath": "/t", "terminationMessagePolicy": "File"});
        let spec = json!({"containers": [container], "volumes": [volume], "restartPolicy": "Always", "dnsPolicy": "Default"});
        check("", "Pod", json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}), expected);
    };
    check(json!({"name": "anchors", "path": "ca.pem"}), expect![""]);
    check(json!({"name": "example.com:signer:anchors", "path": "ca.pem"}), expect![""]);
    check(json!({"signerName": "example.com/signer", "labelSelector": {}, "path": "ca.pem"}), expect![""]);
    check(
        json!({"path": "../ca.pem"}),
        expect![[r#"
            spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified
            spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Invalid value: "../ca.pem": must not contain '..'"#]],
    );
    check(
        json!({"name": "anchors", "signerName": "example.com/signer", "optional": true, "path": "ca.pem"}),
        expect![[
            r#"spec.volumes[0].projected.sources[0].clusterTrustBundle: Invalid value: {"Name":"anchors","SignerName":"example.com/signer","LabelSelector":null,"Optional":true,"Path":"ca.pem"}: only one of name and signerName may be used"#
        ]],
    );
    check(
        json!({"name": "", "labelSelector": {"matchLabels": {"a": "b"}}, "path": "ca.pem"}),
        expect![[r#"
        spec.volumes[0].projected.sources[0].clusterTrustBundle.name: Required value: must be a valid object name
        spec.volumes[0].projected.sources[0].clusterTrustBundle.name: Invalid value: "": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.volumes[0].projected.sources[0].clusterTrustBundle.labelSelector: Invalid value: {"matchLabels":{"a":"b"}}: labelSelector must be unset if name is specified"#]],
    );
    check(json!({"name": "Example:a", "path": "ca.pem"}), expect![""]);
    check(
        json!({"signerName": "example", "labelSelector": {"matchLabels": {"a": "b c"}}, "path": ""}),
        expect![[r#"
            spec.volumes[0].projected.sources[0].clusterTrustBundle.signerName: Invalid value: "example": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.volumes[0].projected.sources[0].clusterTrustBundle.labelSelector.matchLabels: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Required value"#]],
    );
}

#[test]
fn volumes_and_claims() {
    check(
        "",
        "PersistentVolume",
        json!({"spec": {}}),
        expect![[r#"
            spec.accessModes: Required value
            spec.capacity: Required value
            spec.capacity: Unsupported value: null: supported values: "storage"
            spec: Required value: must specify a volume type"#]],
    );
    check(
        "",
        "PersistentVolume",
        json!({"spec": {
            "capacity": {"storage": "0"}, "accessModes": ["ReadWriteOncePod", "ReadWriteMany"],
            "hostPath": {"path": "/a/../b"}, "nfs": {"server": "s", "path": "x"}, "volumeMode": "Raw",
        }}),
        expect![[r#"
            spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
            spec.capacity[storage]: Invalid value: "0": must be greater than zero
            spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.nfs: Forbidden: may not specify more than 1 volume type
            spec.volumeMode: Unsupported value: "Raw": supported values: "Block", "Filesystem""#]],
    );
    check(
        "",
        "PersistentVolumeClaim",
        json!({"spec": {"dataSource": {"kind": "Foo"}}}),
        expect![[r#"
        spec.accessModes: Required value: at least 1 access mode is required
        spec.resources[storage]: Required value
        spec.dataSource.name: Required value
        spec.dataSource: Invalid value: "Foo": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#]],
    );
    check_update(
        "",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}}),
        json!({"spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}}),
        expect![[r#"
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
            @@ -1,12 +1,12 @@
             {
              "AccessModes": [
            -  "ReadWriteOnce"
            +  "ReadWriteMany"
              ],
              "Selector": null,
              "Resources": {
               "Limits": null,
               "Requests": {
            -   "storage": "2Gi"
            +   "storage": "1Gi"
               }
              },
              "VolumeName": "",
        "#]],
    );
}

#[test]
fn limits_and_quotas() {
    check(
        "",
        "LimitRange",
        json!({"spec": {"limits": [
            {"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}},
            {"type": "PersistentVolumeClaim"}, {"type": "Foo"},
        ]}}),
        expect![[r#"
            spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'
            spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
            spec.limits[1].limits: Required value: either minimum or maximum storage value is required, but neither was provided
            spec.limits[2].type: Invalid value: "Foo": must be a standard limit type or fully qualified"#]],
    );
    check(
        "",
        "ResourceQuota",
        json!({"spec": {
            "hard": {"pods": "1500m", "foo": "1", "services": "-1"},
            "scopes": ["BestEffort", "NotBestEffort", "Bar"],
        }}),
        expect![[r#"
            spec.hard[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.hard[foo]: Invalid value: "foo": must be a standard resource for quota
            spec.hard[pods]: Invalid value: "1500m": must be an integer
            spec.hard[services]: Invalid value: "-1": must be greater than or equal to 0
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: unsupported scope
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: conflicting scopes"#]],
    );
}

#[test]
fn networking() {
    let backend = json!({"service": {"name": "s", "port": {"number": 80, "name": "p"}}});
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"spec": {}}),
        expect!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"spec": {"rules": [{"host": "1.2.3.4", "http": {"paths": [
            {"path": "a//b", "pathType": "Prefix", "backend": backend}, {"backend": {}},
        ]}}]}}),
        expect![[r#"
            spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must be an absolute path
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must not contain '//'
            spec.rules[0].http.paths[0].backend: Invalid value: "": cannot set both port name & port number
            spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified"#]],
    );
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        json!({"spec": {"podSelector": {}, "ingress": [{
            "ports": [{"port": 0, "endPort": 5, "protocol": "ICMP"}, {"endPort": 5}],
            "from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}, "podSelector": {}}],
        }]}}),
        expect![[r#"
            spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"
            spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ingress[0].ports[1].endPort: Invalid value: 5: may not be specified when `port` is not specified
            spec.ingress[0].from[0]: Required value: must specify a peer
            spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`
            spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer"#]],
    );
    check(
        "networking.k8s.io",
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.0.0.0/8", "11.0.0.0/8"]}}),
        expect![[
            r#"spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#
        ]],
    );
    check("networking.k8s.io", "IPAddress", json!({"spec": {}}), expect!["spec.parentRef: Required value"]);
}

#[test]
fn roles() {
    const GROUP: &str = "rbac.authorization.k8s.io";
    check(
        GROUP,
        "Role",
        json!({"rules": [{"nonResourceURLs": ["/a"]}, {"verbs": ["get"]}]}),
        expect![[r#"
        rules[0].verbs: Required value: verbs must contain at least one value
        rules[0].nonResourceURLs: Invalid value: ["/a"]: namespaced rules cannot apply to non-resource URLs
        rules[1].apiGroups: Required value: resource rules must supply at least one api group
        rules[1].resources: Required value: resource rules must supply at least one resource"#]],
    );
    check(
        GROUP,
        "ClusterRole",
        json!({"aggregationRule": {}}),
        expect![
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
        ],
    );
    check(
        GROUP,
        "ClusterRoleBinding",
        json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "ServiceAccount", "name": "A"}, {"kind": "X"}]}),
        expect![[r#"
            roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
            roleRef.name: Required value
            subjects[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            subjects[0].namespace: Required value
            subjects[1].name: Required value
            subjects[1].kind: Unsupported value: "X": supported values: "ServiceAccount", "User", "Group""#]],
    );
    check_update(
        GROUP,
        "RoleBinding",
        json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "a"}}),
        json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "b"}}),
        expect![[
            r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: cannot change roleRef"#
        ]],
    );
}

#[test]
fn autoscalers() {
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"spec": {
            "minReplicas": 0, "maxReplicas": -1, "scaleTargetRef": {"kind": "Deployment", "apiVersion": "v1"},
            "metrics": [{"type": "Pods", "object": {}}, {"type": "Foo"}],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000, "policies": [{"type": "X"}]}},
        }}),
        expect![[r#"
            spec.minReplicas: Invalid value: 0: must be greater than or equal to 1
            spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1
            spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`
            spec.scaleTargetRef.name: Required value
            spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group
            spec.metrics[0].object.describedObject.kind: Required value
            spec.metrics[0].object.describedObject.name: Required value
            spec.metrics[0].object.metric.name: Required value: must specify a metric name
            spec.metrics[0].object.target.type: Required value: must specify a metric target type
            spec.metrics[0].object.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue
            spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue
            spec.metrics[0].pods: Required value: must populate information for the given metric source
            spec.metrics[1].type: Unsupported value: "Foo": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
            spec.metrics[1].type: Unsupported value: "Foo": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
            spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas
            spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600
            spec.behavior.scaleUp.policies[0].type: Unsupported value: "X": supported values: "Percent", "Pods"
            spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
            spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 0: must be greater than zero"#]],
    );
}

#[test]
fn conversions_of_autoscalers_lose_nothing() {
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "D", "name": "d"}, "metrics": [
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        ]},
    });
    let (v1, v2) = ("autoscaling/v1", "autoscaling/v2");
    let one = hooks::convert("autoscaling", "HorizontalPodAutoscaler", v2, v1, object.clone());
    assert_eq!(one["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(hooks::convert("autoscaling", "HorizontalPodAutoscaler", v1, v2, one), object);
}

#[test]
fn storage() {
    const GROUP: &str = "storage.k8s.io";
    check(
        GROUP,
        "StorageClass",
        json!({"provisioner": "A b", "reclaimPolicy": "Recycle", "volumeBindingMode": "X"}),
        expect![[r#"
            provisioner: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"
            volumeBindingMode: Unsupported value: "X": supported values: "Immediate", "WaitForFirstConsumer""#]],
    );
    check(
        GROUP,
        "VolumeAttachment",
        json!({"spec": {"attacher": "a", "nodeName": "N"}}),
        expect![[r#"
        spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName
        spec.nodeName: Invalid value: "N": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
    check(
        GROUP,
        "CSINode",
        json!({"spec": {"drivers": [{"name": "d", "nodeID": ""}, {"name": "d", "nodeID": "n", "allocatable": {"count": -1}}]}}),
        expect![[r#"
            spec.drivers[0].nodeID: Required value
            spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0
            spec.drivers[1].name: Duplicate value: "d""#]],
    );
    check(
        GROUP,
        "VolumeAttributesClass",
        json!({"driverName": ""}),
        expect![[r#"
            driverName: Required value
            parameters: Required value: must contain at least one key/value pair"#]],
    );
}

#[test]
fn certificates() {
    check(
        "certificates.k8s.io",
        "CertificateSigningRequest",
        json!({"spec": {"request": "", "signerName": "kubernetes.io/legacy-unknown", "usages": ["x", "any", "any"], "expirationSeconds": 5}}),
        expect![[r#"
            spec.request: Invalid value: "": PEM block type must be CERTIFICATE REQUEST
            spec.usages[0]: Unsupported value: "x": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
            spec.usages[2]: Duplicate value: "any"
            spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version
            spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)"#]],
    );
}

#[test]
fn flow_control() {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    check(
        GROUP,
        "FlowSchema",
        json!({"metadata": {"name": "a"}, "spec": {"matchingPrecedence": 1, "priorityLevelConfiguration": {}, "rules": [
            {"subjects": [{"kind": "User"}, {"kind": "Group", "group": {"name": "g"}, "user": {"name": "u"}}]},
            {"subjects": [], "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [], "resources": ["*", "a"]}],
             "nonResourceRules": [{"verbs": ["fly"], "nonResourceURLs": ["a", "/*/b"]}]},
        ]}}),
        expect![[r#"
            spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
            spec.priorityLevelConfiguration.name: Required value: must reference a priority level
            spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'
            spec.rules[0].subjects[1].user: Forbidden: user is forbidden when subject kind is not 'User'
            spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty
            spec.rules[1].subjects: Required value: subjects must contain at least one value
            spec.rules[1].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs
            spec.rules[1].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group
            spec.rules[1].resourceRules[0].resources: Invalid value: ["*","a"]: if '*' is present, must not specify other resources
            spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
            spec.rules[1].nonResourceRules[0].verbs: Unsupported value: ["fly"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
            spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash
            spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/*/b": wildcard can only do suffix matching"#]],
    );
    check(
        GROUP,
        "PriorityLevelConfiguration",
        json!({"metadata": {"name": "exempt"}, "spec": {"type": "Limited", "limited": {
            "lendablePercent": 101, "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 8, "queueLengthLimit": -1}},
        }}}),
        expect![[r#"
            spec.type: Invalid value: "Limited": must be 'Exempt' if and only if `name` is 'exempt'
            spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive
            spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)
            spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"#]],
    );
}

#[test]
fn nodes() {
    let node = json!({
        "metadata": {"name": "n"},
        "spec": {
            "podCIDRs": ["10.0.0.0/24", "10.0.1.0/24", "x"],
            "taints": [
                {"key": "a b", "value": "c d", "effect": "Never"}, {"key": "k"},
                {"key": "k", "effect": "NoSchedule"}, {"key": "k", "effect": "NoSchedule"},
            ],
        },
        "status": {
            "capacity": {"cpu": "-1", "pods": "1500m"},
            "declaredFeatures": ["lower", "B", "B", "A/b"],
            "nodeInfo": {"swap": {"capacity": 0}},
        },
    });
    check(
        "",
        "Node",
        node,
        expect![[r#"
            metadata.taints[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.taints[0].value: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            metadata.taints[1].effect: Required value
            metadata.taints[3]: Duplicate value: {"Key":"k","Value":"","Effect":"NoSchedule","TimeAdded":null}: taints must be unique by key and effect pair
            status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.capacity.pods: Invalid value: "1500m": must be an integer
            status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.allocatable.pods: Invalid value: "1500m": must be an integer
            metadata.nodeSwapStatus.capacity: Invalid value: 0: must be greater than zero
            status.declaredFeatures[0]: Invalid value: "lower": invalid feature name "lower": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes
            status.declaredFeatures[1]: Invalid value: "B": list must be sorted alphabetically
            status.declaredFeatures[2]: Duplicate value: "B"
            status.declaredFeatures[3]: Invalid value: "A/b": list must be sorted alphabetically
            spec.podCIDRs[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24","x"]: may specify no more than one CIDR for each IP family"#]],
    );
    let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}});
    let mut new = json!({"spec": {"podCIDRs": ["10.0.1.0/24"], "providerID": "b"}});
    let address = json!({"type": "InternalIP", "address": "1.2.3.4"});
    new["status"]["addresses"] = json!([address, address]);
    check_update(
        "",
        "Node",
        old,
        new,
        expect![[r#"
            status.addresses[1]: Duplicate value: {"Type":"InternalIP","Address":"1.2.3.4"}
            spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid
            spec.providerID: Forbidden: node updates may not change providerID except from "" to valid"#]],
    );
}

#[test]
fn events() {
    let mut event = json!({
        "metadata": {"namespace": "ns", "name": "e"}, "involvedObject": {"namespace": "other"},
        "count": 1, "type": "Odd", "series": {"count": 1},
    });
    check(
        "",
        "Event",
        event.clone(),
        expect![[r#"
        involvedObject.namespace: Invalid value: "other": does not match event.namespace
        series.count: Invalid value: "": should be at least 2
        series.lastObservedTime: Required value
        eventTime: Required value
        type: Invalid value: "": has invalid value: Odd
        count: Invalid value: "": needs to be unset"#]],
    );
    event["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
    event["reason"] = json!("r".repeat(129));
    check(
        "",
        "Event",
        event.clone(),
        expect![[r#"
        reportingController: Required value
        reportingController: Invalid value: "": name part must be non-empty
        reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        reportingInstance: Required value
        action: Required value
        reason: Invalid value: "": can have at most 128 characters
        series.count: Invalid value: "": should be at least 2
        series.lastObservedTime: Required value
        type: Invalid value: "": has invalid value: Odd
        count: Invalid value: "": needs to be unset"#]],
    );
    let mut new = event.clone();
    new["message"] = json!("other");
    check_update(
        "",
        "Event",
        event,
        new,
        expect![[r#"
        reportingController: Required value
        reportingController: Invalid value: "": name part must be non-empty
        reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        reportingInstance: Required value
        action: Required value
        reason: Invalid value: "": can have at most 128 characters
        message: Invalid value: "other": field is immutable"#]],
    );
}

/// The complaints about a change of the status.
#[track_caller]
fn check_status(group: &str, kind: &str, old: Value, new: Value, expected: Expect) {
    let errors = strategy(group, kind).validate_update(&new, &old, &context(Some("status")));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn pods_ask_for_what_there_is() {
    let file =
        json!({"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "K"}}});
    let container =
        json!({"name": "c", "image": "i", "env": [file], "resources": {"requests": {"cpu": "2"}}});
    let token = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
    check(
        "",
        "Pod",
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [container],
            "resources": {"requests": {"cpu": "1"}},
            "volumes": [token],
        }}),
        expect![[r#"
            spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2
            spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "v"
            spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"#]],
    );
}

#[test]
fn statuses() {
    check_status(
        "",
        "Pod",
        json!({"status": {"phase": "Running", "qosClass": "Burstable"}}),
        json!({"status": {"phase": "Running", "qosClass": "Guaranteed", "podIPs": [{"ip": "1.2.3.4"}, {"ip": "x"}]}}),
        expect![[r#"
            status.qosClass: Invalid value: "Guaranteed": field is immutable
            status.podIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            status.podIPs: Invalid value: [{"IP":"1.2.3.4"},{"IP":"x"}]: may specify no more than one IP for each IP family"#]],
    );
    check_status(
        "apps",
        "ReplicaSet",
        json!({"status": {"replicas": 1}}),
        json!({"status": {"replicas": 1, "readyReplicas": 3, "availableReplicas": 2, "fullyLabeledReplicas": -1}}),
        expect![[r#"
            status.fullyLabeledReplicas: Invalid value: -1: must be greater than or equal to 0
            status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas
            status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas"#]],
    );
    check_status(
        "batch",
        "Job",
        json!({"spec": {"completions": 2}, "status": {"succeeded": 2, "startTime": "2030-01-02T03:04:05Z"}}),
        json!({"spec": {"completions": 2}, "status": {"succeeded": 1, "ready": 1, "completedIndexes": "x"}}),
        expect![[r#"
            status.completedIndexes: Invalid value: "x": error parsing completedIndexes: cannot convert string to integer for index: "x"
            status.completedIndexes: Invalid value: "x": cannot set non-empty completedIndexes when non-indexed completion mode
            status.ready: Invalid value: 1: cannot set more ready pods than active
            status.succeeded: Invalid value: 1: cannot decrease the succeeded counter
            status.startTime: Invalid value: null: field is immutable for unsuspended job once set"#]],
    );
    check_status(
        "policy",
        "PodDisruptionBudget",
        json!({}),
        json!({"status": {"expectedPods": -1, "conditions": [{"type": "a b", "status": "Odd"}]}}),
        expect![[r#"
            status.conditions[0].type: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            status.conditions[0].status: Unsupported value: "Odd": supported values: "False", "True", "Unknown"
            status.conditions[0].lastTransitionTime: Required value
            status.conditions[0].reason: Required value
            status.expectedPods: Invalid value: -1: must be greater than or equal to 0"#]],
    );
}

#[test]
fn endpoint_slices() {
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({
            "addressType": "IPv4",
            "ports": [{"name": "A"}, {"protocol": "Odd"}],
            "endpoints": [{"addresses": ["127.0.0.1", "::2", "1.2.3.04"], "hostname": "A b"}],
        }),
        expect![[r#"
            ports[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            ports[1].protocol: Unsupported value: "Odd": supported values: "SCTP", "TCP", "UDP"
            endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            endpoints[0].addresses: Invalid value: "::2": must be an IPv4 address
            endpoints[0].addresses[2]: Invalid value: "1.2.3.04": must not have leading 0s
            endpoints[0].hostname: Invalid value: "A b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#]],
    );
    check_update(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]}),
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["127.0.0.1"]}]}),
        expect![[r#"addressType: Invalid value: "FQDN": field is immutable"#]],
    );
}

/// The certificate of an authority; the others are made as it is.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBhzCCAS2gAwIBAgIUA9L5mNpNGO71uRQAbCkB2gV+ibAwCgYIKoZIzj0EAwIw\n\
GDEWMBQGA1UEAwwNYXV0aG9yaXR5IG9uZTAgFw0yNjExMjgxNDE4MjRaGA8yMTI2\n\
MTEwNDE0MTgyNFowGDEWMBQGA1UEAwwNYXV0aG9yaXR5IG9uZTBZMBMGByqGSM49\n\
AgEGCCqGSM49AwEHA0IABJGTzD8ztwbVd2UkTYqb3Bx4nZ1aQ0/Z3vLhuAbx4Af6\n\
S/Tv+mJlChw/6yNHKwq/Evfyo5T0wdGS3uPYoJOlL1ujUzBRMB0GA1UdDgQWBBSU\n\
nTVc0TMPc4nArJX2qMjYV+VlKDAfBgNVHSMEGDAWgBSUnTVc0TMPc4nArJX2qMjY\n\
V+VlKDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCHam7Ie19s\n\
KmqRNjo5Tpd3fpDvEIIhHNLFhXyR9e5cGgIgPVFZw2YEenNQIiSZlwM52+95eluA\n\
0dSp80AJ4MK/0Gs=\n\
-----END CERTIFICATE-----\n";
/// Of another one.
const OTHER_AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBhzCCAS2gAwIBAgIUQN44Q9DVNkwTWVAxDCIImhpyNDYwCgYIKoZIzj0EAwIw\n\
GDEWMBQGA1UEAwwNYXV0aG9yaXR5IHR3bzAgFw0yNjExMjgxNDE4MjRaGA8yMTI2\n\
MTEwNDE0MTgyNFowGDEWMBQGA1UEAwwNYXV0aG9yaXR5IHR3bzBZMBMGByqGSM49\n\
AgEGCCqGSM49AwEHA0IABIRyi0IY6g4d25isgfEDBf9BQqIRqD6uDqAwBXGlhh+N\n\
EsAoeSqE4OdhBksJLlWoydmzL9esecTuMjbzVferp5CjUzBRMB0GA1UdDgQWBBTC\n\
CfxNMBfZoI3mRv9VBc8B1y0DRjAfBgNVHSMEGDAWgBTCCfxNMBfZoI3mRv9VBc8B\n\
1y0DRjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDrdlQpSs9t\n\
JZc0G/5azr5dAE5oDw/6Asd20UnS9KlwdwIgbkD90E96einwZviEcdECyOOv4sQF\n\
4BaK+97qQVsZTj4=\n\
-----END CERTIFICATE-----\n";
/// Of nobody who may sign.
const LEAF: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBcTCCARigAwIBAgIUTrTQcI1z9xMdTTWsBPUyAykqrUowCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEbGVhZjAgFw0yNjExMjgxNDE4MjRaGA8yMTI2MTEwNDE0MTgy\n\
NFowDzENMAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJ5f\n\
4CYKs9bzlveGUGp195XETOIzQzvtziRyTmVfDhmZpyymoA0jCETv3BvEMjepVQYE\n\
xWJVJjT7pJwhhqVatOujUDBOMB0GA1UdDgQWBBQrj/i80CFZ5Jo4tHvnSIRiQKg4\n\
UTAfBgNVHSMEGDAWgBQrj/i80CFZ5Jo4tHvnSIRiQKg4UTAMBgNVHRMBAf8EAjAA\n\
MAoGCCqGSM49BAMCA0cAMEQCICZebUNfudBD6m49f5xwklaDCvhc4ZkvxVy7b+uq\n\
/DDBAiBMliLEvfemcMn2TZ2BNJBVsk1B8IX/AS/22lTqMm92WA==\n\
-----END CERTIFICATE-----\n";

#[test]
fn taints_of_devices_say_since_when() {
    let taint = |at: Option<&str>| {
        let mut taint = json!({"key": "a", "effect": "NoExecute"});
        if let Some(at) = at {
            taint["timeAdded"] = at.into();
        }
        json!({"spec": {"devices": [{"name": "d", "taints": [taint]}]}})
    };
    let (strategy, context) = (strategy("resource.k8s.io", "ResourceSlice"), context(None));
    let now = context.now.to_string();
    for (given, kept) in [(None, now.as_str()), (Some("2020-01-01T00:00:00Z"), "2020-01-01T00:00:00Z")] {
        let mut made = taint(given);
        strategy.prepare_for_create(&mut made, &context);
        assert_eq!(made, taint(Some(kept)));
        let mut changed = taint(given);
        strategy.prepare_for_update(&mut changed, &taint(None), &context);
        assert_eq!(changed, taint(Some(kept)));
    }
}
