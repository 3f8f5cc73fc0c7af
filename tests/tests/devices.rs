//! What pods have of devices, as far as the control plane gives and takes it: claims from templates, what they get, who may
//! speak of it, taints, and quotas. No driver is on the node: the pods get their node, and wait there.

use cluster_tests::cluster::Settings;
use cluster_tests::{Kubectl, Room, Scenario, Suite, scenarios};
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] = scenarios![
        a_claim_comes_and_goes_with_its_pod,
        devices_of_others_are_waited_for,
        a_device_is_bound_before_its_pod,
        extended_resources_are_given_by_devices,
        a_claims_status_is_not_everybodys,
        quotas_count_devices,
        a_rule_taints_devices,
    ];
    let settings = Settings { flags: FLAGS, ..Default::default() };
    Suite { settings, ..Suite::new("devices", TOGETHER) }.run()
}

/// Rules of taints are there only when they are asked for.
const FLAGS: &[&str] =
    &["--feature-gates=DRADeviceTaintRules=true", "--runtime-config=resource.k8s.io/v1beta2=true"];

/// A class of the devices of a driver, and what the driver has: one device, with more said of it.
fn publish(k: &Kubectl, driver: &str, device: &str) {
    k.apply(&format!(
        "
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {{name: {driver}}}
spec:
  selectors: [{{cel: {{expression: device.driver == '{driver}'}}}}]
  extendedResourceName: {driver}/gpu
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {{name: {driver}}}
spec:
  driver: {driver}
  pool: {{name: pool, generation: 1, resourceSliceCount: 1}}
  allNodes: true
  devices: [{{name: gpu-0{device}}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: one-gpu}}
spec:
  metadata: {{labels: {{made: from-template}}}}
  spec: {{devices: {{requests: [{{name: gpu, exactly: {{deviceClassName: {driver}}}}}]}}}}
"
    ));
}

fn withdraw(k: &Kubectl, driver: &str) {
    k.run(&format!("delete resourceslice/{driver} deviceclass/{driver}"));
}

/// A pod that does nothing, with these resources and more of its spec.
fn pod(name: &str, resources: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: localhost/busybox:debian12
    command: [sleep, infinity]
    resources: {{{resources}}}
{more}
"
    )
}

/// One that has a claim made for it.
fn user(k: &Kubectl, name: &str) {
    let claim = "  resourceClaims: [{name: gpu, resourceClaimTemplateName: one-gpu}]";
    k.apply(&pod(name, "claims: [{name: gpu}]", claim));
}

/// One that asks for the extended resource that a driver's class gives.
fn asker(k: &Kubectl, name: &str, driver: &str) {
    k.apply(&pod(name, &format!("limits: {{{driver}/gpu: 1}}"), ""));
}

fn claim_of(k: &Kubectl, pod: &str) -> String {
    k.until(&format!("pod/{pod}"), "told where its claim is", |pod| {
        let name = pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str()?;
        Some(format!("resourceclaim/{name}"))
    })
}

fn placed(k: &Kubectl, pod: &str) -> String {
    k.until(&format!("pod/{pod}"), "on a node", |pod| pod["spec"]["nodeName"].as_str().map(str::to_owned))
}

fn a_claim_comes_and_goes_with_its_pod(room: &Room) {
    let k = &room.kubectl;
    let driver = "comes.example.com";
    publish(k, driver, "");
    user(k, "user");
    let claim = claim_of(k, "user");
    assert!(claim.starts_with("resourceclaim/user-gpu-"), "{claim}");
    assert_eq!(k.field(&claim, ".metadata.labels.made"), "from-template");
    placed(k, "user");
    let uid = k.field("pod/user", ".metadata.uid");
    let object = k.json(&claim);
    assert_eq!(object["status"]["reservedFor"][0]["uid"], uid.as_str());
    assert_eq!(object["metadata"]["finalizers"][0], "resource.kubernetes.io/delete-protection");
    let given = &object["status"]["allocation"]["devices"]["results"][0];
    assert_eq!((given["driver"].as_str(), given["device"].as_str()), (Some(driver), Some("gpu-0")));
    publish(k, driver, ", taints: [{key: example.com/sick, effect: NoExecute}]");
    k.event("user", "DeviceTaintManagerEviction");
    k.wait("delete", &claim);
    withdraw(k, driver);
}

fn a_rule_taints_devices(room: &Room) {
    let k = &room.kubectl;
    let driver = "ruled.example.com";
    let rule = |effect: &str| {
        k.apply(&format!(
            "
apiVersion: resource.k8s.io/v1beta2
kind: DeviceTaintRule
metadata: {{name: ruled}}
spec: {{deviceSelector: {{driver: {driver}}}, taint: {{key: example.com/sick, effect: {effect}}}}}
"
        ));
    };
    let told = |reason: &str| {
        k.until("devicetaintrule/ruled", reason, |rule| {
            let condition = &rule["status"]["conditions"][0];
            (condition["reason"] == reason)
                .then(|| condition["message"].as_str().unwrap_or_default().to_owned())
        })
    };
    publish(k, driver, "");
    rule("NoSchedule");
    told("OtherEffect");
    user(k, "user");
    let why = k.event("user", "FailedScheduling");
    assert!(why.contains(" cannot allocate all claims. "), "{why}");
    rule("None");
    let would = told("NoEffect");
    assert!(would.starts_with("1 published device selected. "), "{would}");
    placed(k, "user");
    let claim = claim_of(k, "user");
    rule("NoExecute");
    k.event("user", "DeviceTaintManagerEviction");
    k.wait("delete", &claim);
    assert_eq!(told("Completed"), "1 pod evicted since starting the controller.");
    k.run("delete devicetaintrule ruled");
    withdraw(k, driver);
}

fn devices_of_others_are_waited_for(room: &Room) {
    let k = &room.kubectl;
    let driver = "others.example.com";
    publish(k, driver, "");
    user(k, "first");
    placed(k, "first");
    user(k, "second");
    let why = k.event("second", "FailedScheduling");
    assert!(why.contains(" cannot allocate all claims. still not schedulable, preemption: "), "{why}");
    let claim = claim_of(k, "second");
    assert_eq!(k.field(&claim, ".status.allocation"), "");
    k.run("delete pod first");
    placed(k, "second");
    assert_eq!(k.field(&claim, ".status.allocation.devices.results[0].device"), "gpu-0");
    k.run("delete pod second");
    k.wait("delete", &claim);
    withdraw(k, driver);
}

fn a_device_is_bound_before_its_pod(room: &Room) {
    let k = &room.kubectl;
    let driver = "binds.example.com";
    publish(
        k,
        driver,
        ", bindingConditions: [example.com/attached], bindingFailureConditions: [example.com/broken]",
    );
    user(k, "user");
    let claim = claim_of(k, "user");
    let waits = k.event("user", "BindingConditionsPending");
    assert!(waits.starts_with("waiting for binding conditions for device on node "), "{waits}");
    assert_eq!(k.field("pod/user", ".spec.nodeName"), "");
    let tell = |condition: &str| {
        let status = format!(
            r#"{{"status":{{"devices":[{{"driver":"{driver}","pool":"pool","device":"gpu-0","conditions":[
                {{"type":"example.com/{condition}","status":"True","reason":"Told","message":"by the driver",
                  "lastTransitionTime":"2026-01-01T00:00:00Z"}}]}}]}}}}"#
        );
        k.run(&format!("patch {claim} --subresource=status --type=merge -p '{status}'"));
    };
    // It is given back, and had again.
    tell("broken");
    let why = k.event_that_begins("user", "FailedScheduling", "running PreBind");
    let words = "running PreBind plugin \"DynamicResources\": device binding failed: claim=";
    assert!(why.starts_with(words), "{why}");
    k.event_that_begins("user", "FailedScheduling", "0/1 nodes are available: 1 resourceclaim not available");
    k.until(&claim, "given anew", |claim| {
        let status = &claim["status"];
        (status["devices"].is_null() && status["allocation"].is_object()).then_some(())
    });
    tell("attached");
    placed(k, "user");
    k.run("delete pod user");
    k.wait("delete", &claim);
    withdraw(k, driver);
}

fn extended_resources_are_given_by_devices(room: &Room) {
    let k = &room.kubectl;
    let driver = "extended.example.com";
    publish(k, driver, "");
    asker(k, "user", driver);
    placed(k, "user");
    let status = &k.json("pod/user")["status"]["extendedResourceClaimStatus"];
    let name = status["resourceClaimName"].as_str().expect("a claim");
    assert!(name.starts_with("user-extended-resources-"), "{name}");
    assert_eq!(status["requestMappings"][0]["containerName"], "main");
    assert_eq!(status["requestMappings"][0]["requestName"], "container-0-request-0");
    let claim = format!("resourceclaim/{name}");
    assert_eq!(k.field(&claim, ".status.allocation.devices.results[0].device"), "gpu-0");
    k.run("delete pod user");
    k.wait("delete", &claim);
    withdraw(k, driver);
}

/// Who may write a claim's status may not yet give it devices, nor speak for their driver.
fn a_claims_status_is_not_everybodys(room: &Room) {
    let k = &room.kubectl;
    let driver = "status.example.com";
    publish(k, driver, "");
    user(k, "user");
    let claim = claim_of(k, "user");
    placed(k, "user");
    k.run("create role writer --verb=get,patch --resource=resourceclaims,resourceclaims/status");
    k.run("create rolebinding writer --role=writer --user=speaker");
    k.granted("patch resourceclaims --subresource=status --as=speaker");
    let patch = |status: &str| {
        format!("patch {claim} --as=speaker --subresource=status --type=merge -p '{{\"status\":{status}}}'")
    };
    let refused = k.refused(&patch(r#"{"reservedFor":null}"#));
    assert!(
        refused.contains("changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"patch\" permission"),
        "{refused}"
    );
    let told = patch(&format!(
        r#"{{"devices":[{{"driver":"{driver}","pool":"pool","device":"gpu-0","data":{{"told":true}}}}]}}"#
    ));
    let refused = k.refused(&told);
    assert!(
        refused.contains("status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:patch]\" permission: "),
        "{refused}"
    );
    assert!(refused.contains("User \"speaker\" cannot arbitrary-node:patch resource"), "{refused}");
    k.apply(&format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: driver}}
rules:
- {{apiGroups: [resource.k8s.io], resources: [resourceclaims/driver], resourceNames: [{driver}], verbs: ['arbitrary-node:patch']}}
"
    ));
    k.run("create rolebinding driver --role=driver --user=speaker");
    k.granted(&format!("arbitrary-node:patch resourceclaims/{driver} --subresource=driver --as=speaker"));
    k.run(&told);
    assert_eq!(k.field(&claim, ".status.devices[0].data.told"), "true");
    k.run("delete pod user");
    k.wait("delete", &claim);
    withdraw(k, driver);
}

/// What is asked for is charged once, to the pod or to the claim, and given back.
fn quotas_count_devices(room: &Room) {
    let k = &room.kubectl;
    let driver = "quota.example.com";
    publish(k, driver, "");
    let devices = format!("{driver}.deviceclass.resource.k8s.io/devices");
    let class = format!("requests.deviceclass.resource.kubernetes.io/{driver}");
    let gpu = format!("requests.{driver}/gpu");
    let claims = "count/resourceclaims.resource.k8s.io";
    let quota = |more: &str| {
        k.apply(&format!(
            "
apiVersion: v1
kind: ResourceQuota
metadata: {{name: devices}}
spec: {{hard: {{{devices}: 3, {class}: 4, {gpu}: 5, {claims}: 9{more}}}}}
"
        ));
    };
    // Each is named `devices`, by class, by resource, and in number.
    let used = |want: [&str; 4]| {
        k.until("resourcequota/devices", &format!("used up to {want:?}"), |quota| {
            let used = &quota["status"]["used"];
            let names = [devices.as_str(), &class, &gpu, claims];
            names.iter().zip(want).all(|(name, want)| used[*name] == want).then_some(())
        });
    };
    let claim = |name: &str, class: &str, more: &str| {
        format!(
            "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {{name: {name}}}
spec: {{devices: {{requests: [{{name: gpu, exactly: {{deviceClassName: {class}{more}}}}}]}}}}
"
        )
    };
    quota("");
    used(["0", "0", "0", "0"]);
    asker(k, "user", driver);
    placed(k, "user");
    used(["1", "1", "1", "1"]);
    let made = k.field("pod/user", ".status.extendedResourceClaimStatus.resourceClaimName");
    k.apply(&claim("own", driver, ", count: 2"));
    used(["3", "3", "3", "2"]);
    // The controller counts as admission charged.
    quota(", pods: 9");
    k.until("resourcequota/devices", "counted anew", |quota| {
        (quota["status"]["used"]["pods"] == "1").then_some(())
    });
    used(["3", "3", "3", "2"]);
    let refused = |manifest: &str| {
        let output = k.script("kubectl -n $NS create -f -", manifest);
        assert!(!output.status.success(), "{manifest} was let in");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let why = refused(&claim("more", driver, ""));
    let words = format!(
        "resourceclaims.resource.k8s.io \"more\" is forbidden: exceeded quota: devices, requested: {devices}=1, \
         used: {devices}=3, limited: {devices}=3"
    );
    assert!(why.contains(&words), "{why}");
    let why = refused(&claim("all", driver, ", allocationMode: All"));
    let words = format!(
        "exceeded quota: devices, requested: {devices}=32,{class}=32,{gpu}=32, used: {devices}=3,{class}=3,{gpu}=3, \
         limited: {devices}=3,{class}=4,{gpu}=5"
    );
    assert!(why.contains(&words), "{why}");
    let by_class = format!("limits: {{deviceclass.resource.kubernetes.io/{driver}: 2}}");
    let why = refused(&pod("by-class", &by_class, ""));
    let words = format!("exceeded quota: devices, requested: {class}=2, used: {class}=3, limited: {class}=4");
    assert!(why.contains(&words), "{why}");
    k.run("delete pod user");
    k.wait("delete", &format!("resourceclaim/{made}"));
    used(["2", "2", "2", "1"]);
    // Without the class, nobody can tell what it gave.
    withdraw(k, driver);
    used(["2", "2", "0", "1"]);
    k.run("delete resourceclaim own");
    used(["0", "0", "0", "0"]);
    k.run("delete resourcequota devices");
}
