//! The embedded runtime killed by SIGKILL at every step of every call that changes something, and at every step of the
//! start after such an end: the next start undoes or finishes what was half done, and after the pods are removed nothing
//! is left on the machine, images included. `RUNTIME_KILLS=7` takes every seventh step only. Root, in a network namespace of its own.
#![allow(clippy::unwrap_used)]

use cluster_tests::cluster::image;
use cluster_tests::disk::{Cargo, Disk};
use cluster_tests::net::Net;
use cluster_tests::registry::{ADDRESS, PASSWORD, Registry, USER};
use cri::v1::*;
use cri::{GrpcClient, ImageService as _, RuntimeService as _};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const IMAGE: &str = "localhost/busybox:debian12";
/// Of steps in the short run; every one in the long.
const STRIDE: usize = 3;

/// A machine for one runtime: a network namespace and directories.
struct Machine {
    dir: tempfile::TempDir,
    net: Net,
}

/// A runtime that serves, and what it says.
struct Daemon {
    child: Child,
    said: std::thread::JoinHandle<String>,
}

impl Machine {
    fn new(name: &str) -> Machine {
        let net = Net::make(&format!("tiphys-{name}-{}", std::process::id()));
        Machine { dir: tempfile::tempdir().unwrap(), net }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("cri.sock")
    }

    /// The name that cgroups and the run directory carry.
    fn name(&self) -> String {
        let path = self.data();
        let hash = path.as_os_str().as_encoded_bytes().iter();
        let hash =
            hash.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        format!("tiphys-{hash:08x}")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.net.command(env!("CARGO_BIN_EXE_tiphys"));
        command.args(arguments).arg("--data-dir").arg(self.data()).stdin(Stdio::null());
        command
    }

    /// Starts it, to die at a step or (0) never; an error is one that died before it served.
    fn start(&self, die_at: usize) -> Result<Daemon, Daemon> {
        let listen = format!("unix://{}", self.socket().display());
        let mut command = self.command(&["runtime", "--listen", &listen, "--pod-cidr", "10.88.0.0/24"]);
        command.env("TIPHYS_DIE_AT_STEP", die_at.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let said = std::thread::spawn(move || {
            let mut all = String::new();
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("the container runtime is ready") {
                    let _ = ready.send(());
                }
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        let served = is_ready.recv().is_ok();
        let daemon = Daemon { child, said };
        if served { Ok(daemon) } else { Err(daemon) }
    }

    fn client(&self) -> GrpcClient {
        GrpcClient::new(self.socket().to_str().unwrap()).unwrap()
    }

    /// What there is of it on this machine, but for the runtime's own standing things.
    fn traces(&self) -> BTreeSet<String> {
        let name = self.name();
        let mut out = BTreeSet::new();
        let mut add = |kind: &str, what: String| {
            out.insert(format!("{kind}: {what}"));
        };
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            if line.contains(&name) || line.contains(self.dir.path().to_str().unwrap()) {
                add("mount", line.to_owned());
            }
        }
        for line in self.net.run("ip -o link | cut -d' ' -f2; ip route; nft list ruleset").lines() {
            add("network", line.to_owned());
        }
        for hierarchy in
            ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"]
        {
            walk(&Path::new(hierarchy).join(&name), &mut |path| add("cgroup", path.display().to_string()));
        }
        let runtime = self.data().join("runtime");
        for dir in [
            runtime.join("sandboxes"),
            runtime.join("containers"),
            runtime.join("images"),
            self.data().join("network"),
            Path::new("/run").join(&name).join("pods"),
        ] {
            walk(&dir, &mut |path| add("file", path.display().to_string()));
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let zombie =
                read("stat").rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
            if !zombie && read("cgroup").contains(&name) {
                add("process", format!("{} {}", entry.path().display(), read("comm").trim()));
            }
        }
        out
    }
}

/// Directories and files beneath, not the top itself.
fn walk(dir: &Path, tell: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kernel = dir.starts_with("/sys/fs/cgroup") && !entry.file_type().unwrap().is_dir();
        if !kernel {
            tell(&entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), tell);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.command(&["reset", "--remove-data"]).output();
        self.net.remove();
    }
}

impl Daemon {
    /// Waits for its end: whether it was killed, and its words.
    fn end(mut self) -> (bool, String) {
        let status = self.child.wait().unwrap();
        (status.signal() == Some(9), self.said.join().unwrap())
    }

    fn stop(self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let (killed, said) = self.end();
        assert!(!killed, "{said}");
        said
    }
}

fn pod(base: &Path) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "pod".into(),
            uid: "uid".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "pod".into(),
        log_directory: base.join("logs").to_str().unwrap().into(),
        port_mappings: vec![PortMapping { container_port: 80, host_port: 8080, ..Default::default() }],
        linux: Some(LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

/// An image of another layer than the pod's, come from the registry and gone again.
async fn pull(client: &GrpcClient) -> cri::Result<()> {
    let pulled = pulled(client).await?;
    client.remove_image(RemoveImageRequest { image: Some(pulled) }).await?;
    Ok(())
}

/// What the registry has.
async fn pulled(client: &GrpcClient) -> cri::Result<ImageSpec> {
    let image = ImageSpec { image: format!("{ADDRESS}/crew/argo:1.0"), ..Default::default() };
    let auth = AuthConfig { username: USER.into(), password: PASSWORD.into(), ..Default::default() };
    let request = PullImageRequest { image: Some(image.clone()), auth: Some(auth), ..Default::default() };
    client.pull_image(request).await?;
    Ok(image)
}

/// The same image, come from an archive.
async fn import(machine: &Machine, client: &GrpcClient) -> cri::Result<()> {
    let done = machine.command(&["image", "import"]).arg(image("pause")).output().unwrap();
    if !done.status.success() {
        return Err(cri::Error::new(cri::Code::Unavailable, String::from_utf8_lossy(&done.stderr)));
    }
    let image = ImageSpec { image: "localhost/pause:debian12".into(), ..Default::default() };
    client.remove_image(RemoveImageRequest { image: Some(image) }).await?;
    Ok(())
}

/// Every call that changes something: images come and go, and a pod lives its whole life.
async fn life(machine: &Machine, client: &GrpcClient) -> cri::Result<()> {
    pull(client).await?;
    import(machine, client).await?;
    let base = machine.dir.path();
    let config = pod(base);
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod = client.run_pod_sandbox(request).await?.pod_sandbox_id;
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: vec!["sleep".into(), "infinity".into()],
        log_path: "main.log".into(),
        linux: Some(LinuxContainerConfig::default()),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let id = client.create_container(request).await?.container_id;
    client.start_container(StartContainerRequest { container_id: id.clone() }).await?;
    let cmd = vec!["true".into()];
    client.exec_sync(ExecSyncRequest { container_id: id.clone(), cmd, timeout: 10 }).await?;
    let linux = Some(LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    let update = UpdateContainerResourcesRequest { container_id: id.clone(), linux, ..Default::default() };
    client.update_container_resources(update).await?;
    client.stop_container(StopContainerRequest { container_id: id.clone(), timeout: 0 }).await?;
    client.remove_container(RemoveContainerRequest { container_id: id }).await?;
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
    Ok(())
}

/// What a kubelet does with pods that nobody wants; and that the name is free again shows that none is half there. Nor is
/// an image: it comes and goes as if nothing had been.
async fn tidy(machine: &Machine, client: &GrpcClient) {
    pull(client).await.unwrap();
    import(machine, client).await.unwrap();
    let base = machine.dir.path();
    for one in client.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().items {
        client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: one.id.clone() }).await.unwrap();
        client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: one.id }).await.unwrap();
    }
    assert!(client.list_containers(ListContainersRequest::default()).await.unwrap().containers.is_empty());
    let request = RunPodSandboxRequest { config: Some(pod(base)), ..Default::default() };
    let again = client.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: again }).await.unwrap();
}

#[test]
fn root_a_runtime_killed_at_any_step_leaves_nothing() {
    let machine = Machine::new("killed");
    let base = machine.dir.path().to_owned();
    let rt = tokio::runtime::Runtime::new().unwrap();
    // Clients are made in its midst.
    let _entered = rt.enter();
    let _registry = Registry::start_of(&machine.net, &base.join("registry"), "pause", "crew/argo", "1.0");
    let daemon = machine.start(0).unwrap_or_else(|died| panic!("{}", died.end().1));
    let import = machine.command(&["image", "import"]).arg(image("busybox")).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    rt.block_on(life(&machine, &machine.client())).unwrap();
    rt.block_on(tidy(&machine, &machine.client()));
    let before = machine.traces();
    // What is looked at is what there is to see of a pod.
    let request = RunPodSandboxRequest { config: Some(pod(&base)), ..Default::default() };
    let standing = rt.block_on(machine.client().run_pod_sandbox(request)).unwrap().pod_sandbox_id;
    let seen = machine.traces();
    for kind in ["mount", "network", "file", "process"] {
        assert!(seen.difference(&before).any(|trace| trace.starts_with(kind)), "no {kind} among {seen:#?}");
    }
    let request = RemovePodSandboxRequest { pod_sandbox_id: standing };
    rt.block_on(machine.client().remove_pod_sandbox(request)).unwrap();
    daemon.stop();
    let stride: usize =
        std::env::var("RUNTIME_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(STRIDE);
    let (mut deaths, mut at) = (0, 1);
    loop {
        let lived = match machine.start(at) {
            Err(died) => Err(died.end()),
            Ok(daemon) => match rt.block_on(life(&machine, &machine.client())) {
                Ok(()) => Ok(daemon),
                Err(_) => Err(daemon.end()),
            },
        };
        let last = match lived {
            // More steps than there are.
            Ok(daemon) => {
                daemon.stop();
                break;
            }
            Err((killed, last)) => {
                assert!(killed, "at step {at} it ended otherwise: {last}");
                last.lines().last().unwrap_or_default().to_owned()
            }
        };
        // Every third time the start that finds it is killed, too, near its own end.
        if deaths % 3 == 2 {
            match machine.start(at % 40 + 5) {
                Err(died) => assert!(died.end().0),
                Ok(daemon) => drop(daemon.stop()),
            }
        }
        let daemon = machine.start(0).unwrap_or_else(|died| panic!("after {at} ({last}): {}", died.end().1));
        rt.block_on(tidy(&machine, &machine.client()));
        let said = daemon.stop();
        let left: Vec<String> = machine.traces().difference(&before).cloned().collect();
        assert!(left.is_empty(), "killed at step {at} ({last}) it left {left:#?}\n{said}");
        deaths += 1;
        at += stride;
    }
    assert!(deaths > 20, "only {deaths} steps");
    println!("killed {deaths} times, at steps 1 to {at}; nothing was left");
}

/// Whether there is no room at all, none for the whole of a layer, or none for what is in it.
#[test]
fn root_a_pull_on_a_full_disk_leaves_nothing() {
    let machine = Machine::new("full");
    let base = machine.dir.path();
    let _disk = Disk::mount(&base.join("disk"), 256, &machine.data());
    let rt = tokio::runtime::Runtime::new().unwrap();
    let _entered = rt.enter();
    let _registry = Registry::start_of(&machine.net, &base.join("registry"), "nginx", "crew/argo", "1.0");
    let size = fs::metadata(image("nginx")).unwrap().len();
    let daemon = machine.start(0).unwrap_or_else(|died| panic!("{}", died.end().1));
    let client = machine.client();
    rt.block_on(pull(&client)).unwrap();
    let before = machine.traces();
    for left in [0, size / 2, size + size / 8] {
        let cargo = Cargo::filling(&machine.data(), left);
        let refused = rt.block_on(pulled(&client)).unwrap_err();
        let message = &refused.message;
        assert!(
            message.starts_with("failed to pull and unpack image \"127.0.0.1:5000/crew/argo:1.0\": "),
            "{message}"
        );
        assert!(message.contains("No space left on device"), "with {left} bytes left: {message}");
        drop(cargo);
        assert_eq!(machine.traces(), before, "with {left} bytes left");
        rt.block_on(pull(&client)).unwrap();
        assert_eq!(machine.traces(), before, "pulled after all");
    }
    daemon.stop();
}
