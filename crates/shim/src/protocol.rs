//! What the daemon and a shim say to each other: requests, answers and events, as JSON in length-prefixed frames.
//! Unknown members are ignored and missing ones defaulted, so a daemon may speak to the shims of earlier releases.
//!
//! State directory of a pod, made by the daemon with mode 0700: `<pod>/shim.sock` (the shim listens), `<pod>/shim.json`
//! (written by the shim), `<pod>/ns/{net,ipc,uts,user,pid}` (namespaces, bind-mounted), and for each container the
//! directory named by [`ContainerSpec::dir`], which gets `exit.json` (an [`Exit`]) before an exit is told to anyone.

use serde::{Deserialize, Serialize};

/// The version this build speaks; it grows when an old peer could misunderstand a new one.
/// Version 2 knows [`MountKind::Layers`].
pub const VERSION: u32 = 2;
/// The oldest version this build still adopts.
pub const OLDEST: u32 = 1;
/// The file in a container's directory that holds its [`Exit`].
pub const EXIT_FILE: &str = "exit.json";
/// The file in the pod's directory that holds what the shim was started with ([`ShimFile`]).
pub const SHIM_FILE: &str = "shim.json";
/// The name of the socket in the pod's directory.
pub const SOCKET: &str = "shim.sock";

/// A frame from the daemon. Answers carry the same `id`; they may come in another order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

/// A frame from the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    /// The one answer to the call of that id.
    Reply { id: u64, result: Result<Reply, Failure> },
    /// Only on connections that sent [`Request::Subscribe`].
    Event(Event),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Must be the first on a connection; the answer is [`Reply::Hello`], or a failure of kind `Version`.
    Hello { version: u32 },
    /// Makes the pod's namespaces and, if asked, its PID 1. Once per shim. Doing it again with the same id is no error.
    CreateSandbox(SandboxSpec),
    /// Prepares a container up to the moment before its program is executed; its process waits for `Start`.
    Create(Box<ContainerSpec>),
    /// Executes the program. Fails with `ExecFailed` if that cannot be done; the container is then `Exited`, code 128.
    Start { container: String },
    /// Signals the container's first process, or every process of its cgroup (`all`).
    /// A container that has exited already is no error.
    Signal {
        container: String,
        signal: i32,
        #[serde(default)]
        all: bool,
    },
    /// Answered when the container has exited ([`Reply::Exited`]), at once if it already has.
    Wait { container: String },
    /// Runs a process in a container. Without a terminal the frame carries the process's own ends of pipes (or sockets)
    /// for those of stdin, stdout, stderr that are set, in this order; the rest is /dev/null. With a terminal it carries
    /// none and the answer carries one: the master of the terminal, which the daemon reads, writes and resizes itself.
    /// The data never passes through the shim. The answer is [`Reply::ExecStarted`].
    Exec(Box<ExecSpec>),
    /// Answered when the exec'd process has exited ([`Reply::Exited`]). The result is kept until it is asked for.
    ExecWait { exec: String },
    /// Signals an exec'd process and its process group.
    ExecSignal { exec: String, signal: i32 },
    /// Follows a container's output and feeds its stdin. The frame carries, for those that are set and in this order: a
    /// descriptor to read stdin from, and two to write stdout and stderr to (with a terminal: stdout only). They are closed at
    /// the container's exit. A client that does not read is dropped after 1 MiB: the container never waits for it.
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
    /// Sets the window size of a container that has a terminal.
    Resize { container: String, width: u16, height: u16 },
    /// Closes the container's stdin for good.
    CloseStdin { container: String },
    /// Opens the container's log file by its path again, after the daemon has moved the old one away.
    ReopenLog { container: String },
    /// Forgets an exited (or never started) container, killing what is left in its cgroup; a created one is killed.
    /// Does not remove cgroups or directories: those are the daemon's.
    Delete { container: String },
    /// Everything the shim knows: [`Reply::State`].
    State,
    /// From now on events are sent on this connection. The answer is [`Reply::State`], with nothing between it and the first event.
    Subscribe,
    /// Kills what still runs, records it, unpins namespaces, answers and ends.
    Shutdown,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Hello { version: u32, pid: i32 },
    Created { pid: i32 },
    Started { pid: i32, at: i64 },
    ExecStarted { pid: i32 },
    Exited(Exit),
    State(State),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The peer speaks a version that this one does not.
    Version,
    NotFound,
    AlreadyExists,
    /// The container is not in the state that the request needs.
    InvalidState,
    /// The program could not be executed: not found, not executable, a bad working directory.
    ExecFailed,
    /// Anything the kernel refused; `message` names the step.
    Failed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// The container; empty for the sandbox itself.
    pub container: String,
    /// Nanoseconds since the epoch.
    pub at: i64,
    pub what: EventKind,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum EventKind {
    Created,
    Started,
    Exited(Exit),
    /// The kernel killed a process of the container for memory; the container may live on.
    Oom,
    /// The pod's PID 1 is gone, and with it every process of the pod.
    SandboxExited,
    Deleted,
}

/// How a process ended. `code` is what upstream shows: the exit code, or 128 + the signal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    pub code: i32,
    /// The signal that ended it; 0 if none.
    pub signal: i32,
    /// The kernel killed a process of this container for memory while it ran.
    pub oom_killed: bool,
    pub pid: i32,
    /// Nanoseconds since the epoch; 0 if it was never started.
    pub started_at: i64,
    pub finished_at: i64,
    /// Set when the program could not be executed (reason `StartError`).
    pub message: String,
}

/// What `shim.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShimFile {
    pub version: u32,
    pub pid: i32,
    /// Start time of the process in clock ticks (field 22 of /proc/PID/stat): together with `pid` a name that is not reused.
    pub start_time: u64,
    pub sandbox: Option<SandboxSpec>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub version: u32,
    pub pid: i32,
    pub sandbox: Option<SandboxState>,
    pub containers: Vec<ContainerState>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxState {
    pub id: String,
    /// PID 1 of the shared PID namespace, as the host sees it; 0 without one.
    pub init_pid: i32,
    /// False once that PID 1 has gone.
    pub ready: bool,
    pub created_at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Created,
    Running,
    Exited,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: String,
    pub status: Status,
    /// The first process, as the host sees it; for showing, never for signalling.
    pub pid: i32,
    pub created_at: i64,
    pub started_at: i64,
    pub oom_killed: bool,
    pub exit: Option<Exit>,
}

/// Where a pod's namespace of one type comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// The host's.
    #[default]
    Host,
    /// Made by the shim, owned by the pod's user namespace if it has one, and bind-mounted at this path.
    Create(String),
    /// Made by the daemon before and bind-mounted at this path.
    Path(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Each container has its own.
    #[default]
    Container,
    /// One for the pod, whose PID 1 is the `init` role of this program.
    Pod,
    /// The host's.
    Host,
}

/// The pod's namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    pub id: String,
    /// Set in the UTS namespace, unless that is the host's.
    pub hostname: String,
    /// `Create` for pods in a user namespace (the daemon configures it afterwards), else `Path` or `Create`.
    pub network: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub pid: PidMode,
    /// A user namespace with these mappings, bind-mounted at `path`.
    pub user: Option<UserNamespace>,
    /// `net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`, `kernel.hostname` excluded: written inside the
    /// namespaces; refused when the namespace that holds them is the host's.
    pub sysctls: Vec<(String, String)>,
    /// Cgroup of the pod's PID 1 (with [`PidMode::Pod`]).
    pub cgroup: Cgroup,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserNamespace {
    pub path: String,
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    pub container: u32,
    pub host: u32,
    pub length: u32,
}

/// Directories whose `cgroup.procs` a process is written into: one for each v1 hierarchy, or the one of v2. They exist already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    pub dirs: Vec<String>,
    /// `dirs[0]` is a v2 cgroup: the process is born in it (CLONE_INTO_CGROUP), and it has `cgroup.kill`.
    pub v2: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    pub id: String,
    /// The container's state directory, made by the daemon; gets `exit.json`.
    pub dir: String,
    pub process: Process,
    pub rootfs: Rootfs,
    pub readonly_rootfs: bool,
    /// Propagation of the container's root; `Private` unless a mount needs `Slave` or `Shared`.
    pub propagation: Propagation,
    /// In order; a parent before what lies in it. /proc, /sys, /dev, /dev/pts, /dev/shm, /dev/mqueue are the daemon's to list.
    pub mounts: Vec<Mount>,
    /// Made in the container's /dev beside the usual nodes and links, which every container gets.
    pub devices: Vec<Device>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub cgroup: Cgroup,
    /// A cgroup namespace of its own (always wise on v2; not when privileged).
    pub cgroup_namespace: bool,
    pub stdio: Stdio,
    /// Another container of this shim whose PID namespace is shared (a debug container's target).
    pub pid_from: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// Already mounted or a plain directory on the host.
    Path(String),
    /// Mounted only inside the container's mount namespace, so that it goes away with it.
    /// With a user namespace the layers are idmapped.
    Overlay {
        /// The uppermost first, as overlayfs wants it.
        lower: Vec<String>,
        upper: String,
        work: String,
        /// More overlayfs options, such as `volatile`.
        #[serde(default)]
        options: Vec<String>,
    },
}

impl Default for Rootfs {
    fn default() -> Rootfs {
        Rootfs::Path(String::new())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub args: Vec<String>,
    /// `NAME=value`. PATH is looked up here; HOME is added from /etc/passwd when absent.
    pub env: Vec<String>,
    /// Made (in the rootfs) when absent; must lie inside the container.
    pub cwd: String,
    pub user: User,
    pub umask: Option<u32>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    /// A value that may not be lowered for want of CAP_SYS_RESOURCE is left as it is.
    pub oom_score_adj: Option<i32>,
    pub seccomp: Option<Seccomp>,
    /// The AppArmor profile that it enters with its program; empty: none.
    pub app_armor: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Bit n is capability n (`linux::capabilities` has the names). The inheritable set is always empty (CVE-2022-29162)
/// but for what `ambient` needs. Capabilities the daemon itself lacks are left out silently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// RLIMIT_* number.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A compiled filter, from `linux::seccomp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seccomp {
    /// `struct sock_filter` each: code in bits 48..64, jt in 40..48, jf in 32..40, k in 0..32.
    pub filter: Vec<u64>,
    /// SECCOMP_FILTER_FLAG_*; unknown to the kernel means failure, never an unconfined process.
    pub flags: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    /// HostToContainer.
    Slave,
    /// Bidirectional.
    Shared,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute inside the container; resolved within its root, made when absent (a file for a file).
    pub destination: String,
    pub kind: MountKind,
    pub readonly: bool,
    /// Read-only all the way down (mount_setattr); fails where the kernel cannot.
    pub recursive_readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub propagation: Propagation,
    /// Idmapped with the pod's user namespace (`Bind` and `Layers` only).
    pub idmap: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A host path, recursively bound. Its last component may not be a symlink.
    Bind {
        source: String,
    },
    /// The `n`th descriptor sent with the `Create` frame (opened by the daemon, for instance through `linux::path`).
    BindFd {
        index: usize,
    },
    /// `data` as in mount(8), e.g. `mode=1777,size=65536k`.
    Tmpfs {
        data: String,
    },
    /// Layers of an image, the uppermost first, or what is at `sub_path` in them: read-only, and only inside the
    /// container's mount namespace. A `sub_path` that is not there is a failure of kind `NotFound`.
    Layers {
        lower: Vec<String>,
        sub_path: String,
    },
    Proc,
    /// Without a network namespace of its own the host's /sys is bound instead.
    Sysfs,
    Mqueue,
    /// A new instance, `newinstance,ptmxmode=0666,mode=0620,gid=5`.
    Devpts,
    /// The container's own cgroups, read-only unless told: v2, or a tmpfs with one bind per v1 hierarchy.
    Cgroup,
}

impl Default for MountKind {
    fn default() -> MountKind {
        MountKind::Bind { source: String::new() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Path inside the container, e.g. `/dev/fuse`.
    pub path: String,
    /// Path on the host; its type, numbers, mode and owner are taken over.
    pub host_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stdio {
    pub terminal: bool,
    pub stdin: bool,
    /// Stdin is closed when the first attached client has gone.
    pub stdin_once: bool,
    /// `(directory, relative path)`: CRI's log_directory and log_path. The path is walked without symlinks. None: no log.
    pub log: Option<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// A name chosen by the daemon, unique in this shim.
    pub id: String,
    pub container: String,
    /// `oom_score_adj` and `rlimits` as the container's; an empty `cwd` means the container's.
    pub process: Process,
    pub terminal: bool,
    pub width: u16,
    pub height: u16,
    /// Which descriptors the frame carries.
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}
