//! A control plane as a user meets it: the real binary, driven by real kubectl, killed and started again.
#![allow(clippy::unwrap_used)]

mod server;

use server::{Cluster, start};
use std::time::{Duration, Instant};

#[test]
fn kubectl_works_and_nothing_is_lost() {
    let mut cluster = Cluster::new();
    for version in ["1.36.4", "1.37.1"] {
        let run = |arguments: &[&str]| cluster.run(version, arguments);
        assert!(run(&["version"]).contains("Server Version: v1.36.2"));
        let namespaces = run(&["get", "namespaces", "-o", "name"]);
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            assert!(namespaces.contains(&format!("namespace/{name}")), "{namespaces}");
        }
        let name = format!("cm-{}", version.replace('.', "-"));
        run(&["create", "configmap", &name, "--from-literal=a=b"]);
        run(&["label", "configmap", &name, "x=y"]);
        assert_eq!(
            run(&["get", "configmap", "-l", "x=y", "-o", "jsonpath={.items[*].data.a}"]).split(' ').next(),
            Some("b")
        );
        run(&["annotate", "configmap", &name, "note=1"]);
        run(&["patch", "configmap", &name, "--type=merge", "-p", r#"{"data":{"c":"d"}}"#]);
        assert_eq!(run(&["get", "configmap", &name, "-o", "jsonpath={.data}"]), r#"{"a":"b","c":"d"}"#);
        assert_eq!(run(&["auth", "can-i", "delete", "pods"]), "yes");
        assert!(run(&["explain", "pod.spec.containers"]).contains("<[]Container>"));
        assert!(run(&["api-resources"]).contains("deployments"));
    }
    // A service account may do what it is granted, and no more.
    cluster.run("1.36.4", &["create", "serviceaccount", "reader"]);
    let token = cluster.run("1.36.4", &["create", "token", "reader"]);
    // Without --kubeconfig's certificate: kubectl prefers it over a token.
    let server = format!("https://127.0.0.1:{}", cluster.port);
    let ca = cluster.data().join("pki/ca.crt");
    let as_reader = |arguments: &[&str]| {
        let mut all = vec![
            "--kubeconfig=/dev/null",
            "--server",
            &server,
            "--certificate-authority",
            ca.to_str().unwrap(),
            "--token",
            &token,
        ];
        all.extend_from_slice(arguments);
        cluster.try_run("1.36.4", &all)
    };
    let (ok, text) = as_reader(&["get", "configmaps", "-n", "default"]);
    assert!(!ok);
    assert_eq!(
        text,
        "Error from server (Forbidden): configmaps is forbidden: User \"system:serviceaccount:default:reader\" cannot list \
         resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    cluster.run(
        "1.36.4",
        &["create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=default:reader"],
    );
    // The authorizer learns of it by its own watch.
    let end = Instant::now() + Duration::from_secs(30);
    while !as_reader(&["get", "configmaps", "-n", "default"]).0 {
        assert!(Instant::now() < end, "the grant never counted");
    }
    assert!(!as_reader(&["get", "secrets", "-n", "default"]).0);
    let (_, forged) = cluster.try_run(
        "1.36.4",
        &[
            "--kubeconfig=/dev/null",
            "--server",
            &server,
            "--certificate-authority",
            ca.to_str().unwrap(),
            "--token",
            "forged",
            "get",
            "ns",
        ],
    );
    assert!(forged.contains("Unauthorized"), "{forged}");

    assert_eq!(
        cluster.refused(&["get", "configmap", "none"]),
        "Error from server (NotFound): configmaps \"none\" not found"
    );
    assert!(
        cluster
            .refused(&["delete", "namespace", "kube-system"])
            .contains("this namespace may not be deleted")
    );
    assert!(
        cluster
            .refused(&["create", "configmap", "x", "-n", "nowhere"])
            .contains("namespaces \"nowhere\" not found")
    );

    let before = cluster.run("1.36.4", &["get", "configmaps,roles,clusterroles", "-A", "-o", "json"]);
    cluster.server.kill().unwrap();
    cluster.server.wait().unwrap();
    cluster.server = start(&cluster.data(), cluster.port);
    cluster.ready();
    assert_eq!(cluster.run("1.36.4", &["get", "configmaps,roles,clusterroles", "-A", "-o", "json"]), before);
}

#[test]
fn services_take_what_the_flags_give() {
    const V: &str = "1.36.4";
    let mut cluster = Cluster::with(&[
        "--service-cidr=10.96.0.0/16,fd00:96::/108",
        "--service-node-port-range=31000-31001",
        "--kubernetes-service-node-port=31001",
        // What hardened manifests say.
        "--profiling=false",
        "--enable-aggregator-routing=true",
    ]);
    let get = |cluster: &Cluster, what: &[&str], path: &str| {
        cluster.run(V, &[&["get"], what, &["-o", &format!("jsonpath={path}")]].concat())
    };
    let cidrs = |cluster: &Cluster| get(cluster, &["servicecidr", "kubernetes"], "{.spec.cidrs}");
    assert_eq!(cidrs(&cluster), r#"["10.96.0.0/16","fd00:96::/108"]"#);
    let own = "{.spec.type} {.spec.clusterIPs} {.spec.ports[0].nodePort}";
    assert_eq!(get(&cluster, &["service", "kubernetes"], own), r#"NodePort ["10.96.0.1"] 31001"#);
    for (name, more, families) in [
        ("plain", "", "IPv4"),
        ("six", "ipFamilies: [IPv6], ", "IPv6"),
        ("prefers", "ipFamilyPolicy: PreferDualStack, ", "IPv4 IPv6"),
        ("requires", "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6], ", "IPv6 IPv4"),
    ] {
        let file = cluster.directory.path().join("service.yaml");
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{{more}ports: [{{port: 80}}]}}}}"
        );
        std::fs::write(&file, service).unwrap();
        cluster.run(V, &["create", "-f", file.to_str().unwrap()]);
        assert_eq!(get(&cluster, &["service", name], "{.spec.ipFamilies[*]}"), families, "{name}");
        let ips = get(&cluster, &["service", name], "{.spec.clusterIPs[*]}");
        for (family, ip) in families.split(' ').zip(ips.split(' ')) {
            let range = if family == "IPv4" { "10.96." } else { "fd00:96::" };
            assert!(ip.starts_with(range), "{name}: {ips}");
            assert_eq!(
                get(&cluster, &["ipaddress", ip], "{.spec.parentRef.name}"),
                name,
                "each address has its object"
            );
        }
        assert_eq!(ips.split(' ').count(), families.split(' ').count(), "{name}: {ips}");
    }
    // The second address comes and goes with the policy.
    let policy = |policy: &str| format!(r#"{{"spec":{{"ipFamilyPolicy":"{policy}"}}}}"#);
    cluster.run(V, &["patch", "service", "plain", "-p", &policy("RequireDualStack")]);
    let second = get(&cluster, &["service", "plain"], "{.spec.clusterIPs[1]}");
    assert!(second.starts_with("fd00:96::"), "{second}");
    cluster.run(V, &["patch", "service", "plain", "-p", &policy("SingleStack")]);
    assert_eq!(get(&cluster, &["service", "plain"], "{.spec.ipFamilies}"), r#"["IPv4"]"#);
    assert!(cluster.refused(&["get", "ipaddress", &second]).contains("not found"));
    let node_port =
        |name: &str, port: &str| ["create", "service", "nodeport", name, "--tcp=80", port].map(str::to_owned);
    let run =
        |cluster: &Cluster, arguments: [String; 6]| cluster.try_run(V, &arguments.each_ref().map(|a| &**a));
    let (made, said) = run(&cluster, node_port("low", "--node-port=30000"));
    assert!(!made && said.contains("The range of valid ports is 31000-31001"), "{said}");
    let (made, said) = run(&cluster, node_port("one", "--node-port=0"));
    assert!(made, "{said}");
    assert_eq!(get(&cluster, &["service", "one"], "{.spec.ports[0].nodePort}"), "31000");
    let (made, said) = run(&cluster, node_port("none", "--node-port=0"));
    assert!(!made && said.contains("range is full"), "{said}");

    // Started anew with other flags: ports outside the new range stay with who has them.
    cluster.server.kill().unwrap();
    cluster.server.wait().unwrap();
    let flags = ["--service-cidr=10.96.0.0/16,fd00:96::/108", "--service-node-port-range=31001+1"];
    cluster.server = server::start_with(&cluster.data(), cluster.port, &flags);
    cluster.ready();
    let (made, said) = run(&cluster, node_port("two", "--node-port=0"));
    assert!(made, "{said}");
    assert_eq!(get(&cluster, &["service", "two"], "{.spec.ports[0].nodePort}"), "31002", "31001 is taken");
    assert_eq!(get(&cluster, &["service", "one"], "{.spec.ports[0].nodePort}"), "31000");

    for (flags, why) in [
        (["--service-node-port-range=9-8"], "end port cannot be less than start port: 9-8"),
        (["--service-cidr=10.0.0.0/8,10.1.0.0/16"], "are of one IP family"),
        (
            ["--kubernetes-service-node-port=80"],
            "kubernetes service port range 30000-32767 doesn't contain 80",
        ),
        (["--profiling"], "invalid value 'true' for '--profiling[=<PROFILING>]'"),
        (["--watch-cache-sizes=pods#0"], "a resource is always served from memory"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = server::start_with(directory.path(), cluster.port, &flags).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{flags:?}: {said}");
    }
}

#[test]
fn a_cluster_gets_a_second_range_of_addresses() {
    let mut cluster = Cluster::with(&["--service-cidr=10.96.0.0/16"]);
    let get = |cluster: &Cluster| {
        cluster.run("1.36.4", &["get", "servicecidr", "kubernetes", "-o", "jsonpath={.spec.cidrs}"])
    };
    assert_eq!(get(&cluster), r#"["10.96.0.0/16"]"#);
    cluster.server.kill().unwrap();
    cluster.server.wait().unwrap();
    cluster.server =
        server::start_with(&cluster.data(), cluster.port, &["--service-cidr=10.96.0.0/16,fd00:96::/108"]);
    cluster.ready();
    assert_eq!(get(&cluster), r#"["10.96.0.0/16","fd00:96::/108"]"#);
}
