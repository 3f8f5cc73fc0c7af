//! The container creator: two forks of the shim. The first joins cgroups and namespaces, the second is born into the
//! container's PID namespace, builds the container's view of the world and becomes its program when told.
//! With a user namespace everything is mounted by the host's root first; the process then enters the user namespace and
//! a copy of the mounts that belongs to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shim::protocol::{Cgroup, ContainerSpec, Namespace, PidMode};

use crate::launch::{self, Step};
use crate::process;
use crate::rootfs::{self, to_host};
use crate::sandbox::Sandbox;
use crate::sys::{self, At, Outcome, failed};

/// Everything the creator takes from the shim.
pub(crate) struct Job<'a> {
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) fds: &'a [OwnedFd],
    pub(crate) sandbox: &'a Sandbox,
    /// The process whose PID namespace is shared, if the spec names one.
    pub(crate) target: Option<OwnedFd>,
    /// The container's ends; unused with a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
}

/// Moves this process into the cgroups.
pub(crate) fn join(cgroup: &Cgroup) -> Outcome<()> {
    for dir in &cgroup.dirs {
        std::fs::write(format!("{dir}/cgroup.procs"), "0").at(format!("joining cgroup {dir}"))?;
    }
    Ok(())
}

/// The first fork.
pub(crate) fn begin(job: Job<'_>, line: BorrowedFd<'_>) -> Outcome<()> {
    let proc = process::host_proc()?;
    process::set_oom_score(proc.as_fd(), job.spec.process.oom_score_adj.unwrap_or(0))?;
    process::confine(proc.as_fd(), &job.spec.process.app_armor)?;
    let cgroup = match job.spec.cgroup.v2 {
        true => {
            let dir = job.spec.cgroup.dirs.first().ok_or_else(|| failed("no cgroup"))?;
            let flags =
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            Some(rustix::fs::open(dir.as_str(), flags, rustix::fs::Mode::empty()).at(dir)?)
        }
        false => {
            join(&job.spec.cgroup)?;
            None
        }
    };
    for (fd, kind, name) in [
        (&job.sandbox.net, libc::CLONE_NEWNET, "network"),
        (&job.sandbox.ipc, libc::CLONE_NEWIPC, "ipc"),
        (&job.sandbox.uts, libc::CLONE_NEWUTS, "uts"),
    ] {
        if let Some(fd) = fd {
            sys::setns(fd, kind).at(format!("joining the {name} namespace"))?;
        }
    }
    let mut flags = libc::CLONE_PARENT;
    match (&job.target, job.sandbox.spec.pid, &job.sandbox.pid) {
        (Some(target), ..) => {
            sys::setns(target, libc::CLONE_NEWPID).at("joining the target's PID namespace")?
        }
        (None, PidMode::Pod, Some(fd)) => {
            sys::setns(fd, libc::CLONE_NEWPID).at("joining the pod's PID namespace")?
        }
        (None, PidMode::Pod, None) => return Err(failed("the pod's PID namespace is gone")),
        (None, PidMode::Container, _) => flags |= libc::CLONE_NEWPID,
        (None, PidMode::Host, _) => {}
    }
    match sys::clone(flags, cgroup.as_ref().map(AsFd::as_fd)).at("fork")? {
        Some(pid) => {
            launch::tell(line, &Step::Pid(pid), &[]);
            Ok(())
        }
        None => inside(job, line),
    }
}

/// The second fork: the container's first process.
fn inside(job: Job<'_>, line: BorrowedFd<'_>) -> Outcome<()> {
    let spec = job.spec;
    let users = job.sandbox.users.as_ref();
    let own_cgroups = if spec.cgroup_namespace { libc::CLONE_NEWCGROUP } else { 0 };
    sys::unshare(libc::CLONE_NEWNS | own_cgroups).at("mount namespace")?;
    let own_net = job.sandbox.spec.network != Namespace::Host;
    let built = rootfs::build(spec, job.fds, users, own_net)?;
    rootfs::pivot(built.root.as_fd(), spec.propagation)?;
    let stdio = match (built.terminal, job.stdio) {
        (Some((master, slave)), _) => {
            launch::tell(line, &Step::Terminal, &[master.as_fd()]);
            let again = || slave.try_clone().at("terminal");
            [again()?, again()?, slave]
        }
        (None, Some(stdio)) => stdio,
        (None, None) => return Err(failed("no stdio")),
    };
    let uid = spec.process.user.uid;
    let owner = to_host(users.map(|users| users.uids.as_slice()), uid)
        .ok_or_else(|| failed(format!("user {uid} is not mapped in the user namespace")))?;
    process::own_stdio(&stdio, owner);
    if let Some(users) = users {
        enter_users(&users.namespace)?;
        sys::unshare(libc::CLONE_NEWNS).at("mount namespace")?;
    }
    process::take_stdio(&stdio, spec.stdio.terminal)?;
    let prepared = process::prepare(&spec.process, &spec.process.cwd, line)?;
    launch::tell(line, &Step::Ready, &[]);
    launch::wait_for_go(line);
    Err(prepared.execute())
}

/// Enters a user namespace and becomes its root.
pub(crate) fn enter_users(namespace: &OwnedFd) -> Outcome<()> {
    sys::setns(namespace, libc::CLONE_NEWUSER).at("joining the user namespace")?;
    become_root()
}

/// Root of the user namespace this process is in.
pub(crate) fn become_root() -> Outcome<()> {
    // SAFETY: integers, and no groups.
    unsafe {
        sys::check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>())).at("setgroups")?;
        sys::check(libc::syscall(libc::SYS_setresgid, 0, 0, 0)).at("setgid")?;
        sys::check(libc::syscall(libc::SYS_setresuid, 0, 0, 0)).at("setuid")?;
    }
    Ok(())
}
