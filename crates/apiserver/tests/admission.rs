//! Admission: webhooks over real TLS, and the plugins of a cluster without configuration.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use expect_test::{Expect, expect};
use house::hook::{Hook, base64, serve};
use house::{House, house};
use http::Method;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Serves a webhook that answers by `answer`; none leaves the caller waiting.
async fn hook(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Hook {
    serve(move |review| {
        let mut response = answer(&review["request"])?;
        response["uid"] = review["request"]["uid"].clone();
        Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    })
    .await
}

impl House {
    async fn register(&self, kind: &str, hook: &Hook, more: Value) {
        let mut webhook = json!({
            "name": "test.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": hook.url, "caBundle": hook.bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        });
        for (key, value) in more.as_object().unwrap() {
            webhook[key] = value.clone();
        }
        let plural = format!("{}s", kind.to_lowercase());
        let object = json!({"metadata": {"name": "test"}, "webhooks": [webhook]});
        let at = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        let (code, made) = self.json(Method::POST, &at, object).await;
        assert_eq!(code, 201, "{made}");
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_changes_objects() {
    let house = house().await;
    let patch = json!([{"op": "add", "path": "/data/by", "value": "hook"}]).to_string();
    let hook = hook(move |_| {
        Some(json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(&patch), "warnings": ["mind the gap"]}))
    })
    .await;
    house.register(MUTATING, &hook, json!({})).await;
    let response = house
        .send(Method::POST, CONFIGMAPS, &[("content-type", "application/json")], map("a", json!({"x": "1"})))
        .await;
    assert_eq!(response.headers()["warning"], "299 - \"mind the gap\"");
    let made: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(made["data"], json!({"x": "1", "by": "hook"}), "{made}");
    let asked = hook.asked.lock().clone();
    assert_eq!(asked.len(), 1);
    let request = &asked[0];
    let seen = [
        &request["operation"],
        &request["kind"]["kind"],
        &request["userInfo"]["username"],
        &request["dryRun"],
    ];
    assert_eq!(seen, [&json!("CREATE"), &json!("ConfigMap"), &json!("tester"), &json!(false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_refuses() {
    let house = house().await;
    let hook = hook(|request| {
        Some(match request["operation"].as_str().unwrap() {
            "DELETE" => json!({"allowed": false}),
            _ if request["object"]["data"]["bad"].is_string() => {
                json!({"allowed": false, "status": {"code": 403, "message": "no bad things"}})
            }
            _ => json!({"allowed": true}),
        })
    })
    .await;
    let conditions = json!([{"name": "named", "expression": "request.name != 'free'"}]);
    house.register(VALIDATING, &hook, json!({"matchConditions": conditions})).await;
    let mut answers = Vec::new();
    for (method, path, body) in [
        (Method::POST, CONFIGMAPS.to_owned(), map("a", json!({"bad": "1"}))),
        (Method::POST, CONFIGMAPS.to_owned(), map("a", json!({"good": "1"}))),
        (Method::DELETE, format!("{CONFIGMAPS}/a"), Value::Null),
        (Method::POST, CONFIGMAPS.to_owned(), map("free", json!({"bad": "1"}))),
    ] {
        let (code, answer) = house.json(method, &path, body).await;
        answers.push(format!("{code} {}", answer["message"].as_str().unwrap_or_default()));
    }
    let expected: Expect = expect![[r#"
        403 admission webhook "test.example.com" denied the request: no bad things
        201 
        400 admission webhook "test.example.com" denied the request without explanation
        201 "#]];
    expected.assert_eq(&answers.join("\n"));
    expect![[r#"
        apiserver_admission_webhook_rejection_count{error_type="no_error",name="test.example.com",operation="CREATE",rejection_code="403",type="validating"} 1
        apiserver_admission_webhook_rejection_count{error_type="no_error",name="test.example.com",operation="DELETE",rejection_code="400",type="validating"} 1
        apiserver_admission_webhook_request_total{code="200",name="test.example.com",operation="CREATE",rejected="false",type="validating"} 1
        apiserver_admission_webhook_request_total{code="403",name="test.example.com",operation="CREATE",rejected="true",type="validating"} 1
        apiserver_admission_webhook_request_total{code="400",name="test.example.com",operation="DELETE",rejected="true",type="validating"} 1"#]].assert_eq(&counted(&house));
}

/// What is counted of webhooks.
fn counted(house: &House) -> String {
    let text = house.server.metrics.render();
    let counts = |line: &&str| line.starts_with("apiserver_admission_webhook_") && !line.contains("_seconds");
    text.lines().filter(counts).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_close_or_open_the_door() {
    let house = house().await;
    let silent = hook(|_| None).await;
    house.register(VALIDATING, &silent, json!({"timeoutSeconds": 1})).await;
    let (code, answer) = house.json(Method::POST, CONFIGMAPS, map("a", json!({}))).await;
    assert_eq!(code, 500);
    let expected = format!(
        "Internal error occurred: failed calling webhook \"test.example.com\": failed to call webhook: Post \"{}?timeout=1s\": context deadline exceeded",
        silent.url
    );
    assert_eq!(answer["message"], expected);
    let open = json!([{"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let at = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/test";
    assert_eq!(house.call(Method::PATCH, at, "application/json-patch+json", open).await.0, 200);
    assert_eq!(house.json(Method::POST, CONFIGMAPS, map("a", json!({}))).await.0, 201);
    let elsewhere = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
        {"op": "add", "path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"hooked": "yes"}}}]);
    assert_eq!(house.call(Method::PATCH, at, "application/json-patch+json", elsewhere).await.0, 200);
    assert_eq!(
        house.json(Method::POST, CONFIGMAPS, map("b", json!({}))).await.0,
        201,
        "another namespace is meant"
    );
    expect![[r#"
        apiserver_admission_webhook_fail_open_count{name="test.example.com",type="validating"} 1
        apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error",name="test.example.com",operation="CREATE",rejection_code="500",type="validating"} 1
        apiserver_admission_webhook_request_total{code="500",name="test.example.com",operation="CREATE",rejected="false",type="validating"} 1
        apiserver_admission_webhook_request_total{code="500",name="test.example.com",operation="CREATE",rejected="true",type="validating"} 1"#]].assert_eq(&counted(&house));
}

async fn post(house: &House, path: &str, object: Value, expected: (u16, &str)) -> Value {
    let (code, answer) = house.json(Method::POST, path, object).await;
    let message = answer["message"].as_str().unwrap_or_default();
    assert_eq!((code, message), expected, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_kept() {
    let house = house().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"configmaps": "1", "count/secrets": "0"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    post(&house, quotas, quota, (201, "")).await;
    post(&house, CONFIGMAPS, map("early", json!({})), (201, "")).await;
    let status = json!({"status": {"hard": hard, "used": {"configmaps": "0", "count/secrets": "0"}}});
    let (code, _) = house
        .call(Method::PATCH, &format!("{quotas}/q/status"), "application/merge-patch+json", status)
        .await;
    assert_eq!(code, 200);
    post(&house, CONFIGMAPS, map("a", json!({})), (201, "")).await;
    assert_eq!(house.get(&format!("{quotas}/q")).await["status"]["used"]["configmaps"], "1");
    let full = "configmaps \"b\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1";
    post(&house, CONFIGMAPS, map("b", json!({})), (403, full)).await;
    let none = "secrets \"s\" is forbidden: exceeded quota: q, requested: count/secrets=1, used: count/secrets=0, limited: count/secrets=0";
    post(&house, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}}), (403, none)).await;
}

/// A claim to so many devices of a class; for a pod, if one is named.
fn claim(name: &str, class: &str, count: i64, pod: Option<&Value>) -> Value {
    let owners: Vec<Value> = pod
        .map(|pod| {
            let metadata = &pod["metadata"];
            json!({"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"],
                "controller": true})
        })
        .into_iter()
        .collect();
    json!({
        "metadata": {
            "name": name, "ownerReferences": owners,
            "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
        },
        "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": class, "count": count}}]}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_count_claims_to_devices() {
    const MERGE: &str = "application/merge-patch+json";
    const CLASS: &str = "requests.deviceclass.resource.kubernetes.io/gpu";
    let house = house().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let used = async || house.get(&format!("{quotas}/q")).await["status"]["used"].clone();
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    post(&house, "/apis/resource.k8s.io/v1/deviceclasses", class, (201, "")).await;
    let hard = json!({
        "count/resourceclaims.resource.k8s.io": "4", "gpu.deviceclass.resource.k8s.io/devices": "5",
        CLASS: "5", "requests.example.com/gpu": "5"});
    let none = json!({
        "count/resourceclaims.resource.k8s.io": "0", "gpu.deviceclass.resource.k8s.io/devices": "0",
        CLASS: "0", "requests.example.com/gpu": "0"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    post(&house, quotas, quota, (201, "")).await;
    let status = json!({"status": {"hard": hard, "used": none}});
    assert_eq!(house.call(Method::PATCH, &format!("{quotas}/q/status"), MERGE, status).await.0, 200);

    // What a pod asks for is charged to it under the name by which it asks; the claim for it is charged the rest.
    let account = json!({"metadata": {"name": "default"}});
    post(&house, "/api/v1/namespaces/default/serviceaccounts", account, (201, "")).await;
    let asking = pod(json!({"limits": {"example.com/gpu": "2"}}));
    let asking = post(&house, "/api/v1/namespaces/default/pods", asking, (201, "")).await;
    assert_eq!(used().await["requests.example.com/gpu"], "2");
    post(&house, claims, claim("a", "gpu", 2, Some(&asking)), (201, "")).await;
    let first = json!({
        "count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "2",
        CLASS: "2", "requests.example.com/gpu": "2"});
    assert_eq!(used().await, first);
    // Another that says the same pays in full, and so does one whose pod is another.
    post(&house, claims, claim("b", "gpu", 1, Some(&asking)), (201, "")).await;
    assert_eq!(used().await["requests.example.com/gpu"], "3");
    let mut other = asking.clone();
    other["metadata"]["uid"] = "other".into();
    let dry = format!("{claims}?dryRun=All");
    let full = |requested: i64| {
        format!(
            "resourceclaims.resource.k8s.io \"c\" is forbidden: exceeded quota: q, requested: \
             gpu.deviceclass.resource.k8s.io/devices={requested},{CLASS}={requested},requests.example.com/gpu={requested}, \
             used: gpu.deviceclass.resource.k8s.io/devices=3,{CLASS}=3,requests.example.com/gpu=3, \
             limited: gpu.deviceclass.resource.k8s.io/devices=5,{CLASS}=5,requests.example.com/gpu=5"
        )
    };
    post(&house, &dry, claim("c", "gpu", 3, Some(&other)), (403, &full(3))).await;
    let mut all = claim("c", "gpu", 0, None);
    all["spec"]["devices"]["requests"][0]["exactly"] =
        json!({"deviceClassName": "gpu", "allocationMode": "All"});
    post(&house, claims, all, (403, &full(32))).await;
    let (code, missing) = house.json(Method::GET, &format!("{claims}/c"), Value::Null).await;
    assert_eq!(code, 404, "{missing}");

    // What is not the pod's any more is charged like any.
    let away = json!({"metadata": {"annotations": {"resource.kubernetes.io/extended-resource-claim": null}}});
    assert_eq!(house.call(Method::PATCH, &format!("{claims}/a"), MERGE, away).await.0, 200);
    let all = json!({
        "count/resourceclaims.resource.k8s.io": "2", "gpu.deviceclass.resource.k8s.io/devices": "3",
        CLASS: "3", "requests.example.com/gpu": "5"});
    assert_eq!(used().await, all);
    let more = "resourceclaims.resource.k8s.io \"c\" is forbidden: exceeded quota: q, \
                requested: requests.example.com/gpu=1, \
                used: requests.example.com/gpu=5, limited: requests.example.com/gpu=5";
    post(&house, claims, claim("c", "gpu", 1, None), (403, more)).await;
    // A class that is not there is charged nothing but its place.
    post(&house, claims, claim("c", "ghost", 9, None), (201, "")).await;
    post(&house, claims, claim("d", "ghost", 9, None), (201, "")).await;
    let by_class = pod(json!({"limits": {"deviceclass.resource.kubernetes.io/gpu": "3"}}));
    let full = format!(
        "pods \"p\" is forbidden: exceeded quota: q, requested: {CLASS}=3, used: {CLASS}=3, limited: {CLASS}=5"
    );
    post(&house, "/api/v1/namespaces/default/pods", by_class, (403, &full)).await;
    let full = "resourceclaims.resource.k8s.io \"e\" is forbidden: exceeded quota: q, requested: \
                count/resourceclaims.resource.k8s.io=1, used: count/resourceclaims.resource.k8s.io=4, \
                limited: count/resourceclaims.resource.k8s.io=4";
    post(&house, claims, claim("e", "ghost", 1, None), (403, full)).await;
}

fn pod(resources: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_standards_are_kept() {
    let house = house().await;
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"metadata": {"name": "default"}});
    post(&house, "/api/v1/namespaces/default/serviceaccounts", account, (201, "")).await;
    let limits = json!([{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
    post(&house, "/api/v1/namespaces/default/limitranges", range, (201, "")).await;
    let large = "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    post(&house, pods, pod(json!({"limits": {"cpu": "2"}})), (403, large)).await;
    let made = post(&house, pods, pod(json!({})), (201, "")).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);

    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let merge = "application/merge-patch+json";
    assert_eq!(house.call(Method::PATCH, "/api/v1/namespaces/default", merge, labels).await.0, 200);
    let mut wild = pod(json!({}));
    wild["metadata"]["name"] = "wild".into();
    wild["spec"]["hostNetwork"] = true.into();
    let refused = "pods \"wild\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    post(&house, pods, wild, (403, refused)).await;
}

/// Of a subresource that has a kind of its own, admission sees and changes that.
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_is_admitted_as_one() {
    let house = house().await;
    let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]).to_string();
    let hook = hook(move |request| {
        let answer = json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(&patch)});
        Some(if request["operation"] == "UPDATE" { answer } else { json!({"allowed": true}) })
    })
    .await;
    let rules = json!([{"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]}]);
    house.register(MUTATING, &hook, json!({"rules": rules})).await;
    let pods =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": pods}});
    let at = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(house.json(Method::POST, at, deployment).await.0, 201);

    let merge = "application/merge-patch+json";
    let scale = format!("{at}/web/scale");
    let (code, scaled) = house.call(Method::PATCH, &scale, merge, json!({"spec": {"replicas": 2}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(3)), "{scaled}");
    assert_eq!(house.get(&format!("{at}/web")).await["spec"]["replicas"], 3);
    let asked = hook.asked.lock().clone();
    let request = &asked[0];
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["resource"]["resource"], "deployments");
    assert_eq!((&request["subResource"], &request["requestSubResource"]), (&json!("scale"), &json!("scale")));
    let replicas = ["object", "oldObject"].map(|which| &request[which]["spec"]["replicas"]);
    assert_eq!(replicas, [&json!(2), &json!(1)]);
    assert_eq!(request["object"]["kind"], "Scale");

    // Policies see the same.
    let policy = json!({"metadata": {"name": "few"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "object.kind == 'Scale' && object.spec.replicas < oldObject.spec.replicas + 3 && object.status.selector == 'a=b'"}]}});
    let policies = "/apis/admissionregistration.k8s.io/v1";
    assert_eq!(
        house.json(Method::POST, &format!("{policies}/validatingadmissionpolicies"), policy).await.0,
        201
    );
    let binding =
        json!({"metadata": {"name": "few"}, "spec": {"policyName": "few", "validationActions": ["Deny"]}});
    let bindings = format!("{policies}/validatingadmissionpolicybindings");
    assert_eq!(house.json(Method::POST, &bindings, binding).await.0, 201);
    let (code, scaled) = house.call(Method::PATCH, &scale, merge, json!({"spec": {"replicas": 9}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(3)), "{scaled}");
    let hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/test";
    assert_eq!(house.json(Method::DELETE, hooks, Value::Null).await.0, 200);
    let (code, refused) = house.call(Method::PATCH, &scale, merge, json!({"spec": {"replicas": 9}})).await;
    assert_eq!(code, 422, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_change_in_ways_that_their_node_knows() {
    let house = house().await;
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "8"}}});
    post(&house, "/api/v1/nodes", node, (201, "")).await;
    let account = json!({"metadata": {"name": "default"}});
    post(&house, "/api/v1/namespaces/default/serviceaccounts", account, (201, "")).await;
    let container = |name: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": "1"}}});
    let pods = "/api/v1/namespaces/default/pods";
    let spec =
        json!({"nodeName": "n", "initContainers": [container("first")], "containers": [container("c")]});
    post(&house, pods, json!({"metadata": {"name": "p"}, "spec": spec}), (201, "")).await;
    let resize = async |list: &str, name: &str| {
        let change = json!({"spec": {list: [{"name": name, "resources": {"requests": {"cpu": "2"}}}]}});
        let strategic = "application/strategic-merge-patch+json";
        let (code, answer) = house.call(Method::PATCH, &format!("{pods}/p/resize"), strategic, change).await;
        format!("{code} {}", answer["message"].as_str().unwrap_or_default())
    };
    expect!["200 "].assert_eq(&resize("containers", "c").await);
    expect![[r#"403 pods "p" is forbidden: pod update requires features InPlacePodVerticalScalingInitContainers which are not available on node "n""#]]
        .assert_eq(&resize("initContainers", "first").await);
    let declared = json!({"status": {"declaredFeatures": ["InPlacePodVerticalScalingInitContainers"]}});
    let merge = "application/merge-patch+json";
    assert_eq!(house.call(Method::PATCH, "/api/v1/nodes/n/status", merge, declared).await.0, 200);
    expect!["200 "].assert_eq(&resize("initContainers", "first").await);
}

/// What a pod's node has and is, the pod is told of, and held to.
#[tokio::test(flavor = "multi_thread")]
async fn pods_take_after_their_nodes() {
    let house = house().await;
    let labels =
        json!({"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "r", "other": "x"});
    let node = json!({
        "metadata": {"name": "n", "labels": labels}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi"}},
    });
    assert_eq!(house.json(Method::POST, "/api/v1/nodes", node).await.0, 201);
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(house.json(Method::POST, "/api/v1/namespaces/default/serviceaccounts", account).await.0, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, node: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{
                "name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}},
            }]},
        })
    };
    for (name, node) in [("bound", ""), ("placed", "n"), ("lost", "nowhere")] {
        let (code, made) = house.json(Method::POST, pods, pod(name, node)).await;
        assert_eq!(code, 201, "{made}");
    }
    let binding = json!({"metadata": {"name": "bound", "labels": {"own": "y"}}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(house.json(Method::POST, &format!("{pods}/bound/binding"), binding).await.0, 201);
    let mut told = String::new();
    for name in ["bound", "placed", "lost"] {
        let labels = house.get(&format!("{pods}/{name}")).await["metadata"]["labels"].to_string();
        told += &format!("{name} {labels}\n");
    }
    let strategic = "application/strategic-merge-patch+json";
    for (name, requests) in [
        ("placed", json!({"cpu": "500m"})),
        ("placed", json!({"cpu": "1500m", "memory": "2Gi"})),
        ("lost", json!({"cpu": "500m"})),
    ] {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
        let path = format!("{pods}/{name}/resize");
        let (code, answer) = house.call(Method::PATCH, &path, strategic, patch).await;
        told += &format!("{code} {} {}\n", answer["message"], answer["details"]["causes"]);
    }
    expect![[r#"
        bound {"own":"y","topology.kubernetes.io/region":"r","topology.kubernetes.io/zone":"a"}
        placed {"topology.kubernetes.io/region":"r","topology.kubernetes.io/zone":"a"}
        lost null
        200 null null
        403 "pods \"placed\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 1500, allocatable: 1000; memory, requested: 2147483648, allocatable: 1073741824" [{"reason":"NodeCapacity"}]
        403 "pods \"lost\" is forbidden: node \"nowhere\" not found" null
    "#]].assert_eq(&told);
}
