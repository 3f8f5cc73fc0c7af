//! Authorities that the cluster publishes: who may put them up, and what pods see of them.

use crate::{inside, pod, start, until};
use cluster_tests::{Kubectl, Room, patience};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;

/// Trust bundles and certificates of pods are beta, and off unless they are asked for.
pub(crate) const FLAGS: &[&str] = &[
    "--feature-gates=ClusterTrustBundle=true,ClusterTrustBundleProjection=true,PodCertificateRequest=true",
    "--runtime-config=certificates.k8s.io/v1beta1=true",
    // Who signs for pods is asked for his right whether or not this one runs.
    "--disable-admission-plugins=CertificateSigning",
];

/// The certificate of a new authority.
fn authority(k: &Kubectl, name: &str) -> String {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout /dev/null";
    let is_one = "-addext basicConstraints=critical,CA:TRUE";
    k.sh(&format!("openssl req -x509 {key} -subj /CN={name} -days 2 {is_one} 2>/dev/null"))
}

fn bundle(name: &str, signer: &str, crew: &str, certificates: &[&str]) -> String {
    let bundle = json!({
        "apiVersion": "certificates.k8s.io/v1beta1",
        "kind": "ClusterTrustBundle",
        "metadata": {"name": name, "labels": {"crew": crew}},
        "spec": {"signerName": signer, "trustBundle": certificates.join("\n")},
    });
    bundle.to_string()
}

/// The certificates in a file of a pod.
fn certificates(room: &Room, pod: &str, file: &str) -> BTreeSet<String> {
    let text = inside(room, pod, &format!("cat {file}"));
    let end = "-----END CERTIFICATE-----";
    text.split_inclusive(end).map(|one| one.trim().to_owned()).collect()
}

fn volume(sources: &Value) -> String {
    let sources: Vec<Value> = sources.as_array().unwrap().clone();
    let sources: Vec<Value> = sources.into_iter().map(|one| json!({ "clusterTrustBundle": one })).collect();
    json!([{"name": "trust", "projected": {"sources": sources}}]).to_string()
}

const MOUNTS: &str = "[{name: trust, mountPath: /trust}]";

pub(crate) fn trust_bundles(room: &Room) {
    let k = &room.kubectl;
    let [one, two, three, four] = ["one", "two", "three", "four"].map(|name| authority(k, name));
    k.apply(&bundle("anchors", "", "", &[&one]));
    k.apply(&bundle("example.com:oracle:a", "example.com/oracle", "argo", &[&one, &two]));
    k.apply(&bundle("example.com:oracle:b", "example.com/oracle", "argo", &[&three, "of Delphi", &two]));
    k.apply(&bundle("example.com:oracle:c", "example.com/oracle", "other", &[&four]));
    let argo = json!({"matchLabels": {"crew": "argo"}});
    let sources = json!([
        {"name": "anchors", "path": "named.pem"},
        {"signerName": "example.com/oracle", "labelSelector": argo, "path": "deep/argo.pem"},
        {"signerName": "example.com/oracle", "labelSelector": {}, "path": "all.pem"},
        {"name": "absent", "optional": true, "path": "absent.pem"},
        {"signerName": "example.com/oracle", "optional": true, "path": "nothing-selected.pem"},
        {"signerName": "kubernetes.io/kube-apiserver-serving", "labelSelector": {}, "path": "server.pem"},
    ]);
    start(room, "a", MOUNTS, &volume(&sources), "");
    assert_eq!(inside(room, "a", "cat /trust/named.pem"), one);
    let of = |all: &[&String]| all.iter().map(|one| (*one).clone()).collect::<BTreeSet<_>>();
    assert_eq!(certificates(room, "a", "/trust/deep/argo.pem"), of(&[&one, &two, &three]));
    assert_eq!(certificates(room, "a", "/trust/all.pem"), of(&[&one, &two, &three, &four]));
    assert_eq!(
        inside(
            room,
            "a",
            "stat -L -c \"%n %s %a\" /trust/absent.pem /trust/nothing-selected.pem; stat -L -c %a /trust/all.pem"
        ),
        "/trust/absent.pem 0 644\n/trust/nothing-selected.pem 0 644\n644"
    );
    // What the cluster says of its own API server is what pods have trusted all along.
    until(
        room,
        "a",
        "[ \\\"\\$(cat /trust/server.pem)\\\" = \\\"\\$(cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt)\\\" ]",
    );

    // Changes are seen by who runs, as soon as they are made.
    k.apply(&bundle("anchors", "", "", &[&two]));
    let line = |certificate: &str| certificate.lines().nth(3).unwrap().to_owned();
    until(room, "a", &format!("grep -q {} /trust/named.pem", line(&two)));
    assert_eq!(inside(room, "a", "cat /trust/named.pem"), two);
    k.run("delete clustertrustbundle example.com:oracle:b");
    until(room, "a", &format!("! grep -q {} /trust/deep/argo.pem", line(&three)));
    assert_eq!(certificates(room, "a", "/trust/deep/argo.pem"), of(&[&one, &two]));
    k.run("label clustertrustbundle example.com:oracle:c --overwrite crew=argo");
    until(room, "a", &format!("grep -q {} /trust/deep/argo.pem", line(&four)));

    // A file with authorities is for the pod's own user, if that is one.
    let sources = json!([{"name": "anchors", "path": "named.pem"}]);
    start(room, "b", MOUNTS, &volume(&sources), "securityContext: {runAsUser: 1000}");
    assert_eq!(inside(room, "b", "stat -L -c \"%a %u\" /trust/named.pem"), "600 1000");
}

pub(crate) fn absent_trust_bundles(room: &Room) {
    let k = &room.kubectl;
    let sources = json!([
        {"name": "not-there", "path": "named.pem"},
        {"signerName": "example.com/siren", "labelSelector": {}, "path": "siren.pem"},
    ]);
    k.apply(&pod("waits", MOUNTS, &volume(&sources), ""));
    let named =
        "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"not-there\" not found";
    let selected = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
    assert_eq!(
        k.event("waits", "FailedMount"),
        format!("MountVolume.SetUp failed for volume \"trust\" : [{named}, {selected}]")
    );
    let one = authority(k, "one");
    k.apply(&bundle("not-there", "", "", &[&one]));
    k.event_that_begins(
        "waits",
        "FailedMount",
        &format!("MountVolume.SetUp failed for volume \"trust\" : {selected}"),
    );
    assert_eq!(k.field("pod/waits", ".status.phase"), "Pending");
    k.apply(&bundle("example.com:siren:song", "example.com/siren", "", &[&one]));
    k.wait("condition=Ready", "pod/waits");
    assert_eq!(inside(room, "waits", "cat /trust/named.pem"), one);
}

pub(crate) fn who_publishes_trust_bundles(room: &Room) {
    let k = &room.kubectl;
    let one = authority(k, "one");
    let ns = &k.namespace;
    k.run("create serviceaccount purser");
    let purser = format!("--as=system:serviceaccount:{ns}:purser --as-group=system:serviceaccounts");
    let reads = format!("list clustertrustbundles {purser}");
    k.granted(&reads);
    // Who may write bundles may put up what nobody signs for.
    let verbs = "--verb=create,update,patch,delete --resource=clustertrustbundles.certificates.k8s.io";
    k.run(&format!("create clusterrole {ns}-writes {verbs}"));
    k.run(&format!(
        "create clusterrolebinding {ns}-writes --clusterrole={ns}-writes --serviceaccount={ns}:purser"
    ));
    k.granted(&format!("delete clustertrustbundles {purser}"));
    k.feed(&format!("create -f - {purser}"), &bundle("unsigned", "", "", &[&one]));
    // In a signer's name speaks who may attest for it, whatever is changed but the owners.
    let of_signer = bundle("example.com:purser:x", "example.com/purser", "", &[&one]);
    let file = k.file("bundle.json", &of_signer);
    let create = format!("create -f {} {purser}", file.display());
    let refusal = |name: &str| {
        format!(
            "clustertrustbundles.certificates.k8s.io \"{name}\" is forbidden: user not permitted to attest for signerName \"example.com/purser\""
        )
    };
    let said = k.refused(&create);
    let name = "example.com:purser:x";
    assert_eq!(
        said,
        format!(
            "Error from server (Forbidden): error when creating \"{}\": {}",
            file.display(),
            refusal(name)
        )
    );
    k.apply(&of_signer);
    let said = k.refused(&format!("label clustertrustbundle {name} color=red {purser}"));
    assert_eq!(said, format!("Error from server (Forbidden): {}", refusal(name)));
    k.run(&format!("delete clustertrustbundle {name} {purser}"));
    let attests = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": format!("{ns}-attests")},
        "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": ["example.com/*"], "verbs": ["attest"]}],
    });
    k.apply(&attests.to_string());
    k.run(&format!(
        "create clusterrolebinding {ns}-attests --clusterrole={ns}-attests --serviceaccount={ns}:purser"
    ));
    // kubectl does not ask about what is no resource, as signers are none.
    let end = Instant::now() + patience();
    while !k.output(&create).status.success() {
        assert!(Instant::now() < end, "never granted");
    }
    assert_eq!(
        k.run(&format!("get clustertrustbundle {name} unsigned --no-headers"))
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>(),
        [format!("{name} example.com/purser"), "unsigned <none>".to_owned()]
    );

    for (wrong, why) in [
        (
            bundle("anchors-x", "example.com/oracle", "", &[&one]),
            "metadata.name: Invalid value: \"anchors-x\": ClusterTrustBundle for signerName example.com/oracle must be named with prefix example.com:oracle:",
        ),
        (
            bundle("anchors-x", "", "", &[&one, &one]),
            "spec.trustBundle: Invalid value: \"<value omitted>\": duplicate trust anchor (indices [0 1])",
        ),
    ] {
        let file = k.file("wrong.json", &wrong);
        let said = k.refused(&format!("create -f {}", file.display()));
        assert_eq!(said, format!("The ClusterTrustBundle \"anchors-x\" is invalid: {why}"));
    }

    // The API server's own authority is published, and nothing else in its name.
    const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
    let of_server = format!("clustertrustbundles --field-selector spec.signerName={SIGNER}");
    let published = |not: &str| {
        k.until(&of_server, "published", |bundle| {
            let uid = bundle["metadata"]["uid"].as_str()?;
            (uid != not).then(|| bundle.clone())
        })
    };
    let first = published("");
    let root = k.field("configmap/kube-root-ca.crt", ".data.ca\\.crt");
    assert_eq!(first["spec"]["trustBundle"].as_str().unwrap().trim_end(), root);
    let name = first["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("kubernetes.io:kube-apiserver-serving:"), "{name}");
    k.run(&format!("delete clustertrustbundle {name}"));
    let again = published(first["metadata"]["uid"].as_str().unwrap());
    assert_eq!(again["metadata"]["name"], name.as_str());
    let stale = "kubernetes.io:kube-apiserver-serving:stale";
    k.feed("create -f -", &bundle(stale, SIGNER, "", &[&one]));
    k.wait("delete", &format!("clustertrustbundle/{stale}"));
    let metrics = k.run("get --raw /metrics");
    assert!(metrics.contains("clustertrustbundle_publisher_sync_total{code=\"200\"}"));
}
