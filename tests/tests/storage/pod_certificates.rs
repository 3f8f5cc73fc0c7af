//! Certificates of pods: a signer outside the cluster that answers requests, or refuses, and what pods see of that.

use crate::{inside, pod, until};
use cluster_tests::{Kubectl, Room, patience};
use serde_json::{Value, json};
use std::time::Instant;

const SIGNER: &str = "example.com/harbour";
const MOUNTS: &str = "[{name: papers, mountPath: /papers}]";

fn volume(sources: &[Value]) -> String {
    let sources: Vec<Value> = sources.iter().map(|one| json!({ "podCertificate": one })).collect();
    json!([{"name": "papers", "projected": {"sources": sources}}]).to_string()
}

/// A request of a pod that nobody answered yet, and its name: its PKCS#10 request lies in a file of that name.
fn request(k: &Kubectl, pod: &str) -> (Value, String) {
    let selected =
        format!("podcertificaterequests --field-selector spec.podName={pod},spec.signerName={SIGNER}");
    let request = k.until(&selected, "made", |request| {
        request["status"]["conditions"].as_array().is_none_or(Vec::is_empty).then(|| request.clone())
    });
    let name = request["metadata"]["name"].as_str().unwrap().to_owned();
    let stub = request["spec"]["stubPKCS10Request"].as_str().unwrap();
    let file = k.file(&format!("{name}.base64"), stub);
    k.sh(&format!("base64 -d {} > {name}.der", file.display()));
    (request, name)
}

/// What the signer does: a certificate for a day, in PEM, and the command that tells of it.
fn issue(k: &Kubectl, name: &str) -> (String, String) {
    let by = "-CA harbour.pem -CAkey harbour.key -set_serial 7 -days 1";
    k.sh(&format!("openssl x509 -req -inform DER -in {name}.der {by} -out {name}.pem 2>/dev/null"));
    let certificate = k.sh(&format!("cat {name}.pem"));
    let time = |which: &str| {
        let shown = k.sh(&format!("openssl x509 -in {name}.pem -noout -{which} -dateopt iso_8601"));
        shown.split_once('=').unwrap().1.replace(' ', "T")
    };
    let (from, until) = (time("startdate"), time("enddate"));
    let refresh = k.sh(&format!("date -u -d \"{from} + 12 hours\" +%Y-%m-%dT%H:%M:%SZ"));
    let status = json!({
        "conditions": [condition(k, "Issued", "AsAsked", "")],
        "certificateChain": certificate.clone() + "\n",
        "notBefore": from, "notAfter": until, "beginRefreshAt": refresh,
    });
    (certificate, patch(k, name, &status))
}

fn condition(k: &Kubectl, kind: &str, reason: &str, message: &str) -> Value {
    let now = k.sh("date -u +%Y-%m-%dT%H:%M:%SZ");
    json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now})
}

fn patch(k: &Kubectl, name: &str, status: &Value) -> String {
    let file = k.file(&format!("{name}.json"), &json!({ "status": status }).to_string());
    format!(
        "patch podcertificaterequest {name} --subresource=status --type=merge --patch-file {}",
        file.display()
    )
}

/// The signer's authority.
fn harbour(k: &Kubectl) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout harbour.key";
    k.sh(&format!("openssl req -x509 {key} -subj /CN=harbour -days 2 -out harbour.pem 2>/dev/null"));
}

/// Whether a key in a pod's file is the one that a certificate is of.
fn is_of_key(room: &Room, pod: &str, file: &str, name: &str) {
    let k = &room.kubectl;
    let key = k.file(&format!("{name}.key"), &inside(room, pod, &format!("cat {file}")));
    let of_key = k.sh(&format!("openssl pkey -in {} -pubout", key.display()));
    assert_eq!(of_key, k.sh(&format!("openssl x509 -in {name}.pem -noout -pubkey")));
}

pub(crate) fn certificates_of_pods(room: &Room) {
    let k = &room.kubectl;
    harbour(k);
    for key_type in ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"] {
        let name = key_type.to_lowercase();
        let source = json!({
            "signerName": SIGNER, "keyType": key_type, "maxExpirationSeconds": 90_000,
            "userAnnotations": {"example.com/course": "north"},
            "credentialBundlePath": "both.pem", "keyPath": "deep/key.pem", "certificateChainPath": "chain.pem",
        });
        k.apply(&pod(&name, MOUNTS, &volume(&[source]), ""));
        let (request, of) = request(k, &name);
        let spec = &request["spec"];
        assert_eq!(spec["podUID"].as_str().unwrap(), k.field(&format!("pod/{name}"), ".metadata.uid"));
        assert_eq!(spec["maxExpirationSeconds"], 90_000);
        assert_eq!(spec["unverifiedUserAnnotations"], json!({"example.com/course": "north"}));
        assert_eq!(request["metadata"]["ownerReferences"][0]["name"], name.as_str());
        let (certificate, patch) = issue(k, &of);
        k.run(&patch);
        k.wait("condition=Ready", &format!("pod/{name}"));
        assert_eq!(inside(room, &name, "cat /papers/chain.pem"), certificate);
        assert_eq!(
            inside(room, &name, "cat /papers/both.pem"),
            inside(room, &name, "cat /papers/deep/key.pem /papers/chain.pem")
        );
        is_of_key(room, &name, "/papers/deep/key.pem", &of);
        let row = k.run(&format!("get podcertificaterequest {of} --no-headers"));
        let node = spec["nodeName"].as_str().unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            [of.as_str(), &name, "default", node, SIGNER, "Issued", "example.com/course=north"]
        );
        let metrics = k.run(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics"));
        let counted = format!("\nkubelet_podcertificate_states{{signer_name=\"{SIGNER}\",state=\"fresh\"}} ");
        assert!(metrics.contains(&counted), "{metrics}");
        k.run(&format!("delete pod {name} --wait=false"));
    }
}

pub(crate) fn who_signs_for_pods(room: &Room) {
    let k = &room.kubectl;
    harbour(k);
    let ns = &k.namespace;
    let source = json!({"signerName": SIGNER, "keyType": "ED25519", "credentialBundlePath": "both.pem"});
    k.apply(&pod(
        "waits",
        MOUNTS,
        &volume(std::slice::from_ref(&source)),
        "securityContext: {runAsUser: 1000}",
    ));
    let (_, name) = request(k, "waits");
    let failed = "MountVolume.SetUp failed for volume \"papers\" : ";
    k.event_that_begins("waits", "FailedMount", failed);
    assert_eq!(k.field("pod/waits", ".status.phase"), "Pending");
    // Who may write the status signs for those signers that are his.
    k.run("create serviceaccount scribe");
    let scribe = format!("--as=system:serviceaccount:{ns}:scribe");
    let writes = "--verb=get,patch --resource=podcertificaterequests.certificates.k8s.io/status,podcertificaterequests.certificates.k8s.io";
    k.run(&format!("create role writes {writes}"));
    k.run(&format!("create rolebinding writes --role=writes --serviceaccount={ns}:scribe"));
    k.granted(&format!("patch podcertificaterequests --subresource=status {scribe}"));
    let (certificate, patch) = issue(k, &name);
    let said = k.refused(&format!("{patch} {scribe}"));
    let refusal = format!(
        "spec.signerName: Forbidden: User \"system:serviceaccount:{ns}:scribe\" is not permitted to \"sign\" for signer \"{SIGNER}\""
    );
    assert_eq!(said, format!("The PodCertificateRequest \"{name}\" is invalid: {refusal}"));
    let signs = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": format!("{ns}-signs")},
        "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": ["example.com/*"], "verbs": ["sign"]}],
    });
    k.apply(&signs.to_string());
    k.run(&format!(
        "create clusterrolebinding {ns}-signs --clusterrole={ns}-signs --serviceaccount={ns}:scribe"
    ));
    // kubectl does not ask about what is no resource, as signers are none.
    let end = Instant::now() + patience();
    while !k.output(&format!("{patch} {scribe}")).status.success() {
        assert!(Instant::now() < end, "never granted");
    }
    k.wait("condition=Ready", "pod/waits");
    until(room, "waits", &format!("grep -q {} /papers/both.pem", certificate.lines().nth(2).unwrap()));
    assert_eq!(inside(room, "waits", "stat -L -c \"%a %u\" /papers/both.pem"), "600 1000");
    let said = k.refused(&patch_denied(k, &name));
    let why = "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed";
    assert_eq!(said, format!("The PodCertificateRequest \"{name}\" is invalid: {why}"));

    // A refusal is for good.
    k.apply(&pod("denied", MOUNTS, &volume(std::slice::from_ref(&source)), ""));
    let (_, name) = request(k, "denied");
    k.run(&patch_denied(k, &name));
    let why = "reason=\"Unknown\", message=\"no \\\"such\\\" ship\"";
    assert_eq!(k.event("denied", "Denied"), format!("PodCertificateRequest {ns}/{name} was denied, {why}"));
    k.event_that_begins(
        "denied",
        "FailedMount",
        &format!("{failed}PodCertificateRequest was permanently denied: reason=\"Unknown\" message=\"no \\\"such\\\" ship\""),
    );
    assert_eq!(k.field("pod/denied", ".status.phase"), "Pending");

    // What could never be issued is no pod, and no request.
    let wrong = json!({"signerName": SIGNER, "keyType": "RSA2048"});
    let file = k.file("wrong.yaml", &pod("wrong", MOUNTS, &volume(&[wrong]), ""));
    let said = k.refused(&format!("create -f {}", file.display()));
    assert!(said.contains("podCertificate.keyType: Unsupported value: \"RSA2048\""), "{said}");
    assert!(said.contains("specify at least one of credentialBundlePath, keyPath, and certificateChainPath"));
}

fn patch_denied(k: &Kubectl, name: &str) -> String {
    patch(k, name, &json!({"conditions": [condition(k, "Denied", "Unknown", "no \"such\" ship")]}))
}
