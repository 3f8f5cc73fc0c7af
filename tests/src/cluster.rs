//! A cluster: the real binary, in a network namespace and with a data directory of its own.

use crate::containerd::Containerd;
use crate::disk::Disk;
use crate::kubectl::{self, Kubectl};
pub use crate::leaks::Traces;
use crate::net::{NODE_IP, Net};
use crate::{patience, root};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The version of kubectl that most tests use.
pub const KUBECTL: &str = "1.36.4";
/// The node's name.
pub const NODE: &str = "helm";

/// What runs a cluster's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Our own.
    Embedded,
    /// Debian's containerd and runc, behind `--container-runtime-endpoint`.
    Containerd,
}

impl std::fmt::Display for Engine {
    /// As it calls itself in the ids of its containers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Engine::Embedded { "tiphys" } else { "containerd" })
    }
}

/// What is unusual about a cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Fields of a KubeletConfiguration; `$DATA` is the cluster's directory.
    pub configuration: &'static str,
    /// The size of a disk of its own that its data is on.
    pub disk_mib: u64,
    /// Further flags of its server.
    pub flags: &'static [&'static str],
}

/// A running cluster of one node.
#[derive(Debug)]
pub struct Cluster {
    pub net: Net,
    base: PathBuf,
    containerd: Option<Containerd>,
    settings: Settings,
    /// Its own, where it asks for one.
    disk: Mutex<Option<Disk>>,
    server: Mutex<Option<Child>>,
    /// Flags that it is started with beside the usual ones.
    flags: Mutex<Vec<String>>,
    before: Traces,
}

/// The binary, built by whoever comes first.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // Where nothing can be built: scripts/test-vm.
        if let Some(built) = std::env::var_os("TIPHYS_BINARY") {
            return built.into();
        }
        let own = std::env::current_exe().unwrap();
        let profile = own.parent().unwrap().parent().unwrap().to_owned();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--locked", "--package", "tiphys"]).current_dir(root());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the binary cannot be built");
        profile.join("tiphys")
    })
}

/// An image archive, made from Debian packages when it is not there.
pub fn image(name: &str) -> PathBuf {
    images(&[name]).remove(0)
}

/// Image archives, made from Debian packages when they are not there.
pub(crate) fn images(names: &[&str]) -> Vec<PathBuf> {
    let output = Command::new(root().join("scripts/image")).args(names).output().unwrap();
    assert!(output.status.success(), "scripts/image: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

impl Cluster {
    /// Starts one, with the images `localhost/busybox` and `localhost/nginx`, each as `debian12` and as `next`.
    pub fn start(name: &str) -> Cluster {
        Cluster::start_on(name, Engine::Embedded)
    }

    /// The same on a runtime of choice.
    pub fn start_on(name: &str, engine: Engine) -> Cluster {
        Cluster::start_as(name, engine, Settings::default())
    }

    /// The same with a node that is told more.
    pub fn start_as(name: &str, engine: Engine, settings: Settings) -> Cluster {
        assert!(rustix::process::geteuid().is_root(), "whole-cluster tests run as root");
        let unique = match engine {
            Engine::Embedded => format!("tiphys-{name}-{}", std::process::id()),
            Engine::Containerd => format!("tiphys-{name}-ctd-{}", std::process::id()),
        };
        let base = std::env::temp_dir().join(&unique);
        std::fs::create_dir_all(base.join("home")).unwrap();
        let net = Net::make(&unique);
        let before = Traces::of(&net, &base);
        let containerd = (engine == Engine::Containerd)
            .then(|| Containerd::start(&net, &base.join("ctd"), &images(&["busybox", "nginx", "pause"])));
        let cluster = Cluster {
            net,
            base,
            containerd,
            settings,
            disk: Mutex::default(),
            server: Mutex::default(),
            flags: Mutex::default(),
            before,
        };
        cluster.prepare();
        cluster.serve();
        let kubectl = cluster.kubectl(KUBECTL);
        kubectl.wait("create", &format!("node/{NODE}"));
        kubectl.wait("condition=Ready", &format!("node/{NODE}"));
        // It is made for who asks first, and on an emulated machine not within the time that kubectl gives it.
        kubectl.run("get --raw /openapi/v2 > openapi");
        if engine == Engine::Embedded {
            for archive in images(&["busybox", "nginx"]) {
                let image = archive.file_stem().unwrap().to_str().unwrap();
                let import = ["image", "import", "--name", &format!("localhost/{image}:next")];
                succeed(cluster.tiphys(&import).arg(&archive).output().unwrap());
            }
        }
        cluster
    }

    /// What runs its containers.
    pub fn engine(&self) -> Engine {
        if self.containerd.is_some() { Engine::Containerd } else { Engine::Embedded }
    }

    /// The foreign runtime, when there is one.
    pub fn containerd(&self) -> Option<&Containerd> {
        self.containerd.as_ref()
    }

    pub fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    fn log(&self) -> PathBuf {
        self.base.join("server.log")
    }

    /// `tiphys` with a subcommand of this cluster.
    pub fn tiphys(&self, arguments: &[&str]) -> Command {
        let mut command = self.net.command(binary());
        command.args(arguments).arg("--data-dir").arg(self.data()).stdin(Stdio::null());
        command
    }

    /// Writes its configuration, and makes its disk.
    fn prepare(&self) {
        if !self.settings.configuration.is_empty() {
            self.configure(self.settings.configuration);
        }
        if self.settings.disk_mib > 0 {
            let disk = Disk::mount(&self.base.join("disk"), self.settings.disk_mib, &self.data());
            *self.disk.lock().unwrap() = Some(disk);
        }
    }

    fn configure(&self, fields: &str) {
        let head = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
        let fields = fields.replace("$DATA", self.data().to_str().unwrap());
        std::fs::write(self.configuration(), format!("{head}{fields}")).unwrap();
    }

    fn configuration(&self) -> PathBuf {
        self.base.join("kubelet.yaml")
    }

    /// Starts the server; returns when it serves.
    pub fn serve(&self) {
        // Whatever the machine is short of.
        let mut server =
            self.tiphys(&["server", "--node-name", NODE, "--node-ip", NODE_IP, "--eviction-hard", ""]);
        if self.settings.disk_mib == 0 {
            server.args(["--image-gc-high-threshold", "100"]);
        }
        if let Some(containerd) = &self.containerd {
            server.args(["--container-runtime-endpoint", &containerd.endpoint()]);
        }
        server.args(self.settings.flags);
        server.args(self.flags.lock().unwrap().iter());
        if !self.settings.configuration.is_empty() {
            server.arg("--kubelet-config").arg(self.configuration());
        }
        let mut server = server.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said = tee(server.stderr.take().unwrap(), &self.log());
        *self.server.lock().unwrap() = Some(server);
        while let Ok(line) = said.recv_timeout(patience()) {
            if line.contains("the API server is ready") {
                return;
            }
        }
        panic!("the server does not start:\n{}", self.log_tail(20));
    }

    /// Starts the server anew, with flags beside the usual ones.
    pub fn serve_with(&self, flags: &[String]) {
        self.stop();
        *self.flags.lock().unwrap() = flags.to_vec();
        self.serve();
    }

    /// Starts the server anew with other fields of a KubeletConfiguration.
    pub fn reconfigure(&self, configuration: &str) {
        self.stop();
        self.configure(configuration);
        self.serve();
    }

    /// `kill -9` of the server, and of nothing else.
    pub fn kill(&self) {
        let server = self.server.lock().unwrap().take();
        let mut server = server.unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Stops the server as an administrator does.
    pub fn stop(&self) {
        let Some(mut server) = self.server.lock().unwrap().take() else { return };
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = server.wait().unwrap();
        assert!(status.success(), "the server ended with {status}:\n{}", self.log_tail(20));
    }

    /// kubectl of a version, as the administrator.
    pub fn kubectl(&self, version: &str) -> Kubectl {
        Kubectl {
            net: self.net.clone(),
            version: version.to_owned(),
            program: kubectl::client("kubectl", &[version]),
            kubeconfig: self.data().join("admin.kubeconfig"),
            home: self.base.join("home"),
            namespace: "default".into(),
        }
    }

    /// Kills every process of a container from the node, as the kernel might.
    pub fn kill_container(&self, kubectl: &Kubectl, pod: &str, container: &str) {
        let path = format!(".status.containerStatuses[?(@.name==\"{container}\")].containerID");
        let id = kubectl.field(&format!("pod/{pod}"), &path);
        let id = id.rsplit('/').next().unwrap();
        assert_eq!(id.len(), 64, "{id}");
        let mut killed = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
            if std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|groups| groups.contains(id)) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                killed += 1;
            }
        }
        assert!(killed > 0, "container {id} has no process");
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// What there is of it while it runs, once two looks agree: the end of a pod in the API is not yet its end on the node.
    pub fn settled(&self) -> Traces {
        let began = Instant::now();
        let mut last = self.traces();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.traces();
            if now.same(&last) || began.elapsed() > patience() {
                return now;
            }
            last = now;
        }
    }

    /// Looks until nothing is there that was not before; what still is when patience ends. The node tells nobody when it
    /// has taken the last of a pod away: it is looked at.
    pub fn until_as(&self, before: &Traces) -> Vec<String> {
        let began = Instant::now();
        loop {
            let left = before.new_ones(&self.traces());
            if left.is_empty() || began.elapsed() > patience() {
                return left;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn traces(&self) -> Traces {
        let mut traces = Traces::of(&self.net, &self.base);
        let data = self.data();
        for dir in [
            "kubelet/pods",
            "runtime/sandboxes",
            "runtime/containers",
            "network",
            "log/pods",
            "log/containers",
        ] {
            traces.files(&data.join(dir));
        }
        if let Some(server) = self.server.lock().unwrap().as_ref() {
            // nsenter has become the server.
            traces.descriptors(server.id());
        }
        if let Some(containerd) = &self.containerd {
            traces.also("containerd", containerd.left());
        }
        traces
    }

    /// Ends it and says what it left behind.
    pub fn end(&self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(containerd) = &self.containerd {
            // `tiphys reset` ends what the embedded runtime runs; another one's pods the kubelet must have ended before.
            let script =
                "set -e; all=$(kubectl get namespaces -o name | grep -vE '^namespace/(default|kube-.*)$' || true)
                [ -z \"$all\" ] || kubectl delete $all --wait=false --ignore-not-found
                kubectl delete pods --all-namespaces --all --grace-period=1 --wait=false --ignore-not-found
                [ -z \"$all\" ] || kubectl wait --for=delete $all --timeout=$LONG";
            left = containerd.emptied(|| drop(self.kubectl(KUBECTL).sh(script)));
        }
        self.stop();
        // A disk cannot be removed while it is mounted: what is on it goes with it.
        let remove: &[&str] =
            if self.settings.disk_mib > 0 { &["reset"] } else { &["reset", "--remove-data"] };
        let reset = self.tiphys(remove).output().unwrap();
        drop(self.disk.lock().unwrap().take());
        if let Some(containerd) = &self.containerd {
            containerd.stop();
            if left.is_empty() {
                containerd.end_lost_shims();
            }
        }
        left.extend(self.before.new_ones(&Traces::of(&self.net, &self.base)));
        if !reset.status.success() {
            left.push(format!("tiphys reset failed: {}", String::from_utf8_lossy(&reset.stderr)));
        }
        left
    }

    /// Removes what the test itself wrote.
    pub fn forget(&self) {
        std::fs::remove_dir_all(&self.base).unwrap();
    }

    /// Where its log is.
    pub fn base(&self) -> &Path {
        &self.base
    }
}

impl Drop for Cluster {
    /// Whatever became of the tests, nothing goes on running.
    fn drop(&mut self) {
        if let Some(mut server) = self.server.lock().ok().and_then(|mut server| server.take()) {
            let _ = server.kill();
            let _ = server.wait();
        }
        if self.data().exists() {
            let _ = self.tiphys(&["reset", "--remove-data"]).output();
        }
        self.net.remove();
    }
}

pub(crate) fn succeed(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Keeps what a server says, and passes it on while somebody listens.
pub(crate) fn tee(from: std::process::ChildStderr, log: &Path) -> Receiver<String> {
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let (sender, said) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = writeln!(log, "{line}");
            let _ = sender.send(line);
        }
    });
    said
}
