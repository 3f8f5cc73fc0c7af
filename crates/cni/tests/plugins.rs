//! A chain of plugins, which here are shell scripts that write down how they were called.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cni::{Config, PodNetwork, PortMapping, Protocol, Sandbox};

fn plugin(dir: &Path, name: &str, body: &str) {
    let path = dir.join(name);
    let script = format!(
        "#!/bin/sh\nin=$(cat)\necho \"{name} $CNI_COMMAND $CNI_CONTAINERID $CNI_ARGS $in\" >>{}/log\n{body}\n",
        dir.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn root_a_chain_is_run_forwards_and_undone_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, conf) = (dir.path().join("bin"), dir.path().join("conf"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&conf).unwrap();
    let config = Config {
        conf_dir: conf.clone(),
        bin_dirs: vec![bin.clone()],
        ..Config::new(dir.path().join("state"))
    };
    let result =
        r#"[ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"10.9.8.7/24"}]}'"#;
    plugin(&bin, "first", result);
    plugin(&bin, "second", result);
    std::fs::write(conf.join("05-broken.conflist"), "{").unwrap();
    let list = r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"first","x":1},{"type":"second","capabilities":{"portMappings":true}}]}"#;
    std::fs::write(conf.join("10-net.conflist"), list).unwrap();

    let network = PodNetwork::open(config.clone()).await.unwrap();
    network.status().await.unwrap();
    let sandbox = Sandbox {
        id: "box".into(),
        namespace: "ns".into(),
        name: "pod".into(),
        uid: "u".into(),
        netns: dir.path().join("netns"),
        port_mappings: vec![PortMapping {
            protocol: Protocol::Tcp,
            host_port: 8080,
            container_port: 80,
            host_ip: None,
        }],
    };
    let ips = network.setup(sandbox.clone()).await.unwrap();
    assert_eq!(ips.0, ["10.9.8.7".parse::<std::net::IpAddr>().unwrap()]);
    drop(network);
    // The result is cached: a second setup runs nothing, even after a restart and another configuration.
    let network = PodNetwork::open(config).await.unwrap();
    std::fs::write(conf.join("10-net.conflist"), list.replace("\"first\"", "\"third\"")).unwrap();
    assert_eq!(network.setup(sandbox.clone()).await.unwrap(), ips);
    network.teardown("box").await.unwrap();
    network.teardown("box").await.unwrap();

    let log = std::fs::read_to_string(bin.join("log")).unwrap();
    let calls: Vec<_> = log.lines().map(|l| l.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "first STATUS ",
        "second STATUS ",
        "first ADD box",
        "second ADD box",
        "second DEL box",
        "first DEL box",
    ];
    assert_eq!(calls, expected);
    let args =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=box;K8S_POD_UID=u";
    let second = log.lines().find(|l| l.starts_with("second ADD")).unwrap();
    for part in [
        args,
        r#""prevResult":{"#,
        r#""portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]"#,
        r#""name":"net""#,
    ] {
        assert!(second.contains(part), "{part}\n{second}");
    }

    plugin(
        &bin,
        "third",
        r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":11,"msg":"no room","details":"at all"}'; exit 1; }"#,
    );
    let error = network.setup(sandbox).await.unwrap_err();
    assert_eq!(error.to_string(), "plugin: plugin type=\"third\" failed (ADD): no room; at all");
    assert_eq!(network.ips("box"), None);
}
