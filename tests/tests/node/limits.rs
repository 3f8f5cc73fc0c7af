//! What a KubeletConfiguration limits, and who knows the credentials of the node.

use cluster_tests::Room;
use cluster_tests::cluster::NODE;
use cluster_tests::manifests::shell;
use cluster_tests::registry::{ADDRESS, PASSWORD, Registry, USER};
use std::os::unix::fs::PermissionsExt;

/// `podPidsLimit`: a pod that forks without end cannot have more processes than it may.
pub(crate) fn limits_the_processes_of_a_pod(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("forks", ""));
    k.wait("condition=Ready", "pod/forks");
    let script = "i=0; while [ $i -lt 200 ]; do sleep 60 >/dev/null 2>&1 & i=$((i+1)); done 2>&1";
    let said = k.refused(&format!("exec forks -- sh -c '{script}'"));
    assert!(said.contains("exit code 2"), "{said}");
    // The pod itself is well, and others have room.
    k.apply(&shell("other", ""));
    k.wait("condition=Ready", "pod/other");
    assert_eq!(k.field("pod/forks", ".status.phase"), "Running");
}

/// `crashLoopBackOff.maxContainerRestartPeriod`: the fourth start comes within seconds.
pub(crate) fn starts_again_soon(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("crashes", "").replace("[sleep, infinity]", "[sh, -c, 'exit 1']"));
    k.until("pod/crashes", "started four times", |pod| {
        let count = pod["status"]["containerStatuses"][0]["restartCount"].as_u64()?;
        (count >= 3).then_some(())
    });
    let told = k.event("crashes", "BackOff");
    assert!(told.contains("Back-off restarting failed container sh in pod crashes_"), "{told}");
}

/// A registry with a password, which a program of the node knows.
pub(crate) fn asks_credential_providers(room: &Room) {
    let (k, base) = (&room.kubectl, room.cluster.base().join("credentials"));
    let registry = Registry::start(&room.cluster.net, &base, "crew/argo", "1.0");
    let image = format!("{ADDRESS}/crew/argo:1.0");
    let pod = |name: &str| shell(name, "").replace("localhost/busybox:debian12", &image);
    k.apply(&pod("unknown"));
    let refused = k.event("unknown", "Failed");
    assert!(refused.contains("may require authorization"), "{refused}");
    k.run("delete pod unknown --now");

    let bin = base.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let asked = base.join("asked");
    let answer = format!(
        r#"{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","auth":{{"{ADDRESS}":{{"username":"{USER}","password":"{PASSWORD}"}}}}}}"#
    );
    let script = format!("#!/bin/sh\ncat >> {}\nprintf '%s' '{answer}'\n", asked.display());
    std::fs::write(bin.join("purser"), script).unwrap();
    std::fs::set_permissions(bin.join("purser"), PermissionsExt::from_mode(0o755)).unwrap();
    let config = base.join("providers.yaml");
    std::fs::write(&config, format!("kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders: [{{name: purser, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: ['{ADDRESS}/crew'], defaultCacheDuration: 1h, tokenAttributes: {{serviceAccountTokenAudience: purser, cacheType: ServiceAccount, requireServiceAccount: true}}}}]\n")).unwrap();
    // A node may ask for tokens of this audience for no volume of a pod.
    k.apply("{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: purser}, rules: [{apiGroups: [''], resources: [purser], verbs: [request-serviceaccounts-token-audience]}]}");
    k.run(&format!("create clusterrolebinding purser --clusterrole=purser --user=system:node:{NODE}"));
    k.granted(&format!(
        "request-serviceaccounts-token-audience purser --as=system:node:{NODE} --as-group=system:nodes"
    ));
    room.cluster.serve_with(&[
        format!("--image-credential-provider-config={}", config.display()),
        format!("--image-credential-provider-bin-dir={}", bin.display()),
    ]);
    k.apply(&pod("known"));
    k.wait("condition=Ready", "pod/known");
    assert!(k.event("known", "Pulled").starts_with(&format!("Successfully pulled image \"{image}\" in ")));
    k.apply(&pod("again"));
    k.wait("condition=Ready", "pod/again");
    let present =
        format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
    assert_eq!(k.event("again", "Pulled").trim_end(), present);
    let asked = std::fs::read_to_string(asked).unwrap();
    let first = format!(
        r#"{{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"{ADDRESS}/crew/argo","serviceAccountToken":"#
    );
    assert!(asked.starts_with(&first), "{asked}");
    k.run("delete clusterrole,clusterrolebinding purser");
    room.cluster.serve_with(&[]);
    drop(registry);
}
