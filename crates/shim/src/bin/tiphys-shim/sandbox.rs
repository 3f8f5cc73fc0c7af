//! The pod's namespaces: made by a short-lived fork, bind-mounted so that they outlive everyone, and held open here.
//! A pod that shares its PID namespace also gets a PID 1, which is this program again in the role `init`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use shim::protocol::{Capabilities, IdMap, Namespace, PidMode, SandboxSpec, User};

use crate::create::{become_root, enter_users, join};
use crate::inroot::{self, Links};
use crate::launch::{self, Step};
use crate::rootfs::Users;
use crate::sys::{self, At, Outcome, cstring, failed};
use crate::{mounts, process, rootfs};

/// What the pod's PID 1 is executed as: people know the name from pods that have a pause container.
pub(crate) const INIT_NAME: &str = "/pause";

pub(crate) struct Sandbox {
    pub(crate) spec: SandboxSpec,
    pub(crate) created_at: i64,
    /// None: the host's.
    pub(crate) net: Option<OwnedFd>,
    pub(crate) ipc: Option<OwnedFd>,
    pub(crate) uts: Option<OwnedFd>,
    pub(crate) users: Option<Users>,
    pub(crate) pid: Option<OwnedFd>,
    pub(crate) init_pid: i32,
    /// The PID 1, if there is to be one, lives.
    pub(crate) ready: bool,
}

const KINDS: [(&str, i32); 3] =
    [("net", libc::CLONE_NEWNET), ("ipc", libc::CLONE_NEWIPC), ("uts", libc::CLONE_NEWUTS)];

fn wanted(spec: &SandboxSpec) -> [&Namespace; 3] {
    [&spec.network, &spec.ipc, &spec.uts]
}

/// Makes what the spec asks for; on failure nothing stays pinned.
pub(crate) fn create(spec: SandboxSpec, dir: &Path) -> Outcome<Sandbox> {
    for (name, _) in &spec.sysctls {
        check_sysctl(&spec, name)?;
    }
    let mut sandbox = Sandbox {
        spec,
        created_at: sys::now(),
        net: None,
        ipc: None,
        uts: None,
        users: None,
        pid: None,
        init_pid: 0,
        ready: true,
    };
    let made = namespaces(&mut sandbox).and_then(|()| match sandbox.spec.pid {
        PidMode::Pod => start_init(&mut sandbox, dir),
        _ => Ok(()),
    });
    match made {
        Ok(()) => Ok(sandbox),
        Err(failure) => {
            unpin(&sandbox.spec, dir);
            Err(failure)
        }
    }
}

fn namespaces(sandbox: &mut Sandbox) -> Outcome<()> {
    let spec = sandbox.spec.clone();
    let flags = KINDS.iter().zip(wanted(&spec)).filter(|(_, wish)| matches!(wish, Namespace::Create(_)));
    let flags = flags.fold(0, |all, ((_, flag), _)| all | flag);
    let (ours, theirs) = launch::pair().at("socketpair")?;
    rustix::io::ioctl_fionbio(&ours, false).at("socketpair")?;
    let own_users = if spec.user.is_some() { libc::CLONE_NEWUSER } else { 0 };
    let Some(child) = sys::clone(own_users, None).at("fork")? else {
        drop(ours);
        launch::stage(theirs, |line| {
            launch::wait_for_go(line);
            if spec.user.is_some() {
                become_root()?;
            }
            prepare(&spec, flags)?;
            launch::tell(line, &Step::Ready, &[]);
            launch::wait_for_go(line);
            Ok(())
        });
    };
    drop(theirs);
    let done = pin(sandbox, child, &ours);
    // Its line closed, the child ends by itself.
    drop(ours);
    // SAFETY: waits for our own child, whose status nobody needs.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    done
}

/// In the child: new namespaces, and what is set within them.
fn prepare(spec: &SandboxSpec, flags: i32) -> Outcome<()> {
    sys::unshare(flags).at("namespaces")?;
    for ((name, flag), wish) in KINDS.iter().zip(wanted(spec)) {
        if let Namespace::Path(path) = wish {
            let fd = fs::File::open(path).at(path)?;
            sys::setns(fd, *flag).at(format!("joining the {name} namespace"))?;
        }
    }
    if spec.uts != Namespace::Host && !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).at("hostname")?;
    }
    for (name, value) in &spec.sysctls {
        let path = format!("/proc/sys/{}", sysctl_path(name));
        fs::write(&path, value).at(format!("sysctl {name}"))?;
    }
    Ok(())
}

fn pin(sandbox: &mut Sandbox, child: i32, line: &OwnedFd) -> Outcome<()> {
    if let Some(user) = sandbox.spec.user.clone() {
        write_map(child, "uid_map", &user.uids)?;
        write_map(child, "gid_map", &user.gids)?;
        let namespace = bind(child, "user", &user.path)?;
        sandbox.users = Some(Users { namespace, uids: user.uids, gids: user.gids });
    }
    launch::go(line.as_fd()).at("sandbox")?;
    match launch::hear(line.as_fd()).at("sandbox")? {
        Some((Step::Ready, _)) => {}
        Some((Step::Failed(failure), _)) => return Err(failure),
        _ => return Err(failed("the process that makes the namespaces died")),
    }
    let wishes = wanted(&sandbox.spec).map(Clone::clone);
    let mut opened = [None, None, None];
    for (slot, ((name, _), wish)) in opened.iter_mut().zip(KINDS.iter().zip(&wishes)) {
        *slot = match wish {
            Namespace::Host => None,
            Namespace::Create(path) => Some(bind(child, name, path)?),
            Namespace::Path(path) => Some(fs::File::open(path).at(path)?.into()),
        };
    }
    [sandbox.net, sandbox.ipc, sandbox.uts] = opened;
    Ok(())
}

fn write_map(child: i32, file: &str, maps: &[IdMap]) -> Outcome<()> {
    let lines: Vec<String> =
        maps.iter().map(|map| format!("{} {} {}\n", map.container, map.host, map.length)).collect();
    fs::write(format!("/proc/{child}/{file}"), lines.concat()).at(file)
}

/// Bind-mounts a namespace of a process and opens it.
fn bind(pid: i32, name: &str, path: &str) -> Outcome<OwnedFd> {
    if let Some((parent, _)) = path.rsplit_once('/') {
        fs::create_dir_all(parent).at(parent)?;
    }
    // A file left by a crash may still be a mount point.
    release(path);
    fs::File::create(path).at(path)?;
    let source = format!("/proc/{pid}/ns/{name}");
    rustix::mount::mount_bind(source, path).at(format!("pinning the {name} namespace"))?;
    Ok(fs::File::open(path).at(path)?.into())
}

fn release(path: &str) {
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    while rustix::mount::unmount(path, flags).is_ok() {}
    let _ = fs::remove_file(path);
}

/// Undoes every pin that is ours.
pub(crate) fn unpin(spec: &SandboxSpec, dir: &Path) {
    for wish in wanted(spec) {
        if let Namespace::Create(path) = wish {
            release(path);
        }
    }
    if let Some(user) = &spec.user {
        release(&user.path);
    }
    if spec.pid == PidMode::Pod {
        release(&dir.join("ns/pid").to_string_lossy());
    }
}

/// Both `net.core.somaxconn` and `net/core/somaxconn` are written; in the second form a dot is a dot.
fn sysctl_path(name: &str) -> String {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    if slashes { name.into() } else { name.replace('.', "/") }
}

fn check_sysctl(spec: &SandboxSpec, name: &str) -> Outcome<()> {
    let path = sysctl_path(name);
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(failed(format!("sysctl {name:?} is no valid name")));
    }
    let ipc =
        ["kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax"];
    let ipc = ipc.contains(&path.as_str())
        || ["kernel/shmmni", "kernel/shm_rmid_forced"].contains(&path.as_str())
        || path.starts_with("fs/mqueue/");
    let namespaced = (ipc && spec.ipc != Namespace::Host)
        || (path.starts_with("net/") && spec.network != Namespace::Host)
        || (path == "kernel/domainname" && spec.uts != Namespace::Host);
    if namespaced {
        return Ok(());
    }
    Err(failed(format!("sysctl {name:?} is not in a separate kernel namespace")))
}

fn start_init(sandbox: &mut Sandbox, dir: &Path) -> Outcome<()> {
    let (ours, theirs) = launch::pair().at("socketpair")?;
    rustix::io::ioctl_fionbio(&ours, false).at("socketpair")?;
    let Some(pid) = sys::clone(libc::CLONE_NEWPID, None).at("fork")? else {
        drop(ours);
        launch::stage(theirs, |line| {
            launch::wait_for_go(line);
            become_init(sandbox, dir, line)
        });
    };
    drop(theirs);
    let path = dir.join("ns/pid");
    let pinned = bind(pid, "pid", &path.to_string_lossy()).and_then(|namespace| {
        launch::go(ours.as_fd()).at("sandbox")?;
        match launch::hear(ours.as_fd()).at("sandbox")? {
            None => Ok(namespace),
            Some((Step::Failed(failure), _)) => Err(failure),
            Some(_) => Err(failed("the pod's init is confused")),
        }
    });
    match pinned {
        Ok(namespace) => {
            (sandbox.pid, sandbox.init_pid) = (Some(namespace), pid);
            Ok(())
        }
        Err(failure) => {
            let _ = sys::kill(pid, libc::SIGKILL);
            // SAFETY: waits for our own child, whose status nobody needs.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Err(failure)
        }
    }
}

/// In the pod's PID 1: an empty read-only root, no capabilities, nobody's user, then the `init` role.
fn become_init(sandbox: &Sandbox, dir: &Path, line: std::os::fd::BorrowedFd<'_>) -> Outcome<()> {
    let proc = process::host_proc()?;
    process::set_oom_score(proc.as_fd(), -998)?;
    join(&sandbox.spec.cgroup)?;
    let program = rustix::fs::openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let program = program.at("/proc/self/exe")?;
    for (fd, kind) in [
        (&sandbox.net, libc::CLONE_NEWNET),
        (&sandbox.ipc, libc::CLONE_NEWIPC),
        (&sandbox.uts, libc::CLONE_NEWUTS),
    ] {
        if let Some(fd) = fd {
            sys::setns(fd, kind).at("joining namespaces")?;
        }
    }
    sys::unshare(libc::CLONE_NEWNS).at("mount namespace")?;
    let host =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("/")?;
    mounts::propagate(&host, shim::protocol::Propagation::Slave).at("making / a slave")?;
    let root = mounts::new("tmpfs", "mode=0555,size=4k", MountAttrFlags::MOUNT_ATTR_RDONLY).at("tmpfs")?;
    let place = inroot::make_dir(host.as_fd(), &dir.to_string_lossy(), Links::Follow).at("staging")?;
    mounts::attach(&root, &place).at("attaching the empty root")?;
    rootfs::pivot(root.as_fd(), shim::protocol::Propagation::Private)?;
    let mut user = User { uid: 65535, gid: 65535, groups: Vec::new() };
    if let Some(users) = &sandbox.users {
        enter_users(&users.namespace)?;
        sys::unshare(libc::CLONE_NEWNS).at("mount namespace")?;
        if rootfs::to_host(Some(&users.uids), user.uid).is_none() {
            user = User::default();
        }
    }
    rustix::process::setsid().at("setsid")?;
    process::become_user(&user, &Capabilities::default())?;
    // SAFETY: takes integers only.
    sys::check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).at("no_new_privs")?;
    process::default_signals()?;
    sys::close_all_but(&[std::os::fd::AsRawFd::as_raw_fd(&line), std::os::fd::AsRawFd::as_raw_fd(&program)]);
    let name = cstring(INIT_NAME)?;
    let args = [name.as_ptr(), std::ptr::null()];
    let env = [std::ptr::null_mut()];
    // SAFETY: NULL-terminated arrays of C strings and an empty path.
    let done = unsafe {
        libc::execveat(
            std::os::fd::AsRawFd::as_raw_fd(&program),
            c"".as_ptr(),
            args.as_ptr().cast(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    sys::check(done.into()).map(drop).at("executing init")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_must_be_namespaced() {
        let pod = SandboxSpec {
            network: Namespace::Create("n".into()),
            ipc: Namespace::Create("i".into()),
            ..SandboxSpec::default()
        };
        let check = |spec: &SandboxSpec, name: &str, fine: bool| {
            assert_eq!(check_sysctl(spec, name).is_ok(), fine, "{name}");
        };
        for name in
            ["net.core.somaxconn", "net/ipv4/conf/eth0.1/rp_filter", "kernel.shm_rmid_forced", "kernel.sem"]
        {
            check(&pod, name, true);
            check(&SandboxSpec::default(), name, false);
        }
        for name in ["kernel.panic", "net/../kernel/panic", "vm.swappiness", "", "kernel.hostname"] {
            check(&pod, name, false);
        }
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
    }
}
