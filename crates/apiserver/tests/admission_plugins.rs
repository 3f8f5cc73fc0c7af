//! Admission plugins as flags and their configuration make them.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::admission::Options;
use apiserver::authn::request_header::Headers;
use apiserver::bootstrap;
use apiserver::features::Features;
use apiserver::services::{PortRange, Ranges};
use house::hook::serve;
use house::{House, house_admitting};
use http::Method;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A house with more plugins than the default ones, and what is said of them.
async fn house(enable: &[&str], plugins: Value) -> House {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admission.yaml");
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins,
    });
    std::fs::write(&path, configuration.to_string()).unwrap();
    let enable = enable.iter().map(|name| (*name).to_owned()).collect();
    let house = house_admitting(Options { enable, configuration: Some(path), ..Options::default() }).await;
    let account = json!({"metadata": {"name": "default"}});
    sent(&house, "/api/v1/namespaces/default/serviceaccounts", account, 201).await;
    house
}

/// Creates an object; the answer.
async fn sent(house: &House, path: &str, object: Value, code: u16) -> Value {
    let (found, answer) = house.json(Method::POST, path, object).await;
    assert_eq!(found, code, "{answer}");
    answer
}

/// Creates an object, which is refused in these words.
async fn refused(house: &House, path: &str, object: Value, code: u16, message: &str) {
    let answer = sent(house, path, object, code).await;
    assert_eq!(answer["message"], message);
}

/// A pod; `more` counts before its own.
fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn standards_hold_by_default_but_not_for_everybody() {
    let house = house(
        &[],
        json!([{"name": "PodSecurity", "configuration": {
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline"},
            "exemptions": {"namespaces": ["kube-system"], "runtimeClasses": ["vm"]},
        }}]),
    )
    .await;
    let own_network = json!({"hostNetwork": true});
    refused(
        &house,
        PODS,
        pod("a", own_network.clone()),
        403,
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
    )
    .await;
    let account = json!({"metadata": {"name": "default"}});
    sent(&house, "/api/v1/namespaces/kube-system/serviceaccounts", account, 201).await;
    sent(&house, "/api/v1/namespaces/kube-system/pods", pod("a", own_network), 201).await;
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm"});
    sent(&house, "/apis/node.k8s.io/v1/runtimeclasses", class, 201).await;
    sent(&house, PODS, pod("a", json!({"hostNetwork": true, "runtimeClassName": "vm"})), 201).await;
    let level = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let path = "/api/v1/namespaces/kube-system";
    let headers = [("content-type", "application/merge-patch+json")];
    let answer = house.send(Method::PATCH, path, &headers, level).await;
    assert_eq!(
        answer.headers()["warning"],
        "299 - \"namespace \\\"kube-system\\\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_limited_needs_a_quota() {
    let house = house(
        &[],
        json!([{"name": "ResourceQuota", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
            "limitedResources": [
                {"resource": "configmaps", "matchContains": ["count/"]},
                {"resource": "pods", "matchScopes": [
                    {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]},
            ],
        }}]),
    )
    .await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = || json!({"metadata": {"name": "a"}});
    refused(
        &house,
        maps,
        map(),
        403,
        "configmaps \"a\" is forbidden: insufficient quota to consume: count/configmaps",
    )
    .await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    sent(&house, "/apis/scheduling.k8s.io/v1/priorityclasses", class, 201).await;
    let high = || pod("a", json!({"priorityClassName": "high"}));
    refused(
        &house,
        PODS,
        high(),
        500,
        "insufficient quota to match these scopes: [{PriorityClass In [high]}]",
    )
    .await;
    sent(&house, PODS, pod("b", json!({})), 201).await;
    let select =
        json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    for (name, spec) in [
        ("maps", json!({"hard": {"count/configmaps": "1"}})),
        ("pods", json!({"hard": {"pods": "1"}, "scopeSelector": select})),
    ] {
        let quotas = "/api/v1/namespaces/default/resourcequotas";
        sent(&house, quotas, json!({"metadata": {"name": name}, "spec": spec}), 201).await;
        let hard = &spec["hard"];
        let used: Value = hard.as_object().unwrap().keys().map(|key| (key.clone(), json!("0"))).collect();
        let status = json!({"status": {"hard": hard, "used": used}});
        let path = format!("{quotas}/{name}/status");
        let (code, answer) = house.call(Method::PATCH, &path, "application/merge-patch+json", status).await;
        assert_eq!(code, 200, "{answer}");
    }
    sent(&house, maps, map(), 201).await;
    sent(&house, PODS, high(), 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_called_as_their_kubeconfig_says() {
    let hook = serve(|review| {
        Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"allowed": true, "uid": review["request"]["uid"]}}))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let target: http::Uri = hook.url.parse().unwrap();
    let users = json!([
        {"name": target.authority().unwrap().as_str(), "user": {"token": "secret"}},
        {"name": "*", "user": {"token": "another"}},
    ]);
    std::fs::write(&kubeconfig, json!({"apiVersion": "v1", "kind": "Config", "users": users}).to_string())
        .unwrap();
    let house = house(
        &[],
        json!([{"name": "ValidatingAdmissionWebhook", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": kubeconfig,
        }}]),
    )
    .await;
    let configuration = json!({"metadata": {"name": "test"}, "webhooks": [{
        "name": "test.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": hook.url, "caBundle": hook.bundle},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    }]});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    sent(&house, path, configuration, 201).await;
    sent(&house, "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}}), 201).await;
    assert_eq!(*hook.authorizations.lock(), ["Bearer secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_their_node_as_long_as_flags_say() {
    let options = Options { not_ready_seconds: 5, unreachable_seconds: 0, ..Options::default() };
    let house = house_admitting(options).await;
    let account = json!({"metadata": {"name": "default"}});
    sent(&house, "/api/v1/namespaces/default/serviceaccounts", account, 201).await;
    let made = sent(&house, PODS, pod("a", json!({})), 201).await;
    let seconds: Vec<_> = made["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["key"].as_str().unwrap(), t["tolerationSeconds"].as_i64().unwrap()))
        .collect();
    assert_eq!(seconds, [("node.kubernetes.io/not-ready", 5), ("node.kubernetes.io/unreachable", 0)]);
}

/// Puts an annotation on the namespace `default`.
async fn annotate(house: &House, annotation: &str, value: &str) {
    let body = json!({"metadata": {"annotations": {annotation: value}}});
    let path = "/api/v1/namespaces/default";
    let (code, answer) = house.call(Method::PATCH, path, "application/merge-patch+json", body).await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_always() {
    let house = house(&["AlwaysPullImages"], json!([])).await;
    let containers = json!([{"name": "c", "image": "i", "imagePullPolicy": "Never"}]);
    let made = sent(&house, PODS, pod("a", json!({"containers": containers})), 201).await;
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_apart_by_node_alone() {
    let house = house(&["LimitPodHardAntiAffinityTopology"], json!([])).await;
    let apart = |key: &str| {
        let term = json!({"topologyKey": key, "labelSelector": {}});
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    };
    sent(&house, PODS, pod("a", apart("kubernetes.io/hostname")), 201).await;
    refused(
        &house,
        PODS,
        pod("b", apart("zone")),
        403,
        "pods \"b\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_come_with_what_is_in_them() {
    let map = || json!({"metadata": {"name": "a"}});
    let path = "/api/v1/namespaces/new/configmaps";
    let with = house(&["NamespaceAutoProvision", "NamespaceExists"], json!([])).await;
    sent(&with, &format!("{path}?dryRun=All"), map(), 404).await;
    sent(&with, path, map(), 201).await;
    assert_eq!(with.get("/api/v1/namespaces/new").await["status"]["phase"], "Active");
    let without = house(&["NamespaceExists"], json!([])).await;
    refused(&without, path, map(), 404, "namespaces \"new\" not found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_no_more_external_addresses() {
    let house = house(&["DenyServiceExternalIPs"], json!([])).await;
    let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    sent(&house, "/apis/networking.k8s.io/v1/servicecidrs", range, 201).await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, addresses: Value| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "externalIPs": addresses}});
    sent(&house, services, service("a", json!([])), 201).await;
    refused(
        &house,
        services,
        service("b", json!(["192.0.2.1"])),
        403,
        "services \"b\" is forbidden: Use of external IPs is denied by admission control",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_select_nodes() {
    let selectors = json!({"clusterDefaultNodeSelector": "disk=any", "default": "disk=fast,room=a"});
    let configured = json!([{
        "name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": selectors},
    }]);
    let house = house(&["PodNodeSelector"], configured).await;
    let conflicts =
        "pods \"b\" is forbidden: pod node label selector labels conflict with its namespace whitelist";
    refused(&house, PODS, pod("b", json!({})), 403, conflicts).await;
    annotate(&house, "scheduler.alpha.kubernetes.io/node-selector", "disk=fast").await;
    let made = sent(&house, PODS, pod("a", json!({"nodeSelector": {"room": "a"}})), 201).await;
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "fast", "room": "a"}));
    let slow = pod("b", json!({"nodeSelector": {"disk": "slow"}}));
    let conflicts =
        "pods \"b\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    refused(&house, PODS, slow, 403, conflicts).await;
    annotate(&house, "scheduler.alpha.kubernetes.io/node-selector", "disk").await;
    refused(&house, PODS, pod("b", json!({})), 500, "invalid selector: [disk]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_restrict_tolerations() {
    let whitelist =
        json!([{"operator": "Exists", "effect": "NoExecute"}, {"key": "a", "operator": "Exists"}]);
    let house = house(
        &["PodTolerationRestriction"],
        json!([{"name": "PodTolerationRestriction", "configuration": {
            "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration",
            "default": [{"key": "a", "operator": "Equal", "value": "b"}], "whitelist": whitelist,
        }}]),
    )
    .await;
    let made = sent(&house, PODS, pod("a", json!({})), 201).await;
    let first = json!({"key": "a", "operator": "Equal", "value": "b"});
    assert!(made["spec"]["tolerations"].as_array().unwrap().contains(&first), "{made}");
    let other = |name: &str| pod(name, json!({"tolerations": [{"key": "c", "operator": "Exists"}]}));
    let conflict = |scope: &str| {
        format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )
    };
    refused(&house, PODS, other("b"), 500, &conflict("cluster")).await;
    annotate(&house, "scheduler.alpha.kubernetes.io/tolerationsWhitelist", "[{\"key\": \"d\"}]").await;
    refused(&house, PODS, other("b"), 500, &conflict("namespace")).await;
    annotate(&house, "scheduler.alpha.kubernetes.io/tolerationsWhitelist", "").await;
    sent(&house, PODS, other("b"), 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_events_and_no_more() {
    let house = house(
        &["EventRateLimit"],
        json!([{"name": "EventRateLimit", "configuration": {
            "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
            "limits": [{"type": "Namespace", "qps": 1, "burst": 1}, {"type": "SourceAndObject", "qps": 1, "burst": 1}],
        }}]),
    )
    .await;
    let event = |name: &str| {
        json!({"metadata": {"name": name}, "source": {"component": "x"}, "type": "Normal",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "apiVersion": "v1"}})
    };
    let events = "/api/v1/namespaces/default/events";
    sent(&house, events, event("a"), 201).await;
    sent(&house, &format!("{events}?dryRun=All"), event("b"), 201).await;
    // One a second is let in, and more than that are sent.
    let mut refusal = None;
    for at in 0..20 {
        let (code, answer) = house.json(Method::POST, events, event(&format!("b{at}"))).await;
        if code != 201 {
            refusal = Some((code, answer["message"].clone()));
            break;
        }
    }
    let why = "Too many requests: [limit reached on type Namespace for key default, limit reached on type SourceAndObject for key xPoddefaultpv1]";
    assert_eq!(refusal, Some((429, json!(why))));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_asked_about() {
    let hook = serve(|review| {
        let bad = review["spec"]["containers"][0]["image"] == "bad";
        let mut answer = review.clone();
        answer["status"] = json!({"allowed": !bad, "reason": if bad { "not that one" } else { "" }});
        Some(answer)
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let cluster = json!({"server": hook.url, "certificate-authority-data": hook.bundle});
    let context = json!({"cluster": "a", "user": "a"});
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": cluster}], "contexts": [{"name": "a", "context": context}],
        "users": [{"name": "a", "user": {"token": "secret"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let policy = json!({"imagePolicy": {"kubeConfigFile": kubeconfig}});
    let configured = json!([{"name": "ImagePolicyWebhook", "configuration": policy}]);
    let house = house(&["ImagePolicyWebhook"], configured).await;
    let image = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    for name in ["a", "b"] {
        sent(&house, PODS, pod(name, image("good")), 201).await;
    }
    refused(
        &house,
        PODS,
        pod("c", image("bad")),
        403,
        "pods \"c\" is forbidden: image policy webhook backend denied one or more images: not that one",
    )
    .await;
    // What was said of an image is not asked again.
    assert_eq!(hook.authorizations.lock().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_or_everything() {
    let enable = vec!["AlwaysDeny".to_owned()];
    let options = Options { enable, ..Options::default() };
    let house = house::unmade(options).await;
    let namespace = json!({"metadata": {"name": "a"}});
    let denied = "namespaces \"a\" is forbidden: admission control is denying all modifications";
    refused(&house, "/api/v1/namespaces", namespace, 403, denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_whatever_admission_refuses() {
    let house = house(
        &[],
        json!([{"name": "ResourceQuota", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
            "limitedResources": [{"resource": "configmaps", "matchContains": ["count/"]}],
        }}]),
    )
    .await;
    let config = bootstrap::Config {
        ranges: Ranges::new("10.96.0.0/16", PortRange::default(), None).unwrap(),
        advertise_address: "192.0.2.1".parse().unwrap(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        secure_port: 6443,
        client_ca: String::new(),
        request_header_ca: String::new(),
        request_header_names: Vec::new(),
        request_headers: Headers::standard(),
        dns: None,
        gates: Features::default().gates,
        join: None,
    };
    bootstrap::run(&house.server.registry, &config).await.unwrap();
    let path = "/api/v1/namespaces/kube-system/configmaps";
    assert_eq!(house.get(path).await["items"], json!([]));
    let masters = "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin";
    assert_eq!(house.get(masters).await["metadata"]["name"], "cluster-admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_keep_pods_to_their_secrets() {
    let house = house(&[], json!([])).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let limited = |value: &str| json!({"kubernetes.io/enforce-mountable-secrets": value});
    let few = json!({"metadata": {"name": "few", "annotations": limited("true")},
        "secrets": [{"name": "own"}], "imagePullSecrets": [{"name": "pull"}]});
    sent(&house, accounts, few, 201).await;
    sent(&house, accounts, json!({"metadata": {"name": "odd", "annotations": limited("yes")}}), 201).await;
    let volume = |secret: &str| json!([{"name": "v", "secret": {"secretName": secret}}]);
    let variable = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]);
    let whole = |secret: &str| json!([{"secretRef": {"name": secret}}]);
    let with = |member: &str, value: Value| json!({"name": "c", "image": "i", member: value});
    let not_listed = "is not allowed because service account few does not reference that secret";
    for (spec, why) in [
        (json!({"volumes": volume("other")}), "volume with secret.secretName=\"other\""),
        (
            json!({"containers": [with("env", variable.clone())]}),
            "container c with envVar E referencing secret.secretName=\"other\"",
        ),
        (
            json!({"containers": [with("envFrom", whole("other"))]}),
            "container c with envFrom referencing secret.secretName=\"other\"",
        ),
        (
            json!({"initContainers": [{"name": "first", "image": "i", "env": variable}]}),
            "init container first with envVar E referencing secret.secretName=\"other\"",
        ),
    ] {
        let mut object = pod("p", spec);
        object["spec"]["serviceAccountName"] = "few".into();
        refused(&house, PODS, object, 403, &format!("pods \"p\" is forbidden: {why} {not_listed}")).await;
    }
    let mut object =
        pod("p", json!({"serviceAccountName": "few", "imagePullSecrets": [{"name": "pull"}, {"name": "x"}]}));
    let why = "pods \"p\" is forbidden: imagePullSecrets[1].name=\"x\" is not allowed because service account few does not reference that imagePullSecret";
    refused(&house, PODS, object.clone(), 403, why).await;
    object["spec"]["imagePullSecrets"] = json!([]);
    object["spec"]["volumes"] = volume("own");
    let made = sent(&house, PODS, object, 201).await;
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let ephemeral = |secret: &str| json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "envFrom": whole(secret)}]}});
    let path = format!("{PODS}/p/ephemeralcontainers?dryRun=All");
    let patch = "application/strategic-merge-patch+json";
    assert_eq!(house.call(Method::PATCH, &path, patch, ephemeral("own")).await.0, 200);
    let (code, status) = house.call(Method::PATCH, &path, patch, ephemeral("other")).await;
    let why =
        format!("ephemeral container e with envFrom referencing secret.secretName=\"other\" {not_listed}");
    assert_eq!((code, status["message"].as_str()), (500, Some(why.as_str())));
    // What Go takes for no truth limits nothing.
    sent(&house, PODS, pod("q", json!({"serviceAccountName": "odd", "volumes": volume("other")})), 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_pods_name_nothing_secret() {
    let house = house(&[], json!([])).await;
    let mirror = |spec: Value| {
        let mut object = pod("m", spec);
        object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        object["spec"]["nodeName"] = "n".into();
        object
    };
    let token = json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
    let secret = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]);
    for (spec, why) in [
        (json!({"serviceAccountName": "default"}), "reference service accounts"),
        (json!({"imagePullSecrets": [{"name": "s"}]}), "reference secrets"),
        (json!({"volumes": secret}), "reference secrets"),
        (json!({"volumes": token}), "use ServiceAccountToken volume projections"),
    ] {
        let why = format!("pods \"m\" is forbidden: a mirror pod may not {why}");
        refused(&house, PODS, mirror(spec), 403, &why).await;
    }
    let made = sent(&house, PODS, mirror(json!({})), 201).await;
    assert!(made["spec"]["volumes"].is_null() && made["spec"]["serviceAccountName"].is_null(), "{made}");
}
