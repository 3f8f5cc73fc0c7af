//! Debian's containerd and runc, for a cluster whose node uses them instead of the embedded runtime: in the cluster's
//! network namespace, with root, state, socket and pod network of their own.

use crate::cluster::tee;
use crate::net::Net;
use crate::{Stream, patience, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A containerd that runs.
#[derive(Debug)]
pub struct Containerd {
    net: Net,
    dir: PathBuf,
    daemon: Mutex<Option<Child>>,
}

impl Containerd {
    /// Starts it, with image archives under the names they carry and under the tag `next`.
    pub(crate) fn start(net: &Net, dir: &Path, archives: &[PathBuf]) -> Containerd {
        fs::create_dir_all(dir.join("cni")).unwrap();
        let containerd = Containerd { net: net.clone(), dir: dir.to_owned(), daemon: Mutex::default() };
        fs::write(dir.join("config.toml"), containerd.config()).unwrap();
        fs::write(dir.join("cni/10-pods.conflist"), containerd.pod_network()).unwrap();
        containerd.serve();
        for archive in archives {
            let name = format!("localhost/{}", archive.file_stem().unwrap().to_str().unwrap());
            containerd.ctr(&["images", "import", archive.to_str().unwrap()]);
            containerd.ctr(&["images", "tag", &format!("{name}:debian12"), &format!("{name}:next")]);
        }
        // Its CRI learns of new images a little later, but of old ones before it serves.
        containerd.stop();
        containerd.serve();
        containerd
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// For `--container-runtime-endpoint`.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn config(&self) -> String {
        let (dir, socket) = (self.dir.display(), self.socket());
        let socket = socket.display();
        // runc, or another of its kind: crun in scripts/test-vm.
        let program = std::env::var("TIPHYS_OCI_RUNTIME").unwrap_or_else(|_| "runc".into());
        format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:debian12"
  # Where CAP_SYS_RESOURCE is missing a score cannot be lowered.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{program}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
"#
        )
    }

    /// Routed pairs in the node's pod range, as a cluster without an overlay has them.
    fn pod_network(&self) -> String {
        let dir = self.dir.display();
        format!(
            r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[
{{"type":"ptp","ipMasq":false,"ipam":{{"type":"host-local","dataDir":"{dir}/addresses","ranges":[[{{"subnet":"10.244.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}}]}}"#
        )
    }

    fn serve(&self) {
        let mut daemon = self.net.command("containerd");
        daemon.arg("--config").arg(self.dir.join("config.toml"));
        let mut daemon = daemon.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = tee(daemon.stderr.take().unwrap(), &self.dir.join("log"));
        *self.daemon.lock().unwrap() = Some(daemon);
        while let Ok(line) = said.recv_timeout(patience()) {
            if line.contains("containerd successfully booted") {
                return;
            }
        }
        panic!("containerd does not start: see {}", self.dir.join("log").display());
    }

    /// Ends the daemon; containers and their shims are another matter.
    pub(crate) fn stop(&self) {
        let Some(mut daemon) = self.daemon.lock().unwrap().take() else { return };
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        daemon.wait().unwrap();
    }

    /// Ends the shims that this containerd knows nothing of any more: it loses that of a sandbox whose start is given up
    /// (its client going away, say) in the moment in which the shim answers.
    pub(crate) fn end_lost_shims(&self) {
        let socket = self.socket().display().to_string();
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let mut words = line.split('\0');
            if words.next().is_some_and(|program| program.contains("containerd-shim"))
                && words.any(|word| word == socket)
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                println!("containerd lost its shim {}", pid.as_raw_nonzero());
                // It may end by itself meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// What containerd's own tool prints.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        let output = ctr.current_dir(root()).output().unwrap();
        assert!(output.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it still has when everything that is asked for to end should have ended.
    pub(crate) fn emptied(&self, ask: impl FnOnce()) -> Vec<String> {
        let mut events = Command::new("ctr");
        events.arg("--address").arg(self.socket()).arg("events");
        let mut events = Stream::of(events, "ctr events");
        ask();
        // A pod without grace is gone from the API before its processes are.
        loop {
            let left = self.left();
            if left.is_empty() || events.next().is_none() {
                return left;
            }
        }
    }

    /// Containers, pods' own among them, and tasks that it still has.
    pub(crate) fn left(&self) -> Vec<String> {
        let lists = ["containers", "tasks"].map(|kind| (kind, self.ctr(&[kind, "list", "--quiet"])));
        let each = |(kind, list): &(&str, String)| {
            list.lines().map(|id| format!("containerd's {kind} {id}")).collect::<Vec<_>>()
        };
        lists.iter().flat_map(each).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.lock().ok().and_then(|mut daemon| daemon.take()) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
