//! Images as volumes, and user namespaces over them.

use crate::node::{Node, eventually, layered_archive};
use cri::Code;
use cri::v1::*;

fn volume(path: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(ImageSpec { image: "content:1".into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

async fn with_content() -> Node {
    let node = Node::new().await;
    let lower: &[(&str, &str)] = &[("data/old", "old"), ("data/shared", "below"), ("top", "top")];
    let upper: &[(&str, &str)] = &[("data/new", "new"), ("data/shared", "above"), ("data/.wh.old", "")];
    let archive = layered_archive("content:1", &[lower, upper]);
    let images = node.runtime.images();
    let import = move || images.import_stream(&archive[..], &Default::default()).map(drop);
    tokio::task::spawn_blocking(import).await.unwrap().unwrap();
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn root_image_volumes() {
    let node = with_content().await;
    let pod = node.run_pod(node.pod("volumes")).await;
    let mut config = node.container("main", "sleep 1000");
    config.mounts = vec![volume("/whole", ""), volume("/part", "data"), volume("/file", "data/shared")];
    let id = node.start(&pod, config).await;
    let script = "cat /whole/top /whole/data/shared /part/new /file; ls /part; echo x > /whole/y";
    let (code, output) = node.exec(&id, script).await;
    assert_eq!(
        (code, output.as_str()),
        (1, "topabovenewabovenew\nshared\nsh: can't create /whole/y: Read-only file system\n")
    );
    let status = node.status(&id).await;
    let known = node.runtime.images().find("content:1").unwrap().id.to_string();
    assert!(status.mounts.iter().all(|mount| mount.image.as_ref().unwrap().image_ref == known));

    // What is mounted stays, whatever becomes of the image's name.
    let images = node.runtime.images();
    tokio::task::spawn_blocking(move || images.remove("content:1").unwrap()).await.unwrap();
    assert_eq!(node.exec(&id, "cat /whole/top").await, (0, "top".into()));

    let refused = async |mount: Mount| {
        let mut config = node.container("refused", "sleep 1000");
        config.mounts = vec![mount];
        node.create(&pod, config).await.unwrap_err()
    };
    assert_eq!(refused(volume("/gone", "")).await.code, Code::NotFound);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_image_volumes_refuse() {
    let node = with_content().await;
    let pod = node.run_pod(node.pod("refuse")).await;
    for (mount, code, part) in [
        (volume("/v", "absent"), Code::NotFound, "subpath \"absent\""),
        (volume("/v", "../etc"), Code::InvalidArgument, "'..'"),
        (Mount { readonly: false, ..volume("/v", "") }, Code::InvalidArgument, "must be read-only"),
        (Mount { host_path: "/etc".into(), ..volume("/v", "") }, Code::InvalidArgument, "no host path"),
    ] {
        let mut config = node.container("main", "sleep 1000");
        config.mounts = vec![mount];
        let error = node.create(&pod, config).await.unwrap_err();
        assert!(error.code == code && error.message.contains(part), "{error}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_image_volumes_in_a_user_namespace() {
    let node = with_content().await;
    let status = node.runtime_status().await;
    let features = status.runtime_handlers[0].features.unwrap();
    if !features.user_namespaces {
        println!("skipped: the probe found no idmapped mounts here");
        return node.finish().await;
    }
    let maps = vec![IdMapping { host_id: 200_000, container_id: 0, length: 65536 }];
    let users = UserNamespace { mode: NamespaceMode::Pod.into(), uids: maps.clone(), gids: maps };
    let options = NamespaceOption {
        pid: NamespaceMode::Container.into(),
        userns_options: Some(users),
        ..Default::default()
    };
    let mut pod = node.pod("users");
    let security =
        LinuxSandboxSecurityContext { namespace_options: Some(options.clone()), ..Default::default() };
    pod.linux.as_mut().unwrap().security_context = Some(security);
    let pod = node.run_pod(pod).await;
    let script = "stat -c %u /whole/top /part/new /bin/busybox; tr -s ' ' < /proc/self/uid_map; sleep 1000";
    let mut config = node.container("main", script);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options);
    config.mounts = vec![volume("/whole", ""), volume("/part", "data")];
    node.start(&pod, config).await;
    let log = node.logs().join("main.log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("its files belong to its root", || said().lines().count() == 4).await;
    let lines: Vec<String> = said().lines().map(|line| line.rsplit(" F ").next().unwrap().into()).collect();
    assert_eq!(lines, ["0", "0", "0", " 0 200000 65536"]);

    for wrong in [
        UserNamespace { mode: NamespaceMode::Target.into(), ..Default::default() },
        UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() },
    ] {
        let mut pod = node.pod("wrong");
        let options = NamespaceOption { userns_options: Some(wrong), ..Default::default() };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        pod.linux.as_mut().unwrap().security_context = Some(security);
        let request = RunPodSandboxRequest { config: Some(pod), ..Default::default() };
        let error = cri::RuntimeService::run_pod_sandbox(&node.runtime, request).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
    }
    node.finish().await;
}
