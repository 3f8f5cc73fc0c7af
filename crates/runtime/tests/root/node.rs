//! A runtime of its own for each test: directories, cgroup root, a network that only takes notes, an image of busybox.

use cri::v1::*;
use cri::{ImageService, RuntimeService};
use runtime::{Config, Network, NetworkSandbox, Runtime};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Knows who has a network, and that the namespace is there when one is set up.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<BTreeSet<String>>);

#[async_trait::async_trait]
impl Network for Notes {
    async fn setup(&self, sandbox: &NetworkSandbox) -> Result<Vec<IpAddr>, String> {
        assert!(linux::netns::is_pinned(&sandbox.netns));
        if sandbox.name == "unlucky" {
            return Err("no address is free".into());
        }
        self.0.lock().unwrap().insert(sandbox.id.clone());
        Ok(vec!["10.9.8.7".parse().unwrap(), "fd00::7".parse().unwrap()])
    }

    async fn teardown(&self, sandbox: &NetworkSandbox) -> Result<(), String> {
        self.0.lock().unwrap().remove(&sandbox.id);
        Ok(())
    }

    async fn status(&self) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Config,
    pub(crate) network: Arc<Notes>,
    pub(crate) runtime: Runtime,
}

impl Node {
    pub(crate) async fn new() -> Node {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let network = Arc::new(Notes::default());
        let config = Config {
            cgroup_root: format!("/tiphys-rt-{}-{number}", std::process::id()),
            network: Some(network.clone()),
            ..Config::new(dir.path().join("data"), dir.path().join("run"))
        };
        let runtime = Runtime::open(config.clone()).await.unwrap();
        let (images, archive) = (runtime.images(), archive());
        let import = move || images.import_stream(&archive[..], &Default::default()).unwrap();
        tokio::task::spawn_blocking(import).await.unwrap();
        let image = ImageSpec { image: "busybox".into(), ..Default::default() };
        let status = runtime.image_status(ImageStatusRequest { image: Some(image), verbose: false }).await;
        assert_eq!(status.unwrap().image.unwrap().repo_tags, ["docker.io/library/busybox:latest"]);
        Node { dir, config, network, runtime }
    }

    /// As if the daemon had been killed and started again.
    pub(crate) async fn restart(&mut self) {
        self.runtime = Runtime::open(self.config.clone()).await.unwrap();
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub(crate) fn pod(&self, name: &str) -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.into(),
            log_directory: self.logs().to_string_lossy().into_owned(),
            dns_config: Some(DnsConfig { servers: vec!["10.96.0.10".into()], ..Default::default() }),
            labels: [("app".into(), name.into())].into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pods/{name}", self.config.cgroup_root),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub(crate) async fn run_pod(&self, config: PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        self.runtime.run_pod_sandbox(request).await.unwrap().pod_sandbox_id
    }

    pub(crate) fn container(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub(crate) async fn create(&self, pod: &str, config: ContainerConfig) -> cri::Result<String> {
        let request =
            CreateContainerRequest { pod_sandbox_id: pod.into(), config: Some(config), sandbox_config: None };
        Ok(self.runtime.create_container(request).await?.container_id)
    }

    pub(crate) async fn start(&self, pod: &str, config: ContainerConfig) -> String {
        let id = self.create(pod, config).await.unwrap();
        self.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
        id
    }

    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: vec!["sh".into(), "-c".into(), script.into()],
            timeout: 20,
        };
        let answer = self.runtime.exec_sync(request).await.unwrap();
        let mut output = answer.stdout;
        output.extend(answer.stderr);
        (answer.exit_code, String::from_utf8(output).unwrap())
    }

    pub(crate) async fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.runtime.container_status(request).await.unwrap().status.unwrap()
    }

    pub(crate) async fn runtime_status(&self) -> StatusResponse {
        self.runtime.status(StatusRequest { verbose: false }).await.unwrap()
    }

    pub(crate) async fn stop(&self, id: &str, timeout: i64) {
        let request = StopContainerRequest { container_id: id.into(), timeout };
        self.runtime.stop_container(request).await.unwrap();
    }

    /// Takes everything away and looks for what should not be there.
    pub(crate) async fn finish(self) {
        self.runtime.purge().await.unwrap();
        assert!(self.network.0.lock().unwrap().is_empty());
        for dir in ["data/sandboxes", "data/containers", "data/images/ingest", "run/pods"] {
            let left: Vec<_> = std::fs::read_dir(self.dir.path().join(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.dir.path().to_string_lossy()), "{mounts}");
        // The pods' cgroups above the containers are the kubelet's; here they are ours.
        let root = &self.config.cgroup_root;
        let groups = linux::cgroup::Cgroups::detect().unwrap();
        groups.group(root).unwrap().remove().unwrap();
        let name = root.trim_start_matches('/');
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            // Whoever reaps orphans here may not have come round yet.
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            if stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])) {
                continue;
            }
            let cgroup = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            assert!(!cgroup.contains(name), "{:?} is left: {cgroup}", process.path());
        }
    }
}

/// Waits for a file's content: inotify would be finer, but the writer is another process and quick.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < until, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// `docker save`'s format, of one layer with busybox under all its names.
fn archive() -> Vec<u8> {
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_path_with_name("/bin/busybox", "bin/busybox").unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    for name in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
        layer.append_link(&mut link, Path::new("bin").join(name), "busybox").unwrap();
    }
    let mut append = |name: &str, kind: tar::EntryType, mode: u32, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        layer.append_data(&mut header, name, data).unwrap();
    };
    append("tmp/", tar::EntryType::Directory, 0o1777, b"");
    append(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n",
    );
    wrap("busybox:latest", &[layer.into_inner().unwrap()])
}

/// An image of files, a list for each layer, the lowest first.
pub(crate) fn layered_archive(name: &str, layers: &[&[(&str, &str)]]) -> Vec<u8> {
    let layer = |files: &&[(&str, &str)]| {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, text) in *files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            layer.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        layer.into_inner().unwrap()
    };
    wrap(name, &layers.iter().map(layer).collect::<Vec<_>>())
}

fn wrap(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = serde_json::json!({
        "os": "linux",
        "architecture": runtime::images::manifest::architecture(),
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
    });
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    let mut archive = tar::Builder::new(Vec::new());
    let (config, manifest) = (config.to_string().into_bytes(), manifest.to_string().into_bytes());
    let documents = [("config.json", &config), ("manifest.json", &manifest)];
    let layers = names.iter().map(String::as_str).zip(layers);
    for (name, data) in documents.into_iter().chain(layers) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, name, &data[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    runtime::images::Digest::of(bytes).to_string()
}
