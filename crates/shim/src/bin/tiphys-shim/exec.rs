//! Running one more process in a container: a fork joins the container's cgroups and namespaces by the pidfd of its
//! first process, and its own fork, born in the PID namespace, becomes the program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use shim::protocol::{Cgroup, ExecSpec};

use crate::launch::{self, Step};
use crate::rootfs::{self, to_host};
use crate::sandbox::Sandbox;
use crate::sys::{self, At, Outcome, failed};
use crate::{create, process};

/// Everything the helper takes from the shim.
pub(crate) struct Job<'a> {
    pub(crate) spec: &'a ExecSpec,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) cgroup_namespace: bool,
    /// The container's working directory.
    pub(crate) cwd: &'a str,
    /// The container's first process.
    pub(crate) target: OwnedFd,
    pub(crate) stdio: [OwnedFd; 3],
}

pub(crate) fn begin(job: Job<'_>, line: BorrowedFd<'_>) -> Outcome<()> {
    let proc = process::host_proc()?;
    if let Some(score) = job.spec.process.oom_score_adj {
        process::set_oom_score(proc.as_fd(), score)?;
    }
    process::confine(proc.as_fd(), &job.spec.process.app_armor)?;
    create::join(job.cgroup)?;
    let uid = job.spec.process.user.uid;
    let users = job.sandbox.users.as_ref();
    let owner = to_host(users.map(|users| users.uids.as_slice()), uid)
        .ok_or_else(|| failed(format!("user {uid} is not mapped in the user namespace")))?;
    process::own_stdio(&job.stdio, owner);
    let mut kinds =
        libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET | libc::CLONE_NEWPID;
    if job.cgroup_namespace {
        kinds |= libc::CLONE_NEWCGROUP;
    }
    if users.is_some() {
        kinds |= libc::CLONE_NEWUSER;
    }
    sys::setns(&job.target, kinds).at("joining the container's namespaces")?;
    if users.is_some() {
        create::become_root()?;
    }
    match sys::clone(libc::CLONE_PARENT, None).at("fork")? {
        Some(pid) => {
            launch::tell(line, &Step::Pid(pid), &[]);
            Ok(())
        }
        None => inside(job, line),
    }
}

fn inside(job: Job<'_>, line: BorrowedFd<'_>) -> Outcome<()> {
    let stdio = match job.spec.terminal {
        true => {
            let root =
                rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let (master, slave) = rootfs::open_terminal(root.at("/")?.as_fd())?;
            if job.spec.width > 0 {
                resize(&master, job.spec.width, job.spec.height);
            }
            launch::tell(line, &Step::Terminal, &[master.as_fd()]);
            let again = || slave.try_clone().at("terminal");
            let all = [again()?, again()?, slave];
            process::own_stdio(&all, job.spec.process.user.uid);
            all
        }
        false => job.stdio,
    };
    process::take_stdio(&stdio, job.spec.terminal)?;
    let cwd = if job.spec.process.cwd.is_empty() { job.cwd } else { &job.spec.process.cwd };
    let prepared = process::prepare(&job.spec.process, cwd, line)?;
    launch::tell(line, &Step::Ready, &[]);
    launch::wait_for_go(line);
    Err(prepared.execute())
}

/// Sets a terminal's window size.
pub(crate) fn resize(master: &OwnedFd, width: u16, height: u16) {
    let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(master, size);
}
