//! What pods have of devices, as far as the control plane gives and takes it: claims from templates, and taints.

use cluster_tests::{Room, Scenario, Suite, scenarios};
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] = scenarios![a_claim_comes_and_goes_with_its_pod];
    Suite::new("devices", TOGETHER).run()
}

const TEMPLATE: &str = "
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: one-gpu}
spec:
  metadata: {labels: {made: from-template}}
  spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.example.com}}]}}
";

/// What a scheduler writes of a claim.
const ALLOCATION: &str = r#"{"status":{"allocation":{"devices":{"results":[
    {"request":"gpu","driver":"gpu.example.com","pool":"pool","device":"gpu-0"}]}}}}"#;

const SICK: &str = "
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: sick}
spec:
  driver: gpu.example.com
  pool: {name: pool, generation: 1, resourceSliceCount: 1}
  allNodes: true
  devices: [{name: gpu-0, taints: [{key: example.com/sick, effect: NoExecute}]}]
";

fn a_claim_comes_and_goes_with_its_pod(room: &Room) {
    let k = &room.kubectl;
    let node = k.run("get nodes -o jsonpath={.items[0].metadata.name}");
    k.apply(TEMPLATE);
    k.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: user}}
spec:
  nodeName: {node}
  resourceClaims: [{{name: gpu, resourceClaimTemplateName: one-gpu}}]
  containers:
  - name: main
    image: localhost/busybox:debian12
    command: [sleep, infinity]
    resources: {{claims: [{{name: gpu}}]}}
"
    ));
    let claim = k.until("pod/user", "told where its claim is", |pod| {
        pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().map(str::to_owned)
    });
    assert!(claim.starts_with("user-gpu-"), "{claim}");
    let object = format!("resourceclaim/{claim}");
    assert_eq!(k.field(&object, ".metadata.labels.made"), "from-template");
    k.run(&format!(
        "patch {object} --type=merge \
         -p '{{\"metadata\":{{\"finalizers\":[\"resource.kubernetes.io/delete-protection\"]}}}}'"
    ));
    k.run(&format!("patch {object} --subresource=status --type=merge -p '{ALLOCATION}'"));
    let uid = k.field("pod/user", ".metadata.uid");
    k.until(&object, "reserved for its pod", |claim| {
        (claim["status"]["reservedFor"][0]["uid"] == uid.as_str()).then_some(())
    });
    k.apply(SICK);
    k.event("user", "DeviceTaintManagerEviction");
    k.wait("delete", &object);
    k.run("delete resourceslice sick");
}
