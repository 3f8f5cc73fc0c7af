//! A pod for tests: the real program, started as the daemon starts it, with a busybox root file system.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use shim::client::Client;
use shim::protocol::*;
use shim::spawn::{Options, Program};

/// Built as crates/runtime/build.rs builds it: the pod's init runs in an empty root, so it must be static.
pub(crate) fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
        let target = "x86_64-unknown-linux-gnu".replace("x86_64", std::env::consts::ARCH);
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--offline",
                "--profile",
                "shim",
                "--bin",
                "tiphys-shim",
                "--target",
                &target,
            ])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "--target-dir"])
            .arg(&build)
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
            .status()
            .unwrap();
        assert!(status.success());
        Program::new(&fs::read(build.join(target).join("shim/tiphys-shim")).unwrap()).unwrap()
    })
}

fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
        if root.exists() {
            return root;
        }
        for dir in ["bin", "etc", "tmp", "home/user"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        for name in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(name));
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        )
        .unwrap();
        root
    })
}

pub(crate) struct Pod {
    pub(crate) dir: PathBuf,
    pub(crate) client: Client,
    cgroups: Vec<PathBuf>,
    pub(crate) pid: i32,
}

impl Pod {
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut SandboxSpec)) -> Pod {
        image();
        let dir = PathBuf::from(format!("/run/tiphys-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut cgroups = Vec::new();
        for controller in ["cpu", "memory", "pids"] {
            let base = Path::new("/sys/fs/cgroup").join(controller);
            if base.join("cgroup.procs").exists() {
                let cgroup = base.join(format!("tiphys-test-{name}-{}", std::process::id()));
                fs::create_dir_all(cgroup.join("shim")).unwrap();
                cgroups.push(cgroup);
            }
        }
        let shims: Vec<PathBuf> = cgroups.iter().map(|dir| dir.join("shim")).collect();
        program().start(&Options { dir: &dir, cgroups: &shims }).unwrap();
        let client = Client::connect(&dir.join(SOCKET)).unwrap();
        let mut pod = Pod { dir, client, cgroups, pid: 0 };
        let ns = |kind: &str| Namespace::Create(pod.dir.join("ns").join(kind).to_string_lossy().into());
        let mut spec = SandboxSpec {
            id: name.into(),
            hostname: "pod-host".into(),
            network: ns("net"),
            ipc: ns("ipc"),
            uts: ns("uts"),
            cgroup: pod.cgroup("init"),
            ..SandboxSpec::default()
        };
        change(&mut spec);
        pod.client.ask(Request::CreateSandbox(spec)).unwrap();
        pod.pid = pod.state().pid;
        pod
    }

    pub(crate) fn cgroup(&self, name: &str) -> Cgroup {
        let dirs = self.cgroups.iter().map(|dir| dir.join(name));
        let dirs = dirs.map(|dir| {
            fs::create_dir_all(&dir).unwrap();
            dir.to_string_lossy().into_owned()
        });
        Cgroup { dirs: dirs.collect(), v2: false }
    }

    pub(crate) fn state(&mut self) -> State {
        match self.client.ask(Request::State).unwrap() {
            Reply::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.dir.join(SOCKET)).unwrap()
    }

    /// What the runtime would make of a container without any wishes, running a shell script.
    pub(crate) fn spec(&self, id: &str, script: &str) -> ContainerSpec {
        let dir = self.dir.join(id);
        for sub in ["upper", "work"] {
            fs::create_dir_all(dir.join("layer").join(sub)).unwrap();
        }
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mount = |destination: &str, kind| Mount {
            destination: destination.into(),
            kind,
            nosuid: true,
            noexec: true,
            ..Mount::default()
        };
        let tmpfs = |data: &str| MountKind::Tmpfs { data: data.into() };
        let default_caps = 0xa80425fb;
        ContainerSpec {
            id: id.into(),
            dir: text(dir.clone()),
            process: Process {
                args: ["sh", "-c", script].map(String::from).to_vec(),
                env: vec!["PATH=/usr/bin:/bin".into()],
                cwd: "/".into(),
                capabilities: Capabilities {
                    bounding: default_caps,
                    effective: default_caps,
                    permitted: default_caps,
                    ambient: 0,
                },
                ..Process::default()
            },
            rootfs: Rootfs::Overlay {
                lower: vec![text(image().into())],
                upper: text(dir.join("layer/upper")),
                work: text(dir.join("layer/work")),
                options: Vec::new(),
            },
            mounts: vec![
                mount("/proc", MountKind::Proc),
                Mount { noexec: false, ..mount("/dev", tmpfs("mode=755,size=65536k")) },
                mount("/dev/pts", MountKind::Devpts),
                mount("/dev/mqueue", MountKind::Mqueue),
                mount("/dev/shm", tmpfs("mode=1777,size=65536k")),
                Mount { readonly: true, ..mount("/sys", MountKind::Sysfs) },
                Mount { readonly: true, ..mount("/sys/fs/cgroup", MountKind::Cgroup) },
            ],
            masked_paths: ["/proc/kcore", "/proc/acpi", "/proc/keys"].map(String::from).to_vec(),
            readonly_paths: ["/proc/sys", "/proc/bus"].map(String::from).to_vec(),
            cgroup: self.cgroup(id),
            stdio: Stdio { log: Some((text(dir), "logs/0.log".into())), ..Stdio::default() },
            ..ContainerSpec::default()
        }
    }

    pub(crate) fn create(&mut self, spec: ContainerSpec) -> Result<i32, Failure> {
        match self.client.ask(Request::Create(Box::new(spec)))? {
            Reply::Created { pid } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self, id: &str) -> Result<Reply, Failure> {
        self.client.ask(Request::Start { container: id.into() })
    }

    pub(crate) fn wait(&mut self, id: &str) -> Exit {
        match self.client.ask(Request::Wait { container: id.into() }).unwrap() {
            Reply::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    /// Create, start, wait, and the log without its timestamps.
    pub(crate) fn run(&mut self, spec: ContainerSpec) -> (i32, String) {
        let id = spec.id.clone();
        self.create(spec).unwrap();
        self.start(&id).unwrap();
        let exit = self.wait(&id);
        let log = self.log(&id);
        self.client.ask(Request::Delete { container: id }).unwrap();
        (exit.code, log)
    }

    pub(crate) fn log(&self, id: &str) -> String {
        let log = fs::read_to_string(self.dir.join(id).join("logs/0.log")).unwrap_or_default();
        log.lines().map(|line| format!("{}\n", &line[31..])).collect()
    }

    pub(crate) fn signal(&mut self, id: &str, signal: i32) {
        self.client.ask(Request::Signal { container: id.into(), signal, all: false }).unwrap();
    }

    /// Runs a command in a container and gives its exit and its output (both streams in one).
    pub(crate) fn exec(&mut self, container: &str, args: &[&str]) -> Result<(Exit, String), Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("exec-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let process = Process {
            args: args.iter().map(|arg| arg.to_string()).collect(),
            ..self.spec("exec", "").process
        };
        let process = Process { cwd: String::new(), ..process };
        let (reader, writer) = std::io::pipe().unwrap();
        let spec = ExecSpec {
            id: id.clone(),
            container: container.into(),
            process,
            stdout: true,
            stderr: true,
            ..ExecSpec::default()
        };
        let fds = [writer.as_fd(), writer.as_fd()];
        self.client.call(Request::Exec(Box::new(spec)), &fds).unwrap().0?;
        drop(writer);
        let mut text = String::new();
        File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
        match self.client.ask(Request::ExecWait { exec: id })? {
            Reply::Exited(exit) => Ok((exit, text)),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let clean = self.client.ask(Request::Shutdown).is_ok();
        if !std::thread::panicking() {
            assert!(clean);
            // Nothing is left: no mount, no process, no cgroup that cannot be removed.
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(!mounts.contains(&*self.dir.to_string_lossy()), "{mounts}");
        }
        for cgroup in &self.cgroups {
            // The shim answers just before it ends.
            wait_until(|| {
                fs::read_to_string(cgroup.join("shim/cgroup.procs")).is_ok_and(|text| text.is_empty())
            });
            for dir in fs::read_dir(cgroup).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
                let removed = fs::remove_dir(dir.path());
                assert!(std::thread::panicking() || removed.is_ok(), "{:?}: {removed:?}", dir.path());
            }
            let _ = fs::remove_dir(cgroup);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Yields until something outside our reach has happened, five seconds at most.
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 5, "waited too long");
        std::thread::yield_now();
    }
}
