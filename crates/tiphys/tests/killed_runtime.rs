//! The embedded runtime killed by SIGKILL at every step of every call that changes something, and at every step of the
//! start after such an end: the next start undoes or finishes what was half done, and after the pods are removed nothing
//! is left on the machine. `RUNTIME_KILLS=7` takes every seventh step only. Root, in a network namespace of its own.
#![allow(clippy::unwrap_used)]

use cri::v1::*;
use cri::{GrpcClient, RuntimeService as _};
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
    netns: String,
}

/// A runtime that serves, and what it says.
struct Daemon {
    child: Child,
    said: std::thread::JoinHandle<String>,
}

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Machine {
    fn new() -> Machine {
        let netns = format!("tiphys-killed-{}", std::process::id());
        shell(&format!("ip netns add {netns} && ip -n {netns} link set lo up"));
        Machine { dir: tempfile::tempdir().unwrap(), netns }
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
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(env!("CARGO_BIN_EXE_tiphys"));
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
        let inside = |script: &str| {
            let script = format!("nsenter --net=/run/netns/{} sh -ec '{script}'", self.netns);
            shell(&script).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for line in inside("ip -o link | cut -d\" \" -f2; ip route; nft list ruleset") {
            add("network", line);
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
            runtime.join("images/ingest"),
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
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
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

/// A pod's whole life: every call that changes something.
async fn life(client: &GrpcClient, base: &Path) -> cri::Result<()> {
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

/// What a kubelet does with pods that nobody wants; and that the name is free again shows that none is half there.
async fn tidy(client: &GrpcClient, base: &Path) {
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
    let machine = Machine::new();
    let base = machine.dir.path().to_owned();
    let rt = tokio::runtime::Runtime::new().unwrap();
    // Clients are made in its midst.
    let _entered = rt.enter();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image");
    let archive = Command::new(script).arg("busybox").output().unwrap();
    let archive = String::from_utf8(archive.stdout).unwrap();
    let daemon = machine.start(0).unwrap_or_else(|died| panic!("{}", died.end().1));
    let import = machine.command(&["image", "import"]).arg(archive.trim()).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    rt.block_on(life(&machine.client(), &base)).unwrap();
    rt.block_on(tidy(&machine.client(), &base));
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
            Ok(daemon) => match rt.block_on(life(&machine.client(), &base)) {
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
        rt.block_on(tidy(&machine.client(), &base));
        let said = daemon.stop();
        let left: Vec<String> = machine.traces().difference(&before).cloned().collect();
        assert!(left.is_empty(), "killed at step {at} ({last}) it left {left:#?}\n{said}");
        deaths += 1;
        at += stride;
    }
    assert!(deaths > 20, "only {deaths} steps");
    println!("killed {deaths} times, at steps 1 to {at}; nothing was left");
}
