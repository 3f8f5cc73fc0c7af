//! What a container may do, and what it is told of itself.

use cluster_tests::Room;
use cluster_tests::cluster::NODE;
use cluster_tests::manifests::shell;

/// A shell whose container has a security context.
fn with(name: &str, context: &str, more: &str) -> String {
    let container = format!("[sleep, infinity]\n    securityContext: {{{context}}}");
    shell(name, more).replace("[sleep, infinity]", &container)
}

pub(crate) fn has_the_rights_it_asks_for(room: &Room) {
    let k = &room.kubectl;
    let profiles = room.cluster.data().join("kubelet/seccomp");
    std::fs::create_dir_all(&profiles).unwrap();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(profiles.join("no-mkdir.json"), profile).unwrap();
    k.apply(
        &[
            with("bare", "capabilities: {drop: [ALL]}", ""),
            with("binds", "capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}", ""),
            with("stays", "runAsUser: 1000, allowPrivilegeEscalation: false", ""),
            with("rules", "privileged: true", ""),
            with("usual", "seccompProfile: {type: RuntimeDefault}", ""),
            with("local", "seccompProfile: {type: Localhost, localhostProfile: no-mkdir.json}", ""),
            with("free", "seccompProfile: {type: Unconfined}", ""),
        ]
        .concat(),
    );
    k.run("wait --for=condition=Ready pods --all --timeout=$LONG");
    let said = |pod: &str, what: &str| {
        let line = k.run(&format!("exec {pod} -- grep {what}: /proc/1/status"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for (pod, what, expected) in [
        ("bare", "CapEff", "0000000000000000"),
        ("bare", "CapBnd", "0000000000000000"),
        ("binds", "CapEff", "0000000000000400"),
        ("stays", "NoNewPrivs", "1"),
        ("free", "NoNewPrivs", "0"),
        ("usual", "Seccomp", "2"),
        ("local", "Seccomp", "2"),
        ("free", "Seccomp", "0"),
        ("rules", "Seccomp", "0"),
    ] {
        assert_eq!(said(pod, what), expected, "{what} of {pod}");
    }
    assert!(k.refused("exec local -- mkdir /x").contains("Operation not permitted"));
    k.run("exec free -- mkdir /x");
    // What the node's kernel tells only those that rule.
    let hidden = "for file in /proc/kcore /proc/keys /proc/timer_list; do test ! -e $file || cat $file; done; ls -A /sys/firmware";
    assert_eq!(k.run(&format!("exec free -- sh -c '{hidden}'")), "");
    assert!(
        k.refused("exec free -- dd if=/dev/null of=/proc/sys/kernel/domainname")
            .contains("Read-only file system")
    );
    let mount = "sh -c 'mkdir -p /m; mount -t tmpfs x /m'";
    let refused = k.refused(&format!("exec free -- {mount}"));
    assert!(refused.contains("denied") || refused.contains("permitted"), "{refused}");
    k.run(&format!("exec rules -- {mount}"));
    let devices = |pod: &str| k.run(&format!("exec {pod} -- ls /dev")).lines().count();
    assert!(devices("rules") > devices("free"), "a privileged container has the node's devices");
    // All that the server itself may do, and no less.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    assert_eq!(said("rules", "CapEff"), own);
}

pub(crate) fn is_of_the_groups_it_asks_for(room: &Room) {
    let k = &room.kubectl;
    let groups = |policy: &str| {
        format!(
            "securityContext: {{runAsUser: 1000, runAsGroup: 100, supplementalGroups: [3000], supplementalGroupsPolicy: {policy}}}"
        )
    };
    k.apply(&(shell("strict", &groups("Strict")) + &shell("merge", &groups("Merge"))));
    for pod in ["strict", "merge"] {
        k.wait("condition=Ready", &format!("pod/{pod}"));
        assert_eq!(k.run(&format!("exec {pod} -- sh -c 'id -u; id -G'")), "1000\n100 3000");
        let user = k.field(&format!("pod/{pod}"), ".status.containerStatuses[0].user.linux");
        let user: serde_json::Value = serde_json::from_str(&user).unwrap();
        let expected = serde_json::json!({"uid": 1000, "gid": 100, "supplementalGroups": [100, 3000]});
        assert_eq!(user, expected, "{pod}");
    }
}

pub(crate) fn sees_all_of_proc_among_its_own_users(room: &Room) {
    let k = &room.kubectl;
    let supported =
        k.field(&format!("node/{NODE}"), ".status.runtimeHandlers[?(@.name==\"\")].features.userNamespaces");
    let refused = k.script("kubectl -n $NS apply -f -", &with("masked", "procMount: Unmasked", ""));
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("`hostUsers` must be false to use `Unmasked`"), "{refused}");
    if supported == "true" {
        k.apply(&with("unmasked", "procMount: Unmasked", "hostUsers: false"));
        k.wait("condition=Ready", "pod/unmasked");
        assert_eq!(k.run("exec unmasked -- sh -c 'grep -c \" /proc/\" /proc/mounts || true'"), "0");
    }
}

pub(crate) fn is_confined_where_the_kernel_can(room: &Room) {
    let k = &room.kubectl;
    k.apply(&with("confined", "appArmorProfile: {type: Localhost, localhostProfile: absent-profile}", ""));
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let mounted = std::path::Path::new("/sys/kernel/security/apparmor").exists();
    if mounted && enabled.is_ok_and(|enabled| enabled.trim() == "Y") {
        k.until("pod/confined", "it cannot start", |pod| {
            (pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerError")
                .then_some(())
        });
        assert!(k.event("confined", "Failed").contains("apparmor profile not found absent-profile"));
        k.apply(&with("usual", "appArmorProfile: {type: RuntimeDefault}", ""));
        k.wait("condition=Ready", "pod/usual");
        let current = "cat /proc/self/attr/apparmor/current";
        assert_eq!(k.run(&format!("exec usual -- {current}")), "tiphys-default (enforce)");
        assert_eq!(k.run("exec usual -- cat /proc/1/attr/apparmor/current"), "tiphys-default (enforce)");
        k.apply(&with("free", "appArmorProfile: {type: Unconfined}", ""));
        k.wait("condition=Ready", "pod/free");
        assert_eq!(k.run(&format!("exec free -- {current}")), "unconfined");
        return;
    }
    k.until("pod/confined", "refused", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
    assert_eq!(k.field("pod/confined", ".status.reason"), "AppArmor");
    let message = k.field("pod/confined", ".status.message");
    assert!(message.contains("Cannot enforce AppArmor: "), "{message}");
}

pub(crate) fn is_called_as_it_asks(room: &Room) {
    let k = &room.kubectl;
    k.apply(
        &(shell("full", "hostname: argo\n  subdomain: crew\n  setHostnameAsFQDN: true")
            + &shell("other", "hostnameOverride: argo.colchis.example")),
    );
    k.wait("condition=Ready", "pod/full");
    k.wait("condition=Ready", "pod/other");
    assert_eq!(k.run("exec full -- hostname"), format!("argo.crew.{}.svc.cluster.local", k.namespace));
    assert_eq!(k.run("exec other -- hostname"), "argo.colchis.example");
}
